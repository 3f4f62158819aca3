//! [`Folder`]: the files beside the weights, read as Python reads them; [`Object`]: a JSON object that keeps its order.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use quant_core::{Error, Result};
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::checkpoint::Checkpoint;
use crate::json::problem;
use crate::model::metadata::is_nothing;

/// The files of a model folder, by name.
#[derive(Clone, Copy)]
pub(super) struct Folder<'a> {
    checkpoint: &'a Checkpoint,
}

impl<'a> Folder<'a> {
    /// The folder of `checkpoint`.
    pub(super) fn new(checkpoint: &'a Checkpoint) -> Folder<'a> {
        Folder { checkpoint }
    }

    /// Whether there is a file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.checkpoint.side_files.iter().any(|file| file.name == name)
    }

    /// The path of a file, for errors.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.checkpoint.path.join(name)
    }

    /// An error that concerns a file.
    pub(super) fn error(&self, name: &str, problem: impl Into<String>) -> Error {
        Error::file(&self.path(name), problem)
    }

    /// The bytes of a file, if it is there.
    pub(super) fn bytes(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.checkpoint.side_files.iter().find(|file| file.name == name).map(|file| self.checkpoint.side_file(file)).transpose()
    }

    /// The text of a file as Python's `open` gives it: UTF-8, every kind of line end a newline.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        let text = String::from_utf8(bytes).map_err(|e| self.error(name, format!("not UTF-8 at byte {}", e.utf8_error().valid_up_to())))?;
        Ok(Some(if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text }))
    }

    /// The JSON object that a file holds.
    pub(super) fn object(&self, name: &str) -> Result<Option<Object>> {
        let Some(bytes) = self.bytes(name)? else { return Ok(None) };
        let fields = serde_json::from_slice(&bytes).map_err(|e| self.error(name, format!("cannot be read as a JSON object: {}", problem(&e))))?;
        Ok(Some(Object { path: self.path(name), fields }))
    }
}

/// A JSON object whose values stay text until they are asked for, in the order of the file.
#[derive(Clone, Default)]
pub(super) struct Object {
    path: PathBuf,
    fields: Fields,
}

#[derive(Clone, Default)]
struct Fields(Vec<(String, Box<RawValue>)>);

impl Object {
    /// Whether it has no keys.
    pub(super) fn is_empty(&self) -> bool {
        self.fields.0.is_empty()
    }

    /// The keys, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.fields.0.iter().map(|(key, _)| key.as_str())
    }

    /// Keys and values as text, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.0.iter().map(|(key, value)| (key.as_str(), value.get()))
    }

    /// The value of `key` as text.
    pub(super) fn raw(&self, key: &str) -> Option<&str> {
        self.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// The value of `key`, read as a `T`. Null is a value.
    pub(super) fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        let read = |raw| serde_json::from_str(raw).map_err(|e| self.error(format!("key '{key}': cannot be read: {}", problem(&e))));
        self.raw(key).map(read).transpose()
    }

    /// The value of `key`. Null is a value.
    pub(super) fn value(&self, key: &str) -> Result<Option<Value>> {
        self.read(key)
    }

    /// The text that `key` holds; anything else counts as absent.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.raw(key).and_then(|raw| serde_json::from_str(raw).ok())
    }

    /// The object that `key` holds; null counts as absent.
    pub(super) fn object(&self, key: &str) -> Result<Option<Object>> {
        let Some(raw) = self.raw(key).filter(|raw| *raw != "null") else { return Ok(None) };
        let fields = serde_json::from_str(raw).map_err(|e| self.error(format!("key '{key}': found no object: {}", problem(&e))))?;
        Ok(Some(Object { path: self.path.clone(), fields }))
    }

    /// An error that concerns this object's file.
    pub(super) fn error(&self, problem: impl Into<String>) -> Error {
        Error::file(&self.path, problem)
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Fields, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    /// As in Python, a key that comes again keeps its place and takes the later value.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Fields, A::Error> {
        let mut places = HashMap::new();
        let mut fields: Vec<(String, Box<RawValue>)> = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
            match places.get(&key).and_then(|&place: &usize| fields.get_mut(place)) {
                Some(field) => field.1 = value,
                None => {
                    places.insert(key.clone(), fields.len());
                    fields.push((key, value));
                }
            }
        }
        Ok(Fields(fields))
    }
}

/// Whether Python takes a value for true.
pub(super) fn truthy(value: &Value) -> bool {
    !is_nothing(value)
}

/// Whether Python's `str.strip` and `str.split` take a character for white space.
pub(super) fn is_python_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}
