//! WordPiece tokenizers (`tokenizer.ggml.model` is `bert`).
//!
//! ```text
//! in GGUF    ▁word   piece     [CLS]
//! here       word    ##piece   [CLS]
//! ```
//!
//! Source: `phantom` in `BertModel.set_vocab` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev, which is undone here;
//! `BertTokenizer` of transformers 5.23.0.

use quant_core::Result;

use super::Tokenizer;
use super::document::{Document, Model, Strips};
use super::keys::Keys;
use super::parts::{Part, SPACE};
use super::specials::{Purpose, Specials};
use super::vocab::{Ids, Kind, Vocabulary};

const LOWERCASE: &str = "tokenizer.ggml.normalizer.lowercase";
const STRIP_ACCENTS: &str = "tokenizer.ggml.normalizer.strip_accents";
/// What a token within a word begins with.
const WITHIN: &str = "##";
/// The ids of BERT, which llama.cpp takes if the file does not say.
const DEFAULTS: [(Purpose, u32); 5] = [(Purpose::Bos, 101), (Purpose::Unk, 100), (Purpose::Sep, 102), (Purpose::Pad, 0), (Purpose::Mask, 103)];

/// A WordPiece tokenizer.
///
/// # Errors
/// If a key is not as it should be.
pub(super) fn tokenizer(keys: Keys) -> Result<Tokenizer> {
    let mut notes = Vec::new();
    let mut vocabulary = Vocabulary::read(keys)?;
    for token in vocabulary.tokens.iter_mut().filter(|token| token.kind != Kind::Control) {
        token.text = match token.text.strip_prefix(SPACE) {
            Some(word) => word.into(),
            None => format!("{WITHIN}{}", token.text),
        };
    }
    vocabulary.make_holes(|id| format!("[PAD{id}]"), &mut notes);
    let specials = as_bert_names_them(Specials::read(keys, &vocabulary, &DEFAULTS, &mut notes)?);
    let json = json(keys, &vocabulary, &specials)?;
    Ok(Tokenizer { json, vocabulary, specials, notes })
}

/// The converter calls the first token beginning of text and the last end of text, where a model calls them classification
/// and separation.
fn as_bert_names_them(mut specials: Specials) -> Specials {
    specials.set(Purpose::Cls, specials.id(Purpose::Cls).or(specials.id(Purpose::Bos)));
    specials.set(Purpose::Sep, specials.id(Purpose::Sep).or(specials.id(Purpose::Eos)));
    for (purpose, same) in [(Purpose::Bos, Purpose::Cls), (Purpose::Eos, Purpose::Sep)] {
        if specials.id(purpose) == specials.id(same) {
            specials.set(purpose, None);
        }
    }
    specials
}

fn json(keys: Keys, vocabulary: &Vocabulary, specials: &Specials) -> Result<Vec<u8>> {
    let unk_token = specials.token(vocabulary, Purpose::Unk).map_or("[UNK]", |(text, _)| text);
    let vocab = Ids(vocabulary, vocabulary.tokens.len());
    let model = Model::WordPiece { unk_token, continuing_subword_prefix: WITHIN, max_input_chars_per_word: 100, vocab };
    let mut document = Document::new(vocabulary, specials, &Strips::default(), model);
    document.normalizer = Some(Part::BertNormalizer {
        clean_text: true,
        handle_chinese_chars: true,
        strip_accents: keys.flag(STRIP_ACCENTS)?,
        lowercase: keys.flag(LOWERCASE)?.unwrap_or(true),
    });
    document.pre_tokenizer = Some(Part::BertPreTokenizer);
    let first = specials.token(vocabulary, Purpose::Bos).or(specials.token(vocabulary, Purpose::Cls));
    let last = specials.token(vocabulary, Purpose::Sep);
    document.post_processor = Some(Part::template(first, last, last));
    document.decoder = Some(Part::WordPiece { prefix: WITHIN, cleanup: true });
    document.bytes()
}
