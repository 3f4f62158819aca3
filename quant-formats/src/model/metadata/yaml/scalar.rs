//! Texts: plain, quoted, and in blocks.

use super::{Found, Reader};

/// What becomes of the line breaks at the end of a block.
#[derive(Clone, Copy, PartialEq)]
enum Chomping {
    Strip,
    Clip,
    Keep,
}

impl<'a> Reader<'a> {
    /// A text without quotes. In a block it goes on in lines that are indented by more than `parent`.
    pub(super) fn plain_text(&mut self, parent: i64, in_flow: bool) -> Found<String> {
        if !self.starts_plain(in_flow) {
            return Err(self.problem("found no value, or one that needs quotes"));
        }
        let mut out = String::new();
        loop {
            let line = self.plain_line(in_flow);
            out.push_str(line);
            if line.is_empty() {
                return Ok(out);
            }
            let spaces = self.spaces();
            let (breaks, is_mark) = self.breaks();
            if is_mark || spaces == 0 && breaks == 0 || self.peek(0) == b'#' || !in_flow && breaks > 0 && self.column() <= parent {
                return Ok(out);
            }
            if self.plain_len(in_flow) > 0 {
                push_space(&mut out, spaces, breaks);
            }
        }
    }

    fn starts_plain(&self, in_flow: bool) -> bool {
        match self.peek(0) {
            b'-' => !self.is_blank(1),
            b'?' | b':' => !in_flow && !self.is_blank(1),
            b',' | b'[' | b']' | b'{' | b'}' | b'#' | b'&' | b'*' | b'!' | b'|' | b'>' | b'\'' | b'"' | b'%' | b'@' | b'`' => false,
            _ => !self.is_blank(0),
        }
    }

    /// What stands here up to a space.
    fn plain_line(&mut self, in_flow: bool) -> &'a str {
        let len = self.plain_len(in_flow);
        let line = &self.rest()[..len];
        self.at += len;
        line
    }

    /// How many bytes of a plain text stand here up to a space. All that end it are ASCII.
    fn plain_len(&self, in_flow: bool) -> usize {
        let ends = |n: &usize| match self.peek(*n) {
            b':' => self.is_blank(n + 1) || in_flow && matches!(self.peek(n + 1), b',' | b'[' | b']' | b'{' | b'}'),
            b',' | b'?' | b'[' | b']' | b'{' | b'}' => in_flow,
            _ => self.is_blank(*n),
        };
        (0..).find(ends).unwrap_or(0)
    }

    /// Passes line breaks and the spaces after them; tells how many breaks they were and whether a mark of a document ended them.
    fn breaks(&mut self) -> (usize, bool) {
        let mut n = 0;
        while self.peek(0) == b'\n' {
            self.at += 1;
            n += 1;
            if self.is_document_mark() {
                return (n, true);
            }
            // Spaces before a comment or a text are indentation; those of an empty line are nothing.
            self.spaces();
        }
        (n, false)
    }

    pub(super) fn single_quoted(&mut self) -> Found<String> {
        self.at += 1;
        let mut out = String::new();
        loop {
            match self.peek(0) {
                b'\'' if self.peek(1) == b'\'' => {
                    out.push('\'');
                    self.at += 2;
                }
                b'\'' => {
                    self.at += 1;
                    return Ok(out);
                }
                _ => self.quoted_piece(&mut out, &[' ', '\n', '\''])?,
            }
        }
    }

    pub(super) fn double_quoted(&mut self) -> Found<String> {
        self.at += 1;
        let mut out = String::new();
        loop {
            match self.peek(0) {
                b'"' => {
                    self.at += 1;
                    return Ok(out);
                }
                b'\\' if self.peek(1) == b'\n' => {
                    self.at += 1;
                    let (breaks, _) = self.breaks();
                    out.extend(std::iter::repeat_n('\n', breaks - 1));
                }
                b'\\' => out.push(self.escape()?),
                _ => self.quoted_piece(&mut out, &[' ', '\n', '"', '\\'])?,
            }
        }
    }

    /// Characters up to one of `ends`, or white space.
    fn quoted_piece(&mut self, out: &mut String, ends: &[char]) -> Found<()> {
        if self.is_end() {
            return Err(self.problem("found no end of a quoted text"));
        }
        let spaces = self.spaces();
        let (breaks, is_mark) = self.breaks();
        if is_mark {
            return Err(self.problem("a document ends within quotes"));
        }
        push_space(out, spaces, breaks);
        if spaces == 0 && breaks == 0 {
            let rest = self.rest();
            let piece = &rest[..rest.find(ends).unwrap_or(rest.len())];
            out.push_str(piece);
            self.at += piece.len();
        }
        Ok(())
    }

    fn escape(&mut self) -> Found<char> {
        let code = self.peek(1);
        self.at += 2;
        let digits = match code {
            b'x' => 2,
            b'u' => 4,
            b'U' => 8,
            _ => return escaped(code).ok_or_else(|| self.problem("found an unknown escape after '\\'")),
        };
        let hex = self.rest().get(..digits).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let found = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).and_then(char::from_u32);
        self.at += if found.is_some() { digits } else { 0 };
        found.ok_or_else(|| self.problem("found an escape that is no character"))
    }

    /// A text after `|`, which keeps its line breaks, or `>`, which makes them spaces.
    pub(super) fn block_text(&mut self, parent: i64) -> Found<String> {
        let folded = self.peek(0) == b'>';
        self.at += 1;
        let (chomping, increment) = self.block_header()?;
        let least = (parent + 1).max(1);
        let (mut breaks, indent) = match increment {
            Some(n) => (self.empty_lines(least + n - 1), least + n - 1),
            None => self.detected_indent(least),
        };
        let mut out = String::new();
        let mut last_break = "";
        while self.column() == indent && !self.is_end() {
            out.extend(std::iter::repeat_n('\n', breaks));
            let starts_with_text = self.peek(0) != b' ';
            let rest = self.rest();
            let line = rest.split('\n').next().unwrap_or_default();
            out.push_str(line);
            self.at += line.len();
            last_break = if self.is_end() { "" } else { "\n" };
            self.at += last_break.len();
            breaks = self.empty_lines(indent);
            if self.column() != indent || self.is_end() {
                break;
            }
            if folded && starts_with_text && self.peek(0) != b' ' {
                out.push_str(if breaks == 0 { " " } else { "" });
            } else {
                out.push_str(last_break);
            }
        }
        if chomping != Chomping::Strip {
            out.push_str(last_break);
        }
        if chomping == Chomping::Keep {
            out.extend(std::iter::repeat_n('\n', breaks));
        }
        Ok(out)
    }

    /// What follows `|` and `>`: chomping and indentation, in any order.
    fn block_header(&mut self) -> Found<(Chomping, Option<i64>)> {
        let (mut chomping, mut increment) = (None, None);
        loop {
            match self.peek(0) {
                b'+' if chomping.is_none() => chomping = Some(Chomping::Keep),
                b'-' if chomping.is_none() => chomping = Some(Chomping::Strip),
                digit @ b'1'..=b'9' if increment.is_none() => increment = Some(i64::from(digit - b'0')),
                _ => break,
            }
            self.at += 1;
        }
        let starts = self.at;
        self.spaces();
        if self.peek(0) == b'#' && self.at > starts {
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
        if !matches!(self.peek(0), b'\n' | 0) {
            return Err(self.problem("found no end of the line after '|' or '>'"));
        }
        self.at += usize::from(!self.is_end());
        Ok((chomping.unwrap_or(Chomping::Clip), increment))
    }

    /// Passes empty lines; the indentation is that of the deepest of them and of the line after.
    fn detected_indent(&mut self, least: i64) -> (usize, i64) {
        let (mut breaks, mut indent) = (0, least);
        loop {
            let spaces = self.spaces() as i64;
            indent = indent.max(spaces);
            if self.peek(0) != b'\n' {
                return (breaks, indent);
            }
            self.at += 1;
            breaks += 1;
        }
    }

    /// Passes lines of at most `indent` spaces, and those of the line after; tells how many lines they were.
    fn empty_lines(&mut self, indent: i64) -> usize {
        let mut n = 0;
        loop {
            let mut column = 0;
            while column < indent && self.peek(0) == b' ' {
                self.at += 1;
                column += 1;
            }
            if self.peek(0) != b'\n' {
                return n;
            }
            self.at += 1;
            n += 1;
        }
    }
}

/// White space between pieces of a text: spaces stay, one line break is a space, of more all but one stay.
fn push_space(out: &mut String, spaces: usize, breaks: usize) {
    match breaks {
        0 => out.extend(std::iter::repeat_n(' ', spaces)),
        1 => out.push(' '),
        n => out.extend(std::iter::repeat_n('\n', n - 1)),
    }
}

fn escaped(code: u8) -> Option<char> {
    Some(match code {
        b'0' => '\0',
        b'a' => '\x07',
        b'b' => '\x08',
        b't' | b'\t' => '\t',
        b'n' => '\n',
        b'v' => '\x0b',
        b'f' => '\x0c',
        b'r' => '\r',
        b'e' => '\x1b',
        b' ' | b'"' | b'\\' | b'/' => char::from(code),
        b'N' => '\u{85}',
        b'_' => '\u{a0}',
        b'L' => '\u{2028}',
        b'P' => '\u{2029}',
        _ => return None,
    })
}
