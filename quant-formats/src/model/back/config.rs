//! tokenizer_config.json and chat_template.jinja.
//!
//! The class is `PreTrainedTokenizerFast`: transformers 4 and 5 take tokenizer.json for it as it is, where a class of a model
//! would take vocabulary and merges only. transformers 5 insists on the class of a model for some (Qwen2 among them).
//!
//! Source: `PreTrainedTokenizerBase.save_pretrained` and `AutoTokenizer.from_pretrained` of transformers 5.23.0;
//! `SpecialVocab.add_to_gguf` and `add_chat_template` of gguf-py.

use std::collections::BTreeMap;

use quant_core::{Error, Result};
use serde::Serialize;

use super::Files;
use super::keys::Keys;
use super::specials::{PURPOSES, Specials};
use super::vocab::Vocabulary;

const TEMPLATE: &str = "tokenizer.chat_template";
const TEMPLATE_NAMES: &str = "tokenizer.chat_templates";

/// A value of tokenizer_config.json.
#[derive(Serialize)]
#[serde(untagged)]
enum Value {
    Bool(bool),
    Count(u64),
    Text(String),
    Texts(&'static [&'static str]),
    Templates(Vec<Template>),
}

/// A chat template with a name.
#[derive(Serialize)]
struct Template {
    name: String,
    template: String,
}

/// The files, as name and bytes. With `pairs`, the model tells two texts from each other, as BERT does.
///
/// # Errors
/// If a key is not as it should be.
pub(super) fn files(keys: Keys, vocabulary: &Vocabulary, specials: &Specials, pairs: bool) -> Result<Files> {
    let mut config = settings(keys, specials, pairs)?;
    for (purpose, name, _) in PURPOSES {
        if let Some((text, _)) = specials.token(vocabulary, purpose) {
            config.insert(name, Value::Text(text.into()));
        }
    }
    let mut files = Vec::new();
    match templates(keys)? {
        Templates::None => {}
        Templates::One(text) => files.push(("chat_template.jinja".into(), text.into_bytes())),
        Templates::Kept(value) => {
            config.insert("chat_template", value);
        }
    }
    let mut bytes = serde_json::to_vec_pretty(&config).map_err(|e| Error::request(format!("cannot write tokenizer_config.json: {e}")))?;
    bytes.push(b'\n');
    files.insert(0, ("tokenizer_config.json".into(), bytes));
    Ok(files)
}

fn settings(keys: Keys, specials: &Specials, pairs: bool) -> Result<BTreeMap<&'static str, Value>> {
    let inputs: &[&str] = if pairs { &["input_ids", "token_type_ids", "attention_mask"] } else { &["input_ids", "attention_mask"] };
    let mut config = BTreeMap::from([
        ("clean_up_tokenization_spaces", Value::Bool(false)),
        ("model_input_names", Value::Texts(inputs)),
        ("tokenizer_class", Value::Text("PreTrainedTokenizerFast".into())),
    ]);
    let arch = keys.text("general.architecture")?.unwrap_or_default();
    if let Some(n) = keys.unsigned(&format!("{arch}.context_length"))? {
        config.insert("model_max_length", Value::Count(n));
    }
    // What BERT puts around a text is no choice.
    for (name, value) in [("add_bos_token", specials.add_bos), ("add_eos_token", specials.add_eos)] {
        if let Some(value) = value.filter(|_| !pairs) {
            config.insert(name, Value::Bool(value));
        }
    }
    Ok(config)
}

/// Where the chat templates go.
enum Templates {
    None,
    /// Into a file of its own.
    One(String),
    /// Into tokenizer_config.json: several, or one that reading as a text file would change.
    Kept(Value),
}

fn templates(keys: Keys) -> Result<Templates> {
    let default = keys.text(TEMPLATE)?;
    let mut named = Vec::new();
    for name in keys.texts(TEMPLATE_NAMES)? {
        if let Some(template) = keys.text(&format!("{TEMPLATE}.{name}"))? {
            named.push(Template { name, template });
        }
    }
    named.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(match default {
        Some(text) if named.is_empty() && !text.contains('\r') => Templates::One(text),
        Some(text) if named.is_empty() => Templates::Kept(Value::Text(text)),
        None if named.is_empty() => Templates::None,
        default => {
            let first = default.map(|template| Template { name: "default".into(), template });
            Templates::Kept(Value::Templates(first.into_iter().chain(named).collect()))
        }
    })
}
