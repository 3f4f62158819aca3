//! [`Walk`]: the items of an array of the metadata, one after the other, without holding the array.

use quant_core::{Error, Result};

use crate::checkpoint::Checkpoint;
use crate::gguf::{Entry, Kind};

/// Bytes that are read at once.
const PIECE: u64 = 64 << 10;
/// The longest string of an array that is read, in bytes.
const MAX_STRING: u64 = 1 << 20;
/// Bytes before the first item: its type and the number of items.
const HEAD: u64 = 4 + 8;

/// A place in an array.
pub(super) struct Walk<'a> {
    checkpoint: &'a Checkpoint,
    entry: &'a Entry,
    kind: Kind,
    n: u64,
    /// Items that have been read.
    done: u64,
    /// Where in the value `piece` begins.
    start: u64,
    piece: Vec<u8>,
    /// The next byte, in `piece`.
    at: usize,
}

impl<'a> Walk<'a> {
    /// The start of the array `entry`, whose items are of one of `kinds` and at most `max`.
    ///
    /// # Errors
    /// If it is anything else.
    pub(super) fn new(checkpoint: &'a Checkpoint, entry: &'a Entry, kinds: &[Kind], max: u64) -> Result<Walk<'a>> {
        let problem = match entry.items {
            Some((kind, n)) if kinds.contains(&kind) && n <= max => {
                return Ok(Walk { checkpoint, entry, kind, n, done: 0, start: HEAD, piece: Vec::new(), at: 0 });
            }
            Some((kind, n)) if kinds.contains(&kind) => format!("found {n} items, at most {max} are read"),
            Some((kind, _)) => format!("found an array of {}, needed one of {}", kind.name(), names(kinds)),
            None => format!("found a value of type {}, needed an array of {}", entry.kind.name(), names(kinds)),
        };
        Err(Error::file(&checkpoint.path, format!("key '{}': {problem}", entry.key)))
    }

    /// The number of items.
    pub(super) fn n(&self) -> u64 {
        self.n
    }

    /// The next item, a string; none after the last.
    ///
    /// # Errors
    /// If it is not UTF-8, is too long, or cannot be read.
    pub(super) fn text(&mut self) -> Result<Option<String>> {
        if self.done == self.n {
            return Ok(None);
        }
        let len = u64::from_le_bytes(self.array()?);
        if len > MAX_STRING {
            return Err(self.bad(format!("a string of {len} bytes, at most {MAX_STRING} are read")));
        }
        let bytes = self.bytes(len)?.to_vec();
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            self.bad(format!("not UTF-8 at byte {at} of \"{}\", which JSON cannot hold", shown(e.as_bytes())))
        })?;
        self.done += 1;
        Ok(Some(text))
    }

    /// The next item, an f32 or an i32 (as which a u32 is read, too); none after the last.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn number(&mut self) -> Result<Option<f64>> {
        if self.done == self.n {
            return Ok(None);
        }
        let bytes = self.array()?;
        self.done += 1;
        Ok(Some(if self.kind == Kind::F32 { f32::from_le_bytes(bytes).into() } else { i32::from_le_bytes(bytes).into() }))
    }

    /// All items of an array of bytes.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn all_bytes(&mut self) -> Result<Vec<u8>> {
        let n = self.n;
        self.done = n;
        Ok(self.bytes(n)?.to_vec())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N as u64)?);
        Ok(out)
    }

    fn bytes(&mut self, n: u64) -> Result<&[u8]> {
        let left = self.entry.n_bytes.saturating_sub(self.start.saturating_add(self.at as u64));
        let Some(len) = usize::try_from(n).ok().filter(|_| n <= left) else {
            return Err(self.bad(format!("the array ends inside it: found {left} bytes, needed {n}")));
        };
        if self.piece.len() - self.at < len {
            self.start += self.at as u64;
            self.at = 0;
            self.piece.resize(left.min(PIECE.max(n)) as usize, 0);
            self.checkpoint.read_at(&self.entry.at, self.start, &mut self.piece)?;
        }
        self.at += len;
        Ok(&self.piece[self.at - len..self.at])
    }

    fn bad(&self, problem: String) -> Error {
        Error::file(&self.checkpoint.path, format!("key '{}', item {}: {problem}", self.entry.key, self.done))
    }
}

fn names(kinds: &[Kind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(" or ")
}

fn shown(bytes: &[u8]) -> String {
    bytes.iter().take(40).copied().flat_map(std::ascii::escape_default).map(char::from).collect()
}
