//! [`Hparams`]: config.json as the families of models look at it.

use std::path::{Path, PathBuf};

use quant_core::{Error, Result};
use serde_json::{Map, Value};

/// The hyperparameters of a model: config.json, with `text_config` on top, and what the configuration class of the model
/// would fill in.
#[derive(Clone, Debug)]
pub(crate) struct Hparams {
    map: Map<String, Value>,
    path: PathBuf,
    /// Keys that the configuration class filled in.
    filled: Vec<String>,
}

impl Hparams {
    /// Reads config.json. `path` is its path, for errors.
    ///
    /// # Errors
    /// If it is no JSON object.
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Hparams> {
        let value: Value = serde_json::from_slice(bytes).map_err(|e| Error::file(path, format!("cannot be read as JSON: {e}")))?;
        let Value::Object(mut map) = value else { return Err(Error::file(path, "found no JSON object, needed one")) };
        if let Some(Value::Object(mut text)) = map.get("text_config").cloned() {
            if text.get("architectures").is_some_and(Value::is_null) {
                text.remove("architectures");
            }
            map.extend(text);
        }
        Ok(Hparams { map, path: path.to_path_buf(), filled: Vec::new() })
    }

    /// Path of config.json, for errors.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The value of `key`; null counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Whether `key` is there, be it null.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Sets `key` unless it is there. Null counts as there: it was said.
    pub(crate) fn default(&mut self, key: &str, value: Value) {
        if !self.map.contains_key(key) {
            self.filled.push(key.into());
            self.map.insert(key.into(), value);
        }
    }

    /// The keys that config.json does not have and the configuration class filled in.
    pub(crate) fn filled(&self) -> &[String] {
        &self.filled
    }

    /// Sets `key`.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        self.map.insert(key.into(), value);
    }

    /// The first of `keys` that is there, with its value; as `find_hparam` of the reference, a null ends the search.
    pub(crate) fn find<'a, 'k>(&'a self, keys: &[&'k str]) -> Option<(&'k str, &'a Value)> {
        let key = keys.iter().find(|key| self.map.contains_key(**key))?;
        self.get(key).map(|value| (*key, value))
    }

    /// A count: an integer of 32 bits that is not negative.
    ///
    /// # Errors
    /// If the value is anything else. Absent is `None`.
    pub(crate) fn u32(&self, keys: &[&str]) -> Result<Option<u32>> {
        self.typed(keys, "an integer of 32 bits, not negative", |v| v.as_u64().and_then(|n| n.try_into().ok()))
    }

    /// A number.
    ///
    /// # Errors
    /// If the value is anything else.
    pub(crate) fn f64(&self, keys: &[&str]) -> Result<Option<f64>> {
        self.typed(keys, "a number", Value::as_f64)
    }

    /// A truth value.
    ///
    /// # Errors
    /// If the value is anything else.
    pub(crate) fn bool(&self, keys: &[&str]) -> Result<Option<bool>> {
        self.typed(keys, "true or false", Value::as_bool)
    }

    /// A text.
    ///
    /// # Errors
    /// If the value is anything else.
    pub(crate) fn text(&self, keys: &[&str]) -> Result<Option<&str>> {
        match self.find(keys) {
            None => Ok(None),
            Some((key, value)) => value.as_str().map(Some).ok_or_else(|| self.wrong(key, value, "a string")),
        }
    }

    /// An object, such as `rope_parameters`.
    pub(crate) fn object(&self, key: &str) -> Option<&Map<String, Value>> {
        self.get(key)?.as_object()
    }

    /// A count that must be there.
    ///
    /// # Errors
    /// If it is not, or is no count.
    pub(crate) fn need(&self, keys: &[&str]) -> Result<u32> {
        self.u32(keys)?.ok_or_else(|| self.missing(keys))
    }

    /// The error for a key that must be there.
    pub(crate) fn missing(&self, keys: &[&str]) -> Error {
        let names = keys.iter().map(|k| format!("'{k}'")).collect::<Vec<_>>().join(" or ");
        Error::file(&self.path, format!("found no {names}, which this architecture needs"))
    }

    /// The error for a key whose value has another type.
    pub(crate) fn wrong(&self, key: &str, found: &Value, needed: &str) -> Error {
        let found: String = found.to_string().chars().take(60).collect();
        Error::file(&self.path, format!("key '{key}': found {found}, needed {needed}"))
    }

    /// All of it as JSON, keys sorted.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        super::to_hf::pretty(&Value::Object(self.map.clone()))
    }

    fn typed<T>(&self, keys: &[&str], needed: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Option<T>> {
        match self.find(keys) {
            None => Ok(None),
            Some((key, value)) => read(value).map(Some).ok_or_else(|| self.wrong(key, value, needed)),
        }
    }
}
