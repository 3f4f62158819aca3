//! How the embeddings of tokens become that of a text: what sentence-transformers keeps beside a model.
//!
//! Source: `TextModel._try_set_pooling_type` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev.

use std::path::{Component, Path};

use quant_core::{Error, Result};
use serde_json::Value;

use crate::input::{Input, Io};
use crate::model::hparams::Hparams;
use crate::model::metadata::is_nothing;

/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 20;
const MEAN: u32 = 1;
const CLS: u32 = 2;
const LAST: u32 = 3;

/// The number that GGUF has for the pooling that modules.json names; none if there is no such file, or no pooling in it.
///
/// # Errors
/// If a file cannot be read, or the pooling is none that GGUF knows.
pub(crate) fn kind(h: &Hparams) -> Result<Option<u32>> {
    let Some(folder) = h.path().parent() else { return Ok(None) };
    let path = folder.join("modules.json");
    if !path.is_file() {
        return Ok(None);
    }
    let Some(module) = pooling_module(&json(&path)?, &path)? else { return Ok(None) };
    let path = folder.join(&module).join("config.json");
    let pooling = json(&path)?;
    let is_set = |key: &str| pooling.get(key).is_some_and(|value| !is_nothing(value));
    for (key, kind) in [("pooling_mode_mean_tokens", MEAN), ("pooling_mode_cls_token", CLS), ("pooling_mode_lasttoken", LAST)] {
        if is_set(key) {
            return Ok(Some(kind));
        }
    }
    let mode = pooling.get("pooling_mode").and_then(Value::as_str).and_then(of_mode);
    mode.map(Some).ok_or_else(|| Error::file(&path, "found a pooling that GGUF does not have, needed mean, cls or lasttoken"))
}

/// The number for a pooling by name.
pub(crate) fn of_mode(name: &str) -> Option<u32> {
    [("mean", MEAN), ("cls", CLS), ("lasttoken", LAST)].iter().find(|(mode, _)| *mode == name).map(|(_, kind)| *kind)
}

/// The folder of the first module that is a pooling.
fn pooling_module(modules: &Value, path: &Path) -> Result<Option<String>> {
    let text = |module: &Value, key: &str| module.get(key).and_then(Value::as_str).map(str::to_owned);
    let modules = modules.as_array().map(Vec::as_slice).unwrap_or_default();
    let Some(module) = modules.iter().find(|m| text(m, "type").is_some_and(|kind| kind.ends_with("Pooling"))) else {
        return Ok(None);
    };
    let folder = text(module, "path").unwrap_or_default();
    // A name from a file does not lead out of the model's folder.
    if Path::new(&folder).components().all(|part| matches!(part, Component::Normal(_))) {
        Ok(Some(folder))
    } else {
        Err(Error::file(path, format!("found the path '{folder}' of a module, needed one within the folder")))
    }
}

fn json(path: &Path) -> Result<Value> {
    let file = Input::open(path, Io::Read)?;
    if file.len() > MAX_BYTES {
        return Err(Error::file(path, format!("found {} bytes, needed at most {MAX_BYTES}", file.len())));
    }
    let mut bytes = vec![0; file.len() as usize];
    file.read_at(0, &mut bytes)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::file(path, format!("cannot be read as JSON: {e}")))
}
