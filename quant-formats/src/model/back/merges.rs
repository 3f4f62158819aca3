//! The merges of a BPE model: those of the file, or those that the vocabulary implies.
//!
//! A SentencePiece vocabulary has none: any two neighbours are merged whose text together is a piece, those of the best score
//! first. As a list of merges this is every way to cut a piece in two, sorted by score; equal scores by the length of the left
//! part, longest first.
//!
//! Source: `generate_merges` of transformers 5.23.0; `llama_vocab::impl::load` of llama.cpp 0.5.0-dev for the form in the file.

use std::cmp::Ordering;
use std::collections::HashMap;

use quant_core::Result;
use serde::{Serialize, Serializer};

use super::keys::Keys;
use super::vocab::{Kind, Token, Vocabulary};
use crate::gguf;

const MERGES: &str = "tokenizer.ggml.merges";
const TOKENS: &str = "tokenizer.ggml.tokens";

/// The most merges.
const MAX_MERGES: u64 = 1 << 23;
/// The most merges that are made up: eight times those of the largest vocabularies.
const MAX_IMPLIED: usize = 1 << 22;
/// The longest piece that is cut in two, in bytes; real ones stay below half of it.
const MAX_PIECE: usize = 256;

/// Two tokens that become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Merge {
    pub(super) left: u32,
    pub(super) right: u32,
    pub(super) whole: u32,
}

/// A merge with the score of the whole and the number of characters on the left.
type Cut = (f32, usize, Merge);

/// The merges of the file, if it has any. Those whose parts or result are no tokens are left out, with a note.
///
/// # Errors
/// If they are not a list of strings.
pub(super) fn stored(keys: Keys, vocabulary: &Vocabulary, notes: &mut Vec<String>) -> Result<Option<Vec<Merge>>> {
    let Some(mut walk) = keys.array(MERGES, &[gguf::Kind::String], MAX_MERGES)? else { return Ok(None) };
    let ids = vocabulary.ids();
    let (mut merges, mut whole, mut n_left_out, mut first) = (Vec::new(), String::new(), 0u64, String::new());
    while let Some(text) = walk.text()? {
        match resolve(&text, &ids, &mut whole) {
            Some(merge) => merges.push(merge),
            None => {
                if n_left_out == 0 {
                    first = text.chars().take(40).flat_map(char::escape_debug).collect();
                }
                n_left_out += 1;
            }
        }
    }
    if n_left_out > 0 {
        notes.push(format!("tokenizer: {n_left_out} merges are of texts that are no tokens and are left out; the first is '{first}'"));
    }
    Ok(Some(merges))
}

/// The merge that `text` says: two texts with a space between them, of which the first has at least one character.
fn resolve(text: &str, ids: &HashMap<&str, u32>, whole: &mut String) -> Option<Merge> {
    let first = text.chars().next()?.len_utf8();
    let space = first + text.get(first..)?.find(' ')?;
    let (left, right) = (text.get(..space)?, text.get(space + 1..)?);
    whole.clear();
    whole.push_str(left);
    whole.push_str(right);
    Some(Merge { left: *ids.get(left)?, right: *ids.get(right)?, whole: *ids.get(whole.as_str())? })
}

/// The merges that the vocabulary implies: by score, or by id if the scores do not tell the tokens apart.
///
/// # Errors
/// If they are more than any vocabulary of words implies.
pub(super) fn implied(keys: Keys, vocabulary: &Vocabulary, notes: &mut Vec<String>) -> Result<Vec<Merge>> {
    let ids: HashMap<&str, u32> = vocabulary.iter().filter(|(_, t)| is_piece(t)).map(|(id, t)| (t.text.as_str(), id)).collect();
    let pieces = || vocabulary.iter().filter(|(_, token)| is_piece(token));
    let too_long = pieces().filter(|(_, token)| token.text.len() > MAX_PIECE).count();
    if too_long > 0 {
        notes.push(format!("tokenizer: {too_long} tokens are longer than {MAX_PIECE} bytes and are not put together from shorter ones"));
    }
    let by_score = differ(pieces().map(|(_, token)| token.score));
    if vocabulary.has_scores && !by_score {
        notes.push("tokenizer: all scores are the same; tokens are merged in the order of their ids".into());
    }
    let mut merges: Vec<Cut> = Vec::new();
    for (id, token) in pieces().filter(|(_, token)| token.text.len() <= MAX_PIECE) {
        cuts(&token.text, id, &ids, |n_left, merge| merges.push((token.score, n_left, merge)));
        if merges.len() > MAX_IMPLIED {
            return Err(keys.bad(TOKENS, format!("more than {MAX_IMPLIED} merges follow from the tokens: these are not the words of any language")));
        }
    }
    if by_score {
        merges.sort_by(best_first);
    } else {
        merges.sort_by_key(|(_, n_left, merge)| (merge.whole, *n_left));
    }
    Ok(merges.into_iter().map(|(_, _, merge)| merge).collect())
}

/// By score, longest left part first. What has no end of a score, a run of spaces, goes by id.
fn best_first(a: &Cut, b: &Cut) -> Ordering {
    let ((score_a, left_a, a), (score_b, left_b, b)) = (a, b);
    let by_score = score_b.total_cmp(score_a);
    if *score_a == f32::INFINITY {
        return by_score.then(a.whole.cmp(&b.whole)).then(left_a.cmp(left_b));
    }
    by_score.then(left_b.cmp(left_a))
}

/// Whether the token is put together from others.
fn is_piece(token: &Token) -> bool {
    matches!(token.kind, Kind::Normal | Kind::Unused)
}

fn differ(mut scores: impl Iterator<Item = f32>) -> bool {
    let first = scores.next();
    scores.any(|score| Some(score) != first && score.is_finite())
}

/// Every way to cut `text` into two tokens, with the number of characters on the left.
fn cuts(text: &str, whole: u32, ids: &HashMap<&str, u32>, mut found: impl FnMut(usize, Merge)) {
    for (n_left, (at, _)) in text.char_indices().enumerate().skip(1) {
        let (left, right) = text.split_at(at);
        if let (Some(&left), Some(&right)) = (ids.get(left), ids.get(right)) {
            found(n_left, Merge { left, right, whole });
        }
    }
}

/// Merges as pairs of texts.
pub(super) struct Pairs<'a>(pub(super) &'a Vocabulary, pub(super) &'a [Merge]);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let text = |id| self.0.get(id).map_or("", |token| token.text.as_str());
        serializer.collect_seq(self.1.iter().map(|merge| (text(merge.left), text(merge.right))))
    }
}
