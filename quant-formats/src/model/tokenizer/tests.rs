//! Whole tokenizers, compared with what the reference wrote of them.

use std::path::{Path, PathBuf};

use super::*;
use crate::checkpoint::{At, Format, SideFile};

use crate::{Io, open};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name)
}

/// A model folder of these files and no weights.
fn folder(files: &[(&str, &str)]) -> Checkpoint {
    let side = |(name, text): &(&str, &str)| SideFile { name: (*name).into(), n_bytes: text.len() as u64, at: At::Bytes((*text).into()) };
    Checkpoint {
        format: Format::Hf,
        path: "model".into(),
        tensors: Vec::new(),
        places: Vec::new(),
        inputs: Vec::new(),
        metadata: Vec::new(),
        kv: Vec::new(),
        side_files: files.iter().map(side).collect(),
        origin: None,
        notes: Vec::new(),
    }
}

fn hparams(checkpoint: &Checkpoint) -> Hparams {
    Hparams::parse(&checkpoint.config().unwrap().unwrap(), Path::new("config.json")).unwrap()
}

fn bytes(checkpoint: &Checkpoint, entry: &Entry) -> Vec<u8> {
    let mut bytes = vec![0; entry.n_bytes as usize];
    checkpoint.read_at(&entry.at, 0, &mut bytes).unwrap();
    bytes
}

#[test]
fn tiny_llama_becomes_the_bytes_of_the_reference() {
    let model = open(&data("tiny-llama"), Io::Auto).unwrap();
    let (entries, notes) = entries(&model, &hparams(&model), Vocab::Llama, &Options::default()).unwrap();
    let reference = open(&data("tiny-llama.gguf"), Io::Auto).unwrap();
    let expected: Vec<_> = reference.kv.iter().filter(|entry| entry.key.starts_with("tokenizer.")).collect();
    assert_eq!(entries.len(), expected.len());
    for (entry, expected) in entries.iter().zip(expected) {
        assert_eq!((&entry.key, entry.kind, entry.items), (&expected.key, expected.kind, expected.items));
        assert!(bytes(&model, entry) == bytes(&reference, expected), "{}", entry.key);
    }
    assert_eq!(notes, [""; 0]);
}
