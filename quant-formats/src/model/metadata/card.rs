//! The model card: what README.md says between its first two lines of `---`.
//!
//! Source: `Metadata.load_model_card` and `apply_metadata_heuristic` of gguf-py/gguf/metadata.py, llama.cpp 0.5.0-dev.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};

use super::fields::Fields;
use super::name::{components, title};
use super::yaml;

/// Keys of a card and what they say, in the order in which they are asked: the first that is there counts.
const TEXTS: [(&str, &str); 26] = [
    ("name", "name"),
    ("author", "author"),
    ("version", "version"),
    ("organization", "organization"),
    ("description", "description"),
    ("finetune", "finetune"),
    ("basename", "basename"),
    ("size_label", "size_label"),
    ("source.url", "url"),
    ("source.doi", "doi"),
    ("source.uuid", "uuid"),
    ("source.repo_url", "repo_url"),
    ("name", "model_name"),
    ("author", "model_author"),
    ("version", "model_version"),
    ("organization", "model_organization"),
    ("description", "model_description"),
    ("finetune", "model_finetune"),
    ("basename", "model_basename"),
    ("size_label", "model_size_label"),
    ("source.url", "model_url"),
    ("source.doi", "model_doi"),
    ("source.uuid", "model_uuid"),
    ("source.repo_url", "model_repo_url"),
    ("author", "model_creator"),
    ("basename", "model_type"),
];

const CARD: &str = "README.md";
/// The longest front matter that is read. Those of the benchmarks of embeddings have a megabyte.
const MAX_YAML: usize = 8 << 20;

/// The front matter as a mapping, empty if there is none. What it says wrongly is noted.
pub(super) fn read(bytes: &[u8], notes: &mut Vec<String>) -> Map<String, Value> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        notes.push(format!("{CARD} is not UTF-8; it is left out of the metadata"));
        return Map::new();
    };
    let problem = match front_matter(text) {
        None => return Map::new(),
        Some(yaml) if yaml.len() > MAX_YAML => format!("has {} bytes, at most {MAX_YAML} are read", yaml.len()),
        Some(yaml) => match yaml::read(&yaml) {
            Ok(Value::Object(map)) => return map,
            Ok(_) => "is no mapping".into(),
            Err(problem) => format!("cannot be read as YAML, {problem}"),
        },
    };
    notes.push(format!("{CARD}: the front matter {problem}; it is left out of the metadata"));
    Map::new()
}

/// The lines between the first, which must be `---`, and the next of these, or the end.
fn front_matter(text: &str) -> Option<String> {
    let text = text.replace("\r\n", "\n");
    let text = text.strip_suffix(ends_line).unwrap_or(&text);
    let mut lines = text.split(ends_line);
    if lines.next() != Some("---") {
        return None;
    }
    let mut yaml = String::new();
    for line in lines.take_while(|line| *line != "---") {
        yaml += line;
        yaml.push('\n');
    }
    if yaml.is_empty() {
        yaml.push('\n');
    }
    // Norwegian is not false, and a tab is two spaces.
    Some(yaml.replace("- no\n", "- \"no\"\n").replace('\t', "  "))
}

/// Where `str.splitlines` of Python ends a line.
fn ends_line(c: char) -> bool {
    matches!(c, '\n'..='\r' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Fills the fields from a card.
pub(super) fn apply(card: &Map<String, Value>, total: i64, fields: &mut Fields) {
    for (to, key) in TEXTS {
        if let Some(value) = card.get(key) {
            fields.set_missing(to, CARD, key, value);
        }
    }
    fields.base_models = parents(card, ["base_model", "base_models", "base_model_sources"], total, fields);
    fields.datasets = parents(card, ["datasets", "dataset", "dataset_sources"], total, fields);
    if let Some(license) = card.get("license") {
        set_license(license, fields);
    }
    for (to, key) in [("license.name", "license_name"), ("license.link", "license_link")] {
        if let Some(value) = card.get(key) {
            fields.set_missing(to, CARD, key, value);
        }
    }
    fields.tags = collected(card, ["tags", "pipeline_tag"]);
    fields.languages = collected(card, ["languages", "language"]);
}

/// A licence, or several.
fn set_license(license: &Value, fields: &mut Fields) {
    let Some(list) = license.as_array() else { return fields.set_missing("license", CARD, "license", license) };
    match list.iter().map(Value::as_str).collect::<Option<Vec<_>>>() {
        Some(names) => drop(fields.texts.insert("license", names.join(","))),
        None => fields.leave_out(CARD, "license", license, "a text or a list of texts"),
    }
}

/// The items of two keys, each a text or a list.
fn collected(card: &Map<String, Value>, keys: [&str; 2]) -> Option<Value> {
    let values: Vec<&Value> = keys.iter().filter_map(|key| card.get(*key)).filter(|value| !value.is_null()).collect();
    let items = values.iter().flat_map(|value| items(value)).collect();
    (!values.is_empty()).then_some(Value::Array(items))
}

/// A text is one item; what is neither text nor list has none.
fn items(value: &Value) -> Vec<Value> {
    match value {
        Value::String(_) => vec![value.clone()],
        Value::Array(items) => items.clone(),
        _ => Vec::new(),
    }
}

/// Base models or data sets: those of the first of `keys` that is there, if only with null.
fn parents(card: &Map<String, Value>, keys: [&str; 3], total: i64, fields: &mut Fields) -> Option<Vec<Value>> {
    let (key, value) = keys.iter().find_map(|key| Some((*key, card.get(*key)?)))?;
    let parent = |item: &Value| match item {
        Value::String(id) => Value::Object(parent(id, total)),
        Value::Object(_) => item.clone(),
        other => {
            fields.leave_out(CARD, key, other, "a name, a URL or a mapping");
            Value::Object(Map::new())
        }
    };
    Some(items(value).iter().map(parent).collect())
}

/// What an id or a URL says of a model.
fn parent(id: &str, total: i64) -> Map<String, Value> {
    static HUB: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\Ahttps?://huggingface.co/([^/]+/[^/]+)\z").expect("the pattern is valid"));
    let is_url = ["http://", "https://", "ssh://"].iter().any(|scheme| id.starts_with(scheme));
    let mut out = Map::new();
    // The dot of the pattern is any character, as in the reference; the text is looked for as well.
    let on_hub = HUB.captures(id).and_then(|found| found.get(1)).filter(|_| id.contains("huggingface.co"));
    if is_url {
        out.insert("repo_url".into(), id.into());
    }
    let id = match on_hub {
        Some(found) => found.as_str(),
        None if is_url => return out,
        None => id,
    };
    let found = components(id, total);
    if let (false, Some(organization), Some(name)) = (is_url, &found.organization, &found.name) {
        out.insert("repo_url".into(), format!("https://huggingface.co/{organization}/{name}").into());
    }
    let told = [("name", found.name.map(|n| title(&n))), ("organization", found.organization.map(|o| title(&o))), ("version", found.version)];
    out.extend(told.into_iter().filter_map(|(key, text)| Some((key.into(), text?.into()))));
    out
}
