//! SentencePiece vocabularies from tokenizer.model, with the tokens that other files add.
//!
//! Source: `_create_vocab_sentencepiece` of conversion/base.py and `Phi3MiniModel.set_vocab` of conversion/phi.py,
//! llama.cpp 0.5.0-dev.

use quant_core::{Error, Result};
use serde_json::{Map, Value};

use super::Build;
use super::folder::{Object, truthy};
use super::keys::{ADDED_SCORE, Tokens, Type, looks_special};
use super::special::{Special, Wanted};
use super::spm_model::Model;

/// How strict a family is with added tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// Ids beyond the vocabulary are left out, tokens that look special are, `▁` becomes a space.
    Usual,
    /// Ids beyond the vocabulary are errors, nothing is guessed, tokenizer.json's tokens count as well.
    Phi3,
}

impl Build<'_> {
    /// Whether there is a tokenizer.model.
    pub(super) fn has_spm(&self) -> bool {
        self.folder.has("tokenizer.model")
    }

    /// A SentencePiece vocabulary.
    pub(super) fn spm(&mut self) -> Result<()> {
        let model = self.spm_model("tokenizer.model")?;
        let n = self.vocab_size(&["vocab_size_per_layer_input", "vocab_size"])?.filter(|n| *n > 0).unwrap_or(model.pieces.len());
        self.write_spm(&model, n, Rules::Usual)
    }

    /// The vocabulary of Phi-3.
    pub(super) fn phi3(&mut self) -> Result<()> {
        let model = self.spm_model("tokenizer.model")?;
        let n = self.vocab_size(&["vocab_size"])?.unwrap_or(model.pieces.len());
        if model.pieces.len() > n {
            return Err(Error::file(
                self.hparams.path(),
                format!("found a vocab_size of {n}, but tokenizer.model has {} pieces", model.pieces.len()),
            ));
        }
        self.write_spm(&model, n, Rules::Phi3)
    }

    /// Reads a SentencePiece model.
    pub(super) fn spm_model(&self, name: &str) -> Result<Model> {
        let bytes = self.folder.bytes(name)?;
        let bytes = bytes.ok_or_else(|| self.folder.error(name, "found no such file, which this architecture's tokenizer is made from"))?;
        Model::parse(&bytes).map_err(|problem| self.folder.error(name, problem))
    }

    /// The pieces of a model as tokens, and holes up to `n`.
    pub(super) fn pieces(&mut self, model: &Model, n: usize) -> Result<Tokens> {
        let mut tokens = Tokens::holes(n, model.pieces.len()).map_err(|e| e.of(self.hparams.path()))?;
        for (id, piece) in model.pieces.iter().enumerate().take(n) {
            tokens.set(id, piece.text.clone(), piece.score, piece.kind);
        }
        if model.pieces.len() > n {
            self.notes.push(format!("tokenizer.model: pieces from id {n} on are beyond the vocabulary and are left out"));
        }
        Ok(tokens)
    }

    fn write_spm(&mut self, model: &Model, n: usize, rules: Rules) -> Result<()> {
        let mut tokens = self.pieces(model, n)?;
        self.add_from_added_tokens(&mut tokens)?;
        self.add_from_config(&mut tokens, rules)?;
        if rules == Rules::Phi3 {
            self.add_from_json(&mut tokens)?;
        }
        self.keys.vocabulary("llama", "default", &tokens, true);
        let special = Special::load(self.folder, Wanted::below(tokens.len()))?;
        self.special(special);
        Ok(())
    }

    fn add_from_added_tokens(&mut self, tokens: &mut Tokens) -> Result<()> {
        let Some(list) = self.folder.object("added_tokens.json")? else { return Ok(()) };
        for (text, raw) in list.iter() {
            let id = serde_json::from_str(raw).map_err(|_| no_id(&list, text))?;
            if !tokens.set(id, text.into(), ADDED_SCORE, Type::UserDefined) {
                self.left_out(id, tokens.len());
            }
        }
        Ok(())
    }

    fn add_from_config(&mut self, tokens: &mut Tokens, rules: Rules) -> Result<()> {
        let Some(own) = self.folder.object("tokenizer_config.json")? else { return Ok(()) };
        let Some(decoder) = own.object("added_tokens_decoder")? else { return Ok(()) };
        for (key, raw) in decoder.iter() {
            let id = key.trim().parse().map_err(|_| no_id(&own, key))?;
            let token: Map<String, Value> = serde_json::from_str(raw).map_err(|_| no_token(&own, key))?;
            let text = token.get("content").and_then(Value::as_str).ok_or_else(|| no_token(&own, key))?;
            let special = token.get("special").is_some_and(truthy);
            if rules == Rules::Phi3 {
                self.replace(tokens, id, text, special, &own)?;
            } else if special || looks_special(text) {
                self.replace_if_there(tokens, id, text.into(), Type::Control);
            } else {
                self.replace_if_there(tokens, id, text.replace('▁', " "), Type::UserDefined);
            }
        }
        Ok(())
    }

    fn add_from_json(&mut self, tokens: &mut Tokens) -> Result<()> {
        let Some(json) = self.folder.object("tokenizer.json")? else { return Ok(()) };
        for token in json.read::<Vec<Map<String, Value>>>("added_tokens")?.unwrap_or_default() {
            let id = token.get("id").and_then(Value::as_u64).and_then(|id| id.try_into().ok());
            let text = token.get("content").and_then(Value::as_str);
            let (Some(id), Some(text)) = (id, text) else { return Err(no_token(&json, "added_tokens")) };
            self.replace(tokens, id, text, token.get("special").is_some_and(truthy), &json)?;
        }
        Ok(())
    }

    fn replace(&mut self, tokens: &mut Tokens, id: usize, text: &str, special: bool, file: &Object) -> Result<()> {
        if id >= tokens.len() {
            return Err(file.error(format!("token '{text}' has the id {id}, needed one below the vocab_size of {}", tokens.len())));
        }
        self.replace_if_there(tokens, id, text.into(), if special { Type::Control } else { Type::UserDefined });
        Ok(())
    }

    fn replace_if_there(&mut self, tokens: &mut Tokens, id: usize, text: String, kind: Type) {
        if tokens.types.get(id).is_some_and(|kind| *kind != Type::Unused as i32)
            && let Some(old) = tokens.text(id).filter(|old| *old != text)
        {
            self.notes.push(format!("token {id} is '{text}' in place of '{old}'"));
        }
        if !tokens.set(id, text, ADDED_SCORE, kind) {
            self.left_out(id, tokens.len());
        }
    }

    fn left_out(&mut self, id: usize, n: usize) {
        self.notes.push(format!("the added token of id {id} is beyond the vocabulary of {n} tokens and is left out"));
    }
}

fn no_id(file: &Object, found: &str) -> Error {
    file.error(format!("token '{found}': found no id, needed a number that is not negative"))
}

fn no_token(file: &Object, key: &str) -> Error {
    file.error(format!("key '{key}': found no added token, needed an object with an id and a text 'content'"))
}
