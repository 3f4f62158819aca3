//! Hugging Face to GGUF and back, whole files: against convert_hf_to_gguf.py and llama-quantize of llama.cpp 0.5.0-dev (see
//! `peers/hf_to_gguf.py`, `peers/llama_quantize.py`), and against the checkpoint that a GGUF file was made from.

use std::path::{Path, PathBuf};

use quant_tests::{convert, here, json, quant_ok, refused, sha256};
use serde_json::{Value, json};

#[path = "models/families.rs"]
mod families;
#[path = "models/small.rs"]
mod small;

/// The committed model of a name in the goldens.
fn folder(name: &str) -> PathBuf {
    if name == "tiny-llama" { here("data/tiny-llama") } else { here("data/models").join(name) }
}

/// A copy of a model whose files may be changed.
fn copy(name: &str, to: &Path) -> PathBuf {
    let folder_of_copy = to.join(name);
    std::fs::create_dir(&folder_of_copy).unwrap();
    for entry in std::fs::read_dir(folder(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::write(folder_of_copy.join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
    }
    folder_of_copy
}

/// Changes a JSON file of a model.
fn edit(model: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let mut value = json(&model.join(file));
    change(&mut value);
    std::fs::write(model.join(file), value.to_string()).unwrap();
}

#[test]
fn every_model_and_type_gives_the_file_of_the_reference() {
    let dir = tempfile::tempdir().unwrap();
    let golden = json(&here("goldens/hf_to_gguf.json"));
    let mut n = 0;
    for (name, types) in golden.as_object().unwrap() {
        for (outtype, expected) in types.as_object().unwrap() {
            let out = dir.path().join(format!("{name}-{outtype}.gguf"));
            convert(&folder(name), &out, &["--outtype", outtype]);
            assert_eq!(sha256(&out), expected.as_str().unwrap(), "{name} {outtype}");
            n += 1;
        }
    }
    assert_eq!(n, 16);
}

#[test]
fn auto_is_the_type_of_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.gguf");
    convert(&here("data/tiny-llama"), &out, &[]);
    assert_eq!(sha256(&out), json(&here("goldens/hf_to_gguf.json"))["tiny-llama"]["bf16"]);
}

/// The two steps of the reference: convert_hf_to_gguf.py, then llama-quantize.
#[test]
fn a_mix_in_one_step_gives_the_file_of_two_steps() {
    let dir = tempfile::tempdir().unwrap();
    let golden = json(&here("goldens/llama_quantize.json"));
    let plain = |case: &Value| case["arguments"].as_array().unwrap().is_empty() && case["sha256"].is_string();
    let mut n = 0;
    for (name, case) in golden.as_object().unwrap().iter().filter(|(_, case)| plain(case)) {
        let out = dir.path().join("out.gguf");
        convert(&here("data/tiny-llama"), &out, &["--type", case["mix"].as_str().unwrap(), "--force"]);
        assert_eq!(sha256(&out), case["sha256"].as_str().unwrap(), "{name}");
        n += 1;
    }
    assert!(n >= 30, "{n} mixes");
}

#[test]
fn the_way_back_gives_the_tensors_of_the_checkpoint_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["tiny-llama", "mixtral", "gemma2", "phi3"] {
        let (there, back) = (dir.path().join(format!("{name}.gguf")), dir.path().join(name));
        convert(&folder(name), &there, &[]);
        convert(&there, &back, &["--to", "hf"]);
        assert_eq!(sha256(&back.join("model.safetensors")), sha256(&folder(name).join("model.safetensors")), "{name}");
        let (ours, theirs) = (json(&back.join("config.json")), json(&folder(name).join("config.json")));
        for key in
            ["architectures", "model_type", "dtype", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size"]
        {
            assert_eq!(ours[key], theirs[key], "{name} {key}");
        }
        assert!(back.join("tokenizer.json").is_file() && back.join("tokenizer_config.json").is_file(), "{name}");
        // And there again: the same tensors.
        let again = dir.path().join(format!("{name}-again.gguf"));
        convert(&back, &again, &[]);
        let tensors = |path: &Path| {
            serde_json::from_str::<Value>(&quant_ok(&["inspect".as_ref(), path.as_os_str(), "--json".as_ref()])).unwrap()["tensors"].clone()
        };
        assert_eq!(tensors(&again), tensors(&there), "{name}");
    }
}

#[test]
fn the_vocabulary_alone_has_no_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("vocab.gguf");
    convert(&here("data/tiny-llama"), &out, &["--vocab-only", "--model-name", "Tiny"]);
    let report: Value = serde_json::from_str(&quant_ok(&["inspect".as_ref(), out.as_os_str(), "--json".as_ref()])).unwrap();
    assert_eq!(report["tensors"], json!([]));
    assert_eq!(report["parameters"], 0);
}

/// The reference needs no weights for it either. It leaves out the zeros with which other files of GGUF end.
#[test]
fn the_vocabulary_alone_needs_no_weights() {
    const REFERENCE: (usize, &str) = (22785, "533e2b02d66dff09d18576731d64a698ec7221a6179b98b3920dc00fca41ebb8");
    let dir = tempfile::tempdir().unwrap();
    let model = copy("tiny-llama", dir.path());
    std::fs::remove_file(model.join("model.safetensors")).unwrap();
    let out = dir.path().join("vocab.gguf");
    convert(&model, &out, &["--vocab-only"]);
    let bytes = std::fs::read(&out).unwrap();
    let (told, padding) = bytes.split_at(REFERENCE.0);
    assert!(padding.len() < 32 && padding.iter().all(|&b| b == 0));
    std::fs::write(&out, told).unwrap();
    assert_eq!(sha256(&out), REFERENCE.1);
    // Whatever else is asked for needs them.
    for options in [&["--outtype", "f16"][..], &["--vocab-only", "--to", "hf"], &["--vocab-only", "--generic"]] {
        let other = dir.path().join("other.gguf");
        let text = refused(&[&["convert", model.to_str().unwrap(), other.to_str().unwrap()], options].concat());
        assert!(text.contains("found no model.safetensors") || text.contains("--vocab-only"), "{text}");
    }
}

/// What is parsed has a limit that suits it, and reaches it.
#[test]
fn files_that_are_parsed_have_limits_of_their_kind() {
    let dir = tempfile::tempdir().unwrap();
    let model = copy("tiny-llama", dir.path());
    let pad = |file: &str, n: u64| {
        let mut bytes = std::fs::read(model.join(file)).unwrap();
        bytes.resize(n as usize, b' ');
        std::fs::write(model.join(file), bytes).unwrap();
    };
    std::fs::write(model.join("README.md"), "---\nlicense: mit\n---\n").unwrap();
    std::fs::write(model.join("generation_config.json"), "{}").unwrap();
    let limits = [("config.json", 8u64), ("generation_config.json", 8), ("README.md", 16), ("tokenizer_config.json", 16), ("tokenizer.json", 64)];
    for (file, most) in limits {
        pad(file, most << 20);
    }
    let out = dir.path().join("out.gguf");
    convert(&model, &out, &["--vocab-only"]);
    for (file, most) in limits {
        pad(file, (most << 20) + 1);
        let text = refused(&["convert", model.to_str().unwrap(), out.to_str().unwrap(), "--vocab-only", "--force"]);
        let parts = [file.to_owned(), format!("found {} bytes", (most << 20) + 1), format!("at most {}", most << 20)];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        pad(file, most << 20);
    }
}

/// What is wrong with the file of metadata is said in words of its own.
#[test]
fn a_file_that_is_no_metadata_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("more.json"), dir.path().join("out.gguf"));
    let model = here("data/tiny-llama");
    let large = " ".repeat((1 << 24) + 1);
    for (content, problem) in [
        (&b"{"[..], "cannot be read as JSON"),
        (b"[1]", "no object"),
        (b"\xff", "not UTF-8"),
        (large.as_bytes(), "found 16777217 bytes, at most 16777216"),
    ] {
        std::fs::write(&file, content).unwrap();
        let args = ["convert", model.to_str().unwrap(), out.to_str().unwrap(), "--metadata", file.to_str().unwrap()];
        let text = refused(&args);
        assert!(text.contains("more.json: not metadata: ") && text.contains(problem) && !text.contains("recipe"), "{text}");
    }
    std::fs::write(&file, r#"{"general.author": "Somebody"}"#).unwrap();
    convert(&model, &out, &["--metadata", file.to_str().unwrap()]);
    assert!(quant_ok(&["inspect".as_ref(), out.as_os_str(), "--all".as_ref()]).contains("Somebody"));
}

/// One line that names the file and what is wrong, for each way in which a model is not what its class has.
#[test]
fn a_model_that_is_not_what_its_configuration_says_is_refused() {
    type Change = fn(&Path);
    let cases: [(&str, &str, Change, &[&str]); 20] = [
        ("no configuration", "tiny-llama", |m| std::fs::remove_file(m.join("config.json")).unwrap(), &["no config.json", "--generic"]),
        (
            "no class",
            "tiny-llama",
            |m| edit(m, "config.json", |c| drop(c.as_object_mut().unwrap().remove("architectures"))),
            &["config.json", "architectures"],
        ),
        (
            "unknown class",
            "tiny-llama",
            |m| edit(m, "config.json", |c| c["architectures"] = json!(["NoSuchModel"])),
            &["NoSuchModel", "LlamaForCausalLM", "--generic"],
        ),
        (
            "no layers",
            "tiny-llama",
            |m| edit(m, "config.json", |c| drop(c.as_object_mut().unwrap().remove("num_hidden_layers"))),
            &["config.json", "num_hidden_layers"],
        ),
        (
            "no heads",
            "tiny-llama",
            |m| edit(m, "config.json", |c| drop(c.as_object_mut().unwrap().remove("num_attention_heads"))),
            &["num_attention_heads"],
        ),
        ("more layers", "tiny-llama", |m| edit(m, "config.json", |c| c["num_hidden_layers"] = json!(5)), &["5 layers", "layer 4"]),
        ("fewer layers", "tiny-llama", |m| edit(m, "config.json", |c| c["num_hidden_layers"] = json!(3)), &["3 layers", "model.layers.3."]),
        (
            "another width",
            "tiny-llama",
            |m| edit(m, "config.json", |c| c["hidden_size"] = json!(512)),
            &["lm_head.weight", "[1024, 256]", "[1024, 512]"],
        ),
        ("odd heads", "tiny-llama", |m| edit(m, "config.json", |c| c["num_attention_heads"] = json!(3)), &["q_proj", "3 heads"]),
        (
            "heads in words",
            "tiny-llama",
            |m| edit(m, "config.json", |c| c["num_attention_heads"] = json!("four")),
            &["num_attention_heads", "\"four\""],
        ),
        ("no width", "tiny-llama", |m| edit(m, "config.json", |c| drop(c.as_object_mut().unwrap().remove("hidden_size"))), &["lacks hidden_size"]),
        (
            "no heads at all",
            "tiny-llama",
            |m| edit(m, "config.json", |c| c["num_attention_heads"] = json!(0)),
            &["key 'num_attention_heads'", "found 0"],
        ),
        ("huge heads", "tiny-llama", |m| edit(m, "config.json", |c| c["head_dim"] = json!(4_000_000_000u64)), &["k_proj", "8000000000"]),
        (
            "no key heads",
            "tiny-llama",
            |m| edit(m, "config.json", |c| c["num_key_value_heads"] = json!(0)),
            &["key 'num_key_value_heads'", "found 0"],
        ),
        ("a small vocabulary", "tiny-llama", |m| edit(m, "config.json", |c| c["vocab_size"] = json!(5)), &["[1024, 256]", "[5, 256]"]),
        ("another middle", "tiny-llama", |m| edit(m, "config.json", |c| c["intermediate_size"] = json!(64)), &["mlp.", "64"]),
        ("heads of another size", "phi3", |m| edit(m, "config.json", |c| c["num_key_value_heads"] = json!(3)), &["qkv_proj"]),
        ("an expert more", "mixtral", |m| edit(m, "config.json", |c| c["num_local_experts"] = json!(4)), &["experts.3", "missing", "4 experts"]),
        ("an expert less", "mixtral", |m| edit(m, "config.json", |c| c["num_local_experts"] = json!(2)), &["expert 2", "there are 2"]),
        (
            "no tokenizer",
            "tiny-llama",
            |m| ["tokenizer.json", "tokenizer.model"].iter().for_each(|f| std::fs::remove_file(m.join(f)).unwrap()),
            &["tokenizer"],
        ),
    ];
    for (what, name, change, words) in cases {
        let dir = tempfile::tempdir().unwrap();
        let model = copy(name, dir.path());
        change(&model);
        let out = dir.path().join("out.gguf");
        let text = refused(&["convert".as_ref(), model.as_os_str(), out.as_os_str()]);
        for word in words {
            assert!(text.contains(word), "{what}: '{word}' is not in: {text}");
        }
        assert!(!out.exists(), "{what}");
    }
}

/// Changes the header of a model's only safetensors file; the tensors' bytes stay where they are.
fn edit_header(model: &Path, change: impl FnOnce(&mut serde_json::Map<String, Value>)) {
    let file = model.join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let data = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    change(header.as_object_mut().unwrap());
    let header = header.to_string();
    std::fs::write(file, [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[data..]].concat()).unwrap();
}

/// The names of a model's tensors.
fn tensors(model: &Path) -> Vec<String> {
    let mut names = Vec::new();
    edit_header(model, |header| names.extend(header.keys().filter(|name| *name != "__metadata__").cloned()));
    names
}

/// A shape with as many elements that no such tensor has.
fn misshapen(shape: &Value) -> Value {
    let sizes: Vec<u64> = shape.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    match sizes[..] {
        [n] => json!([n / 2, 2]),
        [rows, columns] => json!([rows * 2, columns / 2]),
        _ => panic!("{shape}"),
    }
}

/// Of four families, each tensor in turn: not there, or of another shape.
#[test]
fn every_tensor_must_be_there_and_have_its_shape() {
    let mut n = 0;
    for name in ["tiny-llama", "mixtral", "gemma2", "phi3"] {
        let dir = tempfile::tempdir().unwrap();
        let model = copy(name, dir.path());
        let whole = std::fs::read(model.join("model.safetensors")).unwrap();
        for tensor in tensors(&model) {
            let away: fn(&mut serde_json::Map<String, Value>, &str) = |header, tensor| {
                let value = header.remove(tensor).unwrap();
                // As a tensor of another modality it is left out.
                header.insert(format!("vision_tower.{tensor}"), value);
            };
            let reshaped: fn(&mut serde_json::Map<String, Value>, &str) =
                |header, tensor| header[tensor]["shape"] = misshapen(&header[tensor]["shape"]);
            for change in [away, reshaped] {
                edit_header(&model, |header| change(header, &tensor));
                let out = dir.path().join("out.gguf");
                let text = refused(&["convert".as_ref(), model.as_os_str(), out.as_os_str()]);
                assert!(text.contains(&tensor), "{name}: '{tensor}' is not in: {text}");
                std::fs::write(model.join("model.safetensors"), &whole).unwrap();
                n += 1;
            }
        }
    }
    assert_eq!(n, 2 * (39 + 35 + 24 + 15));
}

/// A pre-tokenizer that nobody knows: named by its hash, with the way out.
#[test]
fn an_unknown_pre_tokenizer_is_refused_until_it_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let model = copy("tiny-llama", dir.path());
    std::fs::remove_file(model.join("tokenizer.model")).unwrap();
    let vocab: Vec<(String, u64)> = (0..256u64).map(|i| (char::from_u32(0x4e00 + i as u32).unwrap().to_string(), i)).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null, "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
                  "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocab.into_iter().collect::<std::collections::BTreeMap<_, _>>(), "merges": []},
    });
    std::fs::write(model.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(model.join("tokenizer_config.json"), r#"{"tokenizer_class": "PreTrainedTokenizerFast"}"#).unwrap();
    let out = dir.path().join("out.gguf");
    let text = refused(&["convert".as_ref(), model.as_os_str(), out.as_os_str()]);
    assert!(text.contains("--pre"), "{text}");
    convert(&model, &out, &["--pre", "gpt-2"]);
    let shown = quant_ok(&["inspect".as_ref(), out.as_os_str(), "--all".as_ref()]);
    assert!(shown.contains("tokenizer.ggml.pre") && shown.contains("gpt-2"), "{shown}");
}

/// Without the mapping names stay, and the user is told what that means.
#[test]
fn generic_keeps_names() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.gguf");
    convert(&here("data/tiny-llama"), &out, &["--generic"]);
    let shown = quant_ok(&["inspect".as_ref(), out.as_os_str(), "--all".as_ref()]);
    assert!(shown.contains("model.layers.0.self_attn.q_proj.weight"), "{shown}");
}

/// Checkpoints of other tools that BQT keeps as they are become other schemes from there as from their folder.
#[test]
fn quantized_checkpoints_in_bqt_are_converted() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let folder = here("goldens/quantized_hf/fp8");
    convert(&folder, &path("kept.bqt"), &[]);
    convert(&path("kept.bqt"), &path("a.bqt"), &["--type", "bf16"]);
    convert(&folder, &path("b.bqt"), &["--type", "bf16"]);
    let report: Value =
        serde_json::from_str(&quant_ok(&["audit".as_ref(), path("a.bqt").as_os_str(), path("b.bqt").as_os_str(), "--json".as_ref()])).unwrap();
    assert_eq!(report["schemes"][0]["model"]["exact"], true);
    // Damage is still found before anything is converted.
    let mut bytes = std::fs::read(path("kept.bqt")).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(path("kept.bqt"), bytes).unwrap();
    assert!(
        refused(&["convert".as_ref(), path("kept.bqt").as_os_str(), path("c.bqt").as_os_str(), "--type".as_ref(), "bf16".as_ref()])
            .contains("damaged")
    );
}

/// Stacks of experts come out as their own class has them: gpt-oss has inputs first, all others have outputs first.
#[test]
fn decoded_experts_have_the_layout_of_their_class() {
    let dir = tempfile::tempdir().unwrap();
    for (name, tensor, shape) in [("fp8", "experts.gate_up_proj", [3, 24, 48]), ("gpt_oss", "experts.down_proj", [3, 64, 10])] {
        let out = dir.path().join(format!("{name}.safetensors"));
        convert(&here("goldens/quantized_hf").join(name), &out, &["--type", "f32"]);
        let report: Value = serde_json::from_str(&quant_ok(&["inspect".as_ref(), out.as_os_str(), "--json".as_ref()])).unwrap();
        let found = report["tensors"].as_array().unwrap().iter().find(|t| t["name"] == tensor).unwrap();
        assert_eq!(found["shape"], json!(shape), "{name}");
    }
}
