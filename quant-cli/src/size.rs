//! Sizes and counts as people write and read them.

/// Reads `500MB`, `1.5GB`, `256MiB`, `4096`. Units of 1000 without an i, of 1024 with one.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (&text[..split], text[split..].trim());
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(format!("unknown unit '{unit}'; write for example 5GB, 500MB or 256MiB")),
    };
    let number: f64 = number.parse().map_err(|_| format!("'{text}' is not a size; write for example 5GB, 500MB or 256MiB"))?;
    let bytes = number * factor as f64;
    if bytes < 1.0 || bytes >= 2f64.powi(63) { Err(format!("'{text}' is out of range")) } else { Ok(bytes as u64) }
}

/// A size in decimal units: `7.34 MB`.
pub fn bytes(n: u64) -> String {
    scaled(n, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// A count: `3.67 M`.
pub fn count(n: u64) -> String {
    scaled(n, &["", "k", "M", "G", "T", "P", "E"]).trim_end().to_owned()
}

fn scaled(n: u64, units: &[&str]) -> String {
    if n < 1000 {
        return format!("{n} {}", units[0]).trim_end().to_owned();
    }
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {}", units[unit])
}

/// Seconds as `12 s`, `3 min 05 s`, `2 h 07 min`.
pub fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        assert_eq!(parse("5GB"), Ok(5_000_000_000));
        assert_eq!(parse("1.5 mb"), Ok(1_500_000));
        assert_eq!(parse("256MiB"), Ok(256 << 20));
        assert_eq!(parse("40"), Ok(40));
        for text in ["", "GB", "5XB", "-1", "0", "1e3", "99999999999TB", "1.2.3"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown() {
        assert_eq!([bytes(0), bytes(999), bytes(1000), bytes(7_348_816), bytes(999_999)], ["0 B", "999 B", "1.00 kB", "7.35 MB", "1.00 MB"]);
        assert_eq!([count(3_670_000), count(12), count(134_515_008)], ["3.67 M", "12", "135 M"]);
        assert_eq!([duration(0.04), duration(75.0), duration(7500.0)], ["0.0 s", "1 min 15 s", "2 h 05 min"]);
    }
}
