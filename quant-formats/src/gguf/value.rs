//! Values of metadata, decoded for people: of arrays only as many items as are wanted.

use quant_core::Result;

use super::entry::{Entry, Kind, Scalar};
use crate::checkpoint::Checkpoint;

/// A decoded value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number or a truth value.
    Scalar(Scalar),
    /// A string. Bytes that are not UTF-8 are replaced; a very long one is cut.
    Text(String),
    /// The first items of an array.
    Array(Vec<Value>),
}

/// The longest string that is shown whole, in bytes.
const MAX_TEXT: u64 = 1 << 20;
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;
/// How deep arrays may hold arrays; readers refuse deeper ones.
const MAX_DEPTH: u32 = 8;

impl Entry {
    /// Decodes the value; of an array at most the first `most` items, those of arrays in it counted too.
    ///
    /// # Errors
    /// If the file cannot be read, or has changed.
    pub fn value(&self, checkpoint: &Checkpoint, most: u64) -> Result<Value> {
        let mut cursor = Cursor { checkpoint, entry: self, offset: 0, buffer: Vec::new(), start: 0, left: most };
        cursor.value(self.kind, 0)
    }
}

/// A walk over the bytes of a value, which a reader has checked.
struct Cursor<'a> {
    checkpoint: &'a Checkpoint,
    entry: &'a Entry,
    offset: u64,
    /// Bytes from `start` on.
    buffer: Vec<u8>,
    start: u64,
    /// Items that are still wanted.
    left: u64,
}

impl Cursor<'_> {
    fn value(&mut self, kind: Kind, depth: u32) -> Result<Value> {
        match kind {
            Kind::String => {
                let len = self.u64()?;
                let mut bytes = vec![0; len.min(MAX_TEXT) as usize];
                let end = self.offset + len;
                self.bytes(&mut bytes)?;
                self.offset = end;
                Ok(Value::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
            Kind::Array => {
                let mut id = [0; 4];
                self.bytes(&mut id)?;
                let n = self.u64()?;
                let kind = Kind::from_id(u32::from_le_bytes(id)).filter(|_| depth < MAX_DEPTH);
                let Some(kind) = kind else { return Ok(Value::Array(Vec::new())) };
                let mut items = Vec::new();
                // Where the end of an inner array is not reached, nothing after it is known: the count is used up then.
                while (items.len() as u64) < n && self.left > 0 {
                    self.left -= 1;
                    items.push(self.value(kind, depth + 1)?);
                }
                Ok(Value::Array(items))
            }
            scalar => {
                let mut bytes = [0; 8];
                let bytes = &mut bytes[..scalar.n_bytes().unwrap_or(0) as usize];
                self.bytes(bytes)?;
                Ok(Value::Scalar(scalar.scalar(bytes).unwrap_or(Scalar::Bool(false))))
            }
        }
    }

    fn u64(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn bytes(&mut self, out: &mut [u8]) -> Result<()> {
        let buffered = self.offset.checked_sub(self.start).and_then(|skip| self.buffer.get(skip as usize..)).unwrap_or_default();
        match buffered.get(..out.len()) {
            Some(bytes) => out.copy_from_slice(bytes),
            None if out.len() > PIECE => self.checkpoint.read_at(&self.entry.at, self.offset, out)?,
            None => {
                let len = self.entry.n_bytes.saturating_sub(self.offset).min(PIECE as u64).max(out.len() as u64);
                self.buffer.resize(len as usize, 0);
                self.checkpoint.read_at(&self.entry.at, self.offset, &mut self.buffer)?;
                self.start = self.offset;
                out.copy_from_slice(&self.buffer[..out.len()]);
            }
        }
        self.offset += out.len() as u64;
        Ok(())
    }
}
