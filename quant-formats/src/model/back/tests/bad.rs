//! Metadata that is not as it should be.

use super::super::tokenizer_files;
use super::{key, keys, model};
use crate::gguf::{Entry, Kind};

fn refused(kv: Vec<Entry>) -> String {
    tokenizer_files(&model(kv)).expect_err("needed an error").to_string()
}

fn array(name: &str, kind: Kind, n: u64, items: &[u8]) -> Entry {
    let bytes = [&kind.id().to_le_bytes()[..], &n.to_le_bytes(), items].concat();
    Entry { items: Some((kind, n)), ..Entry::new(key(name), Kind::Array, bytes) }
}

fn with(entry: Entry) -> Vec<Entry> {
    let mut kv = keys("gpt2", &[("a", 1), ("b", 1)]);
    match kv.iter_mut().find(|e| e.key == entry.key) {
        Some(same) => *same = entry,
        None => kv.push(entry),
    }
    kv
}

#[test]
fn keys_of_other_types_are_refused() {
    for (entry, problem) in [
        (Entry::u32(key("tokens"), 1), "key 'tokenizer.ggml.tokens': found a value of type uint32, needed an array of string"),
        (Entry::i32s(key("tokens"), &[1, 2]), "key 'tokenizer.ggml.tokens': found an array of int32, needed one of string"),
        (Entry::f32s(key("token_type"), &[1.0, 2.0]), "key 'tokenizer.ggml.token_type': found an array of float32, needed one of int32 or uint32"),
        (Entry::i32s(key("token_type"), &[1]), "key 'tokenizer.ggml.token_type': found 1 items, needed one for each of the 2 tokens"),
        (Entry::f32s(key("scores"), &[1.0]), "key 'tokenizer.ggml.scores': found 1 items, needed one for each of the 2 tokens"),
        (Entry::i32s(key("merges"), &[1]), "key 'tokenizer.ggml.merges': found an array of int32, needed one of string"),
        (Entry::u32(key("pre"), 1), "key 'tokenizer.ggml.pre': found a value of type uint32, needed a string"),
        (
            Entry::string(key("bos_token_id"), "1"),
            "key 'tokenizer.ggml.bos_token_id': found a value of type string, needed an integer that is not negative",
        ),
        (Entry::u32(key("add_bos_token"), 1), "key 'tokenizer.ggml.add_bos_token': found a value of type uint32, needed a truth value"),
    ] {
        assert_eq!(refused(with(entry)), format!("x.gguf: {problem}"));
    }
    assert!(refused(vec![Entry::string(key("model"), "llama")]).contains("key 'tokenizer.ggml.tokens': is missing"));
}

#[test]
fn texts_that_are_not_utf_8_are_refused_with_their_place() {
    let items = [&1u64.to_le_bytes()[..], b"a", &3u64.to_le_bytes(), b"b\xff\n"].concat();
    let problem = "x.gguf: key 'tokenizer.ggml.tokens', item 1: not UTF-8 at byte 1 of \"b\\xff\\n\", which JSON cannot hold";
    assert_eq!(refused(with(array("tokens", Kind::String, 2, &items))), problem);
    let template = Entry::new("tokenizer.chat_template", Kind::String, [&1u64.to_le_bytes()[..], b"\xff"].concat());
    assert_eq!(refused(with(template)), "x.gguf: key 'tokenizer.chat_template': not UTF-8 at byte 0");
}

#[test]
fn lengths_that_nothing_pays_for_are_refused() {
    let item = |len: u64| [&1u64.to_le_bytes()[..], b"a", &len.to_le_bytes(), b"bc"].concat();
    let refused = |len, n| refused(with(array("tokens", Kind::String, n, &item(len))));
    assert_eq!(refused(3, 2), "x.gguf: key 'tokenizer.ggml.tokens', item 1: the array ends inside it: found 2 bytes, needed 3");
    assert_eq!(
        refused(u64::MAX, 2),
        format!("x.gguf: key 'tokenizer.ggml.tokens', item 1: a string of {} bytes, at most 1048576 are read", u64::MAX)
    );
    assert_eq!(refused(2, 3), "x.gguf: key 'tokenizer.ggml.tokens', item 2: the array ends inside it: found 0 bytes, needed 8");
    assert_eq!(refused(2, 1 << 23), "x.gguf: key 'tokenizer.ggml.tokens': found 8388608 items, at most 4194304 are read");
}

#[test]
fn unigram_needs_finite_scores_and_a_whole_table() {
    let kv = |rest| [keys("t5", &[("a", 1), ("b", 1)]), vec![rest]].concat();
    let problem = "x.gguf: key 'tokenizer.ggml.scores': item 1 is NaN, needed a finite number";
    assert_eq!(refused(kv(Entry::f32s(key("scores"), &[0.0, f32::NAN]))), problem);
    for (bytes, problem) in [
        (&[1u8, 2][..], "found fewer than 4 bytes, needed the size of the trie in it"),
        (&[8, 0, 0, 0, 0, 0, 0, 0], "found a trie of 8 bytes in 8, needed a multiple of 4 and texts after it"),
        (&[255; 8], "found a trie of 4294967295 bytes in 8, needed a multiple of 4 and texts after it"),
    ] {
        let table = array("precompiled_charsmap", Kind::U8, bytes.len() as u64, bytes);
        assert_eq!(refused(kv(table)), format!("x.gguf: key 'tokenizer.ggml.precompiled_charsmap': {problem}"));
    }
}

#[test]
fn a_vocabulary_that_implies_endless_merges_is_refused() {
    let mut tokens = Vec::new();
    for (a, b, c) in (0..=60).flat_map(|a| (0..=60).map(move |b| (a, b))).flat_map(|(a, b)| (0..=40).map(move |c| (a, b, c))) {
        tokens.push(["a".repeat(a), "b".repeat(b), "c".repeat(c)].concat());
    }
    let kv = vec![Entry::string(key("model"), "gpt2"), Entry::strings(key("tokens"), &tokens)];
    assert!(refused(kv).contains("more than 4194304 merges follow from the tokens"));
}
