//! Mixes asked for in odd ways: refused with a reason, or done and told.

use std::path::Path;

use quant_formats::Opening;
use quant_formats::gguf::{Entry, find_entry};
use quant_tests::{convert, here, json, quant, refused, sha256};
use serde_json::Value;

use crate::made::{Gguf, open, stored, weights};

/// `quant convert FROM TO OPTIONS…`, which must be refused. Returns the line.
fn refused_convert(from: &Path, to: &Path, options: &[&str]) -> String {
    let mut args = vec!["convert".as_ref(), from.as_os_str(), to.as_os_str()];
    args.extend(options.iter().map(std::ffi::OsStr::new));
    let line = refused(&args);
    assert!(!to.exists(), "{line}");
    line
}

/// A model with rows of 576, as SmolLM2-135M has them, which super-blocks of 256 do not fit, and with rows of 100.
fn narrow(path: &Path) {
    let mut file = Gguf::llama();
    file.f32("token_embd.weight", &[8, 576], &weights(8 * 576, 1));
    file.f32("blk.0.attn_q.weight", &[6, 576], &weights(6 * 576, 2));
    file.f32("blk.0.ffn_gate.weight", &[3, 100], &weights(300, 3));
    file.f32("blk.0.ffn_up.weight", &[4, 512], &weights(2048, 4));
    file.write(path);
}

#[test]
fn what_does_not_fit_is_told_in_text_and_json() {
    let dir = tempfile::tempdir().unwrap();
    let (from, out) = (dir.path().join("narrow.gguf"), dir.path().join("out.gguf"));
    narrow(&from);
    let text = convert(&from, &out, &["--type", "q4_k_s"]);
    for line in [
        " fallback: rows of 576 are no multiple of 256, q4_k became q5_0 (blk.0.attn_q.weight)",
        " fallback: rows of 100 are no multiple of 256, q4_k became f16 (blk.0.ffn_gate.weight)",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    }
    let report: Value = serde_json::from_str(&convert(&from, &out, &["--type", "q4_k_s", "--json", "--force"])).unwrap();
    let row = |name: &str| report["tensors"].as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone();
    assert_eq!(row("blk.0.attn_q.weight")["to"], "q5_0");
    assert_eq!(row("blk.0.attn_q.weight")["reason"], "fallback: rows of 576 are no multiple of 256, q4_k became q5_0");
    assert_eq!((row("blk.0.ffn_gate.weight")["to"].as_str(), row("blk.0.ffn_up.weight")["to"].as_str()), (Some("f16"), Some("q4_k")));
    // The stored types are those that were told.
    assert_eq!(stored(&open(&out), "blk.0.attn_q.weight").0.to_string(), "q5_0");
}

#[test]
fn without_fallback_what_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (from, out) = (dir.path().join("narrow.gguf"), dir.path().join("out.gguf"));
    narrow(&from);
    let line = refused_convert(&from, &out, &["--type", "q4_k_s", "--no-fallback"]);
    assert!(line.contains("narrow.gguf") && line.contains("'blk.0.attn_q.weight'"), "{line}");
    assert!(line.contains("q4_k needs rows of a multiple of 256 elements, got shape [6, 576]"), "{line}");
    // Types that fit all rows are given.
    let fitting = ["--type", "q8_0", "--no-fallback", "--tensor-type", "ffn_gate=f16"];
    convert(&from, &out, &fitting);
    assert_eq!(stored(&open(&out), "token_embd.weight").0.to_string(), "q8_0");
}

#[test]
fn what_is_quantized_is_quantized_again_only_if_that_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    convert(&here("data/tiny-llama.gguf"), &path("q8.gguf"), &["--type", "q8_0"]);
    let line = refused_convert(&path("q8.gguf"), &path("q4.gguf"), &["--type", "q4_k_m"]);
    assert!(line.contains("is q8_0 and would become") && line.contains("--allow-requantize"), "{line}");
    convert(&path("q8.gguf"), &path("q4.gguf"), &["--type", "q4_k_m", "--allow-requantize"]);
    // The same types are no loss, and so is going back to dense numbers.
    convert(&path("q8.gguf"), &path("same.gguf"), &["--type", "q8_0"]);
    assert_eq!(sha256(&path("same.gguf")), sha256(&path("q8.gguf")));
    convert(&path("q8.gguf"), &path("f16.gguf"), &["--type", "f16"]);
}

#[test]
fn types_that_nothing_is_quantized_to_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.gguf");
    for ty in ["q8_1", "q8_K", "q4_2", "q4_0_4_4", "iq4_nl_8_8", "nf4", "int8", "i32", "q4", ""] {
        let rule = format!("ffn_up={ty}");
        let line = refused_convert(&here("data/tiny-llama.gguf"), &out, &["--type", "q4_k_m", "--tensor-type", &rule]);
        let reason = if ty.is_empty() { "needs REGEX=TYPE" } else { "is not a type that ggml quantizes to" };
        assert!(line.contains(reason) && line.contains(ty), "{line}");
        let line = refused_convert(&here("data/tiny-llama.gguf"), &out, &["--type", "q4_k_m", "--output-tensor-type", ty]);
        assert!(line.contains("is not a type that ggml quantizes to"), "{line}");
    }
}

#[test]
fn metadata_goes_through_bqt_while_tensors_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let from = here("data/tiny-llama.gguf");
    convert(&from, &path("a.bqt"), &["--type", "affine8"]);
    convert(&path("a.bqt"), &path("b.gguf"), &["--type", "q8_0", "--allow-requantize"]);
    convert(&from, &path("direct.gguf"), &["--type", "q8_0"]);
    let (through, direct) = (open(&path("b.gguf")), open(&path("direct.gguf")));
    let shown = |c: &quant_formats::Checkpoint| c.kv.iter().map(|e| (e.key.clone(), e.value(c, u64::MAX).unwrap())).collect::<Vec<_>>();
    assert_eq!(through.kv.len(), 29);
    assert_eq!(shown(&through), shown(&direct));
    // Dense again, nothing of the metadata changes but what says the type.
    convert(&path("a.bqt"), &path("dense.gguf"), &["--type", "bf16"]);
    let dense = open(&path("dense.gguf"));
    assert_eq!(find_entry(&dense.kv, "general.file_type").and_then(Entry::unsigned), Some(32));
    let mut sorted = [shown(&dense), shown(&open(&from))];
    sorted.iter_mut().for_each(|kv| kv.sort_by(|a, b| a.0.cmp(&b.0)));
    assert_eq!(sorted[0], sorted[1]);
}

#[test]
fn tensors_of_unknown_types_are_copied_if_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let mut file = Gguf::llama();
    file.f32("blk.0.ffn_up.weight", &[4, 256], &weights(1024, 1));
    file.tensor("blk.0.ffn_gate.weight", &[4, 256], 99, (0..200).collect());
    file.f32("blk.0.ffn_down.weight", &[4, 256], &weights(1024, 2));
    file.write(&path("new.gguf"));
    let line = refused_convert(&path("new.gguf"), &path("out.gguf"), &[]);
    assert!(line.contains("blk.0.ffn_gate.weight") && line.contains("number 99") && line.contains("--unknown-types"), "{line}");
    convert(&path("new.gguf"), &path("copy.gguf"), &["--unknown-types"]);
    assert_eq!(sha256(&path("copy.gguf")), sha256(&path("new.gguf")));
    convert(&path("new.gguf"), &path("m.bqt"), &["--unknown-types"]);
    convert(&path("m.bqt"), &path("back.gguf"), &["--unknown-types"]);
    assert_eq!(sha256(&path("back.gguf")), sha256(&path("new.gguf")));
    // While others change it is kept, with what lies behind it up to the next tensor.
    convert(&path("new.gguf"), &path("mixed.gguf"), &["--unknown-types", "--type", "q8_0", "--keep", "ffn_gate"]);
    let opening = Opening { unknown_types: true, ..Opening::default() };
    let mixed = quant_formats::open(&path("mixed.gguf"), opening).unwrap();
    let unknown = mixed.tensors.iter().find(|t| t.name == "blk.0.ffn_gate.weight").unwrap();
    assert_eq!((unknown.scheme, unknown.n_bytes()), (quant_core::Scheme::Opaque(99), 224));
    let inspected = quant(&["inspect".as_ref(), path("new.gguf").as_os_str()]);
    assert_eq!(inspected.status.code(), Some(2));
    let report = json_of(&["inspect".as_ref(), path("new.gguf").as_os_str(), "--unknown-types".as_ref(), "--json".as_ref()], &path("report.json"));
    assert_eq!(report["tensors"].as_array().unwrap().len(), 3);
}

/// The JSON that a run prints.
fn json_of(args: &[&std::ffi::OsStr], beside: &Path) -> Value {
    std::fs::write(beside, quant_tests::quant_ok(args)).unwrap();
    json(beside)
}
