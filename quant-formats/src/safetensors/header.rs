//! The header of a safetensors file, checked whole before any tensor is touched.
//!
//! Layout: u64 length N, N bytes of JSON, data. The ranges of the tensors cover the data exactly: no hole, no overlap, no
//! byte after the last. Source: the safetensors specification and crate 0.8.0; stricter than the crate in that a name or
//! key that comes twice, a leading space and a shape whose non-zero dimensions overflow are refused.

use std::io::BufRead;
use std::ops::Range;
use std::path::Path;

use quant_core::dtype::n_elements;
use quant_core::{Dtype, Error, Result};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};

use crate::input::Input;
use crate::json::{self, Entries, Integers, Object, Skip, Strings};

/// The longest header that is read, as in the safetensors crate.
pub const MAX_HEADER: u64 = 100_000_000;
/// The highest rank that is read.
const MAX_RANK: usize = 1024;

/// A checked header.
#[derive(Debug)]
pub struct Header {
    /// Bytes before the data.
    pub data_start: u64,
    /// The tensors in the order of their data.
    pub entries: Vec<Entry>,
    /// `__metadata__`, in order.
    pub metadata: Vec<(String, String)>,
}

/// One tensor of a header.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its type.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its bytes, relative to the start of the data.
    pub range: Range<u64>,
}

/// Reads and checks the header of `input`.
///
/// # Errors
/// If anything is not as it should be, naming the tensor and the offset.
pub fn read(input: &Input) -> Result<Header> {
    let path = input.path();
    let bad = |problem: String| Error::file(path, problem);
    if input.len() < 8 {
        return Err(bad(format!("not a safetensors file: found {} bytes, needed at least 8", input.len())));
    }
    let mut length = [0; 8];
    input.read_at(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(bad(format!(
            "not a safetensors file: its first 8 bytes say that the header has {length} bytes, at most {MAX_HEADER} are allowed"
        ))
        .at(0));
    }
    let left = input.len() - 8;
    if length > left {
        return Err(bad(format!("the file ends inside its header: found {left} bytes, needed {length}")).at(8));
    }
    let mut reader = std::io::BufReader::new(input.reader(8..8 + length));
    let first = reader.fill_buf().map_err(|e| Error::io("read", path, e))?.first().copied();
    if first != Some(b'{') {
        return Err(bad("not a safetensors file: the header does not begin with '{'".into()).at(8));
    }
    let (mut entries, metadata) = json::read(reader, Object(Raw::default())).map_err(|e| bad_json(path, &e))?;
    let data_start = 8 + length;
    check(path, &mut entries, data_start, left - length)?;
    Ok(Header { data_start, entries, metadata })
}

fn bad_json(path: &Path, error: &serde_json::Error) -> Error {
    if let Some(kind) = error.io_error_kind().filter(|kind| *kind != std::io::ErrorKind::InvalidData) {
        return Error::io("read the header of", path, kind.into());
    }
    // The position is in line and column; the headers that writers make are one line.
    let bad = Error::file(path, format!("the header is not valid: {error}"));
    if error.line() == 1 { bad.at(7 + error.column() as u64) } else { bad }
}

/// Sorts the entries by their data and checks that they cover it.
fn check(path: &Path, entries: &mut [Entry], data_start: u64, data_len: u64) -> Result<()> {
    entries.sort_by_key(|e| (e.range.start, e.range.end));
    let mut next = 0;
    for entry in &*entries {
        let Range { start, end } = entry.range;
        let bad = |problem: String| Err(Error::tensor(path, &entry.name, problem).at(data_start.saturating_add(start)));
        if start != next {
            let what = if start < next { "overlaps the tensor before it" } else { "leaves a hole before it" };
            return bad(format!("its data {what}: found a start of {start}, needed {next}"));
        }
        let Some(needed) = n_elements(&entry.shape).and_then(|n| entry.dtype.n_bytes(n)) else {
            return bad(format!("shape {:?} of {} is not a whole number of bytes that 64 bits can hold", entry.shape, entry.dtype));
        };
        if end.checked_sub(start) != Some(needed) {
            return bad(format!("found the data offsets {start} to {end}, needed {needed} bytes for {:?} of {}", entry.shape, entry.dtype));
        }
        if end > data_len {
            return bad(format!("the file ends inside its data: found {data_len} bytes of data, needed {end}"));
        }
        next = end;
    }
    if next != data_len {
        return Err(Error::file(path, format!("{} bytes lie after the last tensor", data_len - next)).at(data_start + next));
    }
    Ok(())
}

/// The header as it is read.
#[derive(Default)]
struct Raw {
    entries: Vec<Entry>,
    metadata: Vec<(String, String)>,
}

impl<'de> Entries<'de> for Raw {
    type Value = (Vec<Entry>, Vec<(String, String)>);

    fn entry<A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> std::result::Result<(), A::Error> {
        if key == "__metadata__" {
            self.metadata = map.next_value_seed(Metadata)?.unwrap_or_default();
            return Ok(());
        }
        let info = map.next_value_seed(Object(Info::default())).map_err(|e| de::Error::custom(format!("tensor '{key}': {e}")))?;
        self.entries.push(Entry { name: key, ..info });
        Ok(())
    }

    fn finish<E: de::Error>(self) -> std::result::Result<Self::Value, E> {
        Ok((self.entries, self.metadata))
    }
}

/// `__metadata__`: an object of strings, or null.
struct Metadata;

impl<'de> DeserializeSeed<'de> for Metadata {
    type Value = Option<Vec<(String, String)>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Metadata {
    type Value = Option<Vec<(String, String)>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of strings")
    }

    fn visit_none<E>(self) -> std::result::Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Self::Value, D::Error> {
        Object(Strings::default()).deserialize(deserializer).map(Some)
    }
}

/// The fields of one tensor.
#[derive(Default)]
struct Info {
    dtype: Option<Dtype>,
    shape: Option<Vec<u64>>,
    range: Option<Range<u64>>,
}

impl<'de> Entries<'de> for Info {
    type Value = Entry;

    fn entry<A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> std::result::Result<(), A::Error> {
        match key.as_str() {
            "dtype" => {
                let name: String = map.next_value()?;
                let dtype = name.parse().map_err(|()| de::Error::custom(format!("unknown dtype '{name}'")))?;
                self.dtype = Some(dtype);
            }
            "shape" => self.shape = Some(map.next_value_seed(Integers { max: MAX_RANK })?),
            "data_offsets" => {
                let [start, end] = map.next_value_seed(Integers { max: 2 })?[..] else {
                    return Err(de::Error::custom("data_offsets needs two numbers"));
                };
                self.range = Some(start..end);
            }
            _ => map.next_value_seed(Skip)?,
        }
        Ok(())
    }

    fn finish<E: de::Error>(self) -> std::result::Result<Entry, E> {
        let dtype = self.dtype.ok_or_else(|| E::missing_field("dtype"))?;
        let shape = self.shape.ok_or_else(|| E::missing_field("shape"))?;
        let range = self.range.ok_or_else(|| E::missing_field("data_offsets"))?;
        Ok(Entry { name: String::new(), dtype, shape, range })
    }
}
