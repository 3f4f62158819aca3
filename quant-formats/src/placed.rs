//! [`Placed`]: an output of one or more files in which every part has its place.

use std::path::Path;

use quant_core::sink::Sink;
use quant_core::{Error, Result};

use crate::checkpoint::{At, Checkpoint, Origin, Place, SideFile};
use crate::output::{NewFile, Staged};

/// Bytes of a piece of what is copied.
const PIECE: u64 = 1 << 20;

/// An output being written.
pub(crate) struct Placed {
    pub(crate) staged: Staged,
    /// For each planned tensor, for each part, its place. None for parts that are given or not stored.
    pub(crate) places: Vec<Vec<Option<Place>>>,
}

impl Placed {
    /// Begins the files of an output: a folder of them, or the only one.
    pub(crate) fn create(
        target: &Path,
        folder: bool,
        files: Vec<NewFile>,
        places: Vec<Vec<Option<Place>>>,
        checkpoint: &Checkpoint,
        force: bool,
    ) -> Result<Placed> {
        let inputs = checkpoint.identities()?;
        let staged = if folder {
            Staged::folder(target, files, force, &inputs)?
        } else {
            Staged::file(target, files.first().map_or(0, |f| f.n_bytes), force, &inputs)?
        };
        Ok(Placed { staged, places })
    }

    /// Writes the files again that the checkpoint came in, byte for byte; in a folder with the given files beside them.
    ///
    /// A model that was one file on its own had no name; it gets `name`.
    pub(crate) fn restore(target: &Path, folder: bool, name: &str, origin: &Origin, checkpoint: &Checkpoint, force: bool) -> Result<Placed> {
        let named = |own: &str| if own.is_empty() { name.to_owned() } else { own.to_owned() };
        let mut files: Vec<NewFile> = origin.files.iter().map(|f| NewFile { name: named(&f.name), n_bytes: f.n_bytes }).collect();
        let beside: Vec<&SideFile> = if folder { origin.index.iter().chain(&checkpoint.side_files).collect() } else { Vec::new() };
        files.extend(beside.iter().map(|b| NewFile { name: b.name.clone(), n_bytes: b.n_bytes }));
        let placed = Placed::create(target, folder, files, origin.places.clone(), checkpoint, force)?;
        for (i, file) in origin.files.iter().enumerate() {
            placed.copy(checkpoint, &file.head.at, file.head.n_bytes, i, 0)?;
            for gap in &file.gaps {
                placed.copy(checkpoint, &gap.at, gap.n_bytes, i, gap.offset)?;
            }
        }
        for (i, file) in (origin.files.len()..).zip(beside) {
            placed.copy(checkpoint, &file.at, file.n_bytes, i, 0)?;
        }
        Ok(placed)
    }

    /// Copies `n_bytes` that lie at `from` to `offset` of file `to`, a piece at a time.
    pub(crate) fn copy(&self, checkpoint: &Checkpoint, from: &At, n_bytes: u64, to: usize, offset: u64) -> Result<()> {
        let mut buffer = vec![0; n_bytes.min(PIECE) as usize];
        let mut done = 0;
        while done < n_bytes {
            let piece = &mut buffer[..(n_bytes - done).min(PIECE) as usize];
            checkpoint.read_at(from, done, piece)?;
            self.staged.write_at(to, offset + done, piece)?;
            done += piece.len() as u64;
        }
        Ok(())
    }

    /// Makes the output appear under its name.
    pub(crate) fn finish(self) -> Result<()> {
        self.staged.commit()
    }
}

impl Sink for Placed {
    fn write(&self, tensor: usize, part: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        match self.places[tensor][part] {
            Some(place) => self.staged.write_at(place.file, place.offset + offset, bytes),
            None => Ok(()),
        }
    }
}

/// The origin of a checkpoint, for errors where one is needed.
pub(crate) fn origin_of(checkpoint: &Checkpoint) -> Result<&Origin> {
    checkpoint.origin.as_ref().ok_or_else(|| Error::request("the checkpoint does not say how its files were laid out"))
}
