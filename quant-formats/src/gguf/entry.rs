//! Typed metadata, byte for byte as it stands in a file, read only where somebody looks.

use crate::checkpoint::At;

/// The type of a value. The numbers are those of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the specification")]
pub enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

/// One key with its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key, unique in a file.
    pub key: String,
    /// The type of the value.
    pub kind: Kind,
    /// For arrays the type of the items and their number.
    pub items: Option<(Kind, u64)>,
    /// Bytes of the value as it stands in a file: a string with its length, an array with item type and count.
    pub n_bytes: u64,
    /// Where the value can be read: scalars and short strings are [`At::Bytes`].
    pub at: At,
}

/// A number or a truth value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Scalar {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
}

impl Kind {
    const ALL: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::String,
        Kind::Array,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    /// The type of a number in a file.
    pub fn from_id(id: u32) -> Option<Kind> {
        Kind::ALL.get(id as usize).copied()
    }

    /// The number in a file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The name in the words of gguf-py, in lower case.
    pub fn name(self) -> &'static str {
        ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "bool", "string", "array", "uint64", "int64", "float64"][self as usize]
    }

    /// Bytes of a scalar of this type; none for strings and arrays.
    pub fn n_bytes(self) -> Option<u64> {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => Some(1),
            Kind::U16 | Kind::I16 => Some(2),
            Kind::U32 | Kind::I32 | Kind::F32 => Some(4),
            Kind::U64 | Kind::I64 | Kind::F64 => Some(8),
            Kind::String | Kind::Array => None,
        }
    }

    /// The scalar that `bytes` are, if there are as many as the type has.
    pub fn scalar(self, bytes: &[u8]) -> Option<Scalar> {
        if self.n_bytes()? != bytes.len() as u64 {
            return None;
        }
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let unsigned = u64::from_le_bytes(wide);
        let unused = 64 - 8 * bytes.len() as u32;
        Some(match self {
            Kind::F32 => Scalar::Float(f32::from_bits(unsigned as u32).into()),
            Kind::F64 => Scalar::Float(f64::from_bits(unsigned)),
            Kind::Bool => Scalar::Bool(unsigned != 0),
            Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 => Scalar::Signed((unsigned << unused) as i64 >> unused),
            _ => Scalar::Unsigned(unsigned),
        })
    }
}

impl Entry {
    /// A scalar or string value from its bytes.
    pub fn new(key: impl Into<String>, kind: Kind, bytes: Vec<u8>) -> Entry {
        Entry { key: key.into(), kind, items: None, n_bytes: bytes.len() as u64, at: At::Bytes(bytes) }
    }

    /// A string value.
    pub fn string(key: impl Into<String>, text: &str) -> Entry {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        Entry::new(key, Kind::String, bytes)
    }

    /// A u32 value.
    pub fn u32(key: impl Into<String>, value: u32) -> Entry {
        Entry::new(key, Kind::U32, value.to_le_bytes().to_vec())
    }

    /// An f32 value.
    pub fn f32(key: impl Into<String>, value: f32) -> Entry {
        Entry::new(key, Kind::F32, value.to_le_bytes().to_vec())
    }

    /// A truth value.
    pub fn bool(key: impl Into<String>, value: bool) -> Entry {
        Entry::new(key, Kind::Bool, vec![value.into()])
    }

    /// An array of strings.
    pub fn strings(key: impl Into<String>, items: &[impl AsRef<str>]) -> Entry {
        let bytes = items.iter().flat_map(|item| {
            let text = item.as_ref().as_bytes();
            (text.len() as u64).to_le_bytes().into_iter().chain(text.iter().copied())
        });
        Entry::array(key, Kind::String, items.len(), bytes)
    }

    /// An array of f32.
    pub fn f32s(key: impl Into<String>, items: &[f32]) -> Entry {
        Entry::array(key, Kind::F32, items.len(), items.iter().flat_map(|v| v.to_le_bytes()))
    }

    /// An array of i32.
    pub fn i32s(key: impl Into<String>, items: &[i32]) -> Entry {
        Entry::array(key, Kind::I32, items.len(), items.iter().flat_map(|v| v.to_le_bytes()))
    }

    /// An array of truth values.
    pub fn bools(key: impl Into<String>, items: &[bool]) -> Entry {
        Entry::array(key, Kind::Bool, items.len(), items.iter().map(|&v| v.into()))
    }

    fn array(key: impl Into<String>, kind: Kind, n: usize, items: impl Iterator<Item = u8>) -> Entry {
        let mut bytes = kind.id().to_le_bytes().to_vec();
        bytes.extend_from_slice(&(n as u64).to_le_bytes());
        bytes.extend(items);
        Entry { items: Some((kind, n as u64)), ..Entry::new(key, Kind::Array, bytes) }
    }

    /// The value, if it is a number or a truth value.
    pub fn scalar(&self) -> Option<Scalar> {
        match &self.at {
            At::Bytes(bytes) => self.kind.scalar(bytes),
            At::File { .. } | At::Made(_) => None,
        }
    }

    /// The value, if it is an integer that is not negative.
    pub fn unsigned(&self) -> Option<u64> {
        match self.scalar()? {
            Scalar::Unsigned(n) => Some(n),
            Scalar::Signed(n) => n.try_into().ok(),
            _ => None,
        }
    }

    /// The value, if it is a short string.
    pub fn text(&self) -> Option<&str> {
        match &self.at {
            At::Bytes(bytes) if self.kind == Kind::String => std::str::from_utf8(bytes.get(8..)?).ok(),
            _ => None,
        }
    }
}

/// The entry of `key`.
pub fn find<'a>(entries: &'a [Entry], key: &str) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.key == key)
}
