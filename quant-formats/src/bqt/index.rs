//! The index as it stands in the file. Field names and their order are the format.

use std::io::{self, BufReader, Read};
use std::path::Path;

use crc32fast::Hasher;
use quant_core::error::Printable;
use quant_core::{Error, Result};
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ALIGN;
use super::errors::ErrorEntry;
use super::hash::Digest;
use super::header::{HEADER, Header, INDEX_LIMIT, SUMMED};
use super::json::{self, Distinct, Metadata, Object, Required};
use crate::checkpoint::OriginFormat;
use crate::input::Input;

/// What the field `format` says.
pub(super) const FORMAT: &str = "BQT";

/// Everything but the data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) format: String,
    #[serde(default)]
    pub(super) producer: String,
    pub(super) required: Required,
    pub(super) chunk_bytes: u64,
    #[serde(default)]
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) recipe: Option<String>,
    #[serde(deserialize_with = "json::objects")]
    pub(super) tensors: Vec<TensorEntry>,
    #[serde(default, deserialize_with = "json::objects")]
    pub(super) files: Vec<FileEntry>,
    #[serde(default, deserialize_with = "json::objects")]
    pub(super) blobs: Vec<Extent>,
    #[serde(default, deserialize_with = "json::maybe_object")]
    pub(super) origin: Option<OriginEntry>,
}

/// One tensor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct TensorEntry {
    pub(super) name: String,
    #[serde(deserialize_with = "json::shape")]
    pub(super) shape: Vec<u64>,
    pub(super) scheme: String,
    pub(super) dtype: String,
    #[serde(default, deserialize_with = "json::maybe_object")]
    pub(super) source: Option<SourceEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "json::maybe_object")]
    pub(super) error: Option<ErrorEntry>,
    #[serde(deserialize_with = "json::objects")]
    pub(super) parts: Vec<PartEntry>,
}

/// Where a tensor came from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SourceEntry {
    pub(super) name: String,
    pub(super) scheme: String,
    pub(super) sha256: Digest,
}

/// One part of a tensor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PartEntry {
    pub(super) name: String,
    pub(super) dtype: String,
    #[serde(deserialize_with = "json::shape")]
    pub(super) shape: Vec<u64>,
    #[serde(deserialize_with = "json::object")]
    pub(super) at: Extent,
    /// File and offset in the files of `origin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) place: Option<(usize, u64)>,
}

/// A file carried along.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FileEntry {
    pub(super) name: String,
    #[serde(deserialize_with = "json::object")]
    pub(super) at: Extent,
}

/// The files that the tensors came in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct OriginEntry {
    #[serde(default)]
    pub(super) format: OriginFormat,
    #[serde(deserialize_with = "json::objects")]
    pub(super) files: Vec<OriginFileEntry>,
    #[serde(default, deserialize_with = "json::maybe_object")]
    pub(super) index: Option<OriginIndexEntry>,
}

/// One of those files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct OriginFileEntry {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// The blob that holds everything before its data.
    pub(super) head: usize,
    /// What lies between the parts and is not zero: offsets, and blobs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) gaps: Vec<(u64, usize)>,
}

/// The index file beside them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct OriginIndexEntry {
    pub(super) name: String,
    pub(super) blob: usize,
}

/// A stretch of the data. An empty one has offset 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Extent {
    /// Counted from the start of the data.
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) crc32: Sums,
}

/// CRC-32 of each chunk of an extent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums(pub(super) Vec<u32>);

impl Serialize for Sums {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.serialize_str(&json::hex(self.0.iter().flat_map(|sum| sum.to_be_bytes())))
    }
}

impl<'de> Deserialize<'de> for Sums {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let bytes = json::from_hex(&text).filter(|bytes| bytes.len().is_multiple_of(4));
        let bytes = bytes.ok_or_else(|| de::Error::custom("crc32 needs 8 hexadecimal digits (0-9, a-f) a chunk"))?;
        Ok(Sums(bytes.as_chunks().0.iter().map(|&sum| u32::from_be_bytes(sum)).collect()))
    }
}

impl Extent {
    /// An extent whose place and checksums are not yet known.
    pub(super) fn unplaced(bytes: u64, chunk_bytes: u64) -> Extent {
        Extent { offset: 0, bytes, crc32: Sums(vec![0; bytes.div_ceil(chunk_bytes) as usize]) }
    }
}

/// What an extent belongs to, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Part { tensor: usize, part: usize },
    File(usize),
    Blob(usize),
}

impl Index {
    /// Every extent: parts, then files, then blobs.
    pub(super) fn extents(&self) -> Vec<(Owner, &Extent)> {
        let parts_of = |(tensor, entry): (usize, &'_ TensorEntry)| (0..entry.parts.len()).map(move |part| Owner::Part { tensor, part });
        let parts = self.tensors.iter().enumerate().flat_map(parts_of);
        let owners = parts.chain((0..self.files.len()).map(Owner::File)).chain((0..self.blobs.len()).map(Owner::Blob));
        owners.map(|owner| (owner, self.extent(owner))).collect()
    }

    fn extent(&self, owner: Owner) -> &Extent {
        match owner {
            Owner::Part { tensor, part } => &self.tensors[tensor].parts[part].at,
            Owner::File(i) => &self.files[i].at,
            Owner::Blob(i) => &self.blobs[i],
        }
    }

    /// The same extents, in the same order.
    pub(super) fn extents_mut(&mut self) -> impl Iterator<Item = &mut Extent> {
        let parts = self.tensors.iter_mut().flat_map(|tensor| &mut tensor.parts).map(|part| &mut part.at);
        parts.chain(self.files.iter_mut().map(|file| &mut file.at)).chain(&mut self.blobs)
    }

    /// What messages call the owner of an extent.
    pub(super) fn name_of(&self, owner: Owner) -> String {
        let text = match owner {
            Owner::Part { tensor, part } => format!("part '{}' of tensor '{}'", self.tensors[tensor].parts[part].name, self.tensors[tensor].name),
            Owner::File(i) => format!("file '{}'", self.files[i].name),
            Owner::Blob(i) => format!("blob {i}"),
        };
        Printable(&text).to_string()
    }

    /// The bytes of the index in the file: JSON, and spaces up to where the data begins.
    ///
    /// # Errors
    /// If it is longer than readers take.
    pub(super) fn bytes(&self, path: &Path) -> Result<Vec<u8>> {
        self.bytes_of(path, 0)
    }

    /// The same, at least `least` bytes.
    ///
    /// # Errors
    /// If it is longer than readers take.
    pub(super) fn bytes_of(&self, path: &Path, least: u64) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self).map_err(|e| Error::file(path, format!("cannot write the index: {e}")))?;
        let len = (HEADER + text.len() as u64).next_multiple_of(ALIGN).max(HEADER + least) - HEADER;
        if len > INDEX_LIMIT {
            return Err(Error::request(format!("an index of {len} bytes is more than the {INDEX_LIMIT} that a BQT file may have")));
        }
        text.resize(len as usize, b' ');
        Ok(text)
    }

    /// Reads the index that follows `header`: once for its syntax and checksum, then for what it says.
    ///
    /// # Errors
    /// If it is damaged, not JSON, or does not have the fields of an index. It is not yet checked against the data.
    pub(super) fn read(input: &Input, header: &Header) -> Result<Index> {
        parse::<Distinct>(input, header)?;
        parse::<Object<Index>>(input, header).map(|index| index.0)
    }
}

/// Parses the index, whose checksum must be right, in one pass and without holding its text.
fn parse<T: DeserializeOwned>(input: &Input, header: &Header) -> Result<T> {
    let path = input.path();
    let mut sum = Hasher::new();
    sum.update(&header.bytes()[SUMMED as usize..]);
    let text = Summing { reader: input.reader(HEADER..header.data_start()), sum: &mut sum };
    let value = serde_json::from_reader(BufReader::with_capacity(1 << 16, text)).map_err(|e| match (e.is_io(), e.line()) {
        (true, _) => Error::io("read", path, e.into()),
        (false, 1) => Error::file(path, bad_json(&e)).at(HEADER + (e.column() as u64).saturating_sub(1)),
        (false, _) => Error::file(path, bad_json(&e)),
    })?;
    let sum = sum.finalize();
    if sum != header.crc32 {
        let problem = format!("header or index is damaged: the checksum is {sum:08x}, the header says {:08x}", header.crc32);
        return Err(Error::file(path, problem).at(SUMMED));
    }
    Ok(value)
}

fn bad_json(error: &serde_json::Error) -> String {
    format!("the index: {}", Printable(&error.to_string()))
}

/// A reader that sums what passes through it.
struct Summing<'a, R> {
    reader: R,
    sum: &'a mut Hasher,
}

impl<R: Read> Read for Summing<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(out)?;
        self.sum.update(&out[..n]);
        Ok(n)
    }
}

/// The header that goes before these bytes of an index.
pub(super) fn header_of(index: &[u8], data_len: u64) -> Header {
    let index_len = index.len() as u64;
    let mut header = Header { crc32: 0, index_len, file_len: HEADER + index_len + data_len };
    let mut sum = Hasher::new();
    sum.update(&header.bytes()[SUMMED as usize..]);
    sum.update(index);
    header.crc32 = sum.finalize();
    header
}
