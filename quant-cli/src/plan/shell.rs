//! Paths as words for the shell.

use std::path::Path;

use quant_core::error::Printable;

/// A path as a word: as it is, in quotes, or with escapes where characters cannot be shown.
pub fn word(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes();
    let dashed = if bytes.starts_with(b"-") { "./" } else { "" };
    match path.to_str().filter(|text| Printable(text).to_string() == *text) {
        Some(text) if !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "/._-+:,@%=".contains(c)) => format!("{dashed}{text}"),
        Some(text) => format!("'{dashed}{}'", text.replace('\'', r"'\''")),
        None => {
            let escaped = |b: &u8| if b.is_ascii_alphanumeric() || b"/._- ".contains(b) { (*b as char).to_string() } else { format!("\\{b:03o}") };
            format!("$'{dashed}{}'", bytes.iter().map(escaped).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_words() {
        for (path, wanted) in [
            ("a/b-1.gguf", "a/b-1.gguf"),
            ("-odd", "./-odd"),
            ("a 'b'", r"'a '\''b'\'''"),
            ("-a b", "'./-a b'"),
            ("a\u{1b}[31m", r"$'a\033\13331m'"),
            ("", "''"),
        ] {
            assert_eq!(word(Path::new(path)), wanted);
        }
    }
}
