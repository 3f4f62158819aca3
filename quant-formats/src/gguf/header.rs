//! The header of a GGUF file, checked whole before any tensor is touched.
//!
//! ```text
//! magic "GGUF", u32 version, u64 number of tensors, u64 number of keys
//! a key:     string name, u32 type, value        string: u64 length, bytes        array: u32 item type, u64 count, items
//! a tensor:  string name, u32 rank, u64 dimension × rank (fastest first), u32 type, u64 offset from the start of the data
//! padding to general.alignment (a u32; 32 if there is none), data
//! ```
//!
//! Everything is little-endian. Versions 2 and 3 are the same in this form; 3 only allows big-endian files beside it.
//! Source: the GGUF specification and `gguf.cpp` of ggml 0.25.3. Tensors may lie in any order and with gaps between them,
//! arrays may hold arrays, names may have 64 bytes: the specification allows it, ggml refuses it.

use std::collections::HashSet;
use std::ops::Range;

use quant_core::dtype::n_elements;
use quant_core::{Error, Result, Scheme, ggml};

use super::cursor::{Cursor, Subject};
use super::entry::{Entry, Kind};
use crate::checkpoint::At;
use crate::input::Input;

/// The longest metadata that is read, in bytes.
const MAX_HEADER: u64 = 1 << 30;
/// The longest string, in bytes.
const MAX_STRING: u64 = 64 << 20;
/// The longest string that is kept, in bytes; longer ones stay in the file.
const MAX_KEPT: u64 = 4 << 10;
/// The longest key, in bytes: that of the specification.
const MAX_KEY: u64 = 65_535;
/// The longest name of a tensor, in bytes: that of the specification.
pub(super) const MAX_NAME: u64 = 64;
/// The most keys, and the most tensors: far beyond any model, and still of little memory.
const MAX_ENTRIES: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 17;
/// The highest rank.
pub(super) const MAX_RANK: u32 = 4;
/// How deep arrays may hold arrays.
const MAX_DEPTH: u32 = 8;
/// The largest alignment, in bytes.
const MAX_ALIGNMENT: u32 = 1 << 20;
/// The alignment of a file that does not say.
pub(super) const ALIGNMENT: u64 = 32;
/// The key that says it.
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";

/// The least bytes of a key with its value, of a tensor, of a string and of an array.
const MIN_ENTRY: u64 = 8 + 1 + 4 + 1;
const MIN_TENSOR: u64 = 8 + 1 + 4 + 4 + 8;
const MIN_STRING: u64 = 8;
const MIN_ARRAY: u64 = 4 + 8;

/// A checked header.
#[derive(Debug)]
pub(super) struct Header {
    /// Where the data begins; the end of the file at the latest.
    pub(super) data_start: u64,
    /// Where the padding before the data begins.
    pub(super) padding_start: u64,
    /// What the start of each tensor is a multiple of, counted from the start of the data, in bytes.
    pub(super) alignment: u64,
    /// The keys with their values, in order. Long ones lie in input 0.
    pub(super) entries: Vec<Entry>,
    /// The tensors, in order.
    pub(super) tensors: Vec<Info>,
}

/// One tensor of a header.
#[derive(Debug)]
pub(super) struct Info {
    /// Its name.
    pub(super) name: String,
    /// Its scheme.
    pub(super) scheme: Scheme,
    /// Its shape, row-major: the dimensions of the file in reverse.
    pub(super) shape: Vec<u64>,
    /// Its bytes, from the start of the file.
    pub(super) range: Range<u64>,
    /// Whether its type is unknown: then its bytes go on to the next tensor.
    is_unknown: bool,
}

/// Reads the metadata of a GGUF file that is the given range of `input`, whatever tensors it has.
///
/// # Errors
/// As [`read`].
pub(crate) fn metadata(input: &Input, range: Range<u64>) -> Result<Vec<Entry>> {
    let mut cursor = Cursor::new(input, range);
    check_magic(&mut cursor)?;
    check_version(&mut cursor)?;
    cursor.count(MIN_TENSOR, MAX_TENSORS, "tensors")?;
    let n_entries = cursor.count(MIN_ENTRY, MAX_ENTRIES, "keys")?;
    Ok(entries(&mut cursor, n_entries)?.0)
}

/// Reads and checks the header of `input`. Tensors of unknown types are refused, or reach as far as the next one.
///
/// # Errors
/// If anything is not as it should be, naming the key or tensor and the offset.
pub(super) fn read(input: &Input, unknown_types: bool) -> Result<Header> {
    let mut cursor = Cursor::new(input, 0..MAX_HEADER);
    check_magic(&mut cursor)?;
    check_version(&mut cursor)?;
    let n_tensors = cursor.count(MIN_TENSOR, MAX_TENSORS, "tensors")?;
    let n_entries = cursor.count(MIN_ENTRY, MAX_ENTRIES, "keys")?;
    let (entries, alignment) = entries(&mut cursor, n_entries)?;
    let mut tensors = infos(&mut cursor, n_tensors, alignment, unknown_types)?;
    let padding_start = cursor.offset();
    let data_start = match padding_start.next_multiple_of(alignment) {
        start if start <= input.len() => start,
        _ if tensors.is_empty() => input.len(),
        start => return Err(cursor.bad(padding_start, format!("the file ends before its data: found {} bytes, needed {start}", input.len()))),
    };
    locate(input, data_start, &mut tensors)?;
    refuse_overlaps(input, &tensors)?;
    Ok(Header { data_start, padding_start, alignment, entries, tensors })
}

fn check_magic(cursor: &mut Cursor) -> Result<()> {
    let magic = <[u8; 4]>::try_from(cursor.bytes(4, "the magic of a GGUF file")?).unwrap_or_default();
    let cause = match &magic {
        b"GGUF" => return Ok(()),
        b"FUGG" => " (the magic in reverse order: written for another byte order)",
        [0, 0, 0, 0] => " (llama-quantize writes the header last: a file that was never finished?)",
        b"ggml" | b"ggmf" | b"ggjt" | b"algg" | b"lmgg" | b"fmgg" | b"tjgg" => " (an ancestor of GGUF; convert the original model again)",
        _ => "",
    };
    Err(cursor.bad(0, format!("not a GGUF file: it begins with \"{}\" instead of \"GGUF\"{cause}", magic.escape_ascii())))
}

fn check_version(cursor: &mut Cursor) -> Result<()> {
    let problem = match cursor.u32("the version")? {
        2 | 3 => return Ok(()),
        1 => "GGUF version 1 is not read; convert the original model again with a current llama.cpp".into(),
        v if v & 0xffff == 0 && v != 0 => "a big-endian GGUF file; convert it with gguf-convert-endian of gguf-py first".into(),
        v => format!("GGUF version {v} is not known; 2 and 3 are read"),
    };
    Err(cursor.bad(4, problem))
}

/// The keys with their values, and the alignment.
fn entries(cursor: &mut Cursor, n: u64) -> Result<(Vec<Entry>, u64)> {
    let (mut entries, mut seen, mut alignment) = (Vec::new(), HashSet::new(), ALIGNMENT);
    for _ in 0..n {
        cursor.subject = Subject::File;
        let at = cursor.offset();
        let key = name(cursor, MAX_KEY, "a key")?;
        cursor.subject = Subject::Key(shown(&key));
        if !seen.insert(key.clone()) {
            return Err(cursor.bad(at, "comes twice"));
        }
        let kind = kind(cursor)?;
        let at = cursor.offset();
        let entry = entry(cursor, key, kind)?;
        if entry.key == ALIGNMENT_KEY {
            alignment = self::alignment(&entry).map_err(|problem| cursor.bad(at, problem))?;
        }
        entries.push(entry);
    }
    cursor.subject = Subject::File;
    Ok((entries, alignment))
}

/// A key, or the name of a tensor.
fn name(cursor: &mut Cursor, max: u64, what: &str) -> Result<String> {
    let at = cursor.offset();
    let len = cursor.len(max, what)?;
    let name = cursor.text(len, what)?.to_owned();
    match name_problem(&name) {
        Some(problem) => Err(cursor.bad(at, format!("{what} {problem}"))),
        None => Ok(name),
    }
}

/// Why a name of a key or a tensor cannot be one, if so.
pub(super) fn name_problem(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("is empty"),
        // To readers in C it would be the same as what stands before the NUL.
        _ if name.contains('\0') => Some("has a NUL in it"),
        _ => None,
    }
}

/// A key for messages: whole if it is short.
fn shown(key: &str) -> String {
    match key.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &key[..end]),
        None => key.into(),
    }
}

fn kind(cursor: &mut Cursor) -> Result<Kind> {
    let at = cursor.offset();
    let id = cursor.u32("the type of a value")?;
    Kind::from_id(id).ok_or_else(|| cursor.bad(at, format!("found a value of type {id}; known are 0 to 12")))
}

/// Reads the value of `key`.
fn entry(cursor: &mut Cursor, key: String, kind: Kind) -> Result<Entry> {
    let offset = cursor.offset();
    let (items, bytes) = match kind {
        Kind::String => (None, string(cursor)?),
        Kind::Array => (Some(array(cursor, 1)?), None),
        Kind::Bool => (None, Some(bools(cursor, 1)?)),
        _ => (None, Some(cursor.bytes(kind.n_bytes().unwrap_or(0) as usize, "a value")?.to_vec())),
    };
    let at = bytes.map_or(At::File { input: 0, offset }, At::Bytes);
    Ok(Entry { key, kind, items, n_bytes: cursor.offset() - offset, at })
}

/// The value of a string, if it is kept.
fn string(cursor: &mut Cursor) -> Result<Option<Vec<u8>>> {
    let len = cursor.len(MAX_STRING, "a string")?;
    let text = cursor.text(len, "a string")?;
    Ok((len <= MAX_KEPT).then(|| [&len.to_le_bytes(), text.as_bytes()].concat()))
}

/// Steps over an array; its item type and count. The strings in it are bytes: some tokens are no UTF-8.
fn array(cursor: &mut Cursor, depth: u32) -> Result<(Kind, u64)> {
    let at = cursor.offset();
    if depth > MAX_DEPTH {
        return Err(cursor.bad(at, format!("arrays lie more than {MAX_DEPTH} deep in each other")));
    }
    let kind = kind(cursor)?;
    let min = match kind {
        Kind::String => MIN_STRING,
        Kind::Array => MIN_ARRAY,
        _ => kind.n_bytes().unwrap_or(1),
    };
    let n = cursor.count(min, u64::MAX, "items")?;
    match kind {
        Kind::String => cursor.skip_strings(n, MAX_STRING, "a string of an array")?,
        Kind::Array => (0..n).try_for_each(|_| array(cursor, depth + 1).map(drop))?,
        Kind::Bool => {
            let mut left = n;
            while left > 0 {
                left -= bools(cursor, left.min(4096) as usize)?.len() as u64;
            }
        }
        // No overflow: the count was held against the bytes that are left.
        _ => cursor.skip(n * min, "an array")?,
    }
    Ok((kind, n))
}

fn bools(cursor: &mut Cursor, n: usize) -> Result<Vec<u8>> {
    let at = cursor.offset();
    let bytes = cursor.bytes(n, "a bool")?.to_vec();
    match bytes.iter().position(|&b| b > 1) {
        Some(i) => Err(cursor.bad(at + i as u64, format!("found a bool of {}, needed 0 or 1", bytes[i]))),
        None => Ok(bytes),
    }
}

pub(super) fn alignment(entry: &Entry) -> std::result::Result<u64, String> {
    let Some(n) = entry.unsigned().filter(|_| entry.kind == Kind::U32) else {
        return Err(format!("is of type {}, needed uint32", entry.kind.name()));
    };
    if n.is_power_of_two() && n <= MAX_ALIGNMENT.into() {
        return Ok(n);
    }
    Err(format!("found an alignment of {n}, needed a power of two up to {MAX_ALIGNMENT}"))
}

/// The tensors; their ranges still count from the start of the data.
fn infos(cursor: &mut Cursor, n: u64, alignment: u64, unknown_types: bool) -> Result<Vec<Info>> {
    let (mut infos, mut seen) = (Vec::new(), HashSet::new());
    for _ in 0..n {
        cursor.subject = Subject::File;
        let at = cursor.offset();
        let name = name(cursor, MAX_NAME, "the name of a tensor")?;
        cursor.subject = Subject::Tensor(name.clone());
        if !seen.insert(name.clone()) {
            return Err(cursor.bad(at, "comes twice"));
        }
        infos.push(info(cursor, name, alignment, unknown_types)?);
    }
    cursor.subject = Subject::File;
    Ok(infos)
}

fn info(cursor: &mut Cursor, name: String, alignment: u64, unknown_types: bool) -> Result<Info> {
    let at = cursor.offset();
    let rank = cursor.u32("its rank")?;
    if rank > MAX_RANK {
        return Err(cursor.bad(at, format!("found {rank} dimensions, at most {MAX_RANK} are possible")));
    }
    let mut shape = (0..rank).map(|_| cursor.u64("a dimension")).collect::<Result<Vec<_>>>()?;
    shape.reverse();
    let type_at = cursor.offset();
    let id = cursor.u32("its type")?;
    let scheme = scheme(id).map_err(|problem| cursor.bad(type_at, problem))?;
    let block = ggml::block_of(id);
    if block.is_none() && !unknown_types {
        let problem = format!(
            "its type, number {id}, is not known (ggml 0.25.3 ends at 42), so neither is its size; --unknown-types takes it to reach as far as the next tensor"
        );
        return Err(cursor.bad(type_at, problem));
    }
    let (block_len, block_bytes) = block.unwrap_or((1, 0));
    let n_bytes = n_bytes(&shape, scheme, block_len, block_bytes).map_err(|problem| cursor.bad(at, problem))?;
    let at = cursor.offset();
    let start = cursor.u64("its offset")?;
    if !start.is_multiple_of(alignment) {
        return Err(cursor.bad(at, format!("found an offset of {start}, needed a multiple of {alignment}")));
    }
    let end = start.checked_add(n_bytes).ok_or_else(|| cursor.bad(at, format!("an offset of {start} and {n_bytes} bytes pass 2^64")))?;
    Ok(Info { name, scheme, shape, range: start..end, is_unknown: block.is_none() })
}

fn scheme(id: u32) -> std::result::Result<Scheme, String> {
    ggml::scheme_of(id).map_err(|gone| {
        format!("its type {gone} (number {id}) was given up by ggml and cannot be read; convert the original model again with a current llama.cpp")
    })
}

/// The size of a tensor. Blocks are counted before they are multiplied, so that no product wraps.
fn n_bytes(shape: &[u64], scheme: Scheme, block: u64, block_bytes: u64) -> std::result::Result<u64, String> {
    let row = shape.last().copied().unwrap_or(1);
    // As in ggml, where dimensions and sizes are signed.
    let signed = |n: &u64| i64::try_from(*n).is_ok();
    let n = n_elements(shape).filter(signed).filter(|_| shape.iter().all(signed));
    let n = n.ok_or_else(|| format!("shape {shape:?} has more elements than 63 bits can count"))?;
    if !row.is_multiple_of(block) {
        return Err(format!("{scheme} needs rows of a multiple of {block} elements, found shape {shape:?}"));
    }
    let n_bytes = (n / block).checked_mul(block_bytes).filter(signed);
    n_bytes.ok_or_else(|| format!("shape {shape:?} of {scheme} has more bytes than 63 bits can count"))
}

/// Makes the ranges count from the start of the file and checks that they lie in it.
fn locate(input: &Input, data_start: u64, tensors: &mut [Info]) -> Result<()> {
    for tensor in &mut *tensors {
        let Range { start, end } = tensor.range;
        let moved = data_start.checked_add(start).zip(data_start.checked_add(end));
        let Some((from, to)) = moved.filter(|&(_, end)| end <= input.len()) else {
            let (n, data) = (end - start, input.len() - data_start);
            let problem = format!("the file ends inside its data: found {data} bytes of data, needed {n} from {start} on");
            return Err(Error::tensor(input.path(), &tensor.name, problem).at(data_start.saturating_add(start)));
        };
        tensor.range = from..to;
    }
    let mut starts: Vec<u64> = tensors.iter().map(|t| t.range.start).collect();
    starts.sort_unstable();
    for tensor in tensors.iter_mut().filter(|t| t.is_unknown) {
        let next = starts.partition_point(|&start| start <= tensor.range.start);
        tensor.range.end = starts.get(next).copied().unwrap_or(input.len());
    }
    Ok(())
}

fn refuse_overlaps(input: &Input, tensors: &[Info]) -> Result<()> {
    let mut before: Option<&Info> = None;
    for tensor in by_offset(tensors) {
        if let Some(other) = before.filter(|other| other.range.end > tensor.range.start) {
            let problem = format!("its data overlaps that of tensor '{}', which ends at byte {}", other.name, other.range.end);
            return Err(Error::tensor(input.path(), &tensor.name, problem).at(tensor.range.start));
        }
        before = Some(tensor);
    }
    Ok(())
}

/// The tensors that have data, by where it lies.
pub(super) fn by_offset(tensors: &[Info]) -> Vec<&Info> {
    let mut sorted: Vec<&Info> = tensors.iter().filter(|t| !t.range.is_empty()).collect();
    sorted.sort_by_key(|t| t.range.start);
    sorted
}
