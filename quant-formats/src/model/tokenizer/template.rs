//! [`Template`]: how a model's chat is written, from the one of several places that counts.
//!
//! tokenizer_config.json counts first, then chat_template.jinja, then chat_template.json. Where the reference collects the names of
//! several templates in a set, whose order changes from run to run, they are written in the order of the file.
//!
//! Source: `SpecialVocab` of gguf-py/gguf/vocab.py and `GGUFWriter.add_chat_template`, llama.cpp 0.5.0-dev.

use quant_core::Result;
use serde_json::Value;

use super::folder::{Folder, Object};
use super::keys::Keys;

/// One or several chat templates.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Template {
    One(String),
    /// Names and templates.
    Several(Vec<(String, String)>),
}

impl Template {
    /// The template of a folder. `own` is tokenizer_config.json.
    ///
    /// # Errors
    /// If a file cannot be read, or a template is no text.
    pub(super) fn load(folder: Folder<'_>, own: &Object, notes: &mut Vec<String>) -> Result<Option<Template>> {
        match own.value("chat_template")? {
            Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(Template::One(text))),
            Some(Value::Array(list)) => Template::several(&list).map(Some).ok_or_else(|| own.error(NO_TEXT)),
            Some(_) => {
                notes.push("tokenizer_config.json: 'chat_template' is neither a text nor a list and is left out".into());
                Ok(None)
            }
            None => Template::beside(folder, notes),
        }
    }

    fn beside(folder: Folder<'_>, notes: &mut Vec<String>) -> Result<Option<Template>> {
        if let Some(text) = folder.text("chat_template.jinja")? {
            return Ok(Some(Template::One(text)));
        }
        let Some(json) = folder.object("chat_template.json")? else { return Ok(None) };
        match json.value("chat_template")? {
            Some(Value::String(text)) => Ok(Some(Template::One(text))),
            Some(Value::Array(list)) => Template::several(&list).map(Some).ok_or_else(|| json.error(NO_TEXT)),
            Some(Value::Null) | None => Ok(None),
            Some(_) => {
                notes.push("chat_template.json: 'chat_template' is neither a text nor a list and is left out".into());
                Ok(None)
            }
        }
    }

    /// Names with anything but ASCII letters and digits made underscores, and templates.
    fn several(list: &[Value]) -> Option<Template> {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let mut templates = Vec::new();
        for choice in list {
            let name: String = choice.get("name").map_or(Some(""), Value::as_str)?.chars().map(plain).collect();
            let template = choice.get("template").filter(|template| !template.is_null());
            if let Some(template) = template.filter(|_| !name.is_empty()) {
                templates.push((name, template.as_str()?.to_owned()));
            }
        }
        Some(Template::Several(templates))
    }

    /// Sets the keys of the template.
    pub(super) fn write(&self, keys: &mut Keys) {
        match self {
            Template::One(text) => keys.string("tokenizer.chat_template", text),
            Template::Several(templates) => {
                let mut names: Vec<&str> = Vec::new();
                for (name, text) in templates.iter().filter(|(name, _)| name != "default") {
                    keys.string(&format!("tokenizer.chat_template.{name}"), text);
                    if !names.contains(&name.as_str()) {
                        names.push(name);
                    }
                }
                keys.strings("tokenizer.chat_templates", &names);
                if let Some((_, text)) = templates.iter().rfind(|(name, _)| name == "default") {
                    keys.string("tokenizer.chat_template", text);
                }
            }
        }
    }
}

const NO_TEXT: &str = "key 'chat_template': found an entry whose name or template is no text, needed texts";
