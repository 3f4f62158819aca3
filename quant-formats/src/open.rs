//! Opening a model of any format.

use std::path::Path;

use quant_core::{Error, Result};

use crate::checkpoint::Checkpoint;
use crate::hf::config::Config;
use crate::hf::roles;
use crate::input::{Input, Opening};
use crate::{bqt, gguf, safetensors};

/// The ending of a safetensors index.
const INDEX_ENDING: &[u8] = b".index.json";

/// Opens a file or a folder. Headers are checked whole; no weight is read.
///
/// A folder is read in the layout of Hugging Face, or as a GGUF file or set of shards if it holds that and no safetensors; the
/// index of a folder stands for the folder. What a file is, its
/// first bytes tell.
///
/// # Errors
/// If it is not a model that can be read, naming the file and what is wrong.
pub fn open(path: &Path, how: impl Into<Opening>) -> Result<Checkpoint> {
    let opening = how.into();
    let io = opening.io;
    if path.is_dir() {
        if opening.vocab_only && safetensors::read::has_only_config(path)? {
            return safetensors::read::open_without_weights(path);
        }
        return match gguf::find(path)? {
            Some(file) => gguf::open(Input::open(&file, io)?, opening),
            None => safetensors::read::open_folder(path, io),
        };
    }
    if path.as_os_str().as_encoded_bytes().ends_with(INDEX_ENDING) && path.is_file() {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return safetensors::read::open_folder(folder, io);
    }
    let input = Input::open(path, io)?;
    let mut magic = [0; 4];
    let n = input.len().min(4) as usize;
    input.read_at(0, &mut magic[..n])?;
    // By these bytes or by its name: the reader then tells what has happened to the other, such as a transfer as text.
    let is_called = |ending: &str| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(ending));
    if magic == bqt::MAGIC[..4] || is_called("bqt") {
        let mut checkpoint = bqt::open(input)?;
        settle(&mut checkpoint)?;
        return Ok(checkpoint);
    }
    if is_called("toml") {
        return Err(Error::file(path, "is named like a recipe, needed a model; --recipe takes recipes"));
    }
    if magic == *b"GGUF" && is_called("safetensors") {
        return Err(Error::file(path, "is a GGUF file, whatever its name says; rename it to .gguf"));
    }
    if magic == *b"GGUF" || magic == *b"FUGG" || is_called("gguf") {
        return gguf::open(input, opening);
    }
    safetensors::read::open_file(path, io)
}

/// Finds the role of every tensor, and checks that its parts have the sizes that its scheme needs.
pub(crate) fn settle(checkpoint: &mut Checkpoint) -> Result<()> {
    let config = checkpoint.config()?.map(|bytes| Config::parse(&bytes));
    let config = match config {
        Some(Err(problem)) => {
            checkpoint.notes.push(format!("config.json cannot be read and was not used: {problem}"));
            None
        }
        Some(Ok(config)) => Some(config),
        None => None,
    };
    for i in 0..checkpoint.tensors.len() {
        let t = &checkpoint.tensors[i];
        let role = roles::role(&t.name, &t.shape, t.dtype, config.as_ref());
        if let Err(problem) = t.check_parts() {
            return Err(Error::tensor(checkpoint.file_of(i), &t.name, problem));
        }
        checkpoint.tensors[i].role = role;
    }
    Ok(())
}
