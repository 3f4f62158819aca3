//! GGUF → Hugging Face: tokenizer.json, tokenizer_config.json and the chat template, rebuilt from the keys `tokenizer.*`.
//!
//! | `tokenizer.ggml.model` | becomes |
//! |---|---|
//! | `gpt2` | byte-level BPE; how a text is cut into words is told by `tokenizer.ggml.pre` ([`pre`]) |
//! | `llama` | BPE with single bytes for what has no token; merges follow from the scores ([`merges`]) |
//! | `gemma4` | the same with merges from the file |
//! | `bert` | WordPiece |
//! | `t5` | Unigram |
//!
//! The result gives the same ids as the tokenizer that the file was made from, as far as the file knows it. What the file does
//! not know: whether an added token that looks special was declared so, which of them take white space along, the normalizer.
//!
//! Source: llama.cpp 0.5.0-dev, transformers 5.23.0, tokenizers 0.22.

mod array;
mod bpe;
mod config;
mod document;
mod keys;
mod merges;
mod parts;
mod patterns;
mod pre;
mod specials;
mod spm_model;
mod unigram;
mod vocab;
mod wordpiece;

#[cfg(test)]
mod tests;

use quant_core::Result;

use self::keys::Keys;
use self::specials::Specials;
use self::vocab::Vocabulary;
use crate::checkpoint::Checkpoint;

const MODEL: &str = "tokenizer.ggml.model";

/// Files, as name and bytes.
type Files = Vec<(String, Vec<u8>)>;

/// A rebuilt tokenizer.
struct Tokenizer {
    /// tokenizer.json.
    json: Vec<u8>,
    vocabulary: Vocabulary,
    specials: Specials,
    notes: Vec<String>,
}

/// The files of the tokenizer, as name and bytes, and what a user should know of them. Nothing if the file has no tokenizer.
///
/// # Errors
/// If a key has another type than it should, or a text is not UTF-8.
pub(crate) fn tokenizer_files(checkpoint: &Checkpoint) -> Result<(Files, Vec<String>)> {
    let keys = Keys { checkpoint };
    let Some(model) = keys.text(MODEL)? else { return Ok((Vec::new(), Vec::new())) };
    let tokenizer = match model.as_str() {
        "gpt2" => bpe::byte_level(keys)?,
        "llama" => bpe::sentencepiece(keys)?,
        "gemma4" => bpe::gemma4(keys)?,
        "bert" => wordpiece::tokenizer(keys)?,
        "t5" => unigram::tokenizer(keys)?,
        "none" | "no_vocab" => return Ok((Vec::new(), Vec::new())),
        other => {
            let note = format!(
                "tokenizer: '{}' (key '{MODEL}') cannot be written as a tokenizer.json; take the files of the original model",
                other.escape_debug()
            );
            return Ok((Vec::new(), vec![note]));
        }
    };
    let Tokenizer { json, vocabulary, specials, notes } = tokenizer;
    let mut files = vec![("tokenizer.json".to_owned(), json)];
    if model == "llama" && vocabulary.has_scores {
        let add_space = keys.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        files.push(("tokenizer.model".to_owned(), spm_model::file(&vocabulary, add_space)));
    }
    files.extend(config::files(keys, &vocabulary, &specials, model == "bert")?);
    Ok((files, notes))
}
