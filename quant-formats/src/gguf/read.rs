//! Opening a GGUF file, or the set of files that it is one of.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use quant_core::source::{Role, Stored, Tensor};
use quant_core::{Dtype, Error, Result, Scheme};

use super::entry::Entry;
use super::header::{self, Header, Info};
use super::split::{self, ShardName, Split};
use crate::checkpoint::{At, Checkpoint, Format, Gap, Origin, OriginFile, OriginFormat, Place, SideFile};
use crate::input::{Input, Opening};

/// The key that all files of a model must agree on, where they have it.
const ARCHITECTURE: &str = "general.architecture";
/// The most bytes of padding that are looked at.
const MAX_PADDING: u64 = 16 << 20;

/// A file of a model, with its checked header.
struct Shard {
    input: Input,
    header: Header,
    split: Split,
}

impl Shard {
    fn read(input: Input, unknown_types: bool) -> Result<Shard> {
        let header = header::read(&input, unknown_types)?;
        let split = Split::read(input.path(), &header.entries)?;
        Ok(Shard { input, header, split })
    }

    fn path(&self) -> &Path {
        self.input.path()
    }
}

/// Opens the model that `input` is a file of.
///
/// # Errors
/// If a header is not as it should be, a file of a set is missing, or the files contradict each other.
pub(crate) fn open(input: Input, opening: Opening) -> Result<Checkpoint> {
    let path = PathBuf::from(input.path());
    let shard = Shard::read(input, opening.unknown_types)?;
    let shards = if shard.split.is_shard() { siblings(shard, opening)? } else { vec![shard] };
    let n_tensors = shards.iter().map(|s| s.header.tensors.len() as u64).sum();
    shards.iter().try_for_each(|s| s.split.check_total(s.path(), n_tensors))?;
    refuse_duplicates(&shards)?;
    let mut notes = Vec::new();
    check_metadata(&shards, &mut notes)?;
    let origin = origin(&shards, &mut notes)?;
    let mut checkpoint = Checkpoint {
        format: Format::Gguf,
        path,
        tensors: shards.iter().flat_map(|s| &s.header.tensors).map(tensor).collect(),
        places: origin.places.iter().map(|parts| parts.iter().flatten().map(at).collect()).collect(),
        inputs: Vec::new(),
        metadata: Vec::new(),
        kv: Vec::new(),
        side_files: Vec::new(),
        origin: Some(origin),
        notes,
        base: None,
        errors: Vec::new(),
        original: None,
    };
    for (i, shard) in shards.into_iter().enumerate() {
        if i == 0 {
            checkpoint.kv = shard.header.entries;
        }
        checkpoint.inputs.push(shard.input);
    }
    crate::open::settle(&mut checkpoint)?;
    Ok(checkpoint)
}

/// The GGUF file that stands for a folder: the only one, or the first of the only set of shards. None if the folder holds
/// safetensors, or no GGUF file.
///
/// # Errors
/// If there are several, or the folder cannot be listed.
pub(crate) fn find(folder: &Path) -> Result<Option<PathBuf>> {
    let names = crate::input::list(folder).map_err(|e| Error::io("list", folder, e))?;
    let is_called = |name: &&OsString, ending: &str| Path::new(name).extension().is_some_and(|e| e.eq_ignore_ascii_case(ending));
    if names.iter().any(|name| is_called(&name, "safetensors")) {
        return Ok(None);
    }
    let models = names.iter().filter(|name| is_called(name, "gguf"));
    // All shards of a set but the first are left out.
    let models: Vec<&OsString> = models.filter(|name| ShardName::parse(name).is_none_or(|shard| shard.no == 1)).collect();
    match models[..] {
        [] => Ok(None),
        [only] => Ok(Some(folder.join(only))),
        _ => Err(Error::file(folder, format!("found {} GGUF models in the folder; name one of the files", models.len()))),
    }
}

/// All files of the set that `given` is one of, in order.
fn siblings(given: Shard, opening: Opening) -> Result<Vec<Shard>> {
    let path = PathBuf::from(given.path());
    // The split has been held against the name, so there is one.
    let Some(name) = path.file_name().and_then(ShardName::parse) else { return Ok(vec![given]) };
    let (mut given, mut shards) = (Some(given), Vec::new());
    for no in 1..=name.count {
        if let Some(given) = given.take_if(|_| no == name.no) {
            shards.push(given);
            continue;
        }
        let sibling = name.sibling(no);
        let missing = || Error::file(&path, format!("file {no} of {}, '{}', is missing beside it", name.count, sibling.display()));
        let input = Input::open(&path.with_file_name(&sibling), opening.io).map_err(|e| match e {
            Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => missing(),
            other => other,
        })?;
        shards.push(Shard::read(input, opening.unknown_types)?);
    }
    Ok(shards)
}

/// The same name in two files.
fn refuse_duplicates(shards: &[Shard]) -> Result<()> {
    let mut seen: HashMap<&str, &Shard> = HashMap::new();
    for shard in shards {
        for tensor in &shard.header.tensors {
            if let Some(first) = seen.insert(&tensor.name, shard) {
                return Err(Error::tensor(shard.path(), &tensor.name, format!("is also in {}", first.path().display())));
            }
        }
    }
    Ok(())
}

/// Only the first file of a set should have keys beside those of the split: its keys are those of the model.
fn check_metadata(shards: &[Shard], notes: &mut Vec<String>) -> Result<()> {
    let Some((first, others)) = shards.split_first() else { return Ok(()) };
    let known: HashMap<&str, &Entry> = first.header.entries.iter().map(|e| (e.key.as_str(), e)).collect();
    for shard in others {
        let is_extra = |e: &&Entry| !e.key.starts_with(split::KEYS) && e.key != header::ALIGNMENT_KEY;
        let is_other = |e: &&Entry| known.get(e.key.as_str()).is_none_or(|first| !is_same(first, e));
        let extra: Vec<&str> = shard.header.entries.iter().filter(is_extra).filter(is_other).map(|e| e.key.as_str()).collect();
        if known.contains_key(ARCHITECTURE) && extra.contains(&ARCHITECTURE) {
            let problem = format!("key '{ARCHITECTURE}' differs from that of {}: the files are of different models", first.path().display());
            return Err(Error::file(shard.path(), problem));
        }
        if let [key, rest @ ..] = &extra[..] {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            notes.push(format!("{}: key '{key}'{more} is not in the first file and does not count", shard.path().display()));
        }
    }
    Ok(())
}

/// Whether two values are known to be the same.
fn is_same(a: &Entry, b: &Entry) -> bool {
    a.kind == b.kind && matches!((&a.at, &b.at), (At::Bytes(a), At::Bytes(b)) if a == b)
}

fn at(place: &Place) -> At {
    At::File { input: place.file, offset: place.offset }
}

/// A tensor of one part.
fn tensor(info: &Info) -> Tensor {
    let n_bytes = info.range.end - info.range.start;
    let part = |name: &str, dtype, shape| vec![Stored { name: name.into(), dtype, shape, n_bytes }];
    let (dtype, parts) = match info.scheme {
        Scheme::Dense(dtype) => (dtype, part("data", dtype, info.shape.clone())),
        Scheme::Ggml(ty) => {
            let mut stored = info.shape.clone();
            if let Some(row) = stored.last_mut() {
                // No overflow: at most 2^63 elements, at most 9/8 bytes each.
                *row = *row / ty.block_len() * ty.block_bytes();
            }
            (Dtype::F32, part("blocks", Dtype::U8, stored))
        }
        _ => (Dtype::U8, part("data", Dtype::U8, vec![n_bytes])),
    };
    Tensor { name: info.name.clone(), shape: info.shape.clone(), dtype, scheme: info.scheme, role: Role::Other, parts, packed: None }
}

/// How the files lie; what is odd about that goes to `notes`.
fn origin(shards: &[Shard], notes: &mut Vec<String>) -> Result<Origin> {
    let mut origin = Origin { format: OriginFormat::Gguf, ..Origin::default() };
    for (file, shard) in shards.iter().enumerate() {
        let name = name(shard)?;
        let head = SideFile { name: name.clone(), n_bytes: shard.header.data_start, at: At::File { input: file, offset: 0 } };
        let gaps = gaps(shard, file);
        note_gaps(shard, &gaps, notes)?;
        origin.files.push(OriginFile { name, n_bytes: shard.input.len(), head, gaps });
        origin.places.extend(shard.header.tensors.iter().map(|t| vec![Some(Place { file, offset: t.range.start })]));
    }
    Ok(origin)
}

/// The name of a file of a set; none for a file on its own.
fn name(shard: &Shard) -> Result<String> {
    if !shard.split.is_shard() {
        return Ok(String::new());
    }
    let name = shard.path().file_name().and_then(|name| name.to_str());
    name.map(str::to_owned).ok_or_else(|| Error::file(shard.path(), "the file name is not valid UTF-8"))
}

/// What is neither head nor tensor.
fn gaps(shard: &Shard, file: usize) -> Vec<Gap> {
    let (mut gaps, mut from) = (Vec::new(), shard.header.data_start);
    let starts = header::by_offset(&shard.header.tensors).into_iter().map(|t| (t.range.start, t.range.end));
    for (start, end) in starts.chain([(shard.input.len(), shard.input.len())]) {
        if start > from {
            gaps.push(Gap { offset: from, n_bytes: start - from, at: At::File { input: file, offset: from } });
        }
        from = end;
    }
    gaps
}

/// Says what lies between the tensors that is not padding, and where padding is not as it is usually written.
fn note_gaps(shard: &Shard, gaps: &[Gap], notes: &mut Vec<String>) -> Result<()> {
    let Header { data_start, padding_start, alignment, .. } = shard.header;
    let (path, len) = (shard.path().display(), shard.input.len());
    let padding = |from: u64| (from - data_start).next_multiple_of(alignment) - (from - data_start);
    let unused: u64 = gaps.iter().map(|gap| gap.n_bytes.saturating_sub(padding(gap.offset))).sum();
    if unused > 0 {
        notes.push(format!("{path}: {unused} bytes belong to no tensor; only a copy of the whole file keeps them"));
    }
    let last = shard.header.tensors.iter().map(|t| t.range.end).max().unwrap_or(data_start);
    if last + padding(last) > len {
        notes.push(format!("{path}: the padding after the last tensor is missing"));
    }
    let mut left = MAX_PADDING;
    let gaps = gaps.iter().map(|gap| (gap.offset, gap.n_bytes.min(padding(gap.offset))));
    for (offset, n) in gaps.chain([(padding_start, data_start - padding_start)]) {
        // A power of two up to 1 MiB at most: nothing large is read at once.
        let Some(rest) = left.checked_sub(n) else { break };
        left = rest;
        let mut bytes = vec![0; n as usize];
        shard.input.read_at(offset, &mut bytes)?;
        if bytes.iter().any(|&b| b != 0) {
            notes.push(format!("{path}: the padding at byte {offset} is not zero; only a copy of the whole file keeps it"));
            break;
        }
    }
    Ok(())
}
