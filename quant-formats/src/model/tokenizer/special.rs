//! [`Special`]: merges, the ids of special tokens, which of them a text gets, chat template and normalizer.
//!
//! Source: `SpecialVocab` of gguf-py/gguf/vocab.py, llama.cpp 0.5.0-dev.

use std::collections::HashMap;

use quant_core::{Error, Result};
use serde::Deserialize;
use serde_json::Value;

use super::fast::python_words;
use super::folder::{Folder, Object, is_python_space};
use super::keys::Keys;
use super::post_processor::PostProcessor;
use super::template::Template;

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Whether the merges are.
    pub(super) merges: bool,
    /// The kinds of special tokens.
    pub(super) kinds: &'a [&'a str],
    /// Ids from this one on are left out.
    pub(super) n_vocab: Option<usize>,
}

impl Wanted<'static> {
    /// The usual kinds.
    const KINDS: &'static [&'static str] = &["bos", "eos", "unk", "sep", "pad", "cls", "mask"];

    /// For a BPE tokenizer.
    pub(super) const MERGES: Wanted<'static> = Wanted { merges: true, kinds: Wanted::KINDS, n_vocab: None };

    /// For a vocabulary of `n` tokens without merges.
    pub(super) fn below(n: usize) -> Wanted<'static> {
        Wanted { merges: false, kinds: Wanted::KINDS, n_vocab: Some(n) }
    }
}

/// What was found.
#[derive(Default)]
pub(super) struct Special {
    merges: Vec<String>,
    /// Kinds and ids, in the order in which they were found.
    ids: Vec<(String, u32)>,
    /// Kinds, and whether a text gets that token.
    add: Vec<(String, bool)>,
    pub(super) template: Option<Template>,
    lowercase: Option<bool>,
    strip_accents: Option<bool>,
    n_vocab: Option<usize>,
    /// What a user should know.
    pub(super) notes: Vec<String>,
}

/// The keys of special tokens; other kinds have none and are not written.
const ID_KEYS: [(&str, &str); 8] = [
    ("bos", "tokenizer.ggml.bos_token_id"),
    ("eos", "tokenizer.ggml.eos_token_id"),
    ("unk", "tokenizer.ggml.unknown_token_id"),
    ("sep", "tokenizer.ggml.seperator_token_id"),
    ("pad", "tokenizer.ggml.padding_token_id"),
    ("mask", "tokenizer.ggml.mask_token_id"),
    ("eot", "tokenizer.ggml.eot_token_id"),
    ("eom", "tokenizer.ggml.eom_token_id"),
];

/// One entry of `added_tokens`.
#[derive(Deserialize)]
struct Added {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    content: Value,
}

impl Special {
    /// Collects from the files of a folder.
    ///
    /// # Errors
    /// If a file cannot be read or an id is negative or of more than 32 bits.
    pub(super) fn load(folder: Folder<'_>, wanted: Wanted<'_>) -> Result<Special> {
        let mut special = Special { n_vocab: wanted.n_vocab, ..Special::default() };
        let mut kinds: Vec<String> = wanted.kinds.iter().map(|kind| (*kind).into()).collect();
        let json = folder.object("tokenizer.json")?;
        let own = folder.object("tokenizer_config.json")?.unwrap_or_default();
        let mut names = Names::read(&own)?;
        if let Some(json) = json.as_ref().filter(|json| !json.is_empty()) {
            special.read_json(json, wanted.merges)?;
            PostProcessor { names: &mut names, kinds: &mut kinds, add: &mut special.add, notes: &mut special.notes }.read(json)?;
        }
        if !own.is_empty() {
            special.template = Template::load(folder, &own, &mut special.notes)?;
            special.read_own(&names, &kinds, json.as_ref())?;
        }
        special.read_config(folder, &kinds)?;
        if wanted.merges && special.merges.is_empty() {
            special.read_merges_txt(folder)?;
        }
        Ok(special)
    }

    /// Sets the id of a kind, unless it has one.
    pub(super) fn set_id(&mut self, kind: &str, id: u32) {
        if self.n_vocab.is_some_and(|n| id as usize >= n) {
            self.notes.push(format!("the id {id} of the special token '{kind}' is beyond the vocabulary and is left out"));
        } else if !self.ids.iter().any(|(old, _)| old == kind) {
            self.ids.push((kind.into(), id));
        }
    }

    /// Sets the keys of everything found.
    pub(super) fn write(&self, keys: &mut Keys) {
        keys.strings("tokenizer.ggml.merges", &self.merges);
        for (kind, id) in &self.ids {
            if let Some((_, key)) = ID_KEYS.iter().find(|(name, _)| name == kind) {
                keys.u32(key, *id);
            }
        }
        for (kind, value) in self.add.iter().filter(|(kind, _)| matches!(kind.as_str(), "bos" | "eos" | "sep")) {
            keys.bool(&format!("tokenizer.ggml.add_{kind}_token"), *value);
        }
        if let Some(template) = &self.template {
            template.write(keys);
        }
        if let Some(lowercase) = self.lowercase {
            keys.bool("tokenizer.ggml.normalizer.lowercase", lowercase);
        }
        if let Some(strip) = self.strip_accents {
            keys.bool("tokenizer.ggml.normalizer.strip_accents", strip);
        }
    }

    fn read_json(&mut self, json: &Object, with_merges: bool) -> Result<()> {
        let model = json.object("model")?;
        if let Some(model) = model.filter(|_| with_merges) {
            self.merges = read_merges(&model)?;
        }
        if let Some(normalizer) = json.value("normalizer")? {
            self.read_normalizer(&normalizer);
        }
        Ok(())
    }

    fn read_normalizer(&mut self, normalizer: &Value) {
        match normalizer.get("type").and_then(Value::as_str) {
            Some("Lowercase") => self.lowercase = Some(true),
            Some("StripAccents") => self.strip_accents = Some(true),
            Some("BertNormalizer") => {
                if let Some(lowercase) = normalizer.get("lowercase") {
                    self.lowercase = lowercase.as_bool();
                }
                if let Some(strip) = normalizer.get("strip_accents") {
                    self.strip_accents = strip.as_bool();
                }
            }
            Some("Sequence") => {
                for part in normalizer.get("normalizers").and_then(Value::as_array).into_iter().flatten() {
                    self.read_normalizer(part);
                }
            }
            _ => (),
        }
    }

    /// What tokenizer_config.json says: which tokens a text gets, where the post-processor did not say it, and which token is which.
    fn read_own(&mut self, names: &Names, kinds: &[String], json: Option<&Object>) -> Result<()> {
        let added: Vec<Added> = json.map(|json| json.read("added_tokens")).transpose()?.flatten().unwrap_or_default();
        let mut ids: HashMap<&str, &Value> = HashMap::new();
        for token in &added {
            if let Some(content) = token.content.as_str() {
                ids.entry(content).or_insert(&token.id);
            }
        }
        for kind in kinds {
            if let Some(Value::Bool(wanted)) = names.get(&format!("add_{kind}_token")) {
                match self.add.iter().find(|(old, _)| old == kind) {
                    None => self.add.push((kind.clone(), *wanted)),
                    Some((_, found)) if found != wanted => self.notes.push(format!(
                        "tokenizer_config.json says add_{kind}_token is {wanted}, tokenizer.json adds it: {found}; tokenizer.json counts"
                    )),
                    Some(_) => (),
                }
            }
            let text = match names.get(&format!("{kind}_token")) {
                Some(Value::String(text)) => Some(text.as_str()),
                Some(Value::Object(token)) => token.get("content").and_then(Value::as_str),
                _ => None,
            };
            if let (Some(json), Some(id)) = (json, text.and_then(|text| ids.get(text))) {
                self.set_value(kind, id, json)?;
            }
        }
        Ok(())
    }

    /// What config.json says, or its `text_config`.
    fn read_config(&mut self, folder: Folder<'_>, kinds: &[String]) -> Result<()> {
        let Some(config) = folder.object("config.json")? else { return Ok(()) };
        let inner = config.object("text_config")?.unwrap_or_default();
        for kind in kinds {
            let key = format!("{kind}_token_id");
            let id = match config.value(&key)? {
                None | Some(Value::Null) => inner.value(&key)?,
                id => id,
            };
            self.set_value(kind, &id.unwrap_or_default(), &config)?;
        }
        Ok(())
    }

    /// Sets an id from JSON. Only integers count, as which Python also takes truth values.
    fn set_value(&mut self, kind: &str, id: &Value, file: &Object) -> Result<()> {
        let id = match id {
            Value::Bool(flag) => u32::from(*flag),
            Value::Number(n) if n.is_f64() => return Ok(()),
            Value::Number(n) => n.as_u64().and_then(|id| id.try_into().ok()).ok_or_else(|| bad_id(kind, id, file))?,
            _ => return Ok(()),
        };
        self.set_id(kind, id);
        Ok(())
    }

    /// Merges from the file that came before tokenizer.json.
    fn read_merges_txt(&mut self, folder: Folder<'_>) -> Result<()> {
        let Some(text) = folder.text("merges.txt")? else { return Ok(()) };
        let first = text.split('\n').next().unwrap_or_default().trim_matches(is_python_space);
        for line in text.split('\n').skip(usize::from(first.starts_with('#'))) {
            let mut words = python_words(line);
            match (words.next(), words.next(), words.next()) {
                (Some(a), Some(b), None) => self.merges.push(format!("{a} {b}")),
                (None, ..) => (),
                _ => self.notes.push(format!("merges.txt: the line '{}' is no pair and is left out", line.chars().take(40).collect::<String>())),
            }
        }
        Ok(())
    }
}

fn bad_id(kind: &str, id: &Value, file: &Object) -> Error {
    file.error(format!("the id of the special token '{kind}' is {id}, needed an integer of 32 bits that is not negative"))
}

/// Merges as texts of two pieces and a space; a space in a piece becomes `Ġ`, the byte-level letter for it.
fn read_merges(model: &Object) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Merge {
        Text(String),
        Pair(Vec<String>),
    }
    let Some(raw) = model.raw("merges").filter(|raw| raw.starts_with('[')) else { return Ok(Vec::new()) };
    let unknown = || model.error("key 'model': found merges of an unknown form, needed texts of two pieces or pairs of texts");
    let merges: Vec<Merge> = serde_json::from_str(raw).map_err(|_| unknown())?;
    let joined = |merge| match merge {
        Merge::Text(text) => Ok(text),
        Merge::Pair(pair) if pair.len() == 2 => Ok(pair.iter().map(|piece| piece.replace(' ', "Ġ")).collect::<Vec<_>>().join(" ")),
        Merge::Pair(_) => Err(unknown()),
    };
    merges.into_iter().map(joined).collect()
}

/// Which token is which, as tokenizer_config.json says it and as the post-processor corrects it.
pub(super) struct Names {
    values: HashMap<String, Value>,
    /// Whether there is a tokenizer_config.json at all that says anything.
    pub(super) has_config: bool,
}

impl Names {
    fn read(own: &Object) -> Result<Names> {
        let keys = own.keys().filter(|key| key.ends_with("_token"));
        let values = keys.map(|key| Ok((key.to_owned(), own.value(key)?.unwrap_or_default()))).collect::<Result<_>>()?;
        Ok(Names { values, has_config: !own.is_empty() })
    }

    /// The value of a key such as `bos_token`.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// Sets it.
    pub(super) fn set(&mut self, key: &str, value: Value) {
        self.values.insert(key.into(), value);
    }
}
