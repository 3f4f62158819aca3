//! GGUF files that go through BQT, and through nothing, are the same files, whatever lies in them.

use std::path::{Path, PathBuf};

use quant_tests::{assert_same_folders, convert, here, json, quant_ok, sha256};

use crate::made::{ARRAY, F32, Gguf, STRING, U32, array, string, weights};

/// A file with all that writers do not do: an alignment of 64, padding that is not zero, bytes after the end, outer dimensions of 1.
fn odd(path: &Path) {
    let mut file = Gguf { alignment: 64, padding: 0xa5, trailing: b"and more".to_vec(), ..Gguf::llama() };
    file.key("general.alignment", U32, 64u32.to_le_bytes());
    file.f32("blk.0.ffn_up.weight", &[3, 7], &weights(21, 1));
    file.tensor("empty", &[0, 32], 2, vec![]);
    file.tensor("flags", &[1, 1, 5], 24, vec![1, 2, 3, 0xff, 0]);
    file.tensor("blk.0.ffn_down.weight", &[2, 32], 2, (0..36).collect());
    file.tensor("scalar", &[], 28, 0.1f64.to_le_bytes().to_vec());
    file.write(path);
}

/// A file with every kind of value, arrays of arrays, and a vocabulary of 300 000 tokens, not all of them UTF-8.
fn rich(path: &Path) {
    let mut file = Gguf::llama();
    let sizes = [1usize, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
    for (kind, size) in (0..).zip(sizes).filter(|(_, size)| *size > 0) {
        let value: Vec<u8> = if kind == 7 { vec![1] } else { vec![0x41; size] };
        file.key(&format!("scalar.{kind}"), kind, &value);
        file.key(&format!("array.{kind}"), ARRAY, array(kind, &vec![value; 1000]));
    }
    file.key("nan", F32, [0x01, 0x02, 0xc0, 0x7f]);
    file.key("empty", STRING, string(""));
    file.key("long", STRING, string(&"ü".repeat(100_000)));
    file.key("none", ARRAY, array(STRING, &[]));
    let inner = array(STRING, &[string("a"), string("")]);
    file.key("nested", ARRAY, array(ARRAY, &[inner.clone(), array(ARRAY, &[inner, array(7, &[vec![0], vec![1]])])]));
    let token = |i: u32| if i == 7 { [&2u64.to_le_bytes()[..], b"\xff\xfe"].concat() } else { string(&format!("▁token{i}")) };
    file.key("tokenizer.ggml.tokens", ARRAY, array(STRING, &(0..300_000).map(token).collect::<Vec<_>>()));
    file.f32("blk.0.ffn_up.weight", &[4, 32], &weights(128, 2));
    file.write(path);
}

/// The files that are copied.
fn files(dir: &Path) -> Vec<PathBuf> {
    let (quantized, odd_file, rich_file) = (dir.join("q4_k_m.gguf"), dir.join("odd.gguf"), dir.join("rich.gguf"));
    convert(&here("data/tiny-llama.gguf"), &quantized, &["--type", "q4_k_m"]);
    odd(&odd_file);
    rich(&rich_file);
    vec![here("data/tiny-llama.gguf"), quantized, odd_file, rich_file]
}

#[test]
fn files_go_into_bqt_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    for from in files(dir.path()) {
        let (bqt, back) = (dir.path().join("m.bqt"), dir.path().join("back.gguf"));
        convert(&from, &bqt, &["--force"]);
        quant_ok(&["verify".as_ref(), bqt.as_os_str()]);
        convert(&bqt, &back, &["--force"]);
        assert_eq!(sha256(&back), sha256(&from), "{}", from.display());
    }
}

#[test]
fn a_copy_is_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    for from in files(dir.path()) {
        for io in ["read", "mmap"] {
            let copy = dir.path().join(format!("{io}.gguf"));
            convert(&from, &copy, &["--force", "--io", io]);
            assert_eq!(sha256(&copy), sha256(&from), "{}", from.display());
        }
    }
}

#[test]
fn a_set_of_shards_goes_into_bqt_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    convert(&here("data/tiny-llama.gguf"), &path("set"), &["--to", "gguf", "--max-shard-tensors", "10"]);
    convert(&path("set"), &path("set.bqt"), &[]);
    convert(&path("set.bqt"), &path("again"), &["--to", "gguf", "--keep-split"]);
    assert_same_folders(&path("again"), &path("set"));
    // Any of the files stands for the set, and the set is copied.
    convert(&path("set").join("set-00003-of-00004.gguf"), &path("copy"), &["--to", "gguf", "--keep-split"]);
    assert_same_folders(&path("copy"), &path("set"));
    // Merged it is the same whether it went through BQT or not.
    convert(&path("set"), &path("merged.gguf"), &[]);
    convert(&path("set.bqt"), &path("through.gguf"), &[]);
    assert_eq!(sha256(&path("through.gguf")), sha256(&path("merged.gguf")));
}

#[test]
fn metadata_of_every_kind_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rich.gguf");
    rich(&file);
    let shown = dir.path().join("shown.json");
    std::fs::write(&shown, quant_ok(&["inspect".as_ref(), file.as_os_str(), "--json".as_ref()])).unwrap();
    let report = json(&shown);
    let rows = report["gguf"]["metadata"].as_array().unwrap();
    assert_eq!(rows.len(), 4 + 2 * 11 + 6);
    let row = |key: &str| rows.iter().find(|row| row["key"] == key).unwrap();
    assert_eq!(row("tokenizer.ggml.tokens")["count"], 300_000);
    assert_eq!(row("tokenizer.ggml.tokens")["value"][1], "▁token1");
    assert_eq!(row("scalar.10")["value"], 0x4141_4141_4141_4141u64);
    assert_eq!(row("array.7")["type"], "[bool]");
    assert_eq!(row("nan")["value"], "NaN");
}
