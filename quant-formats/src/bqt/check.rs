//! What an index must fulfil. The reader checks it before anything is used, the writer before anything is written.

use std::collections::HashSet;
use std::path::Path;

use quant_core::dtype::n_elements;
use quant_core::error::Printable;
use quant_core::source::{Role, Stored, Tensor};
use quant_core::{Dtype, Error, Result, Scheme};

use super::ALIGN;
use super::index::{Extent, FORMAT, Index, OriginEntry, Owner, PartEntry, TensorEntry};
use crate::checkpoint::OriginFormat;

/// The sizes that a chunk may have: powers of two from the alignment to 1 GiB.
const CHUNKS: std::ops::RangeInclusive<u64> = ALIGN..=1 << 30;

/// The longest name of a side file, as file systems have it.
const NAME_LIMIT: usize = 255;

type Checked<T = ()> = std::result::Result<T, String>;

impl Index {
    /// Checks the index against itself and against `data_len`, the bytes from the end of the index to the end of the file.
    /// Returns its tensors, with the role left open.
    ///
    /// # Errors
    /// Naming the tensor, part or file and what is wrong.
    pub(super) fn check(&self, path: &Path, data_len: u64) -> Result<Vec<Tensor>> {
        let whole = |problem: String| Error::file(path, problem);
        self.check_chunks().map_err(whole)?;
        self.check_tiling(data_len).map_err(whole)?;
        let mut names = HashSet::new();
        let tensor = |entry: &TensorEntry| {
            let tensor = if names.insert(entry.name.clone()) { entry.tensor() } else { Err("its name comes twice".into()) };
            tensor.map_err(|problem| Error::tensor(path, &Printable(&entry.name).to_string(), problem))
        };
        let tensors = self.tensors.iter().map(tensor).collect::<Result<_>>()?;
        self.check_names().map_err(whole)?;
        self.check_origin().map_err(whole)?;
        Ok(tensors)
    }

    fn check_chunks(&self) -> Checked {
        if self.format != FORMAT {
            return Err(format!("the index says its format is {:?}, needed {FORMAT:?}", self.format));
        }
        if !CHUNKS.contains(&self.chunk_bytes) || !self.chunk_bytes.is_power_of_two() {
            return Err(format!("chunks of {} bytes: needed a power of two from 256 to 2^30", self.chunk_bytes));
        }
        for (owner, extent) in self.extents() {
            let (found, needed) = (extent.crc32.0.len() as u64, extent.bytes.div_ceil(self.chunk_bytes));
            if found != needed {
                return Err(format!("{}: found {found} checksums for {} bytes, needed {needed}", self.name_of(owner), extent.bytes));
            }
        }
        Ok(())
    }

    /// Extents, each padded to the alignment, must cover the data: no hole, no overlap, nothing after the last.
    fn check_tiling(&self, data_len: u64) -> Checked {
        let mut extents = self.extents();
        extents.sort_unstable_by_key(|(_, extent)| (extent.bytes > 0, extent.offset));
        let mut end = 0u64;
        for (owner, extent) in extents {
            end = self.next_end(owner, extent, end, data_len)?;
        }
        if end != data_len {
            return Err(format!("the extents of the index end at byte {end} of the data, the file at {data_len}"));
        }
        Ok(())
    }

    /// The end of an extent that must follow another, which ended at `end`.
    fn next_end(&self, owner: Owner, extent: &Extent, end: u64, data_len: u64) -> Checked<u64> {
        let Extent { offset, bytes, .. } = *extent;
        let needed = if bytes == 0 { 0 } else { end.next_multiple_of(ALIGN) };
        if offset != needed {
            let what = if offset < needed { "overlaps what is before it" } else { "leaves a hole before it" };
            return Err(format!("{}: found offset {offset}, needed {needed}: it {what}", self.name_of(owner)));
        }
        let fits = |end: &u64| *end <= data_len;
        let beyond = || format!("{}: {bytes} bytes from {offset} on go beyond the {data_len} bytes of data", self.name_of(owner));
        if bytes == 0 { Ok(end) } else { offset.checked_add(bytes).filter(fits).ok_or_else(beyond) }
    }

    /// Every file that restoring could write has a plain name, and one of its own.
    fn check_names(&self) -> Checked {
        let mut names: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        if let Some(origin) = &self.origin {
            let alone = origin.files.len() == 1 && origin.index.is_none();
            names.extend(origin.files.iter().map(|file| file.name.as_str()).filter(|name| !(alone && name.is_empty())));
            names.extend(origin.index.iter().map(|index| index.name.as_str()));
        }
        let mut seen = HashSet::new();
        for name in names {
            check_plain(name).map_err(|problem| format!("file '{}': {problem}", Printable(name)))?;
            if !seen.insert(name) {
                return Err(format!("file '{}': its name comes twice", Printable(name)));
            }
        }
        Ok(())
    }

    fn check_origin(&self) -> Checked {
        let Some(origin) = &self.origin else { return Ok(()) };
        let mut covered = vec![Vec::new(); origin.files.len()];
        for (file, ranges) in origin.files.iter().zip(&mut covered) {
            for &(offset, blob) in &file.gaps {
                let blob = self.blobs.get(blob).ok_or_else(|| format!("origin: the blob {blob} does not exist"))?;
                ranges.push((offset, blob.bytes));
            }
        }
        for part in self.tensors.iter().flat_map(|tensor| &tensor.parts) {
            let Some((file, offset)) = part.place else { continue };
            let ranges = covered.get_mut(file).ok_or_else(|| format!("origin: there is no file {file}"))?;
            ranges.push((offset, part.at.bytes));
        }
        if origin.index.as_ref().is_some_and(|index| index.blob >= self.blobs.len()) {
            return Err("origin: the blob of its index does not exist".into());
        }
        covered.into_iter().enumerate().try_for_each(|(i, ranges)| self.check_origin_file(origin, i, ranges))
    }

    /// The head and what lay in a file after it must cover it: otherwise it could not be written again. What is not covered
    /// in a GGUF file is padding of zeros.
    fn check_origin_file(&self, origin: &OriginEntry, i: usize, mut ranges: Vec<(u64, u64)>) -> Checked {
        let file = &origin.files[i];
        let head = self.blobs.get(file.head).ok_or_else(|| format!("origin: the head of file {i} does not exist"))?;
        ranges.retain(|&(_, len)| len > 0);
        ranges.sort_unstable();
        let mut end = head.bytes;
        let may_pad = origin.format == OriginFormat::Gguf;
        for (offset, len) in ranges {
            if offset < end || (offset > end && !may_pad) {
                return Err(format!("origin: file {i} has a part at byte {offset}, needed one at {end}"));
            }
            end = offset.checked_add(len).ok_or_else(|| format!("origin: file {i} is longer than 64-bit sizes allow"))?;
        }
        if end == file.bytes || (may_pad && end < file.bytes) {
            Ok(())
        } else {
            Err(format!("origin: file {i} has {} bytes, its head and parts {end}", file.bytes))
        }
    }
}

impl TensorEntry {
    /// The tensor that the entry describes; says what is wrong with it.
    fn tensor(&self) -> Checked<Tensor> {
        let parts = self.parts.iter().map(PartEntry::stored).collect::<Checked<Vec<Stored>>>()?;
        let names: HashSet<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        if names.len() != parts.len() {
            return Err("two of its parts have one name".into());
        }
        n_elements(&self.shape).ok_or_else(|| format!("shape {:?} has more elements than 64-bit sizes allow", self.shape))?;
        let scheme = self.scheme.parse::<Scheme>().map_err(|e| Printable(&e.to_string()).to_string())?;
        let dtype = dtype_of(&self.dtype)?;
        let tensor = Tensor { name: self.name.clone(), shape: self.shape.clone(), dtype, scheme, role: Role::Other, parts, packed: None };
        check_dtype(&tensor)?;
        tensor.check_parts()?;
        Ok(tensor)
    }
}

impl PartEntry {
    fn stored(&self) -> Checked<Stored> {
        let name = Printable(&self.name);
        let dtype = dtype_of(&self.dtype).map_err(|problem| format!("part '{name}': {problem}"))?;
        let needed = n_elements(&self.shape).and_then(|n| dtype.n_bytes(n));
        if needed != Some(self.at.bytes) {
            let needed = needed.map_or("a size that 64 bits cannot hold".into(), |n| format!("{n} bytes"));
            return Err(format!("part '{name}': {dtype} {:?} needs {needed}, found {}", self.shape, self.at.bytes));
        }
        Ok(Stored { name: self.name.clone(), dtype, shape: self.shape.clone(), n_bytes: self.at.bytes })
    }
}

fn dtype_of(name: &str) -> Checked<Dtype> {
    name.parse().map_err(|()| format!("unknown type '{}'", Printable(name)))
}

/// A dense tensor has the type of its scheme, any other one that is quantized from. The size of data is checked here, that of
/// weights by [`Tensor::check_parts`].
fn check_dtype(tensor: &Tensor) -> Checked {
    let Scheme::Dense(dtype) = tensor.scheme else {
        let is_opaque = matches!(tensor.scheme, Scheme::Opaque(_));
        return if is_opaque || tensor.dtype.is_weight() { Ok(()) } else { Err(format!("{} cannot hold {}", tensor.scheme, tensor.dtype)) };
    };
    if dtype != tensor.dtype {
        return Err(format!("found type {}, needed {dtype} as its scheme says", tensor.dtype));
    }
    let needed = dtype.n_bytes(tensor.n_elements()).ok_or_else(|| format!("{dtype} {:?} does not fill whole bytes", tensor.shape))?;
    match tensor.parts.first() {
        None => Err(format!("{dtype} needs a part")),
        Some(part) if !tensor.is_weight() && part.n_bytes != needed => {
            Err(format!("{dtype} of shape {:?} needs {needed} bytes, found {}", tensor.shape, part.n_bytes))
        }
        Some(_) => Ok(()),
    }
}

/// Whether `name` names a file in the very folder that it is joined to, on any system.
fn check_plain(name: &str) -> Checked {
    let hostile = |c: char| matches!(c, '/' | '\\') || c.is_control();
    match name {
        "" => Err("a file needs a name".into()),
        "." | ".." => Err("this names a folder".into()),
        _ if name.contains(hostile) => Err("a name may not contain '/', '\\' or control characters".into()),
        _ if name.len() > NAME_LIMIT => Err(format!("a name has at most {NAME_LIMIT} bytes")),
        _ => Ok(()),
    }
}
