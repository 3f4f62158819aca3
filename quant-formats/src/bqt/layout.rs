//! From a plan to an index: every size and offset before the first byte.

use quant_core::error::Printable;
use quant_core::plan::{Plan, Planned, PlannedPart};
use quant_core::{Error, Result};

use super::errors::ErrorEntry;
use super::hash::Digest;
use super::index::{Extent, FORMAT, FileEntry, Index, OriginEntry, OriginFileEntry, OriginIndexEntry, PartEntry, SourceEntry, TensorEntry};
use super::json::{KEYS_LIMIT, Metadata, RANK_LIMIT, Required};
use super::{ALIGN, PIECE};
use crate::checkpoint::{Checkpoint, Gap, Origin, SideFile};

/// What goes into a BQT file beside the tensors of the plan.
#[derive(Clone, Copy)]
pub struct Contents<'a> {
    /// What the plan was made for: names and schemes of the sources, the bytes of side files, the origin.
    pub checkpoint: &'a Checkpoint,
    /// The recipe as text, for whoever wants to know later.
    pub recipe: Option<&'a str>,
    /// Names and texts, in order.
    pub metadata: &'a [(String, String)],
    /// The files carried along. Places in files are those of `checkpoint`.
    pub side_files: &'a [SideFile],
    /// How the original files are written again. Stored only if the plan copies every tensor.
    pub origin: Option<&'a Origin>,
    /// Whether room is left for the errors of what is encoded.
    pub audited: bool,
}

impl<'a> Contents<'a> {
    /// The origin, if it is to be stored.
    fn origin(&self, plan: &Plan) -> Option<&'a Origin> {
        self.origin.filter(|_| plan.is_copy())
    }

    /// The bytes of each blob, in order: the heads of the original files, their index, what lies between their parts.
    pub(super) fn blobs(&self, plan: &Plan) -> Vec<SideFile> {
        let gap = |gap: &Gap| SideFile { name: String::new(), n_bytes: gap.n_bytes, at: gap.at.clone() };
        let gaps = |origin: &'a Origin| origin.files.iter().flat_map(|file| &file.gaps).map(gap);
        let of_origin = |origin: &'a Origin| origin.files.iter().map(|file| &file.head).chain(&origin.index).cloned().chain(gaps(origin));
        self.origin(plan).into_iter().flat_map(of_origin).collect()
    }
}

/// Bytes of a chunk in the files that are written here.
pub(super) const CHUNK: u64 = PIECE;

/// Lays out the index of the file that `plan` and `contents` make. Its checksums and digests are still zero.
///
/// Returns it with the bytes of its data.
pub(super) fn lay_out(plan: &Plan, contents: &Contents<'_>, chunk_bytes: u64) -> Result<(Index, u64)> {
    check_limits(plan, contents)?;
    let origin = contents.origin(plan);
    let tensor = |planned: &Planned| tensor_entry(planned, contents, origin, chunk_bytes);
    let file = |file: &SideFile| FileEntry { name: file.name.clone(), at: Extent::unplaced(file.n_bytes, chunk_bytes) };
    let mut index = Index {
        format: FORMAT.into(),
        producer: concat!("quant ", env!("CARGO_PKG_VERSION")).into(),
        required: Required,
        chunk_bytes,
        metadata: Metadata(contents.metadata.to_vec()),
        recipe: contents.recipe.map(Into::into),
        tensors: plan.tensors.iter().map(tensor).collect(),
        files: contents.side_files.iter().map(file).collect(),
        blobs: contents.blobs(plan).iter().map(|blob| Extent::unplaced(blob.n_bytes, chunk_bytes)).collect(),
        origin: origin.map(origin_entry),
    };
    let data_len = place(index.extents_mut()).ok_or_else(|| Error::request("the file would have more bytes than 64-bit sizes allow"))?;
    Ok((index, data_len))
}

/// What readers refuse and no later check would name as well.
fn check_limits(plan: &Plan, contents: &Contents<'_>) -> Result<()> {
    let mut keys: Vec<&str> = contents.metadata.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    if let Some(twice) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::request(format!("the metadata key '{}' comes twice", Printable(twice[0]))));
    }
    if keys.len() > KEYS_LIMIT {
        return Err(Error::request(format!("{} metadata keys are more than the {KEYS_LIMIT} of a BQT file", keys.len())));
    }
    match plan.tensors.iter().find(|t| t.shape.len() > RANK_LIMIT) {
        Some(t) => Err(Error::request(format!("tensor '{}' has {} dimensions, a BQT file at most {RANK_LIMIT}", Printable(&t.name), t.shape.len()))),
        None => Ok(()),
    }
}

fn tensor_entry(planned: &Planned, contents: &Contents<'_>, origin: Option<&Origin>, chunk_bytes: u64) -> TensorEntry {
    let place_of = |part: usize| origin?.places.get(planned.source)?.get(part).copied().flatten();
    let part = |(i, part): (usize, &PlannedPart)| PartEntry {
        name: part.name.clone(),
        dtype: part.dtype.name().into(),
        shape: part.shape.clone(),
        at: Extent::unplaced(part.n_bytes, chunk_bytes),
        place: place_of(i).map(|place| (place.file, place.offset)),
    };
    let source = &contents.checkpoint.tensors[planned.source];
    let error = match planned.copied {
        true => contents.checkpoint.errors.get(planned.source).and_then(Option::as_ref).and_then(ErrorEntry::of),
        false => contents.audited.then_some(ErrorEntry::LONGEST),
    };
    TensorEntry {
        name: planned.name.clone(),
        shape: planned.shape.clone(),
        scheme: planned.scheme.to_string(),
        dtype: planned.dtype.name().into(),
        source: Some(SourceEntry { name: source.name.clone(), scheme: source.scheme.to_string(), sha256: Digest::default() }),
        error,
        parts: planned.parts.iter().enumerate().map(part).collect(),
    }
}

/// Blobs are numbered as [`Contents::blobs`] lists them.
fn origin_entry(origin: &Origin) -> OriginEntry {
    let n_files = origin.files.len();
    let mut next = n_files + usize::from(origin.index.is_some());
    let mut gap = |gap: &Gap| {
        next += 1;
        (gap.offset, next - 1)
    };
    let mut file = |(head, file): (usize, &crate::checkpoint::OriginFile)| {
        let gaps = file.gaps.iter().map(&mut gap).collect();
        OriginFileEntry { name: file.name.clone(), bytes: file.n_bytes, head, gaps }
    };
    let files: Vec<OriginFileEntry> = origin.files.iter().enumerate().map(&mut file).collect();
    let index = origin.index.as_ref().map(|index| OriginIndexEntry { name: index.name.clone(), blob: n_files });
    OriginEntry { format: origin.format, files, index }
}

/// Gives every extent its offset, one after the other; returns where the last one ends.
fn place<'a>(extents: impl Iterator<Item = &'a mut Extent>) -> Option<u64> {
    let mut end = 0u64;
    for extent in extents.filter(|extent| extent.bytes > 0) {
        extent.offset = end.checked_next_multiple_of(ALIGN)?;
        end = extent.offset.checked_add(extent.bytes)?;
    }
    // Headers are added to it.
    end.checked_add(1 << 32).map(|_| end)
}
