//! Opening a BQT file.

use quant_core::audit::ErrorStats;
use quant_core::{Error, Result};

use super::errors::ErrorEntry;
use super::hash::Digest;
use super::header::Header;
use super::index::{Extent, Index, OriginEntry, PartEntry, SourceEntry, TensorEntry};
use crate::checkpoint::{At, Checkpoint, Format, Gap, Origin, OriginFile, OriginFormat, Place, SideFile};
use crate::gguf::{self, Entry};
use crate::input::Input;

/// Opens a BQT file: header and index are checked whole, data is not read. [`super::verify`] reads that.
///
/// The tensors' roles are left to the caller.
///
/// # Errors
/// If the file is cut off, damaged, or says anything about itself that is not so.
pub fn open(input: Input) -> Result<Checkpoint> {
    let header = Header::read(&input)?;
    let index = Index::read(&input, &header)?;
    let tensors = index.check(input.path(), header.file_len - header.data_start())?;
    let base = header.data_start();
    let places = index.tensors.iter().map(|tensor| tensor.parts.iter().map(|part| at(&part.at, base)).collect()).collect();
    let mut side_files: Vec<SideFile> = index.files.iter().map(|file| side_file(&file.name, &file.at, base)).collect();
    let origin = index.origin.as_ref().map(|origin| origin_of(&index, origin, base));
    let kv = gguf_metadata(&input, origin.as_ref(), &mut side_files)?;
    let errors = errors_of(&index.tensors).map_err(|name| Error::tensor(input.path(), name, IMPOSSIBLE))?;
    Ok(Checkpoint {
        format: Format::Bqt,
        path: input.path().to_path_buf(),
        tensors,
        places,
        inputs: vec![input],
        origin,
        metadata: index.metadata.0,
        kv,
        side_files,
        notes: Vec::new(),
        base: None,
        errors,
        original: None,
    })
}

/// What is wrong with figures that cannot be.
const IMPOSSIBLE: &str =
    "the errors that the index tells of it are impossible: more elements than it has, a negative sum, or a greatest error that is no part of the sum";

/// The errors that the file tells of; empty if of no tensor.
///
/// # Errors
/// The name of a tensor that has impossible ones.
fn errors_of(tensors: &[TensorEntry]) -> std::result::Result<Vec<Option<ErrorStats>>, &str> {
    if tensors.iter().all(|tensor| tensor.error.is_none()) {
        return Ok(Vec::new());
    }
    // Shapes were checked: their products fit.
    let is_bad = |tensor: &&TensorEntry| tensor.error.as_ref().is_some_and(|error| !error.is_possible(tensor.shape.iter().product()));
    let bad = tensors.iter().find(is_bad);
    match bad {
        Some(tensor) => Err(&tensor.name),
        None => Ok(tensors.iter().map(|tensor| tensor.error.as_ref().map(ErrorEntry::stats)).collect()),
    }
}

fn at(extent: &Extent, base: u64) -> At {
    At::File { input: 0, offset: base + extent.offset }
}

fn side_file(name: &str, extent: &Extent, base: u64) -> SideFile {
    SideFile { name: name.into(), n_bytes: extent.bytes, at: at(extent, base) }
}

/// The file that carries the metadata of GGUF where the original header is not stored.
pub(crate) const GGUF_METADATA: &str = "metadata.gguf";

/// The metadata of GGUF: that of the first original file, or that of the side file, which is no side file then.
fn gguf_metadata(input: &Input, origin: Option<&Origin>, side_files: &mut Vec<SideFile>) -> Result<Vec<Entry>> {
    let head = origin.filter(|origin| origin.format == OriginFormat::Gguf).and_then(|origin| origin.files.first()).map(|file| file.head.clone());
    let carried = side_files.iter().position(|file| file.name == GGUF_METADATA).map(|i| side_files.remove(i));
    match head.or(carried) {
        Some(SideFile { at: At::File { offset, .. }, n_bytes, .. }) => gguf::metadata(input, offset..offset + n_bytes),
        _ => Ok(Vec::new()),
    }
}

/// The origin of a checked index.
fn origin_of(index: &Index, origin: &OriginEntry, base: u64) -> Origin {
    let place = |part: &PartEntry| part.place.map(|(file, offset)| Place { file, offset });
    let places_of = |tensor: &TensorEntry| tensor.parts.iter().map(place).collect();
    let head = |name: &str, blob: usize| side_file(name, &index.blobs[blob], base);
    let gap = |&(offset, blob): &(u64, usize)| Gap { offset, n_bytes: index.blobs[blob].bytes, at: at(&index.blobs[blob], base) };
    let file = |file: &super::index::OriginFileEntry| OriginFile {
        name: file.name.clone(),
        n_bytes: file.bytes,
        head: head(&file.name, file.head),
        gaps: file.gaps.iter().map(gap).collect(),
    };
    Origin {
        format: origin.format,
        files: origin.files.iter().map(file).collect(),
        places: index.tensors.iter().map(places_of).collect(),
        index: origin.index.as_ref().map(|index| head(&index.name, index.blob)),
    }
}

/// What a BQT file says about its own making.
#[derive(Clone, Debug)]
pub struct Provenance {
    /// The program that wrote it, with its version.
    pub producer: String,
    /// The recipe it was made by.
    pub recipe: Option<String>,
    /// For each tensor what it was made from, if the file says so.
    pub sources: Vec<Option<SourceOf>>,
}

/// What a tensor was made from.
#[derive(Clone, Debug)]
pub struct SourceOf {
    /// The name of the source tensor.
    pub name: String,
    /// Its scheme, as text: it may be one that this version does not know.
    pub scheme: String,
    /// SHA-256 of its stored parts, one after the other.
    pub sha256: Digest,
}

/// Reads what a BQT file says about its own making. The order of the tensors is that of [`open`].
///
/// # Errors
/// As [`open`].
pub fn provenance(input: &Input) -> Result<Provenance> {
    let header = Header::read(input)?;
    let index = Index::read(input, &header)?;
    let source = |SourceEntry { name, scheme, sha256 }| SourceOf { name, scheme, sha256 };
    let sources = index.tensors.into_iter().map(|tensor| tensor.source.map(source)).collect();
    Ok(Provenance { producer: index.producer, recipe: index.recipe, sources })
}
