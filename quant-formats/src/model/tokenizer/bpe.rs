//! Vocabularies of `tokenizers`: byte-level BPE, BPE with byte tokens, and what WordPiece starts from.
//!
//! Source: `get_vocab_base`, `_set_vocab_gpt2` and `_set_vocab_llama_hf` of conversion/base.py and `LlamaHfVocab` of
//! gguf-py/gguf/vocab.py, llama.cpp 0.5.0-dev.

use std::collections::{BTreeMap, HashSet};

use quant_core::{Error, Result};
use serde_json::Value;
use tokenizers::AddedToken;

use super::Build;
use super::fast::Fast;
use super::keys::{ADDED_SCORE, Tokens, Type, looks_special};
use super::pre;
use super::special::{Special, Wanted};

impl Build<'_> {
    /// A byte-level BPE vocabulary with its merges.
    pub(super) fn gpt2(&mut self) -> Result<()> {
        let (tokens, pre) = self.base()?;
        self.keys.vocabulary("gpt2", &pre, &tokens, false);
        let special = Special::load(self.folder, Wanted::MERGES)?;
        self.special(special);
        Ok(())
    }

    /// Every token below the model's vocabulary size, with its type, and the name of the pre-tokenizer.
    pub(super) fn base(&mut self) -> Result<(Tokens, String)> {
        let tokenizer = Fast::load(self.folder)?;
        self.notes.extend(tokenizer.notes.iter().cloned());
        self.refuse_empty(&tokenizer)?;
        let vocab = tokenizer.vocab();
        let n = self.vocab_size(&["vocab_size"])?.unwrap_or(vocab.len());
        if let Some((text, id)) = vocab.iter().filter(|(_, id)| **id as usize >= n).max_by_key(|(_, id)| **id) {
            return Err(self.beyond(text, *id, n));
        }
        self.has_pre = true;
        let pre = pre::name(self.folder, &tokenizer, self.options.pre, &mut self.notes)?;
        let mut tokens = Tokens::holes(n, vocab.len()).map_err(|e| e.of(self.hparams.path()))?;
        let added = tokenizer.added();
        for (text, id) in by_id(vocab, added) {
            match added.get(&id).filter(|token| token.content == text) {
                Some(token) => {
                    let (text, kind) = added_token(&tokenizer, token)?;
                    tokens.set(id as usize, text, 0.0, kind);
                }
                None => {
                    tokens.set(id as usize, text, 0.0, Type::Normal);
                }
            }
        }
        Ok((tokens, pre))
    }

    /// Added tokens alone make no text.
    pub(super) fn refuse_empty(&self, tokenizer: &Fast<'_>) -> Result<()> {
        let name = if self.folder.has("tokenizer.json") { "tokenizer.json" } else { "vocab.json" };
        let problem = || self.folder.error(name, "found an empty vocabulary, needed tokens");
        if tokenizer.n_base() == 0 { Err(problem()) } else { Ok(()) }
    }

    fn beyond(&self, text: &str, id: u32, n: usize) -> Error {
        let problem = format!("found a vocab_size of {n}, but token '{text}' of the tokenizer has the id {id}; they belong to different models");
        Error::file(self.hparams.path(), problem)
    }

    /// Whether tokenizer.json is a BPE tokenizer of the kind that Llama 2 has: byte tokens, spaces as `▁`.
    pub(super) fn is_llama_hf(&self) -> Result<bool> {
        let Some(json) = self.folder.object("tokenizer.json")? else { return Ok(false) };
        let Some(model) = json.object("model")? else { return Ok(false) };
        let decoder = json.value("decoder")?.unwrap_or_default();
        let has_bytes = model.value("byte_fallback")? == Some(Value::Bool(true));
        Ok(model.text("type").as_deref() == Some("BPE") && has_bytes && decoder.get("type").and_then(Value::as_str) == Some("Sequence"))
    }

    /// Such a tokenizer, written as a SentencePiece vocabulary without scores to speak of.
    pub(super) fn llama_hf(&mut self) -> Result<()> {
        let tokenizer = Fast::load(self.folder)?;
        self.notes.extend(tokenizer.notes.iter().cloned());
        self.refuse_empty(&tokenizer)?;
        let n_base = tokenizer.n_base();
        let special: HashSet<u32> = tokenizer.specials().iter().filter_map(|text| tokenizer.id(text)).collect();
        let mut tokens = Tokens::default();
        for (text, id) in by_id(tokenizer.vocab(), tokenizer.added()) {
            if (id as usize) < n_base && id as usize != tokens.len() {
                return Err(self.folder.error("tokenizer.json", format!("no token has the id {}, needed one for every id", tokens.len())));
            }
            let kind = match (id as usize) < n_base {
                true if is_byte_token(&text) => Type::Byte,
                _ if special.contains(&id) => Type::Control,
                true => Type::Normal,
                false => Type::UserDefined,
            };
            tokens.push(text, ADDED_SCORE, kind);
        }
        self.keys.vocabulary("llama", "default", &tokens, true);
        let special = Special::load(self.folder, Wanted::below(tokens.len()))?;
        self.special(special);
        Ok(())
    }
}

/// Tokens in the order of their ids. Where two have the same one, an added token comes last and so counts.
fn by_id(vocab: impl IntoIterator<Item = (String, u32)>, added: &BTreeMap<u32, AddedToken>) -> Vec<(String, u32)> {
    let mut tokens: Vec<(String, u32)> = vocab.into_iter().collect();
    let is_added = |text: &str, id: u32| added.get(&id).is_some_and(|token| token.content == text);
    tokens.sort_by(|(a, i), (b, j)| i.cmp(j).then_with(|| is_added(a, *i).cmp(&is_added(b, *j))).then_with(|| a.cmp(b)));
    tokens
}

/// An added token as llama.cpp expects it: already normalized.
fn added_token(tokenizer: &Fast<'_>, token: &AddedToken) -> Result<(String, Type)> {
    let text = match token.normalized {
        true => token.content.clone(),
        false => tokenizer.decode(&tokenizer.encode(&token.content, false)?)?,
    };
    if token.special || looks_special(&text) { Ok((text, Type::Control)) } else { Ok((text.replace('▁', " "), Type::UserDefined)) }
}

/// Whether a token stands for one byte, such as `<0x0A>`.
fn is_byte_token(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}
