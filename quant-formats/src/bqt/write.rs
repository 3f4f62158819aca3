//! Writing a BQT file: laid out from the plan, filled in any order, sealed with its checksums.

use std::path::{Path, PathBuf};

use quant_core::audit::ErrorStats;
use quant_core::plan::{PartFill, Plan};
use quant_core::sink::Sink;
use quant_core::{Error, Result};

use super::PIECE;
use super::chunks::Chunks;
use super::errors::ErrorEntry;
use super::hash::Digest;
use super::header::HEADER;
use super::index::{Index, header_of};
use super::layout::{CHUNK, Contents, lay_out};
use crate::checkpoint::{Checkpoint, SideFile};
use crate::input::Identity;
use crate::output::Staged;

/// A BQT file being written. Under its own name it appears in [`Writer::finish`].
pub struct Writer {
    target: PathBuf,
    staged: Staged,
    index: Index,
    /// Bytes that the index has in the file.
    index_len: u64,
    data_len: u64,
    /// One for each extent, in the order of [`Index::extents`].
    slots: Vec<Slot>,
    /// For each tensor, the slot of its first part.
    first: Vec<usize>,
}

/// Where the bytes of one extent go, and which of them came.
struct Slot {
    /// In the file.
    offset: u64,
    chunks: Chunks,
}

impl Writer {
    /// Lays out the file, reserves its size, and writes all that is known before the conversion: side files, the origin, and
    /// [`PartFill::Given`] parts. The plan is complete: [`Plan::scan`] was called.
    ///
    /// # Errors
    /// If the contents cannot be stored (a side file's name, a size), if `target` exists and `force` is false, if it is one of
    /// `inputs`, or if the system refuses.
    pub fn create(target: &Path, plan: &Plan, contents: &Contents<'_>, force: bool, inputs: &[Identity]) -> Result<Writer> {
        Writer::create_chunked(target, plan, contents, force, inputs, CHUNK)
    }

    /// The exact size of the file that [`Writer::create`] would make.
    ///
    /// # Errors
    /// If the contents cannot be stored.
    pub fn size(plan: &Plan, contents: &Contents<'_>) -> Result<u64> {
        let (index, data_len) = lay_out(plan, contents, CHUNK)?;
        index.check(&contents.checkpoint.path, data_len)?;
        Ok(HEADER + index.bytes(&contents.checkpoint.path)?.len() as u64 + data_len)
    }

    pub(super) fn create_chunked(
        target: &Path,
        plan: &Plan,
        contents: &Contents<'_>,
        force: bool,
        inputs: &[Identity],
        chunk_bytes: u64,
    ) -> Result<Writer> {
        let (index, data_len) = lay_out(plan, contents, chunk_bytes)?;
        index.check(target, data_len)?;
        let index_len = index.bytes(target)?.len() as u64;
        let data_start = HEADER + index_len;
        let staged = Staged::file(target, data_start + data_len, force, inputs)?;
        let slot = |extent: &super::index::Extent| Slot { offset: data_start + extent.offset, chunks: Chunks::new(extent.bytes, chunk_bytes) };
        let slots = index.extents().into_iter().map(|(_, extent)| slot(extent)).collect();
        let first = index.tensors.iter().scan(0, |next, tensor| Some(std::mem::replace(next, *next + tensor.parts.len()))).collect();
        let writer = Writer { target: target.into(), staged, index, index_len, data_len, slots, first };
        writer.write_given(plan)?;
        writer.write_files(plan, contents)?;
        Ok(writer)
    }

    fn write_given(&self, plan: &Plan) -> Result<()> {
        for (tensor, planned) in plan.tensors.iter().enumerate() {
            for (part, planned) in planned.parts.iter().enumerate() {
                if let PartFill::Given(bytes) = &planned.fill {
                    self.write(tensor, part, 0, bytes)?;
                }
            }
        }
        Ok(())
    }

    fn write_files(&self, plan: &Plan, contents: &Contents<'_>) -> Result<()> {
        let n_parts = self.index.tensors.iter().map(|tensor| tensor.parts.len()).sum();
        let blobs = contents.blobs(plan);
        let files = contents.side_files.iter().chain(&blobs);
        (n_parts..).zip(files).try_for_each(|(slot, file)| self.copy(slot, contents.checkpoint, file))
    }

    fn copy(&self, slot: usize, checkpoint: &Checkpoint, file: &SideFile) -> Result<()> {
        let mut buffer = Vec::new();
        for offset in (0..file.n_bytes).step_by(PIECE as usize) {
            buffer.resize(PIECE.min(file.n_bytes - offset) as usize, 0);
            checkpoint.read_at(&file.at, offset, &mut buffer)?;
            self.put(slot, offset, &buffer)?;
        }
        Ok(())
    }

    fn put(&self, slot: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(Slot { offset: base, chunks }) = self.slots.get(slot).filter(|slot| slot.chunks.holds(offset, bytes.len() as u64)) else {
            return Err(self.misuse(slot, &format!("has no {} bytes at {offset}", bytes.len())));
        };
        self.staged.write_at(0, base + offset, bytes)?;
        chunks.add(offset, bytes).map_err(|range| self.misuse(slot, &format!("was given bytes {range:?} twice")))
    }

    /// An error of this program, found before it can spoil a file.
    fn misuse(&self, slot: usize, problem: &str) -> Error {
        let owner = self.index.extents().get(slot).map_or("a part that was not planned".into(), |&(owner, _)| self.index.name_of(owner));
        Error::file(&self.target, format!("{owner} {problem}"))
    }

    /// Checks that every byte came, writes index and header, and gives the file its name.
    ///
    /// `digests` are those of [`super::hash_sources`], one a tensor. `errors` are those that were measured, one a tensor, or none.
    ///
    /// # Errors
    /// If bytes are missing, or the system refuses.
    pub fn finish(mut self, digests: &[Digest], errors: &[Option<ErrorStats>]) -> Result<()> {
        if digests.len() != self.index.tensors.len() {
            return Err(Error::file(&self.target, format!("found {} digests for {} tensors", digests.len(), self.index.tensors.len())));
        }
        for (source, digest) in self.index.tensors.iter_mut().zip(digests).filter_map(|(tensor, digest)| Some((tensor.source.as_mut()?, digest))) {
            source.sha256 = *digest;
        }
        let measured = self.index.tensors.iter_mut().zip(errors).filter_map(|(tensor, stats)| Some((tensor, stats.as_ref()?)));
        measured.for_each(|(tensor, stats)| tensor.error = ErrorEntry::of(stats));
        let mut sums = Vec::with_capacity(self.slots.len());
        for (slot, Slot { chunks, .. }) in std::mem::take(&mut self.slots).into_iter().enumerate() {
            sums.push(chunks.finish().map_err(|missing| self.misuse(slot, &format!("was never given byte {missing}")))?);
        }
        self.index.extents_mut().zip(sums).for_each(|(extent, sums)| extent.crc32.0 = sums);
        let index = self.index.bytes_of(&self.target, self.index_len)?;
        self.staged.write_at(0, HEADER, &index)?;
        self.staged.write_at(0, 0, &header_of(&index, self.data_len).bytes())?;
        self.staged.commit()
    }
}

impl Sink for Writer {
    fn write(&self, tensor: usize, part: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        match (self.first.get(tensor), self.index.tensors.get(tensor)) {
            (Some(first), Some(entry)) if part < entry.parts.len() => self.put(first + part, offset, bytes),
            _ => Err(self.misuse(usize::MAX, &format!("({tensor}, {part}) was written to"))),
        }
    }
}
