//! The tokenizer of a model folder as metadata of GGUF.
//!
//! Each family finds its tokenizer in its own way ([`Vocab`]). Three kinds of files are read: SentencePiece models ([`spm_model`]),
//! tokenizer.json and what came before it ([`fast`]), and the small files that name special tokens ([`special`], [`settings`]).
//!
//! Invariant: the keys, their order and their bytes are those of the reference; what cannot be known is an error, not a guess.
//!
//! Source: conversion/base.py, bert.py, gemma.py, llama.py, phi.py, qwen.py and gguf-py/gguf/vocab.py of llama.cpp 0.5.0-dev with
//! transformers 5.23.0.

mod added;
mod bpe;
mod class;
mod fast;
mod folder;
mod keys;
mod pipeline;
mod post_processor;
mod pre;
mod pre_names;
mod settings;
mod special;
mod spm;
mod spm_model;
mod template;
mod unigram;
mod wordpiece;

#[cfg(test)]
mod tests;

pub use fast::is_guarded;

use quant_core::Result;

use self::folder::Folder;
use self::keys::Keys;
use self::special::{Special, Wanted};
use super::hparams::Hparams;
use crate::checkpoint::Checkpoint;
use crate::gguf::Entry;

/// How a family's tokenizer is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vocab {
    /// Byte-level BPE.
    Gpt2,
    /// tokenizer.model, or else byte-level BPE.
    SentencePieceOrGpt2,
    /// tokenizer.model, or else BPE with byte tokens, or else byte-level BPE; with what Llama's relatives need.
    Llama,
    /// WordPiece.
    Bert,
    /// tokenizer.json as byte-level BPE, or else WordPiece.
    Roberta,
    /// Unigram.
    XlmRoberta,
    /// tokenizer.model with fixed ids of CodeGemma.
    Gemma,
    /// tokenizer.model without a space before a text.
    Gemma2,
    /// The same, or else byte-level BPE.
    Gemma3,
    /// Byte-level BPE if its class is GPT-2's, or else tokenizer.model with all added tokens.
    Phi3,
}

/// What a user can say about a tokenizer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options<'a> {
    /// The name of the pre-tokenizer, instead of the one that is found.
    pub(crate) pre: Option<&'a str>,
}

/// The keys that a tokenizer becomes, in the reference's order, and notes for the user.
///
/// # Errors
/// If files are missing, damaged or contradict each other, or the pre-tokenizer is unknown and not given.
pub(crate) fn entries(checkpoint: &Checkpoint, hparams: &Hparams, vocab: Vocab, options: &Options<'_>) -> Result<(Vec<Entry>, Vec<String>)> {
    let folder = Folder::new(checkpoint);
    let mut build = Build { folder, hparams, options, keys: Keys::default(), notes: Vec::new(), has_pre: false };
    build.all(vocab)?;
    build.note_unused_pre();
    Ok((build.keys.into_entries(), build.notes))
}

/// Keys on their way.
struct Build<'a> {
    folder: Folder<'a>,
    hparams: &'a Hparams,
    options: &'a Options<'a>,
    keys: Keys,
    notes: Vec<String>,
    /// Whether the name of a pre-tokenizer was looked for.
    has_pre: bool,
}

impl Build<'_> {
    fn all(&mut self, vocab: Vocab) -> Result<()> {
        match vocab {
            Vocab::Gpt2 => self.gpt2()?,
            Vocab::SentencePieceOrGpt2 => self.spm_or_gpt2()?,
            Vocab::Llama => self.llama()?,
            Vocab::Bert => self.bert()?,
            Vocab::Roberta => self.roberta()?,
            Vocab::XlmRoberta => self.xlm_roberta()?,
            Vocab::Gemma => self.gemma()?,
            Vocab::Gemma3 if !self.has_spm() => self.gpt2()?,
            Vocab::Gemma2 | Vocab::Gemma3 => self.gemma2()?,
            Vocab::Phi3 if self.is_gpt2_class()? => self.gpt2()?,
            Vocab::Phi3 => self.phi3()?,
        }
        Ok(())
    }

    fn note_unused_pre(&mut self) {
        if let Some(pre) = self.options.pre.filter(|_| !self.has_pre) {
            self.notes.push(format!("--pre {pre} is not used: this is a vocabulary in the manner of SentencePiece, whose pre-tokenizer has no name"));
        }
    }

    fn spm_or_gpt2(&mut self) -> Result<()> {
        if self.has_spm() { self.spm() } else { self.gpt2() }
    }

    fn llama(&mut self) -> Result<()> {
        const TEKKEN: &str = "tekken.json";
        if self.folder.has(TEKKEN) && !self.folder.has("tokenizer.json") {
            return Err(self.folder.error(TEKKEN, "found a tokenizer in Mistral's own format, needed a tokenizer.json beside it"));
        }
        let own = self.folder.object("tokenizer_config.json")?.unwrap_or_default();
        if let Some(add) = settings::flag(&own, "add_prefix_space")? {
            self.keys.bool("tokenizer.ggml.add_space_prefix", add);
        }
        if self.has_spm() {
            self.spm()?;
        } else if self.is_llama_hf()? {
            self.llama_hf()?;
        } else {
            self.gpt2()?;
        }
        match self.vocab_size(&["vocab_size"])? {
            Some(CODE_LLAMA) => self.fixed(&["prefix", "suffix", "middle", "eot"], 32010, true)?,
            Some(GRANITE) => self.keys.bool("tokenizer.ggml.add_bos_token", false),
            _ => (),
        }
        Ok(())
    }

    fn roberta(&mut self) -> Result<()> {
        if !self.folder.has("tokenizer.json") {
            return self.bert();
        }
        self.gpt2()?;
        self.token_type_count()
    }

    fn gemma(&mut self) -> Result<()> {
        self.spm()?;
        self.fixed(&["prefix", "suffix", "middle", "fsep", "eot"], 107, false)?;
        self.keys.bool("tokenizer.ggml.add_space_prefix", false);
        Ok(())
    }

    fn gemma2(&mut self) -> Result<()> {
        self.spm()?;
        self.keys.bool("tokenizer.ggml.add_space_prefix", false);
        Ok(())
    }

    /// Special tokens of further kinds, of which only `eot` has a key; its id is fixed unless the files say another.
    fn fixed(&mut self, kinds: &[&str], eot: u32, with_template: bool) -> Result<()> {
        let mut special = Special::load(self.folder, Wanted { merges: false, kinds, n_vocab: None })?;
        special.set_id("eot", eot);
        if !with_template {
            special.template = None;
        }
        special.write(&mut self.keys);
        Ok(())
    }

    /// Sets the keys of special tokens and keeps the notes about them.
    fn special(&mut self, mut special: Special) {
        self.notes.append(&mut special.notes);
        special.write(&mut self.keys);
    }

    fn is_gpt2_class(&self) -> Result<bool> {
        let own = self.folder.object("tokenizer_config.json")?;
        Ok(own.is_some_and(|own| own.text("tokenizer_class").as_deref() == Some("GPT2Tokenizer")))
    }

    /// A vocabulary size that config.json has.
    fn vocab_size(&self, keys: &[&str]) -> Result<Option<usize>> {
        Ok(self.hparams.u32(keys)?.map(|n| n as usize))
    }
}

/// Vocabulary sizes by which the reference knows Code Llama and Granite's small models.
const CODE_LLAMA: usize = 32016;
const GRANITE: usize = 49152;
