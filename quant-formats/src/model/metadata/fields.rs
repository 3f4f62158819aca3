//! [`Fields`]: what is known of a model, key by key, until it is written.
//!
//! Source: `Metadata.set_gguf_meta_model` of gguf-py/gguf/metadata.py and `add_string`, `add_array` of gguf_writer.py,
//! llama.cpp 0.5.0-dev.

use std::collections::BTreeMap;

use serde_json::Value;

use super::name::{Components, components, title};
use super::plain::is_untold;
use crate::gguf::Entry;

/// The keys with one text, after `general.`, in the order in which they are written.
pub(super) const TEXTS: [&str; 20] = [
    "name",
    "author",
    "version",
    "organization",
    "finetune",
    "basename",
    "description",
    "quantized_by",
    "size_label",
    "license",
    "license.name",
    "license.link",
    "url",
    "doi",
    "uuid",
    "repo_url",
    "source.url",
    "source.doi",
    "source.uuid",
    "source.repo_url",
];

/// The keys of a base model or data set, in order.
const PARENT: [&str; 9] = ["name", "author", "version", "organization", "description", "url", "doi", "uuid", "repo_url"];

/// How many values that are left out are named. A list may have any number of them.
const MAX_NOTES: usize = 50;

/// How many base models or data sets are written. Each becomes several keys, of which a file may have 65536.
const MAX_PARENTS: usize = 5000;

/// What is known of a model.
#[derive(Default)]
pub(super) struct Fields {
    /// By the keys of [`TEXTS`]. An empty text is not written, but is known all the same: nothing takes its place.
    pub(super) texts: BTreeMap<&'static str, String>,
    /// Models that this one was made from.
    pub(super) base_models: Option<Vec<Value>>,
    /// Data that it was trained on.
    pub(super) datasets: Option<Vec<Value>>,
    /// Usually a list of texts.
    pub(super) tags: Option<Value>,
    /// Likewise.
    pub(super) languages: Option<Value>,
    /// What was left out, and why.
    notes: Vec<String>,
    /// How many more notes there were than are kept.
    n_untold: usize,
}

impl Fields {
    /// Sets the text `to`, unless it is known, to the value that `source` has under `key`.
    pub(super) fn set_missing(&mut self, to: &'static str, source: &str, key: &str, value: &Value) {
        if !self.texts.contains_key(to)
            && let Some(text) = self.text(source, key, value)
        {
            self.texts.insert(to, text);
        }
    }

    /// The text of a value that must be one. Zero, false and empty collections are no text at all, as in Python.
    pub(super) fn text(&mut self, source: &str, key: &str, value: &Value) -> Option<String> {
        match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            value if is_nothing(value) => Some(String::new()),
            value => {
                self.leave_out(source, key, value, "a text");
                None
            }
        }
    }

    /// Notes that a value is of no use.
    pub(super) fn leave_out(&mut self, source: &str, key: &str, value: &Value, needed: &str) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(format!("{source}: '{key}' is {}, needed {needed}; it is left out", shown(value)));
        } else {
            self.n_untold += 1;
        }
    }

    /// Fills what is not known yet from an id.
    pub(super) fn set_from_id(&mut self, id: &str, total: i64) {
        let Components { name, organization, basename, finetune, version, size_label } = components(id, total);
        let known = [
            ("name", name.map(|n| title(&n))),
            ("organization", organization.map(|o| title(&o))),
            ("basename", basename),
            ("finetune", finetune),
            ("version", version),
            ("size_label", size_label),
        ];
        for (key, text) in known {
            if let Some(text) = text {
                self.texts.entry(key).or_insert(text);
            }
        }
    }

    /// The entries in order, and the notes.
    pub(super) fn entries(mut self) -> (Vec<Entry>, Vec<String>) {
        let mut out = Vec::new();
        for key in TEXTS {
            push_text(&mut out, format!("general.{key}"), self.texts.get(key));
        }
        if let Some(models) = self.base_models.take() {
            self.push_parents(&mut out, "base_model", &models);
        }
        if let Some(datasets) = self.datasets.take() {
            self.push_parents(&mut out, "dataset", &datasets);
        }
        if let Some(tags) = self.tags.take() {
            out.extend(self.list("tags", &tags));
        }
        if let Some(languages) = self.languages.take() {
            out.extend(self.list("languages", &languages));
        }
        if self.n_untold > 0 {
            self.notes.push(format!("{} more values of the metadata are left out for such reasons", self.n_untold));
        }
        (out, self.notes)
    }

    fn push_parents(&mut self, out: &mut Vec<Entry>, what: &str, parents: &[Value]) {
        if parents.len() > MAX_PARENTS {
            self.notes.push(format!("found {} entries for general.{what}; those after the first {MAX_PARENTS} are left out", parents.len()));
        }
        let parents = &parents[..parents.len().min(MAX_PARENTS)];
        out.push(Entry::u32(format!("general.{what}.count"), parents.len().try_into().unwrap_or(u32::MAX)));
        for (i, parent) in parents.iter().enumerate() {
            for key in PARENT {
                let key_of_value = format!("general.{what}.{i}.{key}");
                if let Some(value) = parent.get(key) {
                    push_text(out, &key_of_value, self.text("metadata", &key_of_value, value).as_ref());
                }
            }
        }
    }

    /// A list of values of one type. One text stands for a list of its characters, as every sequence of Python does.
    fn list(&mut self, name: &str, value: &Value) -> Option<Entry> {
        let key = format!("general.{name}");
        match value {
            Value::Array(items) => list_of_one_type(&key, items).unwrap_or_else(|| self.list_of_texts(key, items)),
            Value::String(text) if text.is_empty() => None,
            Value::String(text) => Some(Entry::strings(key, &text.chars().map(String::from).collect::<Vec<_>>())),
            Value::Object(map) if map.is_empty() => None,
            value => {
                self.leave_out("metadata", &key, value, "a list of texts");
                None
            }
        }
    }

    /// The texts of a list that the reference could not write.
    fn list_of_texts(&mut self, key: String, items: &[Value]) -> Option<Entry> {
        for item in items.iter().filter(|item| !item.is_string()) {
            self.leave_out("metadata", &format!("an item of {key}"), item, "a text");
        }
        let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
        (!texts.is_empty()).then(|| Entry::strings(key, &texts))
    }
}

fn push_text(out: &mut Vec<Entry>, key: impl Into<String>, text: Option<&String>) {
    out.extend(text.filter(|text| !text.is_empty()).map(|text| Entry::string(key, text)));
}

/// The entry of a list whose items are all texts, or all numbers of one type: None in None if there are no items.
fn list_of_one_type(key: &str, items: &[Value]) -> Option<Option<Entry>> {
    if items.is_empty() {
        return Some(None);
    }
    let texts = || Some(Entry::strings(key, &items.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?));
    let bools = || Some(Entry::bools(key, &items.iter().map(Value::as_bool).collect::<Option<Vec<_>>>()?));
    let integers = || Some(Entry::i32s(key, &items.iter().map(|v| v.as_i64()?.try_into().ok()).collect::<Option<Vec<_>>>()?));
    let floats = || Some(Entry::f32s(key, &items.iter().map(|v| f32_of(v).filter(|_| v.is_f64())).collect::<Option<Vec<_>>>()?));
    texts().or_else(bools).or_else(integers).or_else(floats).map(Some)
}

/// A number as f32, unless only infinity is near enough.
pub(super) fn f32_of(value: &Value) -> Option<f32> {
    let number = value.as_f64().or_else(|| value.as_bool().map(|b| f64::from(u8::from(b))))?;
    Some(number as f32).filter(|x| x.is_finite())
}

/// What is false in Python.
pub(crate) fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// A value for a message, cut.
fn shown(value: &Value) -> String {
    match value {
        // A whole value may be a list of megabytes.
        Value::Array(items) => format!("a list of {}", items.len()),
        value if is_untold(value) => "no text (a date, or a number out of range)".into(),
        Value::Object(map) => format!("a mapping of {}", map.len()),
        Value::String(text) => format!("'{}'", text.chars().take(60).collect::<String>()),
        other => other.to_string(),
    }
}
