//! Values of metadata, decoded for people: of arrays only as many items as are wanted.

use quant_core::Result;

use super::entry::{Entry, Kind, Scalar};
use crate::checkpoint::{At, Checkpoint};

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
/// How deep arrays may hold arrays; readers refuse deeper ones.
const MAX_DEPTH: u32 = 8;

impl Entry {
    /// Decodes the value; of an array at most the first `most` items.
    ///
    /// # Errors
    /// If the file cannot be read, or has changed.
    pub fn value(&self, checkpoint: &Checkpoint, most: u64) -> Result<Value> {
        let mut cursor = Cursor { checkpoint, at: &self.at, offset: 0 };
        cursor.value(self.kind, most, 0)
    }
}

/// A walk over the bytes of a value, which a reader has checked.
struct Cursor<'a> {
    checkpoint: &'a Checkpoint,
    at: &'a At,
    offset: u64,
}

impl Cursor<'_> {
    fn value(&mut self, kind: Kind, most: u64, depth: u32) -> Result<Value> {
        match kind {
            Kind::String => {
                let len = self.u64()?;
                let mut bytes = vec![0; len.min(MAX_TEXT) as usize];
                self.checkpoint.read_at(self.at, self.offset, &mut bytes)?;
                self.offset += len;
                Ok(Value::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
            Kind::Array => {
                let mut id = [0; 4];
                self.bytes(&mut id)?;
                let n = self.u64()?;
                let kind = Kind::from_id(u32::from_le_bytes(id)).filter(|_| depth < MAX_DEPTH);
                let Some(kind) = kind else { return Ok(Value::Array(Vec::new())) };
                // Items of an inner array cannot be skipped unread.
                let most = if depth == 0 { n.min(most) } else { n };
                (0..most).map(|_| self.value(kind, most, depth + 1)).collect::<Result<_>>().map(Value::Array)
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
        self.checkpoint.read_at(self.at, self.offset, out)?;
        self.offset += out.len() as u64;
        Ok(())
    }
}
