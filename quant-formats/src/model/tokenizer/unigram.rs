//! Unigram vocabularies of XLM-RoBERTa, which llama.cpp calls `t5`: from sentencepiece.bpe.model, or else from tokenizer.json.
//!
//! Source: `BertModel._xlmroberta_set_vocab` of conversion/bert.py, llama.cpp 0.5.0-dev.

use std::collections::HashSet;

use quant_core::{Error, Result};
use serde_json::Value;

use super::Build;
use super::fast::Fast;
use super::folder::Object;
use super::keys::{Tokens, Type};
use super::special::{Special, Wanted};
use super::spm_model::{Model, ModelKind};

const SPM: &str = "sentencepiece.bpe.model";

/// A vocabulary and how texts are normalized for it.
struct Unigram {
    tokens: Tokens,
    add_prefix: bool,
    remove_whitespaces: bool,
    charsmap: Vec<u8>,
}

impl Build<'_> {
    /// The vocabulary of XLM-RoBERTa.
    pub(super) fn xlm_roberta(&mut self) -> Result<()> {
        let unigram = if self.folder.has(SPM) { self.unigram_from_spm()? } else { self.unigram_from_json()? };
        self.keys.vocabulary("t5", "default", &unigram.tokens, true);
        self.keys.bool("tokenizer.ggml.add_space_prefix", unigram.add_prefix);
        self.token_type_count()?;
        self.keys.bool("tokenizer.ggml.remove_extra_whitespaces", unigram.remove_whitespaces);
        self.keys.bytes("tokenizer.ggml.precompiled_charsmap", &unigram.charsmap);
        let special = Special::load(self.folder, Wanted::below(unigram.tokens.len()))?;
        self.special(special);
        Ok(())
    }

    /// The pieces, moved by one as in fairseq: four special tokens in place of the first three, the last one dropped.
    fn unigram_from_spm(&mut self) -> Result<Unigram> {
        let model = self.spm_model(SPM)?;
        if model.kind != ModelKind::Unigram {
            return Err(self.folder.error(SPM, "found a SentencePiece model of another kind, needed a unigram model"));
        }
        let n = self.at_least(model.pieces.len())?;
        let all = self.pieces(&model, n)?;
        let mut tokens = Tokens::default();
        for (text, kind) in [("<s>", Type::Control), ("<pad>", Type::Control), ("</s>", Type::Control), ("<unk>", Type::Unknown)] {
            tokens.push(text.into(), 0.0, kind);
        }
        let kept = 3..all.len().saturating_sub(1).max(3);
        tokens.texts.extend_from_slice(all.texts.get(kept.clone()).unwrap_or_default());
        tokens.scores.extend_from_slice(all.scores.get(kept.clone()).unwrap_or_default());
        tokens.types.extend_from_slice(all.types.get(kept).unwrap_or_default());
        let Model { add_dummy_prefix, remove_extra_whitespaces, charsmap, .. } = model;
        Ok(Unigram { tokens, add_prefix: add_dummy_prefix, remove_whitespaces: remove_extra_whitespaces, charsmap })
    }

    fn unigram_from_json(&mut self) -> Result<Unigram> {
        const NAME: &str = "tokenizer.json";
        let json = self.folder.object(NAME)?;
        let json = json.ok_or_else(|| self.folder.error(NAME, format!("found neither this file nor {SPM}, needed one of them")))?;
        let tokenizer = Fast::load(self.folder)?;
        self.notes.extend(tokenizer.notes.iter().cloned());
        let own = self.folder.object("tokenizer_config.json")?.unwrap_or_default();
        let remove_whitespaces = super::settings::flag(&own, "clean_up_tokenization_spaces")?.unwrap_or(false);
        let charsmap = charsmap(&json)?;
        self.refuse_empty(&tokenizer)?;
        let n = self.at_least(tokenizer.n_base())?;
        let mut tokens = Tokens::holes(n, tokenizer.n_base()).map_err(|e| e.of(self.hparams.path()))?;
        fill(&mut tokens, &tokenizer, &json, &own)?;
        Ok(Unigram { tokens, add_prefix: tokenizer.add_prefix_space, remove_whitespaces, charsmap })
    }

    /// The vocabulary size of the model, but at least `n`.
    fn at_least(&self, n: usize) -> Result<usize> {
        Ok(self.vocab_size(&["vocab_size"])?.unwrap_or(0).max(n))
    }
}

/// Sets the tokens that tokenizer.json has, with the scores that stand there.
fn fill(tokens: &mut Tokens, tokenizer: &Fast<'_>, json: &Object, own: &Object) -> Result<()> {
    let model = json.object("model")?.unwrap_or_default();
    let vocab = model.read::<Vec<(String, f64)>>("vocab")?.unwrap_or_default();
    let added = tokenizer.added();
    let specials: HashSet<u32> = tokenizer.specials().iter().filter_map(|text| tokenizer.id(text)).collect();
    let unk = match model.value("unk_id")? {
        None => Some(3),
        Some(id) => id.as_u64(),
    };
    let unk_token = own.text("unk_token").and_then(|text| added.iter().find(|(_, token)| token.content == text).map(|(id, _)| u64::from(*id)));
    let unk = unk_token.or(unk);
    for (id, (_, score)) in (0u32..).zip(&vocab) {
        let Some(text) = tokenizer.token(id) else { continue };
        let kind = match id {
            id if Some(u64::from(id)) == unk => Type::Unknown,
            id if specials.contains(&id) => Type::Control,
            id if added.contains_key(&id) => Type::UserDefined,
            _ => Type::Normal,
        };
        tokens.set(id as usize, text, *score as f32, kind);
    }
    Ok(())
}

fn charsmap(json: &Object) -> Result<Vec<u8>> {
    let normalizer = json.value("normalizer")?.unwrap_or_default();
    let text = normalizer.get("precompiled_charsmap").and_then(Value::as_str);
    let missing = || json.error("key 'normalizer': found no 'precompiled_charsmap', needed the one of a SentencePiece model");
    base64(text.ok_or_else(missing)?).ok_or_else(|| -> Error { json.error("key 'normalizer': 'precompiled_charsmap' is no base64") })
}

/// Decodes base64; none if it is none.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for group in digits.chunks(4) {
        let mut word = 0u32;
        for &digit in group {
            word = word << 6 | base64_digit(digit)?;
        }
        word <<= 6 * (4 - group.len());
        let [_, all @ ..] = word.to_be_bytes();
        bytes.extend_from_slice(all.get(..group.len().checked_sub(1).filter(|n| *n > 0)?)?);
    }
    Some(bytes)
}

fn base64_digit(digit: u8) -> Option<u32> {
    Some(u32::from(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        let cases = [
            ("", Some(&b""[..])),
            ("YQ==", Some(b"a")),
            ("YWI=", Some(b"ab")),
            ("YWJj", Some(b"abc")),
            ("+/8A", Some(b"\xfb\xff\0")),
            ("Y", None),
            ("Y Q", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(base64(text).as_deref(), bytes, "{text}");
        }
    }
}
