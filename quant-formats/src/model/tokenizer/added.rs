//! [`Added`]: the added tokens of a tokenizer and their ids, as they come to be one after another.
//!
//! A token that is added again with other settings takes them over and keeps its id. The crate `tokenizers` as used here would go on
//! to find it under both settings; so the list is kept here, and handed over when it is complete.
//!
//! Source: `AddedVocabulary` of tokenizers 0.23, the version that transformers 5.23.0 comes with.

use std::collections::{BTreeMap, HashMap};

use tokenizers::{AddedToken, Model, NormalizedString, Normalizer, Tokenizer};

/// Added tokens and their ids.
#[derive(Default)]
pub(super) struct Added {
    ids: HashMap<String, u32>,
    tokens: BTreeMap<u32, AddedToken>,
    /// What the normalizer makes of tokens that are to be normalized, where that is something else.
    normalized: HashMap<u32, String>,
}

impl Added {
    /// Adds tokens: those that the model knows under its ids, the others behind all that there are.
    pub(super) fn add(&mut self, tokenizer: &Tokenizer, tokens: &[AddedToken]) -> Result<(), String> {
        let n_model = u32::try_from(tokenizer.get_vocab_size(false)).map_err(|_| "it has more tokens than ids")?;
        let mut next = self.tokens.keys().next_back().map_or(n_model, |last| n_model.max(last.saturating_add(1)));
        for token in tokens.iter().filter(|token| !token.content.is_empty()) {
            let known = self.ids.get(&token.content).copied();
            if known.is_some_and(|id| self.tokens.get(&id) == Some(token)) {
                continue;
            }
            let id = match known.or_else(|| tokenizer.get_model().token_to_id(&token.content)) {
                Some(id) => id,
                None => {
                    let id = next;
                    next = next.checked_add(1).ok_or("it has more tokens than ids")?;
                    id
                }
            };
            if token.normalized
                && let Some(text) = normalized(tokenizer, &token.content)?
            {
                self.normalized.insert(id, text);
            }
            self.ids.insert(token.content.clone(), id);
            self.tokens.insert(id, token.clone());
        }
        Ok(())
    }

    /// Hands the tokens over to a tokenizer that has none yet.
    pub(super) fn hand_over(&self, tokenizer: &mut Tokenizer) {
        tokenizer.add_tokens(&self.tokens.values().cloned().collect::<Vec<_>>());
    }

    /// Texts and ids.
    pub(super) fn ids(&self) -> &HashMap<String, u32> {
        &self.ids
    }

    /// Tokens by id.
    pub(super) fn tokens(&self) -> &BTreeMap<u32, AddedToken> {
        &self.tokens
    }

    /// What an added token is decoded to.
    pub(super) fn decoded(&self, id: u32) -> Option<&str> {
        let normalized = self.normalized.get(&id).map(String::as_str);
        normalized.or_else(|| self.tokens.get(&id).map(|token| token.content.as_str()))
    }
}

fn normalized(tokenizer: &Tokenizer, text: &str) -> Result<Option<String>, String> {
    let Some(normalizer) = tokenizer.get_normalizer() else { return Ok(None) };
    let mut string = NormalizedString::from(text);
    normalizer.normalize(&mut string).map_err(|e| e.to_string())?;
    Ok(Some(string.get().to_owned()).filter(|normalized| normalized != text))
}
