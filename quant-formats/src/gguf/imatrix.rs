//! [`ImportanceMatrix`]: how much each column of a tensor matters, as llama-imatrix has measured it.
//!
//! Two kinds of files, and what a value is worth in them:
//!
//! ```text
//! GGUF     NAME.in_sum2, F32 [columns, experts], and NAME.counts, F32 [1, experts]:
//!          in_sum2 / round(count) of the expert; 1 for every column of an expert that no token has reached
//! legacy   i32 entries; for each i32 length, name, i32 calls, i32 values, f32 × values;
//!          then, if anything, i32 chunks, i32 length, name of the data set:
//!          value / calls; the value itself if there were no calls
//! ```
//!
//! All division is of f32 by f32. Only the counts are kept: values are read as they are needed, and once at the start, to
//! refuse those that are not finite. Source: `common_imatrix_load` and `load_imatrix` of llama.cpp 0.5.0-dev.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use quant_core::source::Importance;
use quant_core::{Dtype, Error, Result, Scheme};

use super::cursor::{Cursor, Subject};
use super::entry::{Entry, Kind, find};
use super::header::{self, Header, Info};
use crate::Checkpoint;
use crate::checkpoint::At;
use crate::input::{Identity, Input, Io};

const DATASETS: &str = "imatrix.datasets";
const CHUNK_COUNT: &str = "imatrix.chunk_count";
const CHUNK_SIZE: &str = "imatrix.chunk_size";
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// Bytes of a value.
const VALUE: u64 = 4;
/// Values that are read at once.
const CHUNK: usize = 16 << 10;
/// The most names of data sets that are kept.
const MAX_DATASETS: u64 = 1024;
/// The least bytes of an entry of a legacy file: the length of a name, calls, the number of values, one value.
const MIN_ENTRY: u64 = 4 * 4;

/// An opened importance matrix.
#[derive(Debug)]
pub struct ImportanceMatrix {
    input: Arc<Input>,
    entries: BTreeMap<String, Arc<Values>>,
    datasets: Vec<String>,
    n_chunks: u32,
}

impl ImportanceMatrix {
    /// Opens a GGUF file or a legacy one, and checks every value.
    ///
    /// # Errors
    /// If it is neither, is damaged, lacks the keys `imatrix.*`, or a value is not finite.
    pub fn open(path: &Path, io: Io) -> Result<Arc<ImportanceMatrix>> {
        let input = Arc::new(Input::open(path, io)?);
        let mut magic = [0; 4];
        let n = input.len().min(4) as usize;
        input.read_at(0, &mut magic[..n])?;
        let matrix = if magic == *b"GGUF" { read_gguf(&input)? } else { read_legacy(&input)? };
        if matrix.entries.is_empty() {
            return Err(Error::file(path, "holds no importance of any tensor"));
        }
        matrix.entries.iter().try_for_each(|(name, values)| values.check(name))?;
        Ok(Arc::new(matrix))
    }

    /// The names of the tensors it knows, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The number of tensors it knows.
    pub fn n_entries(&self) -> usize {
        self.entries.len()
    }

    /// The number of values for tensor `name`: its columns times its experts.
    pub fn n_values(&self, name: &str) -> Option<u64> {
        self.entries.get(name).map(|values| values.n)
    }

    /// The importance of the columns of tensor `name`.
    pub fn of(self: &Arc<Self>, name: &str) -> Option<Arc<dyn Importance>> {
        self.entries.get(name).map(|values| Arc::clone(values) as Arc<dyn Importance>)
    }

    /// The texts it was measured on, at most 1024 of them. What is not UTF-8 in a name is replaced.
    pub fn datasets(&self) -> &[String] {
        &self.datasets
    }

    /// The number of chunks of text it was measured on; 0 if it does not say.
    pub fn n_chunks(&self) -> u32 {
        self.n_chunks
    }

    /// Drops the entries whose name contains one of `exclude` and, if there is any in `include`, those whose name contains
    /// none of them. Nothing may be left.
    pub fn retain(&mut self, include: &[String], exclude: &[String]) {
        let any = |texts: &[String], name: &str| texts.iter().any(|text| name.contains(text.as_str()));
        self.entries.retain(|name, _| !any(exclude, name) && (include.is_empty() || any(include, name)));
    }

    /// Which file it is: an output must not be that.
    pub fn identity(&self) -> Identity {
        self.input.identity()
    }

    /// That it has another number of values for a tensor than that has columns.
    pub(crate) fn of_other_model(&self, name: &str, found: u64, needed: u64) -> Error {
        let problem = format!("is of another model: found {found} values, needed {needed}, one a column of each expert");
        Error::tensor(self.input.path(), name, problem)
    }

    /// Checks that the file has not changed since it was opened.
    ///
    /// # Errors
    /// If it has.
    pub fn check_unchanged(&self) -> Result<()> {
        self.input.check_unchanged()
    }
}

/// Refuses an importance matrix where a model is needed: it has tensors, but no weights.
///
/// # Errors
/// If it is one.
pub fn refuse_as_model(checkpoint: &Checkpoint) -> Result<()> {
    match find(&checkpoint.kv, "general.type").and_then(Entry::text) {
        Some("imatrix") => Err(Error::file(&checkpoint.path, "is an importance matrix, needed a model; --imatrix takes it")),
        _ => Ok(()),
    }
}

/// The values of one tensor, in the file.
#[derive(Debug)]
struct Values {
    input: Arc<Input>,
    /// Where the first lies.
    offset: u64,
    /// How many they are.
    n: u64,
    /// What the values of each expert are divided by; 0 makes all of them 1. One expert at least; it divides `n`.
    divisors: Vec<f32>,
}

impl Values {
    /// Checks that all of them are finite and not negative: they are means of squares.
    fn check(&self, name: &str) -> Result<()> {
        let mut buffer = [0.0; CHUNK];
        let mut at = 0;
        while at < self.n {
            let values = &mut buffer[..(self.n - at).min(CHUNK as u64) as usize];
            self.read(at, values)?;
            if let Some(i) = values.iter().position(|v| !(v.is_finite() && *v >= 0.0)) {
                let problem = format!("the importance of column {} is {}, needed a mean of squares", at + i as u64, values[i]);
                return Err(Error::tensor(self.input.path(), name, problem).at(self.offset + (at + i as u64) * VALUE));
            }
            at += values.len() as u64;
        }
        Ok(())
    }
}

impl Importance for Values {
    fn read(&self, at: u64, out: &mut [f32]) -> Result<()> {
        if at.checked_add(out.len() as u64).is_none_or(|end| end > self.n) {
            let problem = format!("needed {} importances from {at} on, there are {}", out.len(), self.n);
            return Err(Error::file(self.input.path(), problem));
        }
        let row = self.n / self.divisors.len() as u64;
        let mut bytes = vec![0; out.len().min(CHUNK) * VALUE as usize];
        let mut at = at;
        for out in out.chunks_mut(CHUNK) {
            let bytes = &mut bytes[..out.len() * VALUE as usize];
            self.input.read_at(self.offset + at * VALUE, bytes)?;
            for (value, bytes) in out.iter_mut().zip(bytes.chunks_exact(VALUE as usize)) {
                *value = f32::from_le_bytes(bytes.try_into().unwrap_or_default());
            }
            at = self.divide(at, row, out);
        }
        Ok(())
    }
}

impl Values {
    /// Divides what was read from `at` on by the counts of the experts it belongs to, `row` values each; where it ends.
    fn divide(&self, mut at: u64, row: u64, mut values: &mut [f32]) -> u64 {
        while !values.is_empty() {
            let n = (row - at % row).min(values.len() as u64) as usize;
            let (these, rest) = values.split_at_mut(n);
            match self.divisors[(at / row) as usize] {
                0.0 => these.fill(1.0),
                divisor => these.iter_mut().for_each(|v| *v /= divisor),
            }
            values = rest;
            at += n as u64;
        }
        at
    }
}

/// Reads everything but the values of a GGUF file.
///
/// # Errors
/// If the file is damaged, is another kind of GGUF file, or sums and counts do not belong together.
fn read_gguf(input: &Arc<Input>) -> Result<ImportanceMatrix> {
    let header = header::read(input, false)?;
    let key = |key: &str| {
        let missing = || Error::file(input.path(), format!("not an importance matrix: it has no key '{key}'"));
        find(&header.entries, key).ok_or_else(missing)
    };
    let number = |name: &str| {
        let entry = key(name)?;
        let value = entry.unsigned().filter(|_| entry.kind == Kind::U32);
        let value = value.and_then(|n| u32::try_from(n).ok());
        value.ok_or_else(|| Error::file(input.path(), format!("key '{name}': is of type {}, needed uint32", entry.kind.name())))
    };
    let (datasets, n_chunks, _) = (datasets(input, key(DATASETS)?)?, number(CHUNK_COUNT)?, number(CHUNK_SIZE)?);
    // To llama-quantize it is a signed number.
    let n_chunks = if i32::try_from(n_chunks).is_ok() { n_chunks } else { 0 };
    Ok(ImportanceMatrix { input: Arc::clone(input), entries: entries(input, &header)?, datasets, n_chunks })
}

fn datasets(input: &Input, entry: &Entry) -> Result<Vec<String>> {
    let (Some((Kind::String, n)), At::File { offset, .. }) = (entry.items, &entry.at) else { return Ok(Vec::new()) };
    let mut cursor = Cursor::new(input, 0..u64::MAX);
    // Before the strings of an array are its item type and its count.
    cursor.skip(offset + 4 + 8, "the keys")?;
    let n = n.min(MAX_DATASETS);
    (0..n)
        .map(|_| {
            let len = cursor.len(64 << 10, "the name of a data set")? as usize;
            Ok(String::from_utf8_lossy(cursor.bytes(len, "the name of a data set")?).into_owned())
        })
        .collect()
}

fn entries(input: &Arc<Input>, header: &Header) -> Result<BTreeMap<String, Arc<Values>>> {
    let mut pairs: BTreeMap<&str, [Option<&Info>; 2]> = BTreeMap::new();
    for info in &header.tensors {
        if let Some(name) = info.name.strip_suffix(SUMS) {
            pairs.entry(name).or_default()[0] = Some(info);
        } else if let Some(name) = info.name.strip_suffix(COUNTS) {
            pairs.entry(name).or_default()[1] = Some(info);
        }
    }
    let values = |(name, pair): (&str, [Option<&Info>; 2])| {
        let values = values(input, pair).map_err(|e| match e {
            Error::Request(problem) => Error::tensor(input.path(), name, problem),
            other => other,
        })?;
        Ok((name.to_owned(), Arc::new(values)))
    };
    pairs.into_iter().map(values).collect()
}

/// The values of one tensor, from its sums and its counts.
fn values(input: &Arc<Input>, pair: [Option<&Info>; 2]) -> Result<Values> {
    let [Some(sums), Some(counts)] = pair else {
        let lacking = if pair[0].is_none() { SUMS } else { COUNTS };
        return Err(Error::request(format!("there is no '{lacking}' of it")));
    };
    if let Some(other) = [sums, counts].into_iter().find(|info| info.scheme != Scheme::Dense(Dtype::F32)) {
        return Err(Error::request(format!("'{}' is of type {}, needed f32", other.name, other.scheme)));
    }
    let len = |info: &Info| (info.range.end - info.range.start) / VALUE;
    let (n, n_counts) = (len(sums), len(counts));
    if n_counts == 0 || !n.is_multiple_of(n_counts) {
        return Err(Error::request(format!("found {n_counts} counts for {n} sums")));
    }
    let divisors = (0..n_counts).map(|i| count(input, counts.range.start + i * VALUE)).collect::<Result<_>>()?;
    Ok(Values { input: Arc::clone(input), offset: sums.range.start, n, divisors })
}

/// The count at `offset`, rounded as the reference rounds it; 0 if it is not positive.
fn count(input: &Input, offset: u64) -> Result<f32> {
    let mut bytes = [0; VALUE as usize];
    input.read_at(offset, &mut bytes)?;
    let count = f32::from_le_bytes(bytes);
    // From 2^63 on, the reference's conversion to an integer is undefined.
    if !count.is_finite() || count.abs() >= 9.2e18 {
        return Err(Error::request(format!("found a count of {count}")));
    }
    Ok(count.round().max(0.0))
}

/// Reads everything but the values of a legacy file.
///
/// # Errors
/// If the file is damaged or of another kind.
fn read_legacy(input: &Arc<Input>) -> Result<ImportanceMatrix> {
    let mut cursor = Cursor::new(input, 0..u64::MAX);
    let n = cursor.u32("the number of entries")? as i32;
    let room = cursor.left() / MIN_ENTRY;
    let Some(n) = u64::try_from(n).ok().filter(|&n| (1..=room).contains(&n)) else {
        let problem = format!("not an importance matrix: found a count of {n} entries, the {} bytes after it hold at most {room}", cursor.left());
        return Err(cursor.bad(0, problem));
    };
    let mut entries = BTreeMap::new();
    for _ in 0..n {
        let at = cursor.offset();
        let (name, values) = legacy_entry(input, &mut cursor)?;
        if entries.contains_key(&name) {
            cursor.subject = Subject::Tensor(name);
            return Err(cursor.bad(at, "comes twice"));
        }
        entries.insert(name, Arc::new(values));
    }
    cursor.subject = Subject::File;
    let (n_chunks, datasets) = legacy_end(&mut cursor)?;
    Ok(ImportanceMatrix { input: Arc::clone(input), entries, datasets, n_chunks })
}

/// A number that must not be negative.
fn legacy_size(cursor: &mut Cursor, what: &str) -> Result<u64> {
    let at = cursor.offset();
    let n = cursor.u32(what)? as i32;
    u64::try_from(n).map_err(|_| cursor.bad(at, format!("{what} is {n}")))
}

fn legacy_entry(input: &Arc<Input>, cursor: &mut Cursor) -> Result<(String, Values)> {
    cursor.subject = Subject::File;
    let at = cursor.offset();
    let len = legacy_size(cursor, "the length of a name")?;
    if len == 0 {
        return Err(cursor.bad(at, "not an importance matrix: found an entry without a name, needed a file of llama-imatrix"));
    }
    let mut name = cursor.text(len, "the name of a tensor")?;
    // The reference takes it for a string of C.
    name.truncate(name.find('\0').unwrap_or(name.len()));
    cursor.subject = Subject::Tensor(name.clone());
    let calls = cursor.u32("the number of calls")? as i32;
    let at = cursor.offset();
    let n = legacy_size(cursor, "the number of values")?;
    if n == 0 {
        return Err(cursor.bad(at, "it has no values"));
    }
    let offset = cursor.offset();
    cursor.skip(n * VALUE, "its values")?;
    let divisor = if calls > 0 { calls as f32 } else { 1.0 };
    Ok((name, Values { input: Arc::clone(input), offset, n, divisors: vec![divisor] }))
}

/// The number of chunks and the data set, which older files lack.
fn legacy_end(cursor: &mut Cursor) -> Result<(u32, Vec<String>)> {
    if cursor.left() == 0 {
        return Ok((0, Vec::new()));
    }
    let n_chunks = (cursor.u32("the number of chunks")? as i32).max(0) as u32;
    if cursor.left() == 0 {
        return Ok((n_chunks, Vec::new()));
    }
    let len = (cursor.u32("the length of the name of a data set")? as i32).max(0) as usize;
    let name = cursor.bytes(len, "the name of a data set")?;
    let name = name.split(|&b| b == 0).next().unwrap_or_default();
    let datasets = if len == 0 { Vec::new() } else { vec![String::from_utf8_lossy(name).into_owned()] };
    Ok((n_chunks, datasets))
}
