//! PTX text as tokens with their lines.

use std::fmt;

/// Text that is no PTX, or PTX of a kind that is not known here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: u32,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for ParseError {}

/// A word, a number, a string, or one character of punctuation.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    text: &'a str,
    line: u32,
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

/// The length of the token at the start of `text`. Words may hold `::`, as in `.shared::cta`.
fn token_len(text: &[u8]) -> usize {
    if text[0] == b'"' {
        return 1 + text[1..].iter().position(|&byte| byte == b'"').map_or(text.len() - 1, |end| end + 1);
    }
    let mut len = 0;
    while len < text.len() {
        if in_word(text[len]) {
            len += 1;
        } else if len > 0 && text[len..].starts_with(b"::") {
            len += 2;
        } else {
            break;
        }
    }
    len.max(1)
}

/// The length of the space or comment at the start of `text`, if there is one.
fn blank_len(text: &[u8]) -> Option<usize> {
    if text.starts_with(b"//") {
        Some(text.iter().position(|&byte| byte == b'\n').unwrap_or(text.len()))
    } else if text.starts_with(b"/*") {
        Some(text.windows(2).skip(2).position(|pair| pair == b"*/").map_or(text.len(), |end| end + 4))
    } else {
        text[0].is_ascii_whitespace().then_some(1)
    }
}

fn tokens(text: &str) -> Result<Vec<Token<'_>>, ParseError> {
    let bytes = text.as_bytes();
    let (mut at, mut line) = (0, 1);
    let mut found = Vec::new();
    while at < bytes.len() {
        let rest = &bytes[at..];
        let blank = blank_len(rest);
        let len = blank.unwrap_or_else(|| token_len(rest));
        if blank.is_none() {
            let text = text.get(at..at + len).filter(|token| token.is_ascii());
            let text = text.ok_or(ParseError { line, message: "characters that are not ASCII".into() })?;
            found.push(Token { text, line });
        }
        line += rest[..len].iter().filter(|&&byte| byte == b'\n').count() as u32;
        at += len;
    }
    Ok(found)
}

/// Reads tokens one after the other.
pub(crate) struct Cursor<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Result<Self, ParseError> {
        Ok(Self { tokens: tokens(text)?, at: 0 })
    }

    pub fn at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// The token that is `n` further on; nothing behind the end.
    pub fn ahead(&self, n: usize) -> &'a str {
        self.tokens.get(self.at + n).map_or("", |token| token.text)
    }

    pub fn peek(&self) -> &'a str {
        self.ahead(0)
    }

    pub fn next(&mut self) -> &'a str {
        let text = self.peek();
        self.at += 1;
        text
    }

    /// The line of the next token, or of the last one.
    pub fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |token| token.line)
    }

    pub fn error<T>(&self, message: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError { line: self.line(), message: message.into() })
    }

    /// Takes the token if it is the next one.
    pub fn eat(&mut self, text: &str) -> bool {
        let found = self.peek() == text;
        self.at += usize::from(found);
        found
    }

    pub fn expect(&mut self, text: &str) -> Result<(), ParseError> {
        if self.eat(text) { Ok(()) } else { self.error(format!("`{text}` expected, found `{}`", self.peek())) }
    }

    /// A number, as its bits.
    pub fn number(&mut self) -> Result<u64, ParseError> {
        let Some(value) = number(self.peek()) else {
            return self.error(format!("a number expected, found `{}`", self.peek()));
        };
        self.at += 1;
        Ok(value)
    }

    /// A number that counts something: at most `limit`.
    pub fn count(&mut self, limit: u64) -> Result<usize, ParseError> {
        match self.number()? {
            value if value <= limit => Ok(value as usize),
            value => self.error(format!("{value} where at most {limit} is possible")),
        }
    }

    /// Goes behind the next `text`.
    pub fn skip_behind(&mut self, text: &str) {
        while !self.at_end() && self.next() != text {}
    }

    /// Goes to the first token of another line.
    pub fn skip_line(&mut self) {
        let line = self.line();
        while !self.at_end() && self.line() == line {
            self.at += 1;
        }
    }
}

/// The bits of a literal: an integer in one of four bases, or a float in hexadecimal.
pub(crate) fn number(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('U').unwrap_or(text);
    let (prefix, rest) = digits.split_at_checked(2).unwrap_or(("", ""));
    match prefix {
        "0f" | "0F" => u32::from_str_radix(rest, 16).ok().map(u64::from),
        "0x" | "0X" | "0d" | "0D" => u64::from_str_radix(rest, 16).ok(),
        "0b" | "0B" => u64::from_str_radix(rest, 2).ok(),
        _ if digits.len() > 1 && digits.starts_with('0') => u64::from_str_radix(&digits[1..], 8).ok(),
        _ => digits.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(number("0f3F800000"), Some(0x3f80_0000));
        assert_eq!(number("0d3FF0000000000000"), Some(1f64.to_bits()));
        assert_eq!(number("017"), Some(15));
        assert_eq!(number("0x1fU"), Some(31));
        assert_eq!(number("0b101"), Some(5));
        assert_eq!(number("0"), Some(0));
        assert_eq!(number("1.5"), None);
        assert_eq!(number(""), None);
        assert_eq!(number("%r1"), None);
    }

    #[test]
    fn tokens_know_their_lines() {
        let mut cursor = Cursor::new("ld.shared::cta.u32 // of\n/* two\nlines */ %r1, [x+4];").unwrap();
        assert_eq!((cursor.line(), cursor.next()), (1, "ld.shared::cta.u32"));
        assert_eq!((cursor.line(), cursor.next()), (3, "%r1"));
        assert_eq!((cursor.next(), cursor.next(), cursor.next()), (",", "[", "x"));
        assert!(Cursor::new("é").is_err());
        assert_eq!(Cursor::new("/*").unwrap().peek(), "");
    }
}
