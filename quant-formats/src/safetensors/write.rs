//! Writing safetensors: one file, or a folder in the layout of Hugging Face.

use std::path::Path;

use quant_core::Result;

use super::layout::{Filled, Layout};
use super::read::MODEL;
use crate::checkpoint::{At, Checkpoint, SideFile};
use crate::output::NewFile;
use crate::placed::Placed;

/// The shard size of transformers 5.23.
pub const MAX_SHARD: u64 = 50_000_000_000;

/// Begins an output with the given layout.
pub(crate) fn create(target: &Path, folder: bool, layout: Layout, checkpoint: &Checkpoint, beside: &[SideFile], force: bool) -> Result<Placed> {
    let mut files: Vec<NewFile> = layout.files.iter().map(|f| NewFile { name: f.name.clone(), n_bytes: f.n_bytes }).collect();
    let index =
        layout.index.map(|text| SideFile { name: format!("{MODEL}.index.json"), n_bytes: text.len() as u64, at: At::Bytes(text.into_bytes()) });
    let beside: Vec<SideFile> = beside.iter().cloned().chain(index).collect();
    files.extend(beside.iter().map(|b| NewFile { name: b.name.clone(), n_bytes: b.n_bytes }));
    let placed = Placed::create(target, folder, files, layout.places, checkpoint, force)?;
    for (i, file) in layout.files.iter().enumerate() {
        placed.staged.write_at(i, 0, &file.head)?;
        for (laid, offset) in &file.tensors {
            if let Filled::Bytes(bytes) = &laid.filled {
                placed.staged.write_at(i, *offset, bytes)?;
            }
        }
    }
    for (i, file) in (layout.files.len()..).zip(&beside) {
        placed.copy(checkpoint, &file.at, file.n_bytes, i, 0)?;
    }
    Ok(placed)
}
