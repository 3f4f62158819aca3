//! [`Keys`]: the metadata that a tokenizer is made of, with types checked.

use quant_core::{Error, Result};

use super::array::Walk;
use crate::checkpoint::Checkpoint;
use crate::gguf::{self, Entry, Kind, Scalar};

/// The longest text that is read, in bytes: a chat template.
const MAX_TEXT: u64 = 16 << 20;
/// The most names of chat templates.
const MAX_NAMES: u64 = 256;

/// The metadata of a model.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    pub(super) checkpoint: &'a Checkpoint,
}

impl<'a> Keys<'a> {
    /// The entry of `key`.
    pub(super) fn find(self, key: &str) -> Option<&'a Entry> {
        gguf::find_entry(&self.checkpoint.kv, key)
    }

    /// An array whose items are of one of `kinds`.
    ///
    /// # Errors
    /// If it is anything else, or has more than `max` items.
    pub(super) fn array(self, key: &str, kinds: &[Kind], max: u64) -> Result<Option<Walk<'a>>> {
        self.find(key).map(|entry| Walk::new(self.checkpoint, entry, kinds, max)).transpose()
    }

    /// A text.
    ///
    /// # Errors
    /// If it is anything else, is longer than 16 MiB, or not UTF-8.
    pub(super) fn text(self, key: &str) -> Result<Option<String>> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        if entry.kind != Kind::String {
            return Err(self.wrong(entry, "a string"));
        }
        let len = entry.n_bytes.saturating_sub(8);
        if len > MAX_TEXT {
            return Err(self.bad(key, format!("found {len} bytes, at most 16 MiB are read")));
        }
        let mut bytes = vec![0; len as usize];
        self.checkpoint.read_at(&entry.at, 8, &mut bytes)?;
        let text = String::from_utf8(bytes);
        text.map(Some).map_err(|e| self.bad(key, format!("not UTF-8 at byte {}", e.utf8_error().valid_up_to())))
    }

    /// Several short texts.
    ///
    /// # Errors
    /// If it is anything else.
    pub(super) fn texts(self, key: &str) -> Result<Vec<String>> {
        let Some(mut walk) = self.array(key, &[Kind::String], MAX_NAMES)? else { return Ok(Vec::new()) };
        let mut texts = Vec::new();
        while let Some(text) = walk.text()? {
            texts.push(text);
        }
        Ok(texts)
    }

    /// An integer that is not negative.
    ///
    /// # Errors
    /// If it is anything else.
    pub(super) fn unsigned(self, key: &str) -> Result<Option<u64>> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        entry.unsigned().map(Some).ok_or_else(|| self.wrong(entry, "an integer that is not negative"))
    }

    /// A truth value.
    ///
    /// # Errors
    /// If it is anything else.
    pub(super) fn flag(self, key: &str) -> Result<Option<bool>> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        match entry.scalar() {
            Some(Scalar::Bool(value)) => Ok(Some(value)),
            _ => Err(self.wrong(entry, "a truth value")),
        }
    }

    /// A problem of `key`.
    pub(super) fn bad(self, key: &str, problem: impl AsRef<str>) -> Error {
        Error::file(&self.checkpoint.path, format!("key '{key}': {}", problem.as_ref()))
    }

    fn wrong(self, entry: &Entry, needed: &str) -> Error {
        self.bad(&entry.key, format!("found a value of type {}, needed {needed}", entry.kind.name()))
    }
}
