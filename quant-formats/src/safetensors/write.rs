//! Writing safetensors: one file, or a folder in the layout of Hugging Face.

use std::path::Path;

use quant_core::plan::Plan;
use quant_core::sink::Sink;
use quant_core::{Error, Result};

use super::layout::{Filled, Layout};
use super::read::MODEL;
use crate::checkpoint::{At, Checkpoint, Place, SideFile};
use crate::output::{NewFile, Staged};

/// The shard size of transformers 5.23.
pub const MAX_SHARD: u64 = 50_000_000_000;

/// An output being written.
pub struct Writer {
    staged: Staged,
    places: Vec<Vec<Option<Place>>>,
}

/// Whether the safetensors files that a checkpoint came in can be written again as they were.
pub(crate) fn is_restorable(plan: &Plan, checkpoint: &Checkpoint, folder: bool) -> bool {
    let fits = |files: usize| folder || files == 1;
    plan.is_copy() && checkpoint.origin.as_ref().is_some_and(|origin| fits(origin.files.len()))
}

impl Writer {
    /// Writes the files again that the checkpoint came in, byte for byte.
    pub(crate) fn restore(target: &Path, folder: bool, checkpoint: &Checkpoint, force: bool) -> Result<Writer> {
        let Some(origin) = &checkpoint.origin else {
            return Err(Error::request("the checkpoint does not say how its files were laid out"));
        };
        let name = |name: &str| if name.is_empty() { MODEL.into() } else { name.to_owned() };
        let mut files: Vec<NewFile> = origin.files.iter().map(|f| NewFile { name: name(&f.name), n_bytes: f.n_bytes }).collect();
        let beside: Vec<SideFile> = if folder { origin.index.iter().chain(&checkpoint.side_files).cloned().collect() } else { Vec::new() };
        files.extend(beside.iter().map(|b| NewFile { name: b.name.clone(), n_bytes: b.n_bytes }));
        let staged = stage(target, folder, files, force, checkpoint)?;
        let writer = Writer { staged, places: origin.places.clone() };
        for (i, file) in origin.files.iter().enumerate() {
            writer.copy(checkpoint, i, &file.head)?;
        }
        writer.write_beside(checkpoint, origin.files.len(), &beside)?;
        Ok(writer)
    }

    /// Begins an output with the given layout.
    pub(crate) fn create(target: &Path, folder: bool, layout: Layout, checkpoint: &Checkpoint, beside: &[SideFile], force: bool) -> Result<Writer> {
        let mut files: Vec<NewFile> = layout.files.iter().map(|f| NewFile { name: f.name.clone(), n_bytes: f.n_bytes }).collect();
        let index =
            layout.index.map(|text| SideFile { name: format!("{MODEL}.index.json"), n_bytes: text.len() as u64, at: At::Bytes(text.into_bytes()) });
        let beside: Vec<SideFile> = beside.iter().cloned().chain(index).collect();
        files.extend(beside.iter().map(|b| NewFile { name: b.name.clone(), n_bytes: b.n_bytes }));
        let staged = stage(target, folder, files, force, checkpoint)?;
        let writer = Writer { staged, places: layout.places };
        for (i, file) in layout.files.iter().enumerate() {
            writer.staged.write_at(i, 0, &file.head)?;
            for (laid, offset) in &file.tensors {
                if let Filled::Bytes(bytes) = &laid.filled {
                    writer.staged.write_at(i, *offset, bytes)?;
                }
            }
        }
        writer.write_beside(checkpoint, layout.files.len(), &beside)?;
        Ok(writer)
    }

    fn write_beside(&self, checkpoint: &Checkpoint, first: usize, beside: &[SideFile]) -> Result<()> {
        (first..).zip(beside).try_for_each(|(i, file)| self.copy(checkpoint, i, file))
    }

    /// Copies a file of the source to the start of file `to`, a piece at a time.
    fn copy(&self, checkpoint: &Checkpoint, to: usize, file: &SideFile) -> Result<()> {
        let mut buffer = vec![0; file.n_bytes.min(1 << 20) as usize];
        let mut done = 0;
        while done < file.n_bytes {
            let piece = &mut buffer[..(file.n_bytes - done).min(1 << 20) as usize];
            checkpoint.read_at(&file.at, done, piece)?;
            self.staged.write_at(to, done, piece)?;
            done += piece.len() as u64;
        }
        Ok(())
    }

    /// Makes the output appear under its name.
    pub(crate) fn finish(self) -> Result<()> {
        self.staged.commit()
    }
}

fn stage(target: &Path, folder: bool, files: Vec<NewFile>, force: bool, checkpoint: &Checkpoint) -> Result<Staged> {
    let inputs = checkpoint.identities()?;
    if folder {
        return Staged::folder(target, files, force, &inputs);
    }
    Staged::file(target, files.first().map_or(0, |f| f.n_bytes), force, &inputs)
}

impl Sink for Writer {
    fn write(&self, tensor: usize, part: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        match self.places[tensor][part] {
            Some(place) => self.staged.write_at(place.file, place.offset + offset, bytes),
            None => Ok(()),
        }
    }
}
