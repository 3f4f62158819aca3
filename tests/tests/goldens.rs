//! Whole files against what transformers 5.23 and bitsandbytes 0.50.2 wrote: see `goldens/README.md`.

use std::collections::BTreeMap;
use std::path::Path;

use quant_tests::{convert, here, json, sha256_of_folder, tiny_llama};
use serde_json::Value;

/// The hashes of a golden folder, by file name.
fn golden_hashes(folder: &Path) -> BTreeMap<String, String> {
    serde_json::from_value(json(&folder.join("sha256.json"))).unwrap()
}

#[test]
fn tiny_llama_is_quantized_as_by_the_library() {
    let dir = tempfile::tempdir().unwrap();
    for scheme in ["nf4", "nf4-dq", "fp4", "int8"] {
        let out = dir.path().join(scheme);
        convert(&tiny_llama(), &out, &["--type", scheme, "--bnb-profile", "cpu"]);
        let found = sha256_of_folder(&out);
        for (name, hash) in golden_hashes(&here("goldens/bnb").join(scheme)) {
            assert_eq!(found.get(&name), Some(&hash), "{scheme}: {name}");
        }
        let source = sha256_of_folder(&tiny_llama());
        for name in ["tokenizer.json", "tokenizer.model", "tokenizer_config.json", "generation_config.json"] {
            assert_eq!(found[name], source[name], "{scheme}: {name} comes along");
        }
    }
}

#[test]
fn the_cuda_profile_gives_the_same_nf4_codes_on_bf16() {
    // Shown exhaustively for bf16: both backends give the same NF4 codes, so without zero blocks the files are the same.
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    convert(&tiny_llama(), &out, &["--type", "nf4"]);
    assert_eq!(sha256_of_folder(&out)["model.safetensors"], golden_hashes(&here("goldens/bnb/nf4"))["model.safetensors"]);
}

/// What of a case of `goldens/hf` is not reproduced, and why.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Differs {
    Nothing,
    /// transformers writes what it was given: a list of patterns, or a compute dtype; we name each module, and the weights' own dtype.
    Config(&'static [&'static str]),
    /// Codes are always stored as U8 here.
    Storage,
    /// The whole case.
    All(&'static str),
}

fn differs(model: &str, case: &str) -> Differs {
    const SKIP: Differs = Differs::Config(&["llm_int8_skip_modules"]);
    const COMPUTE: Differs = Differs::Config(&["bnb_4bit_compute_dtype"]);
    match (model, case) {
        ("llama", "nf4-skip" | "nf4-skip-layer" | "nf4-skip-regex") => SKIP,
        ("llama", "nf4-storage-bf16") | ("llama-f16", "nf4-storage-f32") => Differs::Storage,
        ("llama-f16", "nf4-dq") | ("llama-f32", "fp4") => COMPUTE,
        ("llama-old", "nf4") => Differs::All("a file of transformers 4 is kept as it is: tied copies, inv_freq, F32 norms, the old config.json"),
        ("mixtral", "nf4-sharded") => Differs::All("shards are cut elsewhere: transformers counts fused experts as one tensor"),
        ("t5-f16", _) => Differs::All("transformers turns wo into F32 on loading"),
        _ => Differs::Nothing,
    }
}

#[test]
fn tiny_models_of_many_families_are_quantized_as_by_the_library() {
    let dir = tempfile::tempdir().unwrap();
    let mut left_out = Vec::new();
    let cases = json(&here("goldens/hf/cases.json"));
    for case in cases.as_array().unwrap() {
        let (model, name) = (case["model"].as_str().unwrap(), case["case"].as_str().unwrap());
        let differs = differs(model, name);
        if let Differs::All(why) = differs {
            left_out.push((format!("{model}/{name}"), why));
            continue;
        }
        let out = dir.path().join(format!("{model}-{name}"));
        let options = options(case);
        convert(&here("goldens/hf").join(model).join("dense"), &out, &options.iter().map(String::as_str).collect::<Vec<_>>());
        compare(&out, &here("goldens/hf").join(model).join(name), differs);
    }
    assert_eq!((cases.as_array().unwrap().len(), left_out.len()), (35, 4), "{left_out:?}");
}

/// The options that ask for what the library was asked for.
fn options(case: &Value) -> Vec<String> {
    let scheme = case["scheme"].as_str().unwrap();
    let mut options: Vec<String> = ["--type", scheme, "--bnb-profile", "cpu"].map(Into::into).to_vec();
    if let Some(size) = case["max_shard_size"].as_str() {
        options.extend(["--max-shard-size".into(), size.into()]);
    }
    if case["options"].get("llm_int8_skip_modules").is_some() {
        let left: Vec<&str> = case["left_dense"].as_array().unwrap().iter().map(|m| m.as_str().unwrap()).collect();
        options.extend(left.iter().flat_map(|module| ["--keep".to_owned(), format!("^{}\\.weight$", module.replace('.', "\\."))]));
        if left.is_empty() {
            options.extend(["--tensor-type".into(), format!("lm_head={scheme}")]);
        }
    }
    options
}

fn compare(found: &Path, golden: &Path, differs: Differs) {
    let (mut files, mut expected) = (sha256_of_folder(found), golden_hashes(golden));
    if differs != Differs::Nothing {
        files.remove("config.json");
        expected.remove("config.json");
    }
    if differs == Differs::Storage {
        files.remove("model.safetensors");
        expected.remove("model.safetensors");
    }
    assert_eq!(files, expected, "{}", golden.display());
    if let Differs::Config(keys) = differs {
        let mut configs = [json(&found.join("config.json")), json(&golden.join("config.json"))];
        for config in &mut configs {
            let object = config["quantization_config"].as_object_mut().unwrap();
            keys.iter().for_each(|key| assert!(object.remove(*key).is_some(), "{key}"));
        }
        assert_eq!(configs[0], configs[1], "{}", golden.display());
    }
}

#[test]
fn a_model_that_was_never_quantized_is_copied_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    for model in ["llama", "llama-sharded", "gpt2", "llama-old"] {
        let (from, out) = (here("goldens/hf").join(model).join("dense"), dir.path().join(model));
        convert(&from, &out, &[]);
        quant_tests::assert_same_folders(&out, &from);
    }
}
