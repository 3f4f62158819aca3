//! [`Edit`]: a change to metadata, as users write it.

use quant_core::{Error, Result};

use super::entry::{Entry, Kind};
use super::header::{ALIGNMENT_KEY, name_problem};

/// A change to the metadata of a file.
#[derive(Clone, Debug)]
pub enum Edit {
    /// A key gets a value: in its place if it is there, else at the end.
    Set(Entry),
    /// A key goes.
    Remove(String),
}

impl Edit {
    /// Reads `KEY=TYPE:VALUE`. Types are those of the format, `u8`…`u64`, `i8`…`i64`, `f32`, `f64`, `bool`, `str`, or their long
    /// names such as `uint32` and `string`.
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
        let kind = kind_of(ty).ok_or_else(|| bad("the type is not one of u8 u16 u32 u64 i8 i16 i32 i64 f32 f64 bool str"))?;
        let bytes = value_bytes(kind, value).ok_or_else(|| bad(&format!("'{value}' is no {}", kind.name())))?;
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
        let is_split = key.starts_with("split.") && matches!(self, Edit::Set(_));
        if key == ALIGNMENT_KEY || is_split {
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

/// The type of a name, short or long.
fn kind_of(name: &str) -> Option<Kind> {
    let short = [("str", Kind::String), ("u8", Kind::U8), ("i8", Kind::I8), ("u16", Kind::U16), ("i16", Kind::I16), ("u32", Kind::U32)];
    let wide = [("i32", Kind::I32), ("u64", Kind::U64), ("i64", Kind::I64), ("f32", Kind::F32), ("f64", Kind::F64)];
    let short = short.into_iter().chain(wide).find(|row| row.0 == name).map(|row| row.1);
    short.or_else(|| (0..).map_while(Kind::from_id).find(|kind| kind.name() == name && *kind != Kind::Array))
}

/// The value as it stands in a file.
fn value_bytes(kind: Kind, value: &str) -> Option<Vec<u8>> {
    macro_rules! number {
        ($ty:ty) => {
            value.parse::<$ty>().ok()?.to_le_bytes().to_vec()
        };
    }
    Some(match kind {
        Kind::U8 => number!(u8),
        Kind::U16 => number!(u16),
        Kind::U32 => number!(u32),
        Kind::U64 => number!(u64),
        Kind::I8 => number!(i8),
        Kind::I16 => number!(i16),
        Kind::I32 => number!(i32),
        Kind::I64 => number!(i64),
        Kind::F32 => number!(f32),
        Kind::F64 => number!(f64),
        Kind::Bool => vec![u8::from(value.parse::<bool>().ok()?)],
        Kind::String => [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat(),
        Kind::Array => return None,
    })
}
