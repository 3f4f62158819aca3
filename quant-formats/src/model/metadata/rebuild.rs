//! The way back: generation_config.json and README.md from the keys `general.*` of a GGUF.
//!
//! Read again by [`super::entries`], they give the same keys, but for what these files have no place for.

use std::fmt::Write;

use quant_core::error::is_unsafe_to_print;
use serde_json::{Map, Value, json};

use super::sampling::{Kind, SAMPLING};
use crate::checkpoint::Checkpoint;
use crate::gguf::{self, Entry, Scalar, find_entry as find};

/// More tags, languages, base models or data sets than this are not written.
const MAX_ITEMS: u64 = 10_000;

/// generation_config.json: how to sample, and the ids that start and end a text. None if the keys say nothing of it.
pub(crate) fn generation_config(kv: &[Entry]) -> Option<Value> {
    let mut out = Map::new();
    for (name, names, kind) in SAMPLING {
        let entry = find(kv, &format!("general.sampling.{name}"));
        // The last name is the one that transformers knows.
        if let (Some(value), Some(name)) = (entry.and_then(|entry| setting(kind, entry)), names.last()) {
            out.insert((*name).into(), value);
        }
    }
    // Without it transformers leaves these alone, and refuses to save them.
    if ["temperature", "top_k", "top_p", "min_p"].iter().any(|name| out.contains_key(*name)) {
        out.insert("do_sample".into(), true.into());
    }
    for (key, name) in [("bos", "bos_token_id"), ("eos", "eos_token_id"), ("padding", "pad_token_id")] {
        let id = find(kv, &format!("tokenizer.ggml.{key}_token_id")).and_then(Entry::unsigned);
        out.extend(id.map(|id| (name.into(), id.into())));
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

fn setting(kind: Kind, entry: &Entry) -> Option<Value> {
    match (kind, entry.scalar()) {
        (Kind::Text, _) => entry.text().map(Into::into),
        (Kind::Integer, Some(Scalar::Signed(n))) => Some(n.into()),
        (Kind::Integer, Some(Scalar::Unsigned(n))) => Some(n.into()),
        // The shortest number that is this one in 32 bits: 0.95, not 0.949999988.
        (Kind::Float, Some(Scalar::Float(x))) => (x as f32).to_string().parse::<f64>().ok().filter(|x| x.is_finite()).map(|x| json!(x)),
        _ => None,
    }
}

/// README.md with the front matter of the hub. None if the keys say nothing that belongs there.
pub(crate) fn model_card(checkpoint: &Checkpoint) -> Option<String> {
    let kv = &checkpoint.kv;
    let text = |key: &str| find(kv, &format!("general.{key}")).and_then(Entry::text).filter(|text| !text.is_empty());
    let mut yaml = String::new();
    for (key, name) in [("license", "license"), ("license.name", "license_name"), ("license.link", "license_link")] {
        if let Some(text) = text(key) {
            let _ = writeln!(yaml, "{name}: {}", scalar(text));
        }
    }
    push_list(&mut yaml, "language", &texts(checkpoint, "languages"));
    push_list(&mut yaml, "tags", &texts(checkpoint, "tags"));
    push_list(&mut yaml, "base_model", &parents(kv, "base_model"));
    push_list(&mut yaml, "datasets", &parents(kv, "dataset"));
    if yaml.is_empty() {
        return None;
    }
    let mut out = format!("---\n{yaml}---\n");
    if let Some(name) = text("name") {
        let _ = write!(out, "\n# {}\n", name.replace(['\n', '\r'], " "));
    }
    if let Some(description) = text("description") {
        let _ = write!(out, "\n{description}\n");
    }
    Some(out)
}

fn push_list(yaml: &mut String, name: &str, items: &[String]) {
    if !items.is_empty() {
        let _ = writeln!(yaml, "{name}:");
        for item in items {
            let _ = writeln!(yaml, "- {}", scalar(item));
        }
    }
}

/// A text as YAML: as it is where that cannot be misread, else in quotes.
fn scalar(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+');
    let starts_plain = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let plain = starts_plain && text.chars().all(is_plain) && super::plain::resolve(text).is_string();
    if plain { text.into() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        let _ = match c {
            '"' | '\\' => write!(out, "\\{c}"),
            '\n' => write!(out, "\\n"),
            c if is_unsafe_to_print(c) => write!(out, "\\U{:08x}", u32::from(c)),
            c => write!(out, "{c}"),
        };
    }
    out + "\""
}

/// The items of a list of texts.
fn texts(checkpoint: &Checkpoint, key: &str) -> Vec<String> {
    let entry = find(&checkpoint.kv, &format!("general.{key}"));
    let Some(Ok(gguf::Value::Array(items))) = entry.map(|entry| entry.value(checkpoint, MAX_ITEMS)) else { return Vec::new() };
    items.into_iter().filter_map(|item| if let gguf::Value::Text(text) = item { Some(text) } else { None }).collect()
}

/// The ids or URLs of base models or data sets; their names, where nothing else is known.
fn parents(kv: &[Entry], what: &str) -> Vec<String> {
    let n = find(kv, &format!("general.{what}.count")).and_then(Entry::unsigned).unwrap_or(0);
    let parent = |i: u64| {
        let text = |key: &str| find(kv, &format!("general.{what}.{i}.{key}")).and_then(Entry::text);
        let url = text("repo_url").map(|url| url.strip_prefix("https://huggingface.co/").filter(|id| id.split('/').count() == 2).unwrap_or(url));
        url.or_else(|| text("name")).map(Into::into)
    };
    // There are no more of them than keys.
    (0..n.min(kv.len() as u64)).filter_map(parent).collect()
}
