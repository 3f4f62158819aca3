//! BPE tokenizers: the byte-level ones (`tokenizer.ggml.model` is `gpt2`), and those in the manner of SentencePiece (`llama`,
//! `gemma4`), where a space is `▁` and what has no token becomes tokens of single bytes.
//!
//! A file of the second kind does not say where a word gets a space put before it. Here every stretch of text between added
//! tokens gets one, as in llama.cpp, SentencePiece and the tokenizer.json that most such models were published with; the class
//! `LlamaTokenizer` of transformers 5 gives one only to the start of the text, and none if a space is there already.
//!
//! Source: llama-vocab.cpp of llama.cpp 0.5.0-dev; `SpmConverter` and `GGUF_SENTENCEPIECE_BUILDERS` of transformers 5.23.0.

use quant_core::Result;

use super::Tokenizer;
use super::document::{Bpe, Document, Model, Strips, has_bytes};
use super::keys::Keys;
use super::merges::{self, Merge};
use super::parts::{Part, SPACE};
use super::pre::{self, Letters, Pre};
use super::specials::{Purpose, Specials};
use super::vocab::{Kind, Vocabulary};

const PRE: &str = "tokenizer.ggml.pre";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
const LOWERCASE: &str = "tokenizer.ggml.normalizer.lowercase";

/// A byte-level tokenizer.
///
/// # Errors
/// If a key is not as it should be.
pub(super) fn byte_level(keys: Keys) -> Result<Tokenizer> {
    let mut notes = Vec::new();
    let pre = named(keys, &mut notes)?;
    let mut vocabulary = Vocabulary::read(keys)?;
    vocabulary.make_holes(|id| format!("[PAD{id}]"), &mut notes);
    let mut specials = Specials::read(keys, &vocabulary, &[], &mut notes)?;
    specials.add_bos = specials.add_bos.or(pre.adds_bos.then_some(true));
    let merges = stored_or_by_id(keys, &vocabulary, &mut notes)?;
    let lowercase = keys.flag(LOWERCASE)? == Some(true);
    let json = match pre.letters {
        Letters::Bytes => bytes_json(keys, &vocabulary, &merges, &specials, pre, lowercase)?,
        Letters::Utf8 => utf8_json(&Utf8 { keys, vocabulary: &vocabulary, merges: &merges, specials: &specials, prefix: false, pre: Some(pre) })?,
    };
    Ok(Tokenizer { json, vocabulary, specials, notes })
}

/// A tokenizer in the manner of SentencePiece.
///
/// # Errors
/// If a key is not as it should be.
pub(super) fn sentencepiece(keys: Keys) -> Result<Tokenizer> {
    let mut notes = Vec::new();
    let mut vocabulary = Vocabulary::read(keys)?;
    spell_spaces(&mut vocabulary);
    vocabulary.make_holes(|id| format!("[PAD{id}]"), &mut notes);
    let defaults = [(Purpose::Bos, 1), (Purpose::Eos, 2), (Purpose::Unk, 0)];
    let mut specials = Specials::read(keys, &vocabulary, &defaults, &mut notes)?;
    specials.add_bos = specials.add_bos.or(Some(true));
    let merges = match merges::stored(keys, &vocabulary, &mut notes)? {
        Some(merges) => merges,
        None => merges::implied(keys, &vocabulary, &mut notes)?,
    };
    let prefix = keys.flag(ADD_SPACE)?.unwrap_or(true);
    let json = utf8_json(&Utf8 { keys, vocabulary: &vocabulary, merges: &merges, specials: &specials, prefix, pre: None })?;
    Ok(Tokenizer { json, vocabulary, specials, notes })
}

/// Gemma 4: as above, with merges. The file says that a beginning-of-text token is added, for llama.cpp; the published
/// tokenizer adds none, because its chat template does.
///
/// # Errors
/// If a key is not as it should be.
pub(super) fn gemma4(keys: Keys) -> Result<Tokenizer> {
    let mut notes = Vec::new();
    let mut vocabulary = Vocabulary::read(keys)?;
    spell_spaces(&mut vocabulary);
    vocabulary.make_holes(|id| format!("[PAD{id}]"), &mut notes);
    let mut specials = Specials::read(keys, &vocabulary, &[], &mut notes)?;
    specials.add_bos = Some(false);
    let merges = stored_or_by_id(keys, &vocabulary, &mut notes)?;
    let json = utf8_json(&Utf8 { keys, vocabulary: &vocabulary, merges: &merges, specials: &specials, prefix: false, pre: pre::of("gemma4") })?;
    Ok(Tokenizer { json, vocabulary, specials, notes })
}

fn named(keys: Keys, notes: &mut Vec<String>) -> Result<Pre> {
    let name = keys.text(PRE)?.unwrap_or_else(|| "default".into());
    Ok(pre::of(&name).unwrap_or_else(|| {
        let name = name.escape_debug();
        notes.push(format!("tokenizer: key '{PRE}' is '{name}', which is not known; texts are cut as GPT-2 does: compare before you rely on it"));
        pre::gpt2()
    }))
}

fn stored_or_by_id(keys: Keys, vocabulary: &Vocabulary, notes: &mut Vec<String>) -> Result<Vec<Merge>> {
    if let Some(merges) = merges::stored(keys, vocabulary, notes)? {
        return Ok(merges);
    }
    notes.push("tokenizer: there are no merges; tokens are merged in the order of their ids".into());
    merges::implied(keys, vocabulary, notes)
}

/// The converter writes the spaces of tokens that were added by hand as spaces. Runs of them are pieces like any other to the
/// published tokenizers, merged before all else.
fn spell_spaces(vocabulary: &mut Vocabulary) {
    let is_run = |text: &str| text.len() > 1 && text.bytes().all(|b| b == b' ');
    for token in vocabulary.tokens.iter_mut().filter(|t| t.kind == Kind::UserDefined && is_run(&t.text)) {
        token.text = SPACE.repeat(token.text.len());
        token.kind = Kind::Normal;
        token.score = f32::INFINITY;
    }
}

fn bytes_json(keys: Keys, vocabulary: &Vocabulary, merges: &[Merge], specials: &Specials, pre: Pre, lowercase: bool) -> Result<Vec<u8>> {
    let model = Model::bpe(vocabulary, merges, Bpe { byte_level: true, unk_token: None, ignore_merges: pre.ignore_merges }, specials);
    let mut document = Document::new(vocabulary, specials, &strips(keys)?, model);
    let normalizers = [pre.nfc.then_some(Part::Nfc), lowercase.then_some(Part::Lowercase)];
    document.normalizer = Part::normalizers(normalizers.into_iter().flatten().collect());
    document.pre_tokenizer = pre.part();
    document.post_processor = Some(specials.processor(vocabulary, true));
    document.decoder = Some(Part::ByteLevel { add_prefix_space: true, trim_offsets: true, use_regex: true });
    document.bytes()
}

/// What a tokenizer in the manner of SentencePiece is made of.
struct Utf8<'a> {
    keys: Keys<'a>,
    vocabulary: &'a Vocabulary,
    merges: &'a [Merge],
    specials: &'a Specials,
    /// Whether a space is put before a text.
    prefix: bool,
    /// How the text is cut; not at all if none.
    pre: Option<Pre>,
}

fn utf8_json(t: &Utf8) -> Result<Vec<u8>> {
    let unk_token = t.specials.token(t.vocabulary, Purpose::Unk).map(|(text, _)| text);
    let ignore_merges = t.pre.is_some_and(|pre| pre.ignore_merges);
    let model = Model::bpe(t.vocabulary, t.merges, Bpe { byte_level: false, unk_token, ignore_merges }, t.specials);
    let mut document = Document::new(t.vocabulary, t.specials, &strips(t.keys)?, model);
    let prepend = t.prefix.then_some(Part::Prepend { prepend: SPACE });
    document.normalizer = Part::normalizers(prepend.into_iter().chain([Part::replace(" ", SPACE)]).collect());
    document.pre_tokenizer = t.pre.and_then(|pre| pre.part());
    document.post_processor = Some(t.specials.processor(t.vocabulary, false));
    document.decoder = Some(decoder(t.prefix, has_bytes(t.vocabulary)));
    document.bytes()
}

fn decoder(prefix: bool, bytes: bool) -> Part {
    let mut decoders = vec![Part::replace(SPACE, " ")];
    if bytes {
        decoders.push(Part::ByteFallback);
    }
    decoders.push(Part::Fuse);
    if prefix {
        decoders.push(Part::Strip { content: " ", start: 1, stop: 0 });
    }
    Part::Decoders { decoders }
}

/// As llama.cpp tells it from names, for the file does not say it.
fn strips(keys: Keys) -> Result<Strips> {
    let pre = keys.text(PRE)?.unwrap_or_default();
    let name = keys.text("general.name")?.unwrap_or_default().to_ascii_lowercase();
    if ["jina-v2-de", "jina-v2-es", "jina-v2-code"].iter().any(|n| pre.contains(n)) {
        return Ok(Strips { left: Some("<mask>"), right: false });
    }
    if ["phi-3", "phi3"].iter().any(|n| name.contains(n)) {
        return Ok(Strips { left: None, right: true });
    }
    Ok(Strips { left: name.contains("modern-bert").then_some("[MASK]"), right: false })
}
