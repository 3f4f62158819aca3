//! The numbers and texts are those of gguf-py and PyYAML: `tests/peers/model_metadata.py` made them.

use serde_json::{Value, json};

use super::name::{components, title};
use super::*;
use crate::checkpoint::At;

fn golden() -> Value {
    serde_json::from_str(include_str!("../../../../tests/goldens/model_metadata.json")).unwrap()
}

fn rows(golden: &Value, key: &str) -> Vec<Value> {
    golden[key].as_array().unwrap().clone()
}

#[test]
fn ids_are_taken_apart_like_gguf_py() {
    let rows = rows(&golden(), "ids");
    assert!(rows.len() >= 60);
    for row in rows {
        let (id, total) = (row[0].as_str().unwrap(), row[1].as_i64().unwrap());
        let c = components(id, total);
        assert_eq!(json!([c.name, c.organization, c.basename, c.finetune, c.version, c.size_label]), row[2], "{id} of {total}");
        assert_eq!(title(id), row[3], "{id}");
    }
}

#[test]
fn parameters_are_counted_like_gguf_py() {
    for row in rows(&golden(), "counts") {
        let tensors: Vec<(String, Vec<u64>)> = serde_json::from_value(row[0].clone()).unwrap();
        let found = counts(tensors.iter().map(|(name, shape)| (name.as_str(), &shape[..])));
        assert_eq!(json!([found.total, found.shared, found.expert, found.n_experts]), row[1], "{tensors:?}");
    }
}

#[test]
fn sizes_are_written_like_gguf_py() {
    for row in rows(&golden(), "size_labels") {
        let n: Vec<i64> = serde_json::from_value(row[0].clone()).unwrap();
        assert_eq!(size_label::size_label(&Counts { total: n[0], shared: n[1], expert: n[2], n_experts: n[3] }), row[1], "{n:?}");
    }
}

#[test]
fn hostile_shapes_do_not_overflow() {
    let big: [u64; 3] = [u64::MAX, u64::MAX, 3];
    let found = counts([("a_exps.weight", &big[..]), ("b_exps.weight", &[0, 1, 2]), ("c.lora_b", &[])].into_iter());
    assert_eq!(found, Counts::default());
    let found = counts([("a_exps.weight", &big[..]), ("b_exps.weight", &[0, 1, 2]), ("c", &big)].into_iter());
    assert_eq!((found.total, found.n_experts), (i64::MAX, i64::MAX / 2));
    let _ = size_label::size_label(&found);
    let _ = size_label::size_label(&Counts { total: i64::MIN, ..found });
}

#[test]
fn yaml_is_read_like_pyyaml() {
    for row in rows(&golden(), "yaml") {
        let text = row[0].as_str().unwrap();
        match (yaml::read(text), row[1].get("value")) {
            (Ok(value), Some(expected)) => assert_eq!(plain_json(value), *expected, "{text:?}"),
            (Err(_), None) => (),
            (found, expected) => panic!("{text:?}: found {found:?}, expected {expected:?}"),
        }
    }
}

/// What JSON cannot say as the script writes it.
fn plain_json(value: Value) -> Value {
    match value {
        value if plain::is_untold(&value) => "!!".into(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, plain_json(value))).collect(),
        Value::Array(items) => items.into_iter().map(plain_json).collect(),
        other => other,
    }
}

#[test]
fn hostile_yaml_ends() {
    let indented: String = (0..1000).map(|n| " ".repeat(n) + "a:\n").collect();
    for text in ["[", "{a: ", "- ", "? "].map(|piece| piece.repeat(100_000)).into_iter().chain([indented]) {
        assert!(yaml::read(&text).unwrap_err().contains("deep"));
    }
    let mut laughs = String::from("a0: &a0 [lol, lol]\n");
    (1..40).for_each(|i| laughs += &format!("a{i}: &a{i} [*a{0}, *a{0}]\n", i - 1));
    assert!(yaml::read(&laughs).unwrap_err().contains("repeat too much"));
    for text in [
        "\"\\", "'", "|", "&", "*", "!", "&a", "- &a", "a: |9", "\"\\x4", "\"\\u", "? ", ": ", "%", "\"a\\\n", "'\n---", "a: é:", "\"\\é", "[", "{",
        "[a,,", "{? ",
    ] {
        let _ = yaml::read(text);
    }
}

fn folder(case: &Value) -> (Vec<Entry>, Vec<String>) {
    let mut notes = Vec::new();
    let files = &case[1];
    let object = |name: &str| files[name].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let sources = Sources {
        card: files["README.md"].as_str().map(|text| card::read(text.as_bytes(), &mut notes)).unwrap_or_default(),
        config: object("config.json"),
        generation: object("generation_config.json"),
        overrides: case[3].as_object().cloned().unwrap_or_default(),
    };
    let given = Given { model_name: case[2].as_str(), overrides: None, folder: case[0].as_str().unwrap() };
    let total = case[4].as_i64().unwrap();
    let (entries, more) = assemble(&sources, &given, &Counts { total, shared: total, ..Counts::default() });
    notes.extend(more);
    (entries, notes)
}

fn hex(entry: &Entry) -> String {
    let At::Bytes(bytes) = &entry.at else { panic!("{} is in a file", entry.key) };
    assert_eq!(bytes.len() as u64, entry.n_bytes);
    entry.kind.id().to_le_bytes().iter().chain(bytes).map(|b| format!("{b:02x}")).collect()
}

#[test]
fn folders_are_described_like_gguf_py() {
    for row in rows(&golden(), "folders") {
        let (entries, notes) = folder(&row[0]);
        match row[1].as_array() {
            Some(expected) => {
                let found: Vec<Value> = entries.iter().map(|entry| json!([entry.key, hex(entry)])).collect();
                assert_eq!(found, *expected, "{}", row[0]);
            }
            // The reference ends with an exception; what cannot be used is noted.
            None => assert!(!notes.is_empty() || row[0][1].to_string().contains("generation_config"), "{}", row[0]),
        }
    }
}

#[test]
fn what_cannot_be_used_is_noted() {
    let case = |card: &str| folder(&json!(["x", {"README.md": card}, null, null, 1]));
    let (entries, notes) = case("---\nversion: 1.0\ntags: [a, 2024-01-01]\n---\n");
    assert_eq!(entries.iter().filter(|e| e.key == "general.version").count(), 0);
    assert_eq!(entries.iter().filter(|e| e.key == "general.tags").map(|e| e.items.unwrap().1).sum::<u64>(), 1);
    assert_eq!(notes[0], "README.md: 'version' is 1.0, needed a text; it is left out");
    assert_eq!(notes.len(), 2);
    assert!(case("---\na: b: c\n---\n").1[0].contains("line 1"));
    assert!(overrides(b"[]").is_err() && overrides(b"{").is_err());
}

/// Going back to the start of the line at each of them would take minutes, in which nobody would wait for this test.
#[test]
fn many_anchors_on_a_line_take_no_more_time_than_on_many() {
    let anchors: String = (0..200_000).map(|i| format!("&a{i} ")).collect();
    let mut notes = Vec::new();
    let card = card::read(format!("---\n{anchors}k: 1\nb: *a199999\n---\n").as_bytes(), &mut notes);
    assert_eq!((json!(card), notes), (json!({"k": 1, "b": "k"}), vec![]));
}

#[test]
fn a_few_of_many_notes_are_kept() {
    let nulls = "- ~\n".repeat(1000);
    let (_, notes) = folder(&json!(["x", {"README.md": format!("---\ntags:\n{nulls}---\n")}, null, null, 1]));
    assert_eq!(notes.len(), 51);
    assert!(notes[50].starts_with("950 more values"), "{}", notes[50]);
}

#[test]
fn data_sets_have_a_limit() {
    let card = |n: usize| format!("---\ndatasets:\n{}---\n", "- a/b\n".repeat(n));
    for (n, kept, n_notes) in [(5000, 5000, 0), (5001, 5000, 1)] {
        let (entries, notes) = folder(&json!(["x", {"README.md": card(n)}, null, null, 1]));
        let count = entries.iter().find(|e| e.key == "general.dataset.count").unwrap();
        assert_eq!((count.unsigned(), notes.len()), (Some(kept), n_notes));
        let n_names = entries.iter().filter(|e| e.key.starts_with("general.dataset.") && e.key.ends_with(".name")).count();
        assert_eq!(n_names as u64, kept);
    }
}

#[test]
fn settings_come_back() {
    let config = r#"{"bos_token_id": 1, "do_sample": true, "repetition_penalty": 1.05, "temperature": 0.6, "top_k": 20, "top_p": 0.95}"#;
    let (mut entries, _) = folder(&json!(["x", {"generation_config.json": config}, null, null, 1]));
    entries.push(Entry::u32("tokenizer.ggml.bos_token_id", 1));
    assert_eq!(generation_config(&entries).unwrap().to_string(), serde_json::from_str::<Value>(config).unwrap().to_string());
    assert_eq!(generation_config(&[]), None);
}

#[test]
fn a_card_comes_back() {
    let files = json!({"README.md": "---\nlicense: apache-2.0\nlanguage: [en, \"no\"]\ntags: [chat, \"a: b\", \"1.0\", \"\\U0001f600\\\"\"]\nbase_model: [meta-llama/Llama-2-7b-hf, https://x.y/z]\ndatasets: squad\n---\n"});
    let (kv, _) = folder(&json!(["x", files, null, null, 1]));
    let card = model_card(&with_metadata(kv.clone())).unwrap();
    let (again, notes) = folder(&json!(["x", {"README.md": card}, null, null, 1]));
    assert_eq!(notes, [""; 0]);
    let hexes = |entries: &[Entry]| entries.iter().map(|e| (e.key.clone(), hex(e))).collect::<Vec<_>>();
    // A data set without an organization is known by its name alone, which is a title.
    let without_datasets = |entries: &[Entry]| hexes(entries).into_iter().filter(|(key, _)| !key.contains("dataset.0")).collect::<Vec<_>>();
    assert_eq!(without_datasets(&again), without_datasets(&kv), "{card}");
    assert_eq!(model_card(&with_metadata(Vec::new())), None);
}

fn with_metadata(kv: Vec<Entry>) -> Checkpoint {
    Checkpoint { kv, ..Checkpoint::empty(crate::Format::Gguf, "x.gguf".as_ref()) }
}
