//! Unigram tokenizers (`tokenizer.ggml.model` is `t5`): T5, XLM-RoBERTa and their like.
//!
//! Source: `T5Model.set_vocab` of convert_hf_to_gguf.py and `llm_tokenizer_ugm` of llama-vocab.cpp, llama.cpp 0.5.0-dev;
//! `T5Tokenizer` and `unigram_tokenizer` of transformers 5.23.0.

use quant_core::Result;

use super::Tokenizer;
use super::document::{Document, Model, Strips, has_bytes};
use super::keys::Keys;
use super::parts::{Part, SPACE};
use super::specials::{Purpose, Specials};
use super::vocab::{Kind, Scores, Vocabulary};
use crate::gguf;

const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
const REMOVE_SPACES: &str = "tokenizer.ggml.remove_extra_whitespaces";
const SCORES: &str = "tokenizer.ggml.scores";
/// The largest table of characters, in bytes; that of nmt_nfkc has some 300 KiB.
const MAX_CHARSMAP: u64 = 16 << 20;
/// The blanks of T5, which are in no SentencePiece model.
const N_BLANKS: usize = 100;

/// A unigram tokenizer.
///
/// # Errors
/// If a key is not as it should be.
pub(super) fn tokenizer(keys: Keys) -> Result<Tokenizer> {
    let mut notes = Vec::new();
    let mut vocabulary = Vocabulary::read(keys)?;
    if let Some(at) = vocabulary.tokens.iter().position(|token| !token.score.is_finite()) {
        return Err(keys.bad(SCORES, format!("item {at} is {}, needed a finite number", vocabulary.tokens.get(at).map_or(0.0, |t| t.score))));
    }
    if keys.text("general.architecture")?.is_some_and(|name| name.starts_with("t5")) {
        name_blanks(&mut vocabulary);
    }
    let defaults = [(Purpose::Eos, 1), (Purpose::Unk, 2), (Purpose::Pad, 0)];
    let mut specials = Specials::read(keys, &vocabulary, &defaults, &mut notes)?;
    specials.add_eos = specials.add_eos.or(Some(true));
    let json = json(keys, &vocabulary, &specials)?;
    Ok(Tokenizer { json, vocabulary, specials, notes })
}

/// T5 numbers its blanks down from `<extra_id_99>`; the converter calls them `[PAD32000]` and so on.
fn name_blanks(vocabulary: &mut Vocabulary) {
    if vocabulary.tokens.iter().any(|token| token.text == "<extra_id_0>") {
        return;
    }
    let fillers = vocabulary.tokens.iter_mut().enumerate().filter(|(id, t)| t.kind == Kind::Unused && t.text == format!("[PAD{id}]"));
    for (i, (_, token)) in fillers.take(N_BLANKS).enumerate() {
        token.text = format!("<extra_id_{}>", N_BLANKS - 1 - i);
        token.kind = Kind::Control;
    }
}

fn json(keys: Keys, vocabulary: &Vocabulary, specials: &Specials) -> Result<Vec<u8>> {
    let model = Model::Unigram { unk_id: specials.id(Purpose::Unk), vocab: Scores(vocabulary), byte_fallback: has_bytes(vocabulary) };
    let mut document = Document::new(vocabulary, specials, &Strips::default(), model);
    let metaspace = |prepend_scheme| Part::Metaspace { replacement: SPACE, prepend_scheme, split: true };
    let merged = keys.flag(REMOVE_SPACES)?.unwrap_or(false);
    let prefix = keys.flag(ADD_SPACE)?.unwrap_or(false);
    let map = charsmap(keys)?.map(|precompiled_charsmap| Part::Precompiled { precompiled_charsmap });
    // With spaces merged, every word begins with one, whether the text has one before it or not.
    let prepend = (prefix && !merged).then_some(Part::Prepend { prepend: SPACE });
    document.normalizer = Part::normalizers(map.into_iter().chain(prepend).collect());
    document.pre_tokenizer =
        Some(if merged { Part::PreTokenizers { pretokenizers: vec![Part::WhitespaceSplit, metaspace("always")] } } else { metaspace("never") });
    document.post_processor = Some(specials.processor(vocabulary, false));
    document.decoder = Some(metaspace(if prefix || merged { "always" } else { "never" }));
    document.bytes()
}

/// The table of characters, in base64.
fn charsmap(keys: Keys) -> Result<Option<String>> {
    let Some(mut walk) = keys.array(CHARSMAP, &[gguf::Kind::U8, gguf::Kind::I8], MAX_CHARSMAP)? else { return Ok(None) };
    let bytes = walk.all_bytes()?;
    let Some((head, rest)) = bytes.split_first_chunk() else {
        return if bytes.is_empty() { Ok(None) } else { Err(keys.bad(CHARSMAP, "found fewer than 4 bytes, needed the size of the trie in it")) };
    };
    let trie = u64::from(u32::from_le_bytes(*head));
    if trie % 4 != 0 || trie >= rest.len() as u64 {
        return Err(keys.bad(CHARSMAP, format!("found a trie of {trie} bytes in {}, needed a multiple of 4 and texts after it", bytes.len())));
    }
    Ok(Some(base64(&bytes)))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, &b| bits << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { letter.into() } else { '=' });
        }
    }
    out
}
