//! Text and numbers as the page shows them.

use std::fmt;

use quant_core::error::is_unsafe_to_print;

use crate::audit::report::Metrics;
use crate::report;

/// Text from anywhere, made safe for HTML: markup becomes entities; control and direction-changing characters are shown as escapes, as
/// [`quant_core::error::Printable`] does.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if is_unsafe_to_print(c) => write!(f, "{}", c.escape_unicode())?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// The relative error as a number: 0 where nothing differs or was compared, infinite where only the weights are zero.
pub fn error(metrics: &Metrics) -> f64 {
    match metrics.relative_error {
        _ if metrics.exact || metrics.n == 0 => 0.0,
        Some(error) => error,
        None => f64::INFINITY,
    }
}

/// Three significant digits; very small and very large numbers with an exponent.
pub fn number(x: f64) -> String {
    let size = x.abs();
    if x.is_nan() {
        "–".into()
    } else if x.is_infinite() {
        if x > 0.0 { "∞".into() } else { "-∞".into() }
    } else if size == 0.0 {
        "0".into()
    } else if (1e-4..1e6).contains(&size) {
        let digits = (2 - size.log10().floor() as i32).max(0) as usize;
        format!("{x:.digits$}")
    } else {
        format!("{x:.2e}")
    }
}

/// The same without zeros at the end.
pub fn short(x: f64) -> String {
    let text = number(x);
    if text.contains('.') && !text.contains('e') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

/// A share in percent: `9.51 %`.
pub fn percent(x: f64) -> String {
    format!("{}\u{a0}%", number(100.0 * x))
}

/// A ratio in decibels, without the unit.
pub fn decibels(metrics: &Metrics) -> String {
    match metrics.sqnr_db {
        _ if metrics.n == 0 => "–".into(),
        _ if metrics.exact => "∞".into(),
        Some(db) if db.is_finite() => format!("{db:.1}"),
        _ => number(-20.0 * error(metrics).log10()),
    }
}

/// The cosine, if there are weights.
pub fn cosine(metrics: &Metrics) -> String {
    if metrics.n == 0 { "–".into() } else { format!("{:.6}", metrics.cosine) }
}

/// A number that may be lacking.
pub fn optional(x: Option<f64>) -> String {
    number(x.unwrap_or(f64::NAN))
}

/// `1 tensor`, `2 tensors`, in one line.
pub fn counted(n: usize, what: &str) -> String {
    report::counted(n, what).replace(' ', "\u{a0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_tricks_are_escaped() {
        assert_eq!(Escaped("<a b=\"'&\u{202e}\n").to_string(), "&lt;a b=&quot;&#39;&amp;\\u{202e}\\u{a}");
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([number(0.0), number(12.345), number(0.001_234), number(98765.4)], ["0", "12.3", "0.00123", "98765"]);
        assert_eq!([number(f64::NAN), number(f64::INFINITY), number(-1.5e-9)], ["–", "∞", "-1.50e-9"]);
        assert_eq!([short(10.0), short(0.5), short(200.0), percent(0.095)], ["10", "0.5", "200", "9.50\u{a0}%"]);
    }
}
