//! Whole tokenizers, compared with what the reference wrote of them.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::*;
use crate::checkpoint::{At, SideFile};
use crate::gguf::{Scalar, Value};
use crate::{Io, open};

/// Small folders and what the reference makes of them, with `test` as the name of the pre-tokenizer.
const CASES: &str = include_str!("cases.json");

#[derive(Deserialize)]
struct Case {
    name: String,
    vocab: String,
    files: Vec<(String, String)>,
    expected: Vec<String>,
}

const VOCABS: [Vocab; 5] = [Vocab::Gpt2, Vocab::SentencePieceOrGpt2, Vocab::Llama, Vocab::Bert, Vocab::XlmRoberta];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

/// A model folder with these files beside the weights of another.
fn folder(files: &[(impl AsRef<str>, impl AsRef<[u8]>)]) -> Checkpoint {
    let mut model = open(&data("tiny-llama"), Io::Auto).unwrap();
    let side = |name: &str, bytes: &[u8]| SideFile { name: name.into(), n_bytes: bytes.len() as u64, at: At::Bytes(bytes.into()) };
    model.side_files = files.iter().map(|(name, bytes)| side(name.as_ref(), bytes.as_ref())).collect();
    model.path = "model".into();
    model
}

fn hparams(checkpoint: &Checkpoint) -> Hparams {
    Hparams::parse(&checkpoint.config().unwrap().unwrap(), Path::new("config.json")).unwrap()
}

fn bytes(checkpoint: &Checkpoint, entry: &Entry) -> Vec<u8> {
    let mut bytes = vec![0; entry.n_bytes as usize];
    checkpoint.read_at(&entry.at, 0, &mut bytes).unwrap();
    bytes
}

fn shown(value: &Value) -> String {
    match value {
        Value::Scalar(Scalar::Unsigned(n)) => n.to_string(),
        Value::Scalar(Scalar::Signed(n)) => n.to_string(),
        Value::Scalar(Scalar::Float(x)) => x.to_string(),
        Value::Scalar(Scalar::Bool(b)) => b.to_string(),
        Value::Text(text) => serde_json::to_string(text).unwrap(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
    }
}

/// The whole lists of entries: keys, types, order and bytes.
fn assert_equal(model: &Checkpoint, entries: &[Entry], reference: &Checkpoint) {
    let expected: Vec<_> = reference.kv.iter().filter(|entry| entry.key.starts_with("tokenizer.")).collect();
    assert_eq!(entries.len(), expected.len());
    for (entry, expected) in entries.iter().zip(expected) {
        assert_eq!((&entry.key, entry.kind, entry.items), (&expected.key, expected.kind, expected.items));
        assert!(bytes(model, entry) == bytes(reference, expected), "{}", entry.key);
    }
}

#[test]
fn tiny_llama_becomes_the_bytes_of_the_reference() {
    let model = open(&data("tiny-llama"), Io::Auto).unwrap();
    let reference = open(&data("tiny-llama.gguf"), Io::Auto).unwrap();
    let (entries, notes) = entries(&model, &hparams(&model), Vocab::Llama, &Options::default()).unwrap();
    assert_equal(&model, &entries, &reference);
    assert_eq!(notes, [""; 0]);
}

#[test]
fn small_folders_become_what_the_reference_makes_of_them() {
    let cases: Vec<Case> = serde_json::from_str(CASES).unwrap();
    assert_eq!(cases.len(), 13);
    for case in cases {
        let vocab = VOCABS.into_iter().find(|vocab| format!("{vocab:?}") == case.vocab).unwrap();
        let model = folder(&case.files);
        let (entries, notes) = entries(&model, &hparams(&model), vocab, &Options { pre: Some("test") }).unwrap();
        let is_written = case.expected.iter().any(|entry| entry == "tokenizer.ggml.pre = \"test\"");
        assert_eq!(notes.iter().any(|note| note.starts_with("--pre test is not used")), !is_written, "{}", case.name);
        let found: Vec<_> = entries.iter().map(|entry| format!("{} = {}", entry.key, shown(&entry.value(&model, 1000).unwrap()))).collect();
        assert_eq!(found, case.expected, "{}", case.name);
    }
}

const TOKENIZER: &str = r#"{"added_tokens": [{"id": 2, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
    "normalized": false, "special": true}], "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}"#;

/// The message for a folder that cannot be read.
fn problem(vocab: Vocab, files: &[(&str, &str)]) -> String {
    let model = folder(files);
    entries(&model, &hparams(&model), vocab, &Options::default()).unwrap_err().to_string()
}

#[test]
fn errors_say_what_is_wrong_and_what_to_do() {
    let json = ("tokenizer.json", TOKENIZER);
    let size = |n: &'static str| ("config.json", n);
    let none = size("{}");
    let damaged = |text| [none, ("tokenizer.json", text)];
    type Files<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Vocab, Files<'_>, &str); 14] = [
        (Vocab::Gpt2, &[none], "model/tokenizer.json: found no such file, and no older files"),
        (Vocab::Bert, &[none, ("tokenizer_config.json", r#"{"tokenizer_class": "BertTokenizer"}"#)], "found no such file, and no vocab.txt"),
        (Vocab::Gemma2, &[none], "model/tokenizer.model: found no such file"),
        (Vocab::XlmRoberta, &[none], "found neither this file nor sentencepiece.bpe.model"),
        (Vocab::Gpt2, &[none, json], "have the hash 7b4604b3e7ef53d3a31d7a4d1a3609403b42564834a96fe0f8b17555ba4136ca"),
        (Vocab::Gpt2, &[none, json], "--pre NAME"),
        (Vocab::Gpt2, &[size(r#"{"vocab_size": 2}"#), json], "found a vocab_size of 2, but token '<s>' of the tokenizer has the id 2"),
        (Vocab::Gpt2, &damaged(r#"{"model": {"type": "BPE", "merges": []}}"#), "model/tokenizer.json: no tokenizer can be built from it"),
        (Vocab::Gpt2, &damaged("[]"), "model/tokenizer.json: cannot be read as a JSON object"),
        (Vocab::Gpt2, &damaged(r#"{"model": 5}"#), "model/tokenizer.json: no tokenizer can be built from it"),
        (Vocab::Llama, &[none, ("tekken.json", "{}")], "needed a tokenizer.json beside it"),
        (Vocab::Llama, &[none, ("tokenizer.model", "\n\u{4}ab")], "model/tokenizer.model: ends too early"),
        (
            Vocab::Llama,
            &[size(r#"{"vocab_size": 4000000000}"#), ("tokenizer.model", "\n\u{5}\n\u{3}<s>")],
            "config.json: found a vocab_size of 4000000000 for a tokenizer of 1 tokens",
        ),
        (
            Vocab::Llama,
            &[size(r#"{"eos_token_id": -1}"#), ("tokenizer.model", "\n\u{5}\n\u{3}<s>")],
            "model/config.json: the id of the special token 'eos' is -1",
        ),
    ];
    for (vocab, files, expected) in cases {
        let problem = problem(vocab, files);
        assert!(problem.contains(expected), "{problem}");
    }
}

#[test]
fn a_given_name_overrides_and_is_told() {
    let model = folder(&[("config.json", "{}"), ("tokenizer.json", TOKENIZER)]);
    let (entries, notes) = entries(&model, &hparams(&model), Vocab::Gpt2, &Options { pre: Some("mine") }).unwrap();
    assert_eq!(entries[1].text(), Some("mine"));
    assert_eq!(notes, [""; 0]);
}
