//! JSON from files that are not trusted: no duplicate keys, bounded depth, no allocation that the bytes do not pay for.

use std::collections::HashSet;
use std::fmt;
use std::io::Read;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The longest string that is read. Real metadata holds lists of some megabytes; names are far shorter.
const MAX_STRING: usize = 8 << 20;

/// Reads one JSON value and nothing after it but white space.
///
/// # Errors
/// serde_json's message, which says where; the depth is limited to 128, a string to [`MAX_STRING`] bytes.
pub(crate) fn read<'de, T: DeserializeSeed<'de>>(reader: impl Read, seed: T) -> serde_json::Result<T::Value> {
    let mut json = serde_json::Deserializer::from_reader(ShortStrings { reader, n_bytes: 0, in_string: false, escaped: false });
    let value = seed.deserialize(&mut json)?;
    json.end()?;
    Ok(value)
}

/// What is wrong, as serde_json says it, cut: it repeats a text that stands where something else is needed, however long.
pub(crate) fn problem(error: &serde_json::Error) -> String {
    const MOST: usize = 60;
    let text = error.to_string();
    let (head, tail) = (text.floor_char_boundary(MOST), text.ceil_char_boundary(text.len().saturating_sub(2 * MOST)));
    if tail <= head { text } else { format!("{} … {}", &text[..head], &text[tail..]) }
}

/// Passes bytes on until a string is longer than [`MAX_STRING`], which is then never held in memory.
struct ShortStrings<R> {
    reader: R,
    n_bytes: usize,
    in_string: bool,
    escaped: bool,
}

impl<R: Read> Read for ShortStrings<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let n = self.reader.read(out)?;
        for &byte in &out[..n] {
            self.n_bytes = if self.in_string { self.n_bytes + 1 } else { 0 };
            self.in_string ^= byte == b'"' && !self.escaped;
            self.escaped = self.in_string && byte == b'\\' && !self.escaped;
        }
        let too_long = || std::io::Error::new(std::io::ErrorKind::InvalidData, format!("a string is longer than {MAX_STRING} bytes"));
        if self.n_bytes > MAX_STRING { Err(too_long()) } else { Ok(n) }
    }
}

/// An object whose entries are given to a function one by one; a key that comes twice is an error.
pub(crate) struct Object<F>(pub(crate) F);

/// One entry of an [`Object`]: its key, and the value still to be read.
pub(crate) trait Entries<'de>: Sized {
    /// What the whole object becomes.
    type Value;
    /// Reads the value of `key`.
    fn entry<A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error>;
    /// Called after the last entry.
    fn finish<E: Error>(self) -> Result<Self::Value, E>;
}

impl<'de, F: Entries<'de>> DeserializeSeed<'de> for Object<F> {
    type Value = F::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<F::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: Entries<'de>> Visitor<'de> for Object<F> {
    type Value = F::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<F::Value, A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format!("the key '{key}' comes twice")));
            }
            self.0.entry(key, &mut map)?;
        }
        self.0.finish()
    }
}

/// Any value, thrown away. Unlike serde's own, it counts depth.
#[derive(Clone, Copy)]
pub(crate) struct Skip;

/// Any value; what is kept of an integer is the integer, and of an object that of its `total_size`.
#[derive(Clone, Copy)]
pub(crate) struct TotalSize;

macro_rules! any_value {
    ($name:ident, $value:ty, $none:expr, $integer:expr) => {
        impl<'de> DeserializeSeed<'de> for $name {
            type Value = $value;
            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<$value, D::Error> {
                deserializer.deserialize_any(self)
            }
        }

        impl<'de> Visitor<'de> for $name {
            type Value = $value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_bool<E>(self, _: bool) -> Result<$value, E> {
                Ok($none)
            }
            fn visit_u64<E>(self, n: u64) -> Result<$value, E> {
                Ok($integer(n))
            }
            fn visit_i64<E>(self, _: i64) -> Result<$value, E> {
                Ok($none)
            }
            fn visit_f64<E>(self, _: f64) -> Result<$value, E> {
                Ok($none)
            }
            fn visit_str<E>(self, _: &str) -> Result<$value, E> {
                Ok($none)
            }
            fn visit_unit<E>(self) -> Result<$value, E> {
                Ok($none)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<$value, A::Error> {
                while seq.next_element_seed(Skip)?.is_some() {}
                Ok($none)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$value, A::Error> {
                let mut total = $none;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "total_size" { total = map.next_value_seed($name)? } else { map.next_value_seed(Skip)? }
                }
                Ok(total)
            }
        }
    };
}

any_value!(Skip, (), (), |_| ());
any_value!(TotalSize, Option<u64>, None, Some);

/// A list of at most `max` non-negative integers.
pub(crate) struct Integers {
    pub(crate) max: usize,
}

impl<'de> DeserializeSeed<'de> for Integers {
    type Value = Vec<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<u64>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Integers {
    type Value = Vec<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {} non-negative integers", self.max)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u64>, A::Error> {
        let mut list = Vec::new();
        while let Some(n) = seq.next_element::<u64>()? {
            if list.len() == self.max {
                return Err(A::Error::invalid_length(list.len() + 1, &self));
            }
            list.push(n);
        }
        Ok(list)
    }
}

/// An object of strings, in order.
#[derive(Default)]
pub(crate) struct Strings(Vec<(String, String)>);

impl<'de> Entries<'de> for Strings {
    type Value = Vec<(String, String)>;

    fn entry<A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> Result<(), A::Error> {
        let value = map.next_value().map_err(|e| A::Error::custom(format!("the value of '{key}': {e}")))?;
        self.0.push((key, value));
        Ok(())
    }

    fn finish<E: Error>(self) -> Result<Self::Value, E> {
        Ok(self.0)
    }
}
