//! Splitting, merging, quantizing shards and editing metadata, against llama.cpp's own tools: see `peers/gguf_tools.py`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use quant_tests::{command, convert, here, json, sha256, sha256_of_folder};

use crate::made::{Gguf, U32, names, open, stored, weights};

/// Where the result of a case, or a file of `data`, lies.
fn place(dir: &Path, case: &str) -> PathBuf {
    let folder = dir.join(case);
    match case.ends_with(".gguf") {
        true => here("data").join(case),
        false if folder.is_dir() => folder,
        false => folder.with_added_extension("gguf"),
    }
}

#[test]
fn files_are_those_of_gguf_split_and_gguf_new_metadata() {
    let dir = tempfile::tempdir().unwrap();
    let golden = json(&here("goldens/gguf_tools.json"));
    let mut n_files = 0;
    for case in golden.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let expected: BTreeMap<String, String> = serde_json::from_value(case["files"].clone()).unwrap();
        let is_set = expected.keys().any(|file| file.contains("-00001-of-"));
        let out = dir.path().join(if is_set { name.to_owned() } else { format!("{name}.gguf") });
        // Paths of importance matrices are relative to `data`.
        let mut command = command(&["convert"]);
        command.current_dir(here("data")).arg(place(dir.path(), case["from"].as_str().unwrap())).arg(&out).args(["--to", "gguf"]);
        let done = command.args(case["quant"].as_array().unwrap().iter().map(|a| a.as_str().unwrap())).output().unwrap();
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
        let found = if is_set { sha256_of_folder(&out) } else { BTreeMap::from([(format!("{name}.gguf"), sha256(&out))]) };
        assert_eq!(found, expected, "{name}");
        n_files += found.len();
    }
    assert_eq!((golden.as_array().unwrap().len(), n_files), (32, 144));
}

#[test]
fn shards_of_an_aligned_file_hold_its_tensors() {
    // gguf-split gives them the key general.alignment, and ignores it: what it writes cannot be read.
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for extra in 0..4 {
        let mut file = Gguf { alignment: 64, ..Gguf::llama() };
        file.key("general.alignment", U32, 64u32.to_le_bytes());
        // With the length of the names the place where the data begins changes.
        let tensors = ["a", "b", "c"].map(|name| name.repeat(1 + extra * 16));
        (1..).zip(&tensors).for_each(|(seed, name)| file.f32(name, &[3, 7], &weights(21, seed)));
        file.write(&path("aligned.gguf"));
        convert(&path("aligned.gguf"), &path("set"), &["--force", "--to", "gguf", "--max-shard-tensors", "1"]);
        convert(&path("set"), &path("merged.gguf"), &["--force"]);
        convert(&path("set"), &path("again"), &["--force", "--to", "gguf", "--max-shard-tensors", "2"]);
        for found in ["set", "merged.gguf", "again"].map(|name| open(&path(name))) {
            assert_eq!(names(&found), tensors);
            assert_eq!(found.notes, Vec::<String>::new());
            let from = open(&path("aligned.gguf"));
            tensors.iter().for_each(|name| assert_eq!(stored(&found, name), stored(&from, name)));
        }
    }
}
