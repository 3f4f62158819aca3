//! `general.sampling.*`: how the makers of a model want it sampled.
//!
//! Source: `Metadata.load` of gguf-py/gguf/metadata.py, llama.cpp 0.5.0-dev.

use serde_json::{Map, Value};

use super::fields::{Fields, f32_of};
use crate::gguf::{self, Entry};

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    Integer,
    Float,
}

/// The keys after `general.sampling.` in their order, with the names in generation_config.json; the first that is there counts.
pub(super) const SAMPLING: [(&str, &[&str], Kind); 12] = [
    ("sequence", &["sequence"], Kind::Text),
    ("top_k", &["top_k"], Kind::Integer),
    ("top_p", &["top_p"], Kind::Float),
    ("min_p", &["min_p"], Kind::Float),
    ("xtc_probability", &["xtc_probability"], Kind::Float),
    ("xtc_threshold", &["xtc_threshold"], Kind::Float),
    ("temp", &["temperature"], Kind::Float),
    ("penalty_last_n", &["penalty_last_n"], Kind::Integer),
    ("penalty_repeat", &["penalty_repeat", "repetition_penalty"], Kind::Float),
    ("mirostat", &["mirostat"], Kind::Integer),
    ("mirostat_tau", &["mirostat_tau"], Kind::Float),
    ("mirostat_eta", &["mirostat_eta"], Kind::Float),
];

/// The entries; a key of `overrides` counts more than one of `config`, even with null, which is no value.
pub(super) fn entries(config: &Map<String, Value>, overrides: &Map<String, Value>, fields: &mut Fields) -> Vec<Entry> {
    let mut out = Vec::new();
    for (name, names, kind) in SAMPLING {
        let key = format!("general.sampling.{name}");
        let overriding = overrides.get(&key).map(|value| (METADATA, key.as_str(), value));
        let configured = || names.iter().find_map(|name| Some((CONFIG, *name, config.get(*name)?)));
        if let Some((source, name, value)) = overriding.or_else(configured).filter(|(.., value)| !value.is_null()) {
            out.extend(entry(kind, &key, (source, name, value), fields));
        }
    }
    out
}

const METADATA: &str = "metadata";
const CONFIG: &str = "generation_config.json";

fn entry(kind: Kind, key: &str, (source, name, value): (&str, &str, &Value), fields: &mut Fields) -> Option<Entry> {
    let (entry, needed) = match kind {
        Kind::Text => return fields.text(source, name, value).filter(|text| !text.is_empty()).map(|text| Entry::string(key, &text)),
        Kind::Integer => (i32_of(value).map(|n| Entry::new(key, gguf::Kind::I32, n.to_le_bytes().to_vec())), "an integer of 32 bits"),
        Kind::Float => (f32_of(value).map(|x| Entry::f32(key, x)), "a number"),
    };
    if entry.is_none() {
        fields.leave_out(source, name, value, needed);
    }
    entry
}

/// An integer; true and false are 1 and 0.
fn i32_of(value: &Value) -> Option<i32> {
    value.as_bool().map(i32::from).or_else(|| value.as_i64()?.try_into().ok())
}
