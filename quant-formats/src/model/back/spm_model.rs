//! tokenizer.model: the protocol buffer of SentencePiece, as far as converters and slow tokenizers read it.
//!
//! Source: `sentencepiece_model.proto` of SentencePiece 0.2.

use super::vocab::{Kind, Vocabulary};

/// Numbers of fields.
const PIECES: u64 = 1;
const TRAINER: u64 = 2;
const NORMALIZER: u64 = 3;
/// `TrainerSpec::ModelType::BPE`.
const BPE: u64 = 2;

/// The model of a vocabulary with scores, which puts a space before a text if `add_dummy_prefix`.
pub(super) fn file(vocabulary: &Vocabulary, add_dummy_prefix: bool) -> Vec<u8> {
    let mut out = Vec::new();
    for token in &vocabulary.tokens {
        let mut piece = Vec::new();
        bytes(&mut piece, 1, token.text.as_bytes());
        varint(&mut piece, 2 << 3 | 5);
        piece.extend_from_slice(&token.score.to_le_bytes());
        number(&mut piece, 3, kind(token.kind));
        bytes(&mut out, PIECES, &piece);
    }
    let mut trainer = Vec::new();
    number(&mut trainer, 3, BPE);
    number(&mut trainer, 4, vocabulary.tokens.len() as u64);
    number(&mut trainer, 35, u64::from(vocabulary.tokens.iter().any(|t| t.kind == Kind::Byte)));
    bytes(&mut out, TRAINER, &trainer);
    let mut normalizer = Vec::new();
    bytes(&mut normalizer, 1, b"identity");
    number(&mut normalizer, 3, add_dummy_prefix.into());
    number(&mut normalizer, 4, 0);
    number(&mut normalizer, 5, 1);
    bytes(&mut out, NORMALIZER, &normalizer);
    out
}

/// The number of a piece's type, which is that of GGUF.
fn kind(kind: Kind) -> u64 {
    match kind {
        Kind::Normal => 1,
        Kind::Unknown => 2,
        Kind::Control => 3,
        Kind::UserDefined => 4,
        Kind::Unused | Kind::Hole => 5,
        Kind::Byte => 6,
    }
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn number(out: &mut Vec<u8>, field: u64, n: u64) {
    varint(out, field << 3);
    varint(out, n);
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}
