//! [`Specials`]: the tokens with a purpose, and which of them are put around a text.
//!
//! Source: `llama_vocab::impl::load` of llama.cpp 0.5.0-dev for the defaults; `TokenizersBackend.update_post_processor` of
//! transformers 5.23.0 for the templates.

use quant_core::Result;

use super::keys::Keys;
use super::parts::Part;
use super::vocab::Vocabulary;

/// The purposes, as tokenizer_config.json names them, and the keys that say which token has it.
pub(super) const PURPOSES: [(Purpose, &str, &str); 7] = [
    (Purpose::Bos, "bos_token", "tokenizer.ggml.bos_token_id"),
    (Purpose::Eos, "eos_token", "tokenizer.ggml.eos_token_id"),
    (Purpose::Unk, "unk_token", "tokenizer.ggml.unknown_token_id"),
    (Purpose::Sep, "sep_token", "tokenizer.ggml.seperator_token_id"),
    (Purpose::Pad, "pad_token", "tokenizer.ggml.padding_token_id"),
    (Purpose::Cls, "cls_token", "tokenizer.ggml.cls_token_id"),
    (Purpose::Mask, "mask_token", "tokenizer.ggml.mask_token_id"),
];

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Bos,
    Eos,
    Unk,
    Sep,
    Pad,
    Cls,
    Mask,
}

/// The tokens with a purpose.
#[derive(Clone, Debug, Default)]
pub(super) struct Specials {
    ids: [Option<u32>; PURPOSES.len()],
    /// Whether they are put around a text, as far as the file says.
    pub(super) add_bos: Option<bool>,
    pub(super) add_eos: Option<bool>,
    pub(super) add_sep: Option<bool>,
}

impl Specials {
    /// Reads the keys. Where one is missing, its token is that of `defaults`, if the vocabulary has it.
    ///
    /// # Errors
    /// If a key has another type. An id beyond the vocabulary is a note.
    pub(super) fn read(keys: Keys, vocabulary: &Vocabulary, defaults: &[(Purpose, u32)], notes: &mut Vec<String>) -> Result<Specials> {
        let mut ids = [None; PURPOSES.len()];
        for (slot, (purpose, _, key)) in ids.iter_mut().zip(PURPOSES) {
            let default = || defaults.iter().find(|(p, _)| *p == purpose).map(|&(_, id)| u64::from(id)).filter(|&id| has(vocabulary, id));
            let stored = keys.unsigned(key)?;
            if let Some(id) = stored.filter(|&id| !has(vocabulary, id)) {
                notes.push(format!("tokenizer: key '{key}' is {id}, which is no token; it does not count"));
            }
            *slot = stored.filter(|&id| has(vocabulary, id)).or_else(default).and_then(|id| id.try_into().ok());
        }
        let flag = |name: &str| keys.flag(&format!("tokenizer.ggml.add_{name}_token"));
        Ok(Specials { ids, add_bos: flag("bos")?, add_eos: flag("eos")?, add_sep: flag("sep")? })
    }

    /// The token for `purpose`.
    pub(super) fn id(&self, purpose: Purpose) -> Option<u32> {
        self.ids.get(purpose as usize).copied().flatten()
    }

    /// Sets or takes away the token for `purpose`.
    pub(super) fn set(&mut self, purpose: Purpose, id: Option<u32>) {
        if let Some(slot) = self.ids.get_mut(purpose as usize) {
            *slot = id;
        }
    }

    /// Whether token `id` has a purpose.
    pub(super) fn has(&self, id: u32) -> bool {
        self.ids.contains(&Some(id))
    }

    /// The token for `purpose` with its text.
    pub(super) fn token<'a>(&self, vocabulary: &'a Vocabulary, purpose: Purpose) -> Option<(&'a str, u32)> {
        let id = self.id(purpose)?;
        vocabulary.get(id).map(|token| (token.text.as_str(), id))
    }

    /// What puts the tokens around a text. `byte_level` tokenizers have a processor that says so even if there is nothing to do.
    pub(super) fn processor(&self, vocabulary: &Vocabulary, byte_level: bool) -> Part {
        let token = |wanted: Option<bool>, purpose| self.token(vocabulary, purpose).filter(|_| wanted == Some(true));
        let (bos, eos) = (token(self.add_bos, Purpose::Bos), token(self.add_eos, Purpose::Eos));
        let sep = token(self.add_sep, Purpose::Sep).or(token(self.add_sep, Purpose::Eos));
        let bytes = Part::ByteLevel { add_prefix_space: true, trim_offsets: false, use_regex: true };
        match (bos, eos, sep) {
            (Some((cls, cls_id)), Some((sep, sep_id)), Some(_)) if byte_level => {
                Part::RobertaProcessing { sep: (sep.into(), sep_id), cls: (cls.into(), cls_id), trim_offsets: true, add_prefix_space: false }
            }
            (None, None, _) if byte_level && self.add_eos.is_some() => bytes,
            (bos, eos, _) if byte_level && self.add_eos.is_some() => Part::Processors { processors: vec![bytes, Part::template(bos, eos, None)] },
            (bos, None, Some(sep)) => Part::template(bos, None, Some(sep)),
            (bos, eos, _) => Part::template(bos, eos, None),
        }
    }
}

fn has(vocabulary: &Vocabulary, id: u64) -> bool {
    u32::try_from(id).is_ok_and(|id| vocabulary.get(id).is_some())
}
