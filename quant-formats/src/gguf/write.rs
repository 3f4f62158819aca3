//! Writing GGUF: one file, or a folder of shards.

use std::path::Path;

use quant_core::{Error, Result};

use super::layout::{File, Layout};
use crate::checkpoint::{At, Checkpoint};
use crate::output::NewFile;
use crate::placed::Placed;

/// Bytes of a header that are collected before they are written.
const PIECE: usize = 1 << 20;

/// Begins an output with the given layout: writes all headers. What lies between tensors stays zero.
pub(crate) fn create(target: &Path, folder: bool, layout: Layout, checkpoint: &Checkpoint, force: bool) -> Result<Placed> {
    let files = layout.files.iter().map(|f| NewFile { name: f.name.clone(), n_bytes: f.n_bytes }).collect();
    let placed = Placed::create(target, folder, files, layout.places, checkpoint, force)?;
    for (i, file) in layout.files.iter().enumerate() {
        Head { placed: &placed, checkpoint, file: i, pending: Vec::new(), written: 0 }.write(file)?;
    }
    Ok(placed)
}

/// The most metadata that [`metadata_only`] takes, in bytes.
const MAX_METADATA: u64 = 256 << 20;

/// The bytes of a file with metadata and no tensors: how a BQT file carries the metadata of GGUF.
///
/// # Errors
/// If there is too much of it, or it cannot be read.
pub(crate) fn metadata_only(kv: &[super::Entry], checkpoint: &Checkpoint) -> Result<Vec<u8>> {
    let layout = Layout::new(&quant_core::plan::Plan::default(), kv, &super::layout::Shards::One, "metadata", false)?;
    let file = &layout.files[0];
    if file.n_bytes > MAX_METADATA {
        return Err(Error::request(format!("the metadata has {} bytes, at most {MAX_METADATA} are carried by a BQT file", file.n_bytes)));
    }
    let mut bytes = file.preamble();
    for entry in &file.kv {
        bytes.extend(entry_head(entry));
        let start = bytes.len();
        bytes.resize(start + entry.n_bytes as usize, 0);
        checkpoint.read_at(&entry.at, 0, &mut bytes[start..])?;
    }
    bytes.resize(file.n_bytes as usize, 0);
    Ok(bytes)
}

/// Key and type of an entry.
fn entry_head(entry: &super::Entry) -> Vec<u8> {
    let mut bytes = (entry.key.len() as u64).to_le_bytes().to_vec();
    bytes.extend(entry.key.as_bytes());
    bytes.extend(entry.kind.id().to_le_bytes());
    bytes
}

/// A header being written in order; large values go from file to file.
struct Head<'a> {
    placed: &'a Placed,
    checkpoint: &'a Checkpoint,
    file: usize,
    pending: Vec<u8>,
    written: u64,
}

impl Head<'_> {
    fn write(mut self, file: &File) -> Result<()> {
        self.push(&file.preamble())?;
        for entry in &file.kv {
            self.push(&entry_head(entry))?;
            match &entry.at {
                At::Bytes(bytes) => self.push(bytes)?,
                at => {
                    self.flush()?;
                    self.placed.copy(self.checkpoint, at, entry.n_bytes, self.file, self.written)?;
                    self.written += entry.n_bytes;
                }
            }
        }
        for info in &file.infos {
            self.push(&info.bytes())?;
        }
        self.flush()
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.placed.staged.write_at(self.file, self.written, &self.pending)?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}
