//! The keys `general.*` of a GGUF that is made from a Hugging Face folder, and the files of such a folder made from them.
//!
//! What is known of a model comes from the file given for this, the model card, config.json and the name of the folder; the
//! first of them that says something counts. What has the wrong type for its key is left out and noted; the reference ends
//! with an exception there.
//!
//! Source: `ModelBase.prepare_metadata` of conversion/base.py and `Metadata.load` of gguf-py/gguf/metadata.py,
//! llama.cpp 0.5.0-dev.

mod card;
mod fields;
mod name;
mod plain;
mod rebuild;
mod sampling;
mod size_label;
#[cfg(test)]
mod tests;
mod yaml;

use quant_core::{Error, Result};
use serde_json::{Map, Value};

pub(crate) use fields::is_nothing;
pub(crate) use rebuild::{generation_config, model_card};
pub(crate) use size_label::{Counts, counts};

use crate::checkpoint::Checkpoint;
use crate::gguf::Entry;
use fields::Fields;

/// What the caller says of a model.
pub(crate) struct Given<'a> {
    /// Its name, which counts more than any other.
    pub(crate) model_name: Option<&'a str>,
    /// A JSON object of GGUF keys, which count more than what is found.
    pub(crate) overrides: Option<&'a [u8]>,
    /// The name of its folder.
    pub(crate) folder: &'a str,
}

/// The files that say something of a model; empty if they are not there.
#[derive(Default)]
struct Sources {
    card: Map<String, Value>,
    config: Map<String, Value>,
    generation: Map<String, Value>,
    overrides: Map<String, Value>,
}

/// The entries from `general.type` up to the first of the architecture, and notes on what is not in them.
///
/// # Errors
/// If a file cannot be read, or what was given to override is no JSON object.
pub(crate) fn entries(checkpoint: &Checkpoint, given: &Given<'_>, counts: &Counts) -> Result<(Vec<Entry>, Vec<String>)> {
    let mut notes = Vec::new();
    let sources = Sources {
        card: side_file(checkpoint, "README.md")?.map(|bytes| card::read(&bytes, &mut notes)).unwrap_or_default(),
        config: json(checkpoint, "config.json", &mut notes)?,
        generation: json(checkpoint, "generation_config.json", &mut notes)?,
        overrides: given.overrides.map(overrides).transpose()?.unwrap_or_default(),
    };
    let (entries, more) = assemble(&sources, given, counts);
    notes.extend(more);
    Ok((entries, notes))
}

fn assemble(sources: &Sources, given: &Given<'_>, counts: &Counts) -> (Vec<Entry>, Vec<String>) {
    let mut fields = Fields::default();
    card::apply(&sources.card, counts.total, &mut fields);
    match sources.config.get("_name_or_path") {
        // With more than one slash it is a path on the machine that made it.
        Some(Value::String(id)) if id.matches('/').count() <= 1 => fields.set_from_id(id, counts.total),
        Some(Value::String(_) | Value::Null) | None => (),
        Some(other) => fields.leave_out("config.json", "_name_or_path", other, "a text"),
    }
    fields.set_from_id(given.folder, counts.total);

    let sampling = sampling::entries(&sources.generation, &sources.overrides, &mut fields);
    apply_overrides(&sources.overrides, &mut fields);
    if let Some(name) = given.model_name {
        fields.texts.insert("name", name.into());
    }
    fields.texts.entry("name").or_insert_with(|| given.folder.into());
    if counts.total > 0 {
        fields.texts.entry("size_label").or_insert_with(|| size_label::size_label(counts));
    }

    let mut entries = vec![Entry::string("general.type", "model")];
    entries.extend(sampling);
    let (general, notes) = fields.entries();
    entries.extend(general);
    (entries, notes)
}

/// Sets what the file given for this says; null is nothing known.
fn apply_overrides(overrides: &Map<String, Value>, fields: &mut Fields) {
    // The licence alone cannot be overridden.
    for key in fields::TEXTS.into_iter().filter(|key| *key != "license") {
        let full = format!("general.{key}");
        match overrides.get(&full) {
            None => (),
            Some(Value::Null) => drop(fields.texts.remove(key)),
            Some(value) => {
                if let Some(text) = fields.text("metadata", &full, value) {
                    fields.texts.insert(key, text);
                }
            }
        }
    }
    if let Some(models) = overrides.get("general.base_models") {
        fields.base_models = parents("general.base_models", models, fields);
    }
    if let Some(datasets) = overrides.get("general.datasets") {
        fields.datasets = parents("general.datasets", datasets, fields);
    }
    if let Some(tags) = overrides.get("general.tags") {
        fields.tags = Some(tags.clone()).filter(|tags| !tags.is_null());
    }
    if let Some(languages) = overrides.get("general.languages") {
        fields.languages = Some(languages.clone()).filter(|languages| !languages.is_null());
    }
}

fn parents(key: &str, value: &Value, fields: &mut Fields) -> Option<Vec<Value>> {
    match value {
        Value::Null => None,
        Value::Array(parents) => Some(parents.clone()),
        // A text is a list of its characters, of which nothing is known but their number.
        Value::String(text) => Some(text.chars().map(|c| c.to_string().into()).collect()),
        other => {
            fields.leave_out("metadata", key, other, "a list");
            None
        }
    }
}

fn overrides(bytes: &[u8]) -> Result<Map<String, Value>> {
    let problem =
        |what: String| Error::request(format!("the metadata to override with: {what}, needed a JSON object of keys such as 'general.name'"));
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(problem("found JSON that is no object".into())),
        Err(e) => Err(problem(format!("cannot be read as JSON ({e})"))),
    }
}

/// A JSON object of the folder; empty if it is not there or, with a note, not an object.
fn json(checkpoint: &Checkpoint, name: &str, notes: &mut Vec<String>) -> Result<Map<String, Value>> {
    let Some(bytes) = side_file(checkpoint, name)? else { return Ok(Map::new()) };
    Ok(match serde_json::from_slice(&bytes) {
        Ok(Value::Object(map)) => map,
        Ok(_) => {
            notes.push(format!("{name} is no JSON object; it is left out of the metadata"));
            Map::new()
        }
        Err(e) => {
            notes.push(format!("{name} cannot be read as JSON ({e}); it is left out of the metadata"));
            Map::new()
        }
    })
}

fn side_file(checkpoint: &Checkpoint, name: &str) -> Result<Option<Vec<u8>>> {
    checkpoint.side_files.iter().find(|file| file.name == name).map(|file| checkpoint.side_file(file)).transpose()
}
