//! [`Settings`]: special and added tokens of a tokenizer, as transformers collects them from the files of a folder.
//!
//! tokenizer_config.json leads. If it does not list the added tokens itself, as older ones do not, special_tokens_map.json,
//! added_tokens.json and tokenizer.json say it together, each overruling the one before.
//!
//! Source: `PreTrainedTokenizerBase._from_pretrained` and `__init__`, transformers 5.23.0.

use std::collections::BTreeMap;

use quant_core::{Error, Result};
use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::class::Class;
use super::folder::{Folder, Object, truthy};
use super::pipeline;

/// The attributes that every tokenizer has, in their order.
const ATTRIBUTES: [&str; 7] = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"];

/// A special token that is mentioned somewhere, by its text alone or with its settings.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mention {
    Text(String),
    Token(AddedToken),
}

/// What is known of special and added tokens.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// By attribute, in the order of [`ATTRIBUTES`]; none where null or no default says otherwise.
    named: Vec<(String, Option<Mention>)>,
    /// Attributes of this model only, such as `image_token`: those that stand among the settings, and those that are set apart.
    specific: Vec<(String, Mention)>,
    set_apart: Vec<(String, Mention)>,
    /// Further special tokens; none if nothing was said.
    pub(super) extra: Option<Vec<Mention>>,
    /// Whether they are those of the older key only, which special_tokens_map.json may replace.
    extra_is_older: bool,
    /// Added tokens by id.
    pub(super) added: BTreeMap<u32, AddedToken>,
    /// Whether a first or last token is put around a text: only folders without tokenizer.json say it here.
    pub(super) add_bos: Option<bool>,
    pub(super) add_eos: Option<bool>,
    pub(super) split_special_tokens: bool,
    pub(super) clean_up: bool,
}

impl Mention {
    /// The text.
    pub(super) fn text(&self) -> &str {
        match self {
            Mention::Text(text) => text,
            Mention::Token(token) => &token.content,
        }
    }

    /// The token to add for it: a text alone is a special token.
    pub(super) fn token(&self) -> AddedToken {
        match self {
            Mention::Text(text) => AddedToken::from(text.clone(), true),
            Mention::Token(token) => token.clone(),
        }
    }

    fn read(value: &Value) -> Option<Mention> {
        match value {
            Value::String(text) => Some(Mention::Text(text.clone())),
            Value::Object(map) => added_token(map, false).map(Mention::Token),
            _ => None,
        }
    }
}

impl Settings {
    /// Collects the settings for `class`. `own` is tokenizer_config.json, `json` is tokenizer.json.
    ///
    /// # Errors
    /// If a file cannot be read or a token in it is none.
    pub(super) fn load(folder: Folder<'_>, class: Class, own: &Object, json: Option<&Object>) -> Result<Settings> {
        let mut settings = Settings::default();
        settings.read_own(own, json.is_some())?;
        match own.object("added_tokens_decoder")? {
            Some(decoder) => settings.read_decoder(&decoder)?,
            None => settings.read_older(folder, json)?,
        }
        settings.resolve();
        settings.complete(class, json)?;
        Ok(settings)
    }

    /// The special tokens that have a name, each with its attribute.
    pub(super) fn mentions(&self) -> impl Iterator<Item = &Mention> {
        self.named.iter().filter_map(|(_, mention)| mention.as_ref()).chain(self.specific.iter().map(|(_, mention)| mention))
    }

    /// The text of the special token of an attribute, such as `bos`.
    pub(super) fn text(&self, attribute: &str) -> Option<&str> {
        self.named.iter().find(|(name, _)| name == attribute).and_then(|(_, mention)| mention.as_ref()).map(Mention::text)
    }

    fn read_own(&mut self, own: &Object, with_json: bool) -> Result<()> {
        for key in own.keys().filter(|key| key.ends_with("_token")) {
            let Some(value) = own.value(key)? else { continue };
            match ATTRIBUTES.iter().find(|name| key.strip_suffix("_token") == Some(**name)) {
                Some(name) => self.set(name, Mention::read(&value)),
                None => match Mention::read(&value) {
                    Some(text @ Mention::Text(_)) => self.set_apart.push((key.to_owned(), text)),
                    Some(token) => self.specific.push((key.to_owned(), token)),
                    None => (),
                },
            }
        }
        self.read_extra(own)?;
        if !with_json {
            (self.add_bos, self.add_eos) = (flag(own, "add_bos_token")?, flag(own, "add_eos_token")?);
        }
        self.split_special_tokens = flag(own, "split_special_tokens")?.unwrap_or(false);
        self.clean_up = flag(own, "clean_up_tokenization_spaces")?.unwrap_or(false);
        Ok(())
    }

    /// Further special tokens: a list, or an object that gives them names. The older key counts beside an object, not beside a list.
    fn read_extra(&mut self, own: &Object) -> Result<()> {
        let extra = own.value("extra_special_tokens")?;
        let older = own.value("additional_special_tokens")?;
        if let Some(Value::Object(_)) = extra {
            for (key, raw) in own.object("extra_special_tokens")?.unwrap_or_default().iter() {
                let value = serde_json::from_str(raw).unwrap_or_default();
                self.set_apart.extend(Mention::read(&value).map(|mention| (key.to_owned(), mention)));
            }
            self.extra_is_older = true;
        }
        let said = extra.as_ref().is_some_and(|value| !value.is_object());
        match extra.filter(|value| truthy(value) && !value.is_object()).or(older) {
            Some(Value::Array(list)) => self.extra = Some(list.iter().filter_map(Mention::read).collect()),
            _ if said => self.extra = Some(Vec::new()),
            _ => (),
        }
        Ok(())
    }

    fn read_decoder(&mut self, decoder: &Object) -> Result<()> {
        for (key, raw) in decoder.iter() {
            let id = key.trim().parse().map_err(|_| decoder.error(format!("key 'added_tokens_decoder': found the id '{key}', needed a number")))?;
            let token: Option<Map<String, Value>> = serde_json::from_str(raw).ok();
            let token = token.and_then(|map| added_token(&map, false));
            self.added.insert(id, token.ok_or_else(|| no_token(decoder, &format!("key 'added_tokens_decoder', id {id}")))?);
        }
        Ok(())
    }

    fn read_older(&mut self, folder: Folder<'_>, json: Option<&Object>) -> Result<()> {
        if let Some(map) = folder.object("special_tokens_map.json")? {
            self.read_map(&map)?;
        }
        if let Some(list) = folder.object("added_tokens.json")? {
            let special: Vec<String> =
                self.named.iter().filter_map(|(_, m)| m.as_ref()).chain(self.extra.iter().flatten()).map(|m| m.text().into()).collect();
            for (text, _) in list.iter() {
                let id = list.read(text)?.ok_or_else(|| no_token(&list, text))?;
                self.added.insert(id, AddedToken::from(text, special.iter().any(|s| s == text)));
            }
        }
        let Some(json) = json else { return Ok(()) };
        for map in json.read::<Vec<Map<String, Value>>>("added_tokens")?.unwrap_or_default() {
            let id = map.get("id").and_then(Value::as_u64).and_then(|id| id.try_into().ok());
            let (Some(id), Some(token)) = (id, added_token(&map, false)) else { return Err(no_token(json, "key 'added_tokens'")) };
            self.added.insert(id, token);
        }
        Ok(())
    }

    fn read_map(&mut self, map: &Object) -> Result<()> {
        for (key, _) in map.iter() {
            let value = map.value(key)?.unwrap_or_default();
            let mention = match &value {
                Value::Object(fields) => added_token(fields, true).map(Mention::Token),
                other => Mention::read(other),
            };
            match (key, &value) {
                ("extra_special_tokens", Value::Object(tokens)) => {
                    self.set_apart.extend(tokens.iter().filter_map(|(name, value)| Some((name.clone(), Mention::read(value)?))));
                }
                ("extra_special_tokens", Value::Array(list)) => {
                    let extra = self.extra.get_or_insert_default();
                    for mention in list.iter().filter_map(special_mention) {
                        if !extra.contains(&mention) {
                            extra.push(mention);
                        }
                    }
                }
                ("additional_special_tokens", Value::Array(list)) if self.extra.is_none() || self.extra_is_older => {
                    self.extra = Some(list.iter().filter_map(special_mention).collect());
                }
                _ => match (key.strip_suffix("_token"), mention) {
                    (Some(name), mention) if ATTRIBUTES.contains(&name) => self.set(name, mention),
                    (Some(_), Some(mention)) => put(&mut self.specific, key, mention),
                    _ => (),
                },
            }
        }
        Ok(())
    }

    fn set(&mut self, attribute: &str, mention: Option<Mention>) {
        match self.named.iter_mut().find(|(name, _)| name == attribute) {
            Some(entry) => entry.1 = mention,
            None => self.named.push((attribute.into(), mention)),
        }
    }

    /// Gives special tokens the settings that the added tokens of the same text have.
    fn resolve(&mut self) {
        for mention in self.named.iter_mut().filter_map(|(_, mention)| mention.as_mut()) {
            if let Some(token) = self.added.values().rev().find(|token| token.content == mention.text()) {
                *mention = Mention::Token(token.clone());
            }
        }
    }

    /// Fills in what the class has by default, and what tokenizer.json pads with; brings all into the order of [`ATTRIBUTES`].
    fn complete(&mut self, class: Class, json: Option<&Object>) -> Result<()> {
        for (name, text) in pipeline::defaults(class) {
            if !self.named.iter().any(|(old, _)| old == name) {
                self.set(name, text.map(|text| Mention::Text(text.into())));
            }
        }
        if !self.named.iter().any(|(name, _)| name == "pad")
            && let Some(padding) = json.map(|json| json.value("padding")).transpose()?.flatten()
            && let Some(text) = padding.get("pad_token").and_then(Value::as_str)
        {
            self.set("pad", Some(Mention::Text(text.into())));
        }
        for (key, mention) in std::mem::take(&mut self.set_apart) {
            put(&mut self.specific, &key, mention);
        }
        self.named.sort_by_key(|(name, _)| ATTRIBUTES.iter().position(|attribute| attribute == name));
        Ok(())
    }
}

/// Sets a key, which keeps its place if it is there.
fn put(list: &mut Vec<(String, Mention)>, key: &str, mention: Mention) {
    match list.iter_mut().find(|(old, _)| old == key) {
        Some(entry) => entry.1 = mention,
        None => list.push((key.into(), mention)),
    }
}

/// A truth value of tokenizer_config.json, by Python's idea of truth; null counts as absent.
pub(super) fn flag(own: &Object, key: &str) -> Result<Option<bool>> {
    Ok(own.value(key)?.filter(|value| !value.is_null()).map(|value| truthy(&value)))
}

fn special_mention(value: &Value) -> Option<Mention> {
    match value {
        Value::Object(fields) => added_token(fields, true).map(Mention::Token),
        other => Mention::read(other),
    }
}

/// The token that an object describes; a text that nothing is said of is normalized unless it is special.
fn added_token(map: &Map<String, Value>, special: bool) -> Option<AddedToken> {
    let is = |key: &str| map.get(key).and_then(Value::as_bool);
    let token = AddedToken::from(map.get("content")?.as_str()?, special || is("special").unwrap_or(false));
    let normalized = is("normalized").unwrap_or(token.normalized);
    let token = token.single_word(is("single_word").unwrap_or(false)).normalized(normalized);
    Some(token.lstrip(is("lstrip").unwrap_or(false)).rstrip(is("rstrip").unwrap_or(false)))
}

fn no_token(file: &Object, place: &str) -> Error {
    file.error(format!("{place}: found no added token, needed an object with a text 'content' and an id"))
}
