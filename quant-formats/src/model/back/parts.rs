//! [`Part`]: what a tokenizer.json is made of beside the vocabulary, as `tokenizers` 0.22 writes it.

use std::collections::BTreeMap;

use serde::Serialize;

/// A normalizer, pre-tokenizer, decoder or post-processor.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type")]
#[allow(missing_docs, reason = "the names are those of the format")]
pub(super) enum Part {
    #[serde(rename = "Sequence")]
    Normalizers {
        normalizers: Vec<Part>,
    },
    #[serde(rename = "Sequence")]
    PreTokenizers {
        pretokenizers: Vec<Part>,
    },
    #[serde(rename = "Sequence")]
    Decoders {
        decoders: Vec<Part>,
    },
    #[serde(rename = "Sequence")]
    Processors {
        processors: Vec<Part>,
    },
    #[serde(rename = "NFC")]
    Nfc,
    Lowercase,
    Prepend {
        prepend: &'static str,
    },
    Replace {
        pattern: Pattern,
        content: &'static str,
    },
    Precompiled {
        precompiled_charsmap: String,
    },
    BertNormalizer {
        clean_text: bool,
        handle_chinese_chars: bool,
        strip_accents: Option<bool>,
        lowercase: bool,
    },
    BertPreTokenizer,
    Split {
        pattern: Pattern,
        behavior: &'static str,
        invert: bool,
    },
    Digits {
        individual_digits: bool,
    },
    WhitespaceSplit,
    ByteLevel {
        add_prefix_space: bool,
        trim_offsets: bool,
        use_regex: bool,
    },
    Metaspace {
        replacement: &'static str,
        prepend_scheme: &'static str,
        split: bool,
    },
    ByteFallback,
    Fuse,
    Strip {
        content: &'static str,
        start: u32,
        stop: u32,
    },
    WordPiece {
        prefix: &'static str,
        cleanup: bool,
    },
    TemplateProcessing {
        single: Vec<Piece>,
        pair: Vec<Piece>,
        special_tokens: BTreeMap<String, Special>,
    },
    RobertaProcessing {
        sep: (String, u32),
        cls: (String, u32),
        trim_offsets: bool,
        add_prefix_space: bool,
    },
}

/// What is looked for.
#[derive(Clone, Debug, Serialize)]
pub(super) enum Pattern {
    /// A text.
    String(&'static str),
    /// A regular expression.
    Regex(&'static str),
}

/// A piece of a template.
#[derive(Clone, Debug, Serialize)]
pub(super) enum Piece {
    /// A token.
    SpecialToken {
        /// Its text.
        id: String,
        /// The number of the sequence that it counts to.
        type_id: u32,
    },
    /// A text.
    Sequence {
        /// A or B.
        id: &'static str,
        /// The number of the sequence that it counts to.
        type_id: u32,
    },
}

/// A token of a template.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Special {
    id: String,
    ids: [u32; 1],
    tokens: [String; 1],
}

/// The character that stands for a space in SentencePiece vocabularies.
pub(super) const SPACE: &str = "\u{2581}";

impl Part {
    /// A pre-tokenizer that cuts out what `regex` finds.
    pub(super) fn split(regex: &'static str) -> Part {
        Part::Split { pattern: Pattern::Regex(regex), behavior: "Isolated", invert: false }
    }

    /// A normalizer or decoder that replaces a text.
    pub(super) fn replace(text: &'static str, content: &'static str) -> Part {
        Part::Replace { pattern: Pattern::String(text), content }
    }

    /// Several normalizers as one; none as none.
    pub(super) fn normalizers(mut parts: Vec<Part>) -> Option<Part> {
        if parts.len() > 1 { Some(Part::Normalizers { normalizers: parts }) } else { parts.pop() }
    }

    /// Several pre-tokenizers as one; none as none.
    pub(super) fn pre_tokenizers(mut parts: Vec<Part>) -> Option<Part> {
        if parts.len() > 1 { Some(Part::PreTokenizers { pretokenizers: parts }) } else { parts.pop() }
    }

    /// Puts `before` and `after` around a text, and around each text of a pair, with `between` where two meet.
    pub(super) fn template(before: Option<(&str, u32)>, after: Option<(&str, u32)>, between: Option<(&str, u32)>) -> Part {
        let token = |t: Option<(&str, u32)>, type_id| t.map(|(id, _)| Piece::SpecialToken { id: id.into(), type_id });
        let around = |id, type_id| token(before, type_id).into_iter().chain([Piece::Sequence { id, type_id }]).chain(token(after, type_id));
        let pair = match between {
            // As BERT does it: the second text has nothing before it.
            Some(_) => {
                let first: Vec<Piece> = token(before, 0).into_iter().chain([Piece::Sequence { id: "A", type_id: 0 }]).collect();
                let second = [Piece::Sequence { id: "B", type_id: 1 }].into_iter().chain(token(after, 1));
                first.into_iter().chain(token(between, 0)).chain(second).collect()
            }
            None => around("A", 0).chain(around("B", 1)).collect(),
        };
        let special = |(text, id): (&str, u32)| (text.to_owned(), Special { id: text.into(), ids: [id], tokens: [text.into()] });
        let special_tokens = [before, after, between].into_iter().flatten().map(special).collect();
        Part::TemplateProcessing { single: around("A", 0).collect(), pair, special_tokens }
    }
}
