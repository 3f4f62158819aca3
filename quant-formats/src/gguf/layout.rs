//! Which tensor lies where in which GGUF file.
//!
//! Source: `gguf_write_to_buf` of ggml 0.25.3 for the order of things, `llama-gguf-split` of the same llama.cpp for shards.

use quant_core::error::Printable;
use quant_core::plan::{Plan, Planned};
use quant_core::{Error, Result, Scheme, ggml};

use super::entry::{Entry, Kind, find};
use super::header::{self, ALIGNMENT, ALIGNMENT_KEY, MAX_NAME, MAX_RANK, name_problem};
use crate::checkpoint::Place;

/// The version that is written.
const VERSION: u32 = 3;

/// How tensors are shared out among files.
#[derive(Clone, Debug)]
pub(crate) enum Shards {
    /// One file.
    One,
    /// A new file wherever one of the limits would be passed: bytes of tensors with their padding, number of tensors.
    Limits { n_bytes: u64, n_tensors: u64 },
    /// For each planned tensor its file, in ascending order, and how many files there are.
    Given(Vec<usize>, usize),
}

/// One tensor as a header describes it.
#[derive(Clone, Debug)]
pub(crate) struct Info {
    /// The index in the plan.
    pub(crate) tensor: usize,
    pub(crate) name: String,
    /// Fastest first.
    pub(crate) dims: Vec<u64>,
    pub(crate) type_id: u32,
    /// From the start of the data.
    pub(crate) offset: u64,
}

/// One file of the output.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) kv: Vec<Entry>,
    pub(crate) infos: Vec<Info>,
    /// Where the data begins.
    pub(crate) head: u64,
    pub(crate) n_bytes: u64,
}

/// The layout of a whole output.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) files: Vec<File>,
    pub(crate) places: Vec<Vec<Option<Place>>>,
}

impl Layout {
    /// Lays out a plan. `stem` is what the names of shards begin with; `keep_dims` keeps outer dimensions of 1.
    ///
    /// # Errors
    /// If GGUF has no type for a scheme, or cannot hold a shape, name or alignment.
    pub(crate) fn new(plan: &Plan, kv: &[Entry], shards: &Shards, stem: &str, keep_dims: bool) -> Result<Layout> {
        let alignment = alignment(kv)?;
        refuse_same_names(plan)?;
        let groups = share_out(plan, shards, alignment);
        let n = groups.len();
        let mut files = Vec::with_capacity(n);
        let mut places = vec![vec![None]; plan.tensors.len()];
        for (i, group) in groups.into_iter().enumerate() {
            let kv = match shards {
                Shards::One => kv.to_vec(),
                _ => shard_kv(
                    if i == 0 { kv.to_vec() } else { find(kv, ALIGNMENT_KEY).cloned().into_iter().collect() },
                    i,
                    n,
                    plan.tensors.len(),
                    matches!(shards, Shards::Given(..)),
                )?,
            };
            let name = if matches!(shards, Shards::One) { format!("{stem}.gguf") } else { format!("{stem}-{:05}-of-{n:05}.gguf", i + 1) };
            let file = File::new(name, kv, group, plan, alignment, keep_dims)?;
            for info in &file.infos {
                places[info.tensor] = vec![Some(Place { file: i, offset: file.head + info.offset })];
            }
            files.push(file);
        }
        Ok(Layout { files, places })
    }

    /// The bytes of all files.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.n_bytes).sum()
    }
}

impl File {
    fn new(name: String, kv: Vec<Entry>, group: Vec<usize>, plan: &Plan, alignment: u64, keep_dims: bool) -> Result<File> {
        let mut infos = Vec::with_capacity(group.len());
        let mut offset = 0;
        for tensor in group {
            let planned = &plan.tensors[tensor];
            infos.push(info(tensor, planned, offset, keep_dims)?);
            offset = padded(offset, planned.n_bytes(), alignment).ok_or_else(|| too_long(&planned.name))?;
        }
        let kv_bytes: u64 = kv.iter().map(|e| 8 + e.key.len() as u64 + 4 + e.n_bytes).sum();
        let info_bytes: u64 = infos.iter().map(|i| 8 + i.name.len() as u64 + 4 + 8 * i.dims.len() as u64 + 4 + 8).sum();
        let head = (4 + 4 + 8 + 8 + kv_bytes + info_bytes).next_multiple_of(alignment);
        let n_bytes = head.checked_add(offset).ok_or_else(|| too_long(&name))?;
        Ok(File { name, kv, infos, head, n_bytes })
    }

    /// Magic, version and counts.
    pub(crate) fn preamble(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((self.infos.len() as u64).to_le_bytes());
        bytes.extend((self.kv.len() as u64).to_le_bytes());
        bytes
    }
}

impl Info {
    /// The entry as it stands in a header.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = (self.name.len() as u64).to_le_bytes().to_vec();
        bytes.extend(self.name.as_bytes());
        bytes.extend((self.dims.len() as u32).to_le_bytes());
        bytes.extend(self.dims.iter().flat_map(|d| d.to_le_bytes()));
        bytes.extend(self.type_id.to_le_bytes());
        bytes.extend(self.offset.to_le_bytes());
        bytes
    }
}

/// The alignment that the metadata asks for.
fn alignment(kv: &[Entry]) -> Result<u64> {
    let asked = find(kv, ALIGNMENT_KEY).map(header::alignment).transpose();
    Ok(asked.map_err(|problem| Error::request(format!("{ALIGNMENT_KEY}: {problem}")))?.unwrap_or(ALIGNMENT))
}

/// The keys that say how a model is split.
const SPLIT_NO: &str = "split.no";
const SPLIT_COUNT: &str = "split.count";
const SPLIT_TENSORS: &str = "split.tensors.count";

/// Sets a key as ggml does: it goes to the end.
pub(crate) fn set(kv: &mut Vec<Entry>, entry: Entry) {
    kv.retain(|e| e.key != entry.key);
    kv.push(entry);
}

/// Takes away what says how a model is split.
pub(crate) fn unsplit(kv: &mut Vec<Entry>) {
    kv.retain(|e| ![SPLIT_NO, SPLIT_COUNT, SPLIT_TENSORS].contains(&e.key.as_str()));
}

/// What gguf-split makes of the metadata when it merges: the count becomes 0, the other keys stay.
pub(crate) fn merged(kv: &mut Vec<Entry>) {
    if find(kv, SPLIT_COUNT).is_some() {
        set(kv, Entry::new(SPLIT_COUNT, Kind::U16, 0u16.to_le_bytes().to_vec()));
    }
}

/// The metadata of shard `i` of `n`: `kv` and the keys of the split. gguf-split writes the count last, llama-quantize (`is_kept`) second.
fn shard_kv(mut kv: Vec<Entry>, i: usize, n: usize, n_tensors: usize, is_kept: bool) -> Result<Vec<Entry>> {
    let too_many = |what: &str| Error::request(format!("the set would have more {what} than its keys can say"));
    let small = |n: usize| u16::try_from(n).map_err(|_| too_many("files"));
    let n_tensors = i32::try_from(n_tensors).map_err(|_| too_many("tensors"))?;
    let no = Entry::new(SPLIT_NO, Kind::U16, small(i)?.to_le_bytes().to_vec());
    let count = Entry::new(SPLIT_COUNT, Kind::U16, small(n)?.to_le_bytes().to_vec());
    let tensors = Entry::new(SPLIT_TENSORS, Kind::I32, n_tensors.to_le_bytes().to_vec());
    for entry in if is_kept { [no, count, tensors] } else { [no, tensors, count] } {
        set(&mut kv, entry);
    }
    Ok(kv)
}

fn padded(offset: u64, n_bytes: u64, alignment: u64) -> Option<u64> {
    offset.checked_add(n_bytes)?.checked_next_multiple_of(alignment)
}

fn too_long(name: &str) -> Error {
    Error::request(format!("'{name}': the file would have more bytes than 64-bit sizes allow"))
}

fn info(tensor: usize, planned: &Planned, offset: u64, keep_dims: bool) -> Result<Info> {
    let name = &planned.name;
    let type_id = ggml::id_of(planned.scheme).ok_or_else(|| {
        let (scheme, name) = (planned.scheme, Printable(name));
        let is_data = matches!(scheme, Scheme::Dense(dtype) if !dtype.is_weight());
        let hint = if is_data { "which is data and only copied" } else { "choose one with --type, such as bf16, q8_0 or q4_k_m" };
        Error::request(format!("tensor '{name}': GGUF has no type for {scheme}, {hint}"))
    })?;
    let mut dims: Vec<u64> = planned.shape.iter().rev().copied().collect();
    while !keep_dims && dims.len() > 1 && dims.last() == Some(&1) {
        dims.pop();
    }
    if dims.is_empty() {
        dims.push(1);
    }
    if let Some(problem) = name_problem(name) {
        return Err(Error::request(format!("tensor '{}': its name {problem}, which GGUF does not allow", Printable(name))));
    }
    if name.len() as u64 > MAX_NAME {
        let (name, n) = (Printable(name), name.len());
        return Err(Error::request(format!("tensor '{name}': its name has {n} bytes, in GGUF a name has at most {MAX_NAME}")));
    }
    if dims.len() > MAX_RANK as usize {
        return Err(Error::request(format!("tensor '{name}': found {} dimensions, a GGUF tensor has at most {MAX_RANK}", dims.len())));
    }
    Ok(Info { tensor, name: name.clone(), dims, type_id, offset })
}

fn refuse_same_names(plan: &Plan) -> Result<()> {
    let mut names: Vec<&str> = plan.tensors.iter().map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|w| w[0] == w[1]) {
        Some(same) => Err(Error::request(format!("the output would have two tensors called '{}'", same[0]))),
        None => Ok(()),
    }
}

/// The tensors of each file, in the order of the plan. There is at least one file.
fn share_out(plan: &Plan, shards: &Shards, alignment: u64) -> Vec<Vec<usize>> {
    match shards {
        Shards::One => vec![(0..plan.tensors.len()).collect()],
        Shards::Given(file_of, n) => {
            let mut groups = vec![Vec::new(); *n];
            file_of.iter().enumerate().for_each(|(tensor, &file)| groups[file].push(tensor));
            groups
        }
        Shards::Limits { n_bytes, n_tensors } => {
            let mut groups = vec![Vec::new()];
            let mut size = 0u64;
            for (i, planned) in plan.tensors.iter().enumerate() {
                let bytes = planned.n_bytes().next_multiple_of(alignment);
                let last = groups.len() - 1;
                let is_full = size.saturating_add(bytes) > *n_bytes || groups[last].len() as u64 == *n_tensors;
                if is_full && !groups[last].is_empty() {
                    groups.push(Vec::new());
                    size = 0;
                }
                size = size.saturating_add(bytes);
                if let Some(group) = groups.last_mut() {
                    group.push(i);
                }
            }
            groups
        }
    }
}
