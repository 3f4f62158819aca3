//! Texts as Python writes them, for the files that Python libraries compare byte by byte.
//!
//! Source: CPython 3.11, `float.__repr__` and `json.dumps` with its defaults.

use std::fmt::Write;

/// Python's `repr` of a float: the shortest text that reads back to the same number.
///
/// An exponent is written if it is below -4 or at least 16, with a sign and two digits: `1e-05`, `1e+16`.
/// Any NaN is `nan`.
pub fn repr_f64(x: f64) -> String {
    if !x.is_finite() {
        return non_finite(x).into();
    }
    let (digits, exponent) = shortest(x);
    if (-4..16).contains(&exponent) {
        let decimals = (digits - 1 - exponent).max(1) as usize;
        return format!("{x:.decimals$}");
    }
    let text = format!("{x:.*e}", (digits - 1) as usize);
    let mantissa = text.split('e').next().unwrap_or_default();
    format!("{mantissa}e{}{:02}", sign(exponent), exponent.abs())
}

/// How many digits the shortest text has, and its decimal exponent.
///
/// Only their number is taken from Rust's shortest text: of two such texts that are equally near, Rust writes the greater
/// and Python the one that ends in an even digit, as Rust's formatting with a given number of digits does.
fn shortest(x: f64) -> (i32, i32) {
    let text = format!("{x:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    (digits as i32, exponent.parse().unwrap_or_default())
}

fn non_finite(x: f64) -> &'static str {
    match x {
        f64::INFINITY => "inf",
        f64::NEG_INFINITY => "-inf",
        _ => "nan",
    }
}

fn sign(exponent: i32) -> char {
    if exponent < 0 { '-' } else { '+' }
}

/// `text` as a JSON string with quotes, all ASCII, as `json.dumps` with `ensure_ascii=True` writes it.
pub fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    text.chars().for_each(|c| push_escaped(&mut out, c));
    out.push('"');
    out
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        ' '..='~' => out.push(c),
        _ => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| {
            let _ = write!(out, "\\u{unit:04x}");
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bits and `repr`, from CPython 3.11.
    const REPRS: [(u64, &str); 45] = [
        (0x3fc6a02000000000, "0.17676162719726562"), // halfway between …562 and …563
        (0x0000000000000000, "0.0"),
        (0x8000000000000000, "-0.0"),
        (0x3ff0000000000000, "1.0"),
        (0xbff8000000000000, "-1.5"),
        (0x3fb999999999999a, "0.1"),
        (0x4059000000000000, "100.0"),
        (0x3f1a36e2eb1c432d, "0.0001"),
        (0x3ee4f8b588e368f1, "1e-05"),
        (0x3f202e4b6ce5dc68, "0.00012345"),
        (0x3f1a36371ea531a8, "9.999e-05"),
        (0x42dc12218377de66, "123456789012345.6"),
        (0x430c6bf526340000, "1000000000000000.0"),
        (0x4341c37937e07fff, "9999999999999998.0"),
        (0x4341c37937e08000, "1e+16"),
        (0x434aa535d3d0c000, "1.5e+16"),
        (0x4376345785d8a000, "1e+17"),
        (0x4480f0cf064dd592, "1e+22"),
        (0x44b52d02c7e14af6, "1e+23"),
        (0x54b249ad2594c37d, "1e+100"),
        (0x0000000000000001, "5e-324"),
        (0x0010000000000000, "2.2250738585072014e-308"),
        (0x7fefffffffffffff, "1.7976931348623157e+308"),
        (0x3fd3333333333334, "0.30000000000000004"),
        (0x3fd5555555555555, "0.3333333333333333"),
        (0x4340000000000000, "9007199254740992.0"),
        (0x4340000000000001, "9007199254740994.0"),
        (0x43e0000000000000, "9.223372036854776e+18"),
        (0x3ee9cb8320b15070, "1.23e-05"),
        (0xbe7ad7f29abcaf48, "-1e-07"),
        (0x3eb0000000000000, "9.5367431640625e-07"),
        (0x3faa9f0000000000, "0.05199432373046875"),
        (0x3ee4f8b580000000, "9.999999747378752e-06"),
        (0x3f1a36e2e0000000, "9.999999747378752e-05"),
        (0x3faa9f1660000000, "0.051994990557432175"),
        (0x47efffffe0000000, "3.4028234663852886e+38"),
        (0x36a0000000000000, "1.401298464324817e-45"),
        (0xb6a0000000000000, "-1.401298464324817e-45"),
        (0x3fd5555560000000, "0.3333333432674408"),
        (0x7ff0000000000000, "inf"),
        (0xfff0000000000000, "-inf"),
        (0x7ff8000000000000, "nan"),
        (0xfff8000000000000, "nan"),
        (0x7ff0000000000001, "nan"),
        (0x412e848000000000, "1000000.0"),
    ];

    #[test]
    fn floats_are_written_like_python() {
        for (bits, expected) in REPRS {
            assert_eq!(repr_f64(f64::from_bits(bits)), expected, "{bits:#x}");
        }
    }

    #[test]
    fn strings_are_escaped_like_python() {
        let cases = [
            ("", r#""""#),
            ("plain", r#""plain""#),
            ("a\"b\\c/", r#""a\"b\\c/""#),
            ("\n\r\t\u{8}\u{c}", r#""\n\r\t\b\f""#),
            ("\0\u{1}\u{1f}\u{7f}\u{80}", r#""\u0000\u0001\u001f\u007f\u0080""#),
            (" ~é", r#"" ~\u00e9""#),
            ("€ł", r#""\u20ac\u0142""#),
            ("\u{2028}\u{feff}\u{ffff}", r#""\u2028\ufeff\uffff""#),
            ("😀a", r#""\ud83d\ude00a""#),
            ("\u{10ffff}", r#""\udbff\udfff""#),
        ];
        for (text, expected) in cases {
            assert_eq!(json_string(text), expected);
        }
    }
}
