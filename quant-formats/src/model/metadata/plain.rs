//! What a plain scalar of YAML 1.1 is: `no` is false, `1_000` a number, `2024-01-31` a date, `1e5` and `1.2.3` are text.
//!
//! Source: `Resolver` and `SafeConstructor` of PyYAML 6.0.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Number, Value};

static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
    let forms = [
        r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?",
        r"\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?",
        r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*",
        r"[-+]?\.(?:inf|Inf|INF)",
        r"\.(?:nan|NaN|NAN)",
    ];
    one_of(&forms)
});

static INTEGER: LazyLock<Regex> = LazyLock::new(|| {
    let forms = ["[-+]?0b[0-1_]+", "[-+]?0[0-7_]+", "[-+]?(?:0|[1-9][0-9_]*)", "[-+]?0x[0-9a-fA-F_]+", "[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+"];
    one_of(&forms)
});

static TIMESTAMP: LazyLock<Regex> = LazyLock::new(|| {
    let time =
        r"[0-9]{4}-[0-9][0-9]?-[0-9][0-9]?(?:[Tt]|[ \t]+)[0-9][0-9]?:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9][0-9]?(?::[0-9]{2})?))?";
    one_of(&["[0-9]{4}-[0-9]{2}-[0-9]{2}", time])
});

fn one_of(forms: &[&str]) -> Regex {
    Regex::new(&format!(r"\A(?:{})\z", forms.join("|"))).expect("the pattern is valid")
}

/// The value of a plain scalar.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => true.into(),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => false.into(),
        _ if FLOAT.is_match(text) => float(text).and_then(Number::from_f64).map_or_else(|| untold("float", text), Value::Number),
        _ if INTEGER.is_match(text) => integer(text).map_or_else(|| untold("int", text), Into::into),
        _ if TIMESTAMP.is_match(text) => untold("timestamp", text),
        _ => text.into(),
    }
}

/// What JSON cannot say: an object with a name that nobody asks for, so that it is taken for nothing else.
fn untold(kind: &str, text: &str) -> Value {
    serde_json::json!({ format!("!!{kind}"): text })
}

/// Whether a value is one that JSON cannot say.
pub(super) fn is_untold(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.len() == 1 && map.keys().all(|key| key.starts_with("!!")))
}

fn float(text: &str) -> Option<f64> {
    let (sign, text) = signed(text);
    if text.contains(':') {
        let digits = text.split(':').map(str::parse::<f64>).collect::<Result<Vec<_>, _>>().ok()?;
        let places = std::iter::successors(Some(1.0), |base| Some(base * 60.0));
        return Some(f64::from(sign) * digits.iter().rev().zip(places).map(|(digit, base)| digit * base).sum::<f64>());
    }
    Some(f64::from(sign) * text.parse::<f64>().ok()?)
}

fn integer(text: &str) -> Option<i64> {
    let (sign, text) = signed(text);
    let (digits, base) = match text.as_bytes() {
        [b'0', b'b', ..] => (&text[2..], 2),
        [b'0', b'x', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text.as_str(), 10),
    };
    let number = match digits.contains(':') {
        true => digits.split(':').try_fold(0_i64, |sum, digit| sum.checked_mul(60)?.checked_add(digit.parse().ok()?))?,
        false => i64::from_str_radix(digits, base).ok()?,
    };
    number.checked_mul(i64::from(sign))
}

/// The sign, and the rest without the underscores that only people need.
fn signed(text: &str) -> (i8, String) {
    let bare = text.replace('_', "");
    match bare.strip_prefix('-') {
        Some(rest) => (-1, rest.into()),
        None => (1, bare.strip_prefix('+').unwrap_or(&bare).into()),
    }
}
