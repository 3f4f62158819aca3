//! [`Document`]: a tokenizer.json, with its keys in the order in which `tokenizers` 0.22 writes them.

use quant_core::{Error, Result};
use serde::Serialize;

use super::merges::{Merge, Pairs};
use super::parts::Part;
use super::specials::Specials;
use super::vocab::{Ids, Kind, Scores, Token, Vocabulary};

/// A whole tokenizer.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    version: &'static str,
    truncation: (),
    padding: (),
    added_tokens: Vec<Added<'a>>,
    pub(super) normalizer: Option<Part>,
    pub(super) pre_tokenizer: Option<Part>,
    pub(super) post_processor: Option<Part>,
    pub(super) decoder: Option<Part>,
    model: Model<'a>,
}

/// A token that is found in the text as it is.
#[derive(Serialize)]
pub(super) struct Added<'a> {
    id: u32,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

/// Which tokens take the white space beside them along, and on which side.
#[derive(Clone, Debug, Default)]
pub(super) struct Strips {
    /// One token that takes what is before it.
    pub(super) left: Option<&'static str>,
    /// Whether all take what is after them, but those of the beginning.
    pub(super) right: bool,
}

/// The model: how a word becomes tokens.
#[derive(Serialize)]
#[serde(tag = "type")]
#[allow(clippy::upper_case_acronyms, reason = "the name is that of the format")]
pub(super) enum Model<'a> {
    /// Byte pair encoding.
    BPE {
        /// Always none: a text is always encoded the same way.
        dropout: Option<f32>,
        /// The token for what has none.
        unk_token: Option<&'a str>,
        /// Empty in byte-level vocabularies, none in others.
        continuing_subword_prefix: Option<&'static str>,
        /// As above.
        end_of_word_suffix: Option<&'static str>,
        /// Whether neighbours without a token become one unknown token.
        fuse_unk: bool,
        /// Whether what has no token becomes tokens of single bytes.
        byte_fallback: bool,
        /// Whether a word that is a token is that token.
        ignore_merges: bool,
        /// The tokens.
        vocab: Ids<'a>,
        /// The merges, best first.
        merges: Pairs<'a>,
    },
    /// The longest token first.
    WordPiece {
        /// The token for words that cannot be put together.
        unk_token: &'a str,
        /// What tokens within a word begin with.
        continuing_subword_prefix: &'static str,
        /// Longer words are unknown.
        max_input_chars_per_word: u32,
        /// The tokens.
        vocab: Ids<'a>,
    },
    /// The most likely tokens.
    Unigram {
        /// The token for what has none.
        unk_id: Option<u32>,
        /// The tokens with their log-probabilities.
        vocab: Scores<'a>,
        /// Whether what has no token becomes tokens of single bytes.
        byte_fallback: bool,
    },
}

/// What differs between BPE models.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bpe<'a> {
    /// Whether its letters are bytes.
    pub(super) byte_level: bool,
    /// The token for what has none.
    pub(super) unk_token: Option<&'a str>,
    /// Whether a word that is a token is that token.
    pub(super) ignore_merges: bool,
}

impl<'a> Document<'a> {
    /// A document with the added tokens of `vocabulary` and nothing but a model.
    pub(super) fn new(vocabulary: &'a Vocabulary, specials: &Specials, strips: &Strips, model: Model<'a>) -> Document<'a> {
        let added = vocabulary.iter().filter(|(id, token)| is_added(*id, token, specials));
        let added_tokens = added.map(|(id, token)| Added::new(id, token, strips)).collect();
        let (normalizer, pre_tokenizer, post_processor, decoder) = (None, None, None, None);
        Document { version: "1.0", truncation: (), padding: (), added_tokens, normalizer, pre_tokenizer, post_processor, decoder, model }
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// If the memory for them cannot be had.
    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|e| Error::request(format!("cannot write tokenizer.json: {e}")))
    }
}

/// A token with a purpose is found in the text even if it is a normal one: transformers adds it if the file does not.
fn is_added(id: u32, token: &Token, specials: &Specials) -> bool {
    token.is_added() || (specials.has(id) && !token.text.is_empty())
}

impl<'a> Added<'a> {
    fn new(id: u32, token: &'a Token, strips: &Strips) -> Added<'a> {
        let content = token.text.as_str();
        let rstrip = strips.right && !matches!(content, "<unk>" | "<s>" | "<|endoftext|>");
        let lstrip = strips.left == Some(content);
        Added { id, content, single_word: false, lstrip, rstrip, normalized: false, special: token.kind != Kind::UserDefined }
    }
}

impl<'a> Model<'a> {
    /// A BPE model. Added tokens at the end of the vocabulary that no merge needs are not part of it.
    pub(super) fn bpe(vocabulary: &'a Vocabulary, merges: &'a [Merge], bpe: Bpe<'a>, specials: &Specials) -> Model<'a> {
        let affix = bpe.byte_level.then_some("");
        let n = n_in_model(vocabulary, merges, bpe.unk_token, specials);
        Model::BPE {
            dropout: None,
            unk_token: bpe.unk_token,
            continuing_subword_prefix: affix,
            end_of_word_suffix: affix,
            fuse_unk: !bpe.byte_level,
            byte_fallback: !bpe.byte_level && has_bytes(vocabulary),
            ignore_merges: bpe.ignore_merges,
            vocab: Ids(vocabulary, n),
            merges: Pairs(vocabulary, merges),
        }
    }
}

/// Whether the vocabulary has tokens of single bytes.
pub(super) fn has_bytes(vocabulary: &Vocabulary) -> bool {
    vocabulary.tokens.iter().any(|token| token.kind == Kind::Byte)
}

/// How many ids the model has. `tokenizers` numbers added tokens on from there, so there must be no hole before them.
fn n_in_model(vocabulary: &Vocabulary, merges: &[Merge], unk: Option<&str>, specials: &Specials) -> usize {
    let n = vocabulary.tokens.iter().rposition(|token| token.kind != Kind::Hole).map_or(0, |last| last + 1);
    let first_hole = vocabulary.tokens.iter().position(|token| token.kind == Kind::Hole);
    if first_hole.is_some_and(|hole| hole < n) {
        return n;
    }
    let needed = merges.iter().map(|merge| merge.left.max(merge.right).max(merge.whole) as usize + 1).max().unwrap_or(0);
    let is_tail = |(id, token): &(usize, &Token)| *id >= needed && is_added(*id as u32, token, specials) && Some(token.text.as_str()) != unk;
    let tail = vocabulary.tokens.iter().enumerate().take(n).rev().take_while(is_tail).count();
    n - tail
}
