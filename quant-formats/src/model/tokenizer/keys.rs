//! [`Keys`]: entries in the order in which they are first set; [`Tokens`]: a vocabulary as GGUF stores it.

use quant_core::{Error, Result};

use crate::gguf::{Entry, Kind};

/// What kind of token it is, in the numbers of GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

/// Score of a token that was added to a vocabulary, and of one that only fills a hole.
pub(super) const ADDED_SCORE: f32 = -1000.0;
const HOLE_SCORE: f32 = -10000.0;

/// How many more tokens config.json may promise than the tokenizer has. Real models round up by some thousands at most.
const MAX_HOLES: usize = 1 << 20;

/// The tokens of a vocabulary, by id.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    pub(super) texts: Vec<String>,
    pub(super) scores: Vec<f32>,
    pub(super) types: Vec<i32>,
}

impl Tokens {
    /// `n` tokens that fill holes: `[PAD0]`, `[PAD1]`, and so on. `n_known` is how many the tokenizer has.
    ///
    /// # Errors
    /// If `n` is absurd beside `n_known`.
    pub(super) fn holes(n: usize, n_known: usize) -> Result<Tokens> {
        if n > n_known.saturating_add(MAX_HOLES) {
            return Err(Error::request(format!(
                "found a vocab_size of {n} for a tokenizer of {n_known} tokens, at most {MAX_HOLES} more than those are filled up"
            )));
        }
        let texts = (0..n).map(|id| format!("[PAD{id}]")).collect();
        Ok(Tokens { texts, scores: vec![HOLE_SCORE; n], types: vec![Type::Unused as i32; n] })
    }

    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The text of token `id`.
    pub(super) fn text(&self, id: usize) -> Option<&str> {
        self.texts.get(id).map(String::as_str)
    }

    /// Sets token `id`, or says that there is none.
    pub(super) fn set(&mut self, id: usize, text: String, score: f32, kind: Type) -> bool {
        let (Some(t), Some(s), Some(k)) = (self.texts.get_mut(id), self.scores.get_mut(id), self.types.get_mut(id)) else { return false };
        (*t, *s, *k) = (text, score, kind as i32);
        true
    }

    /// Adds a token at the end.
    pub(super) fn push(&mut self, text: String, score: f32, kind: Type) {
        self.texts.push(text);
        self.scores.push(score);
        self.types.push(kind as i32);
    }
}

/// Entries as the reference's writer collects them: what is set again keeps its place, empty strings and arrays are left out.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Entry>);

impl Keys {
    /// Sets an entry.
    pub(super) fn set(&mut self, entry: Entry) {
        match self.0.iter_mut().find(|old| old.key == entry.key) {
            Some(old) => *old = entry,
            None => self.0.push(entry),
        }
    }

    /// Sets a string, unless it is empty.
    pub(super) fn string(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.set(Entry::string(key, text));
        }
    }

    /// Sets a list of strings, unless it is empty.
    pub(super) fn strings(&mut self, key: &str, items: &[impl AsRef<str>]) {
        if !items.is_empty() {
            self.set(Entry::strings(key, items));
        }
    }

    /// Sets a truth value.
    pub(super) fn bool(&mut self, key: &str, value: bool) {
        self.set(Entry::bool(key, value));
    }

    /// Sets a number.
    pub(super) fn u32(&mut self, key: &str, value: u32) {
        self.set(Entry::u32(key, value));
    }

    /// Sets a list of bytes, unless it is empty.
    pub(super) fn bytes(&mut self, key: &str, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut value = Kind::U8.id().to_le_bytes().to_vec();
        value.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        value.extend_from_slice(bytes);
        self.set(Entry { items: Some((Kind::U8, bytes.len() as u64)), ..Entry::new(key, Kind::Array, value) });
    }

    /// Sets model, pre-tokenizer, tokens, scores if wanted, and types.
    pub(super) fn vocabulary(&mut self, model: &str, pre: &str, tokens: &Tokens, with_scores: bool) {
        self.string("tokenizer.ggml.model", model);
        self.string("tokenizer.ggml.pre", pre);
        self.strings("tokenizer.ggml.tokens", &tokens.texts);
        if with_scores && !tokens.scores.is_empty() {
            self.set(Entry::f32s("tokenizer.ggml.scores", &tokens.scores));
        }
        if !tokens.types.is_empty() {
            self.set(Entry::i32s("tokenizer.ggml.token_type", &tokens.types));
        }
    }

    /// The entries, in order.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.0
    }
}

/// Whether an added token is one for control by its looks: some models do not say it of theirs.
///
/// Source: `TextModel.does_token_look_special` of conversion/base.py, llama.cpp 0.5.0-dev.
pub(super) fn looks_special(token: &str) -> bool {
    let between = |start, end| token.starts_with(start) && token.ends_with(end);
    matches!(token, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]") || between("<|", "|>") || between("<｜", "｜>") || between("<unused", ">")
}
