//! Sets of files.

use super::*;

/// The keys of a shard; `no` counts from 0.
fn keys(no: u16, count: u16, n_tensors: i32) -> Vec<Vec<u8>> {
    vec![kv("split.no", 2, no.to_le_bytes()), kv("split.count", 2, count.to_le_bytes()), kv("split.tensors.count", 5, n_tensors.to_le_bytes())]
}

fn shard(entries: &[Vec<u8>], name: &str, alignment: usize) -> Vec<u8> {
    file(entries, &[info(name, &[8], 0, 0)], alignment, &[name.repeat(32).as_bytes(), &vec![0; alignment - 32]].concat())
}

/// A folder of three sound files, called `m`.
fn folder() -> (tempfile::TempDir, Vec<(String, Vec<u8>)>) {
    let architecture = || kv("general.architecture", 8, string("llama"));
    let files = [
        shard(&[vec![architecture()], keys(0, 3, 3)].concat(), "a", 32),
        shard(&[keys(1, 3, 3), vec![u32_kv("general.alignment", 64), architecture()]].concat(), "b", 64),
        shard(&keys(2, 3, 3), "c", 32),
    ];
    let folder = tempfile::tempdir().unwrap();
    let files = files.into_iter().enumerate().map(|(i, bytes)| (format!("m-{:05}-of-00003.gguf", i + 1), bytes));
    let files: Vec<_> = files.inspect(|(name, bytes)| std::fs::write(folder.path().join(name), bytes).unwrap()).collect();
    (folder, files)
}

#[test]
fn any_file_opens_the_whole() {
    let (folder, files) = folder();
    for (name, _) in &files {
        let checkpoint = open_path(&folder.path().join(name)).unwrap();
        let names: Vec<&str> = checkpoint.tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(bytes_of(&checkpoint, 1), [b'b'; 32]);
        assert_eq!(rebuilt(&checkpoint), files);
        assert_eq!((checkpoint.kv.len(), checkpoint.kv[0].text(), checkpoint.notes.len()), (4, Some("llama"), 0));
        assert!(checkpoint.path.ends_with(name));
    }
}

#[test]
fn sets_that_lie_are_refused() {
    let other = kv("general.architecture", 8, string("mamba"));
    let cases: [(Option<Vec<u8>>, &str); 9] = [
        (None, "m-00001-of-00003.gguf: file 2 of 3, 'm-00002-of-00003.gguf', is missing beside it"),
        (Some(shard(&keys(2, 3, 3), "b", 32)), "m-00002-of-00003.gguf: its name says file 2 of 3, key 'split.no' says 2 (counted from 0)"),
        (Some(shard(&keys(1, 2, 3), "b", 32)), "m-00002-of-00003.gguf: its name says 3 files, key 'split.count' says 2"),
        (Some(shard(&keys(1, 3, 4), "b", 32)), "m-00002-of-00003.gguf: key 'split.tensors.count' says 4 tensors, found 3"),
        (Some(shard(&keys(1, 3, 3)[1..], "b", 32)), "m-00002-of-00003.gguf: key 'split.no' is missing"),
        (Some(shard(&keys(1, 3, 3)[..1], "b", 32)), "key 'split.count' says 1 (rename the file if it is a whole model)"),
        (Some(shard(&[keys(1, 3, 3), vec![other]].concat(), "b", 32)), "the files are of different models"),
        (Some(shard(&keys(1, 3, 3), "a", 32)), "m-00002-of-00003.gguf: tensor 'a': is also in "),
        (Some(shard(&[kv("split.count", 8, string("3"))], "b", 32)), "key 'split.count': needed a number that is not negative"),
    ];
    for (second, expected) in cases {
        let (folder, files) = folder();
        let path = folder.path().join(&files[1].0);
        match second {
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        let text = open_path(&folder.path().join(&files[0].0)).err().expect(expected).to_string();
        assert!(text.contains(expected), "{text}\n{expected}");
    }
}

#[test]
fn a_file_on_its_own_may_say_so() {
    let merged = [kv("split.count", 2, [0, 0]), kv("split.tensors.count", 5, [9, 0, 0, 0])];
    let cases = [
        ("x.gguf", keys(0, 1, 1), None),
        ("x.gguf", merged.to_vec(), None),
        ("x-00001-of-00001.gguf", vec![], None),
        ("x.gguf", keys(0, 1, 2), Some("key 'split.tensors.count' says 2 tensors, found 1")),
        ("x.gguf", keys(0, 2, 1), Some("key 'split.count' says 2 files, so the name must end in -00001-of-00002.gguf")),
        ("x-00001-of-00002.gguf", vec![], Some("its name says 2 files, key 'split.count' says 1 (rename")),
        ("x-00000-of-00002.gguf", keys(0, 2, 1), Some("its name says file 0 of 2")),
        ("x-00003-of-00002.gguf", keys(2, 2, 1), Some("its name says file 3 of 2")),
    ];
    for (name, entries, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, shard(&entries, "a", 32)).unwrap();
        match (open_path(&path), expected) {
            (Ok(checkpoint), None) => assert_eq!(checkpoint.origin.unwrap().files[0].name, ""),
            (Err(e), Some(expected)) => assert!(e.to_string().contains(expected), "{e}"),
            (result, _) => panic!("{name}: {:?} {expected:?}", result.err()),
        }
    }
}

#[test]
fn keys_of_later_files_are_noted() {
    let (folder, files) = folder();
    std::fs::write(folder.path().join(&files[2].0), shard(&[keys(2, 3, 3), vec![u32_kv("x.y", 1), u32_kv("x.z", 1)]].concat(), "c", 32)).unwrap();
    let checkpoint = open_path(&folder.path().join(&files[0].0)).unwrap();
    assert_eq!(checkpoint.notes.len(), 1);
    assert!(checkpoint.notes[0].contains("m-00003-of-00003.gguf: key 'x.y' and 1 more is not in the first file"), "{:?}", checkpoint.notes);
}
