//! Tokenizers rebuilt from metadata written by hand or by the converter, loaded, and tried.

mod bad;
mod bpe;
mod others;

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::tokenizer_files;
use crate::checkpoint::{Checkpoint, Format};
use crate::gguf::Entry;

/// A model that is nothing but metadata.
fn model(kv: Vec<Entry>) -> Checkpoint {
    Checkpoint { kv, ..Checkpoint::empty(Format::Gguf, "x.gguf".as_ref()) }
}

fn key(name: &str) -> String {
    format!("tokenizer.ggml.{name}")
}

/// The keys of a vocabulary: tokens and their types.
fn keys(kind: &str, tokens: &[(&str, i32)]) -> Vec<Entry> {
    let (texts, kinds): (Vec<&str>, Vec<i32>) = tokens.iter().copied().unzip();
    vec![Entry::string(key("model"), kind), Entry::strings(key("tokens"), &texts), Entry::i32s(key("token_type"), &kinds)]
}

/// What a set of keys becomes.
struct Rebuilt {
    files: Vec<(String, Vec<u8>)>,
    notes: Vec<String>,
}

impl Rebuilt {
    fn of(kv: Vec<Entry>) -> Rebuilt {
        let (files, notes) = tokenizer_files(&model(kv)).unwrap();
        Rebuilt { files, notes }
    }

    fn file(&self, name: &str) -> &[u8] {
        &self.files.iter().find(|(n, _)| n == name).unwrap().1
    }

    fn tokenizer(&self) -> Tokenizer {
        Tokenizer::from_bytes(self.file("tokenizer.json")).unwrap()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(self.file(name)).unwrap()
    }

    fn ids(&self, text: &str) -> Vec<u32> {
        self.tokenizer().encode(text, true).unwrap().get_ids().to_vec()
    }
}

#[test]
fn the_tokenizer_of_a_real_model_comes_back() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
    let checkpoint = crate::open(&data.join("tiny-llama.gguf"), crate::Io::default()).unwrap();
    let (files, notes) = tokenizer_files(&checkpoint).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let rebuilt = Rebuilt { files, notes };
    let (ours, theirs) = (rebuilt.tokenizer(), Tokenizer::from_file(data.join("tiny-llama/tokenizer.json")).unwrap());
    assert_eq!(ours.get_vocab(true), theirs.get_vocab(true));
    let page = std::fs::read_to_string(data.join("tiny-llama/eval.txt")).unwrap();
    let foreign = "Ünïcödé, 中文, 🚀 and\ttabs:\n\n    x = {'a': 1}  # 3.14\n";
    for text in [page.as_str(), foreign] {
        let (ours_ids, theirs_ids) = (ours.encode(text, true).unwrap(), theirs.encode(text, true).unwrap());
        assert_eq!(ours_ids.get_ids(), theirs_ids.get_ids());
        assert_eq!(ours.decode(ours_ids.get_ids(), true).unwrap(), text);
    }
    let config = rebuilt.json("tokenizer_config.json");
    assert_eq!((&config["bos_token"], &config["eos_token"], &config["unk_token"]), (&"<s>".into(), &"</s>".into(), &"<unk>".into()));
    assert_eq!((&config["model_max_length"], &config["add_bos_token"]), (&512.into(), &true.into()));
}
