//! [`Edit`]: a change to metadata, as users write it.

use quant_core::{Error, Result};

use super::entry::{Entry, Kind};
use super::header::name_problem;

/// A change to the metadata of a file.
#[derive(Clone, Debug)]
pub enum Edit {
    /// A key gets a value: in its place if it is there, else at the end.
    Set(Entry),
    /// A key goes.
    Remove(String),
}

/// Keys that say how the file is laid out, and so cannot be changed alone.
const LAYOUT: [&str; 1] = ["general.alignment"];

impl Edit {
    /// Reads `KEY=TYPE:VALUE`, with the types of the format: `u8`…`u64`, `i8`…`i64`, `f32`, `f64`, `bool`, `str`.
    ///
    /// # Errors
    /// Saying what is wrong with the text.
    pub fn parse(text: &str) -> Result<Edit> {
        let bad = |problem: &str| Error::request(format!("--set '{text}': {problem}"));
        let (key, typed) = text.split_once('=').ok_or_else(|| bad("needs KEY=TYPE:VALUE"))?;
        let (ty, value) = typed.split_once(':').ok_or_else(|| bad("needs KEY=TYPE:VALUE"))?;
        if let Some(problem) = name_problem(key) {
            return Err(bad(&format!("the key {problem}")));
        }
        if key.len() > 65_535 {
            return Err(bad("the key has more than 65535 bytes"));
        }
        let (kind, bytes) = value_bytes(ty, value)
            .ok_or_else(|| bad("the type is not one of u8 u16 u32 u64 i8 i16 i32 i64 f32 f64 bool str, or the value does not fit it"))?;
        Ok(Edit::Set(Entry::new(key, kind, bytes)))
    }

    /// Makes the change.
    ///
    /// # Errors
    /// If a key to be removed is not there, or the key says how the file is laid out.
    pub(crate) fn apply(&self, kv: &mut Vec<Entry>) -> Result<()> {
        let key = match self {
            Edit::Set(entry) => &entry.key,
            Edit::Remove(key) => key,
        };
        if LAYOUT.contains(&key.as_str()) || key.starts_with("split.") {
            return Err(Error::request(format!("'{key}' describes the layout of the file, which metadata cannot change")));
        }
        let place = kv.iter().position(|e| e.key == *key);
        match (self, place) {
            (Edit::Set(entry), Some(i)) => kv[i] = entry.clone(),
            (Edit::Set(entry), None) => kv.push(entry.clone()),
            (Edit::Remove(_), Some(i)) => drop(kv.remove(i)),
            (Edit::Remove(key), None) => return Err(Error::request(format!("--remove '{key}': there is no such key"))),
        }
        Ok(())
    }
}

/// The value as it stands in a file.
fn value_bytes(ty: &str, value: &str) -> Option<(Kind, Vec<u8>)> {
    macro_rules! number {
        ($kind:ident, $ty:ty) => {
            (Kind::$kind, value.parse::<$ty>().ok()?.to_le_bytes().to_vec())
        };
    }
    Some(match ty {
        "u8" => number!(U8, u8),
        "u16" => number!(U16, u16),
        "u32" => number!(U32, u32),
        "u64" => number!(U64, u64),
        "i8" => number!(I8, i8),
        "i16" => number!(I16, i16),
        "i32" => number!(I32, i32),
        "i64" => number!(I64, i64),
        "f32" => number!(F32, f32),
        "f64" => number!(F64, f64),
        "bool" => (Kind::Bool, vec![u8::from(value.parse::<bool>().ok()?)]),
        "str" => {
            let mut bytes = (value.len() as u64).to_le_bytes().to_vec();
            bytes.extend_from_slice(value.as_bytes());
            (Kind::String, bytes)
        }
        _ => return None,
    })
}
