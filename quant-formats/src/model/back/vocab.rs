//! [`Vocabulary`]: the tokens of a model, with what the metadata says of each.
//!
//! Source: `TextModel.get_vocab_base` and `_create_vocab_sentencepiece` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev, which
//! write the keys, and `llama_vocab::impl::load`, which reads them.

use std::collections::HashMap;

use quant_core::Result;
use serde::{Serialize, Serializer};

use super::keys::Keys;
use crate::gguf;

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";

/// The most tokens: more than ten times what any model has.
const MAX_TOKENS: u64 = 1 << 22;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Found by the model of the tokenizer.
    Normal,
    /// Stands for what has no token.
    Unknown,
    /// Found in the text as it is, before anything else; not shown to people.
    Control,
    /// Found in the text as it is, before anything else.
    UserDefined,
    /// Never found.
    Unused,
    /// One byte, as `<0x0A>`.
    Byte,
    /// No token: fills up a table of embeddings that is larger than the vocabulary, or is the same text as another one.
    Hole,
}

/// One token.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    /// Its text, as the tokenizer's model writes it.
    pub(super) text: String,
    /// What it is.
    pub(super) kind: Kind,
    /// Its log-probability, or minus its place in the order of merges; 0 if there are no scores.
    pub(super) score: f32,
}

impl Token {
    /// Whether it is found in the text before the model of the tokenizer sees that.
    pub(super) fn is_added(&self) -> bool {
        matches!(self.kind, Kind::Control | Kind::UserDefined | Kind::Unknown) && !self.text.is_empty()
    }
}

/// The tokens, by id.
pub(super) struct Vocabulary {
    pub(super) tokens: Vec<Token>,
    /// Whether there are scores.
    pub(super) has_scores: bool,
}

impl Vocabulary {
    /// Reads the tokens with their types and scores.
    ///
    /// # Errors
    /// If they are missing, of another type, not UTF-8, or if there are fewer types or scores than tokens.
    pub(super) fn read(keys: Keys) -> Result<Vocabulary> {
        let Some(mut walk) = keys.array(TOKENS, &[gguf::Kind::String], MAX_TOKENS)? else {
            return Err(keys.bad(TOKENS, "is missing, needed the vocabulary of the tokenizer that 'tokenizer.ggml.model' names"));
        };
        let mut tokens = Vec::new();
        while let Some(text) = walk.text()? {
            tokens.push(Token { text, kind: Kind::Normal, score: 0.0 });
        }
        each(keys, TYPES, &[gguf::Kind::I32, gguf::Kind::U32], &mut tokens, |token, n| token.kind = kind(n as i64))?;
        let has_scores = each(keys, SCORES, &[gguf::Kind::F32, gguf::Kind::I32], &mut tokens, |token, n| token.score = n as f32)?;
        Ok(Vocabulary { tokens, has_scores })
    }

    /// The token `id`, if there is one.
    pub(super) fn get(&self, id: u32) -> Option<&Token> {
        self.tokens.get(id as usize).filter(|token| token.kind != Kind::Hole)
    }

    /// All tokens with their ids, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Token)> {
        (0..).zip(&self.tokens).filter(|(_, token)| token.kind != Kind::Hole)
    }

    /// The ids, by text.
    pub(super) fn ids(&self) -> HashMap<&str, u32> {
        self.iter().map(|(id, token)| (token.text.as_str(), id)).collect()
    }

    /// Takes out what is no token: `filler(id)` for one that was never in the vocabulary, and texts that came before.
    pub(super) fn make_holes(&mut self, filler: impl Fn(usize) -> String, notes: &mut Vec<String>) {
        for (id, token) in self.tokens.iter_mut().enumerate() {
            if token.kind == Kind::Unused && token.text == filler(id) {
                token.kind = Kind::Hole;
            }
        }
        let mut seen = HashMap::new();
        let twice: Vec<(u32, u32)> = self.iter().filter_map(|(id, t)| seen.insert(t.text.as_str(), id).map(|first| (first, id))).collect();
        if let Some((first, id)) = twice.first() {
            let more = if twice.len() > 1 { format!(" and {} more", twice.len() - 1) } else { String::new() };
            notes.push(format!("tokenizer: token {id}{more} has the same text as a token before it ({first}) and is left out"));
        }
        for (_, id) in twice {
            if let Some(token) = self.tokens.get_mut(id as usize) {
                token.kind = Kind::Hole;
            }
        }
    }
}

/// Reads one number for each token, if the key is there; tells whether it is.
fn each(keys: Keys, key: &str, kinds: &[gguf::Kind], tokens: &mut [Token], set: impl Fn(&mut Token, f64)) -> Result<bool> {
    let Some(mut walk) = keys.array(key, kinds, MAX_TOKENS)? else { return Ok(false) };
    if walk.n() < tokens.len() as u64 {
        return Err(keys.bad(key, format!("found {} items, needed one for each of the {} tokens", walk.n(), tokens.len())));
    }
    for token in tokens {
        if let Some(number) = walk.number()? {
            set(token, number);
        }
    }
    Ok(true)
}

/// The numbers are those of `gguf.TokenType`.
fn kind(n: i64) -> Kind {
    match n {
        2 => Kind::Unknown,
        3 => Kind::Control,
        4 => Kind::UserDefined,
        5 => Kind::Unused,
        6 => Kind::Byte,
        _ => Kind::Normal,
    }
}

/// Text and id of the first `n` ids, as an object.
pub(super) struct Ids<'a>(pub(super) &'a Vocabulary, pub(super) usize);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().take_while(|(id, _)| (*id as usize) < self.1).map(|(id, token)| (&token.text, id)))
    }
}

/// Text and score, as a list.
pub(super) struct Scores<'a>(pub(super) &'a Vocabulary);

impl Serialize for Scores<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.tokens.iter().map(|token| (&token.text, f64::from(token.score))))
    }
}
