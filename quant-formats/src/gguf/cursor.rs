//! [`Cursor`]: a buffered walk over the head of a file, which never steps out of it.

use std::fmt::Display;

use quant_core::{Error, Result};

use crate::input::Input;

/// How much is read at once, in bytes.
const BUFFER: usize = 256 << 10;

/// What an error is about.
pub(super) enum Subject {
    /// The file as a whole.
    File,
    /// A key, by name.
    Key(String),
    /// A tensor, by name.
    Tensor(String),
}

/// A place in a file, from which numbers and strings are read in order.
pub(super) struct Cursor<'a> {
    input: &'a Input,
    /// The first byte that must not be read.
    end: u64,
    /// Where in the file the buffer begins.
    start: u64,
    buffer: Vec<u8>,
    /// The next byte, in the buffer.
    at: usize,
    /// What errors are about.
    pub(super) subject: Subject,
}

impl<'a> Cursor<'a> {
    /// A cursor over a range of `input`.
    pub(super) fn new(input: &'a Input, range: std::ops::Range<u64>) -> Cursor<'a> {
        let end = input.len().min(range.end);
        Cursor { input, end, start: range.start.min(end), buffer: Vec::new(), at: 0, subject: Subject::File }
    }

    /// The offset of the next byte in the file.
    pub(super) fn offset(&self) -> u64 {
        self.start + self.at as u64
    }

    /// Bytes that are left.
    pub(super) fn left(&self) -> u64 {
        self.end - self.offset()
    }

    /// A problem of the subject at `offset`.
    pub(super) fn bad(&self, offset: u64, problem: impl Display) -> Error {
        let path = self.input.path();
        match &self.subject {
            Subject::File => Error::file(path, problem.to_string()),
            Subject::Key(key) => Error::file(path, format!("key '{key}': {problem}")),
            Subject::Tensor(name) => Error::tensor(path, name, problem.to_string()),
        }
        .at(offset)
    }

    /// The next `n` bytes, which are `what`.
    ///
    /// # Errors
    /// If fewer are left, or the file cannot be read.
    pub(super) fn bytes(&mut self, n: usize, what: &str) -> Result<&[u8]> {
        self.need(n as u64, what)?;
        if self.buffer.len() - self.at < n {
            self.fill(n)?;
        }
        let from = self.at;
        self.at += n;
        Ok(&self.buffer[from..self.at])
    }

    /// Steps over `n` bytes, which are `what`.
    ///
    /// # Errors
    /// If fewer are left.
    pub(super) fn skip(&mut self, n: u64, what: &str) -> Result<()> {
        self.need(n, what)?;
        match usize::try_from(n).ok().filter(|&n| n <= self.buffer.len() - self.at) {
            Some(n) => self.at += n,
            None => {
                self.start = self.offset() + n;
                self.buffer.clear();
                self.at = 0;
            }
        }
        Ok(())
    }

    /// Steps over `n` strings of at most `max` bytes, each of which is `what`.
    ///
    /// # Errors
    /// As [`Cursor::len`].
    pub(super) fn skip_strings(&mut self, n: u64, max: u64, what: &str) -> Result<()> {
        let mut left = n;
        while left > 0 {
            // Those that lie in the buffer whole: vocabularies have hundreds of thousands of them.
            while let Some((len, rest)) = self.buffer[self.at..].split_first_chunk()
                && left > 0
            {
                let len = u64::from_le_bytes(*len);
                if len > max || len > rest.len() as u64 {
                    break;
                }
                self.at += 8 + len as usize;
                left -= 1;
            }
            if left > 0 {
                let len = self.len(max, what)?;
                self.skip(len, what)?;
                left -= 1;
            }
        }
        Ok(())
    }

    /// The next four bytes as a number, which is `what`.
    ///
    /// # Errors
    /// As [`Cursor::bytes`].
    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.bytes(4, what)?);
        Ok(u32::from_le_bytes(bytes))
    }

    /// The next eight bytes as a number, which is `what`.
    ///
    /// # Errors
    /// As [`Cursor::bytes`].
    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.bytes(8, what)?);
        Ok(u64::from_le_bytes(bytes))
    }

    /// The number of things that follow, each of at least `min` bytes.
    ///
    /// # Errors
    /// If it is above `max`, or more than what is left can hold.
    pub(super) fn count(&mut self, min: u64, max: u64, what: &str) -> Result<u64> {
        let at = self.offset();
        let n = self.u64("a count")?;
        let room = self.left() / min;
        if n > room {
            return Err(self.bad(at, format!("found a count of {n} {what}, the {} bytes after it hold at most {room}", self.left())));
        }
        if n > max {
            return Err(self.bad(at, format!("found a count of {n} {what}, at most {max} are read")));
        }
        Ok(n)
    }

    /// The length of a string, which follows whole.
    ///
    /// # Errors
    /// If it is above `max`, or fewer bytes are left.
    pub(super) fn len(&mut self, max: u64, what: &str) -> Result<u64> {
        let at = self.offset();
        let n = self.u64("the length of a string")?;
        if n > max {
            return Err(self.bad(at, format!("{what} has {n} bytes, at most {max} are read")));
        }
        self.need(n, what)?;
        Ok(n)
    }

    /// The next `n` bytes as text, which is `what`.
    ///
    /// # Errors
    /// As [`Cursor::bytes`], and if they are not UTF-8.
    pub(super) fn text(&mut self, n: u64, what: &str) -> Result<String> {
        let at = self.offset();
        self.need(n, what)?;
        let n = usize::try_from(n).map_err(|_| self.bad(at, format!("{what} of {n} bytes is too long for this machine")))?;
        match std::str::from_utf8(self.bytes(n, what)?) {
            Ok(text) => Ok(text.to_owned()),
            Err(e) => Err(self.bad(at + e.valid_up_to() as u64, format!("{what} is not UTF-8"))),
        }
    }

    fn need(&self, n: u64, what: &str) -> Result<()> {
        let left = self.left();
        if n <= left {
            return Ok(());
        }
        let end = if self.end < self.input.len() { "the metadata is longer than the 1 GiB that are read: it ends" } else { "the file ends" };
        Err(self.bad(self.offset(), format!("{end} inside {what}: found {left} bytes, needed {n}")))
    }

    fn fill(&mut self, n: usize) -> Result<()> {
        let (offset, left) = (self.offset(), self.left());
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(n.max(BUFFER));
        self.buffer.resize(len, 0);
        (self.start, self.at) = (offset, 0);
        self.input.read_at(offset, &mut self.buffer)
    }
}
