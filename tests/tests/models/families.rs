//! What each class needs and llama.cpp takes: small models of several classes, good and bad.

use std::collections::BTreeMap;
use std::path::Path;

use quant_tests::{convert, json, quant, quant_ok, refused};
use serde_json::{Value, json};

use super::small::Small;
use super::{copy, edit, edit_header};

/// The class, and names and shapes of a folder.
fn seen(folder: &Path) -> (Value, BTreeMap<String, Value>) {
    let report: Value = serde_json::from_str(&quant_ok(&["inspect".as_ref(), folder.as_os_str(), "--json".as_ref()])).unwrap();
    let tensors = report["tensors"].as_array().unwrap().iter().map(|t| (t["name"].as_str().unwrap().to_owned(), t["shape"].clone())).collect();
    (json(&folder.join("config.json"))["architectures"][0].clone(), tensors)
}

/// Options that all small models need: nobody knows their tokenizers.
const PRE: [&str; 2] = ["--pre", "gpt-2"];

/// Converts a model to GGUF and back. Class, names and shapes must be as at first.
fn there_and_back(model: &Small) {
    let dir = tempfile::tempdir().unwrap();
    let folder = model.write(dir.path());
    let (there, back) = (dir.path().join("there.gguf"), dir.path().join("back"));
    convert(&folder, &there, &PRE);
    convert(&there, &back, &["--to", "hf"]);
    assert_eq!(seen(&back), seen(&folder));
}

/// The one line with which a model is refused.
fn refusal(model: &Small) -> String {
    let dir = tempfile::tempdir().unwrap();
    let folder = model.write(dir.path());
    let out = dir.path().join("out.gguf");
    let text = refused(&["convert", folder.to_str().unwrap(), out.to_str().unwrap(), PRE[0], PRE[1]]);
    assert!(!out.exists(), "{text}");
    text
}

/// The notes with which a model is converted.
fn notes(model: &Small) -> String {
    let dir = tempfile::tempdir().unwrap();
    let folder = model.write(dir.path());
    let out = dir.path().join("out.gguf");
    let ran = quant(&["convert", folder.to_str().unwrap(), out.to_str().unwrap(), PRE[0], PRE[1]]);
    let text = String::from_utf8(ran.stderr).unwrap();
    assert!(ran.status.success(), "{text}");
    text
}

#[test]
fn qwen_with_experts_has_biases_unless_config_says_otherwise() {
    there_and_back(&Small::qwen2_moe());
    let text = refusal(&Small::qwen2_moe().with("qkv_bias", json!(true)));
    assert!(text.contains("layers.0.self_attn.q_proj.bias") && text.contains("missing"), "{text}");
}

/// A class without a head, saved under the name of the class with one: its names have no prefix.
#[test]
fn a_bare_model_needs_no_head() {
    let dir = tempfile::tempdir().unwrap();
    let model = copy("tiny-llama", dir.path());
    edit_header(&model, |header| {
        for name in header.keys().cloned().collect::<Vec<_>>() {
            let value = header.remove(&name).unwrap();
            let bare = if name == "lm_head.weight" { "vision_tower.lm_head".to_owned() } else { name.replace("model.", "") };
            header.insert(bare, value);
        }
    });
    assert_eq!(json(&model.join("config.json"))["tie_word_embeddings"], false);
    let out = dir.path().join("out.gguf");
    convert(&model, &out, &[]);
    let names = quant_ok(&["inspect".as_ref(), out.as_os_str(), "--all".as_ref()]);
    assert!(names.contains("output_norm.weight") && !names.contains(" output.weight"), "{names}");
}

#[test]
fn the_router_of_deepseek_may_have_no_correction() {
    there_and_back(&Small::deepseek3(None));
    there_and_back(&Small::deepseek3(Some(8)));
}

#[test]
fn queries_of_deepseek_are_compressed_if_config_says_so() {
    let text = refusal(&Small::deepseek3(None).with("q_lora_rank", json!(8)));
    assert!(text.contains("self_attn.q_proj.weight") && text.contains("q_lora_rank is 8"), "{text}");
    let text = refusal(&Small::deepseek3(Some(8)).with("q_lora_rank", Value::Null));
    assert!(text.contains("self_attn.q_a_proj.weight") && text.contains("q_lora_rank is null"), "{text}");
    let text = refusal(&Small::deepseek3(Some(8)).without("layers.1.self_attn.q_a_layernorm"));
    assert!(text.contains("layers.1.self_attn.q_a_layernorm.weight") && text.contains("missing"), "{text}");
}

#[test]
fn exact_names_are_needed_too() {
    there_and_back(&Small::cohere2());
    for (part, name) in [("model.norm", "model.norm.weight"), ("embed_tokens", "model.embed_tokens.weight")] {
        let text = refusal(&Small::cohere2().without(part));
        assert!(text.contains(name) && text.contains("missing"), "{text}");
    }
}

#[test]
fn norms_of_heads_have_the_shape_of_their_architecture() {
    there_and_back(&Small::qwen3());
    there_and_back(&Small::olmo2());
    there_and_back(&Small::command_r());
    for (model, name, shape) in [
        (Small::qwen3(), "q_norm", vec![32]),
        (Small::qwen3(), "q_norm", vec![2, 16]),
        (Small::olmo2(), "q_norm", vec![16]),
        (Small::olmo2(), "k_norm", vec![1, 16]),
        (Small::command_r(), "q_norm", vec![32]),
        (Small::command_r(), "k_norm", vec![16]),
    ] {
        let text = refusal(&model.reshaped(name, &shape));
        assert!(text.contains(name) && text.contains(&format!("found the shape {shape:?}")), "{text}");
    }
}

#[test]
fn tensors_that_llama_cpp_has_no_place_for_are_refused() {
    for (model, name) in [
        (Small::qwen3().and_each("input_layernorm.bias", &[32]), "layers.0.input_layernorm.bias"),
        (Small::qwen3().and("model.norm.bias", &[32]), "model.norm.bias"),
        (Small::olmo2().and("lm_head.bias", &[256]), "lm_head.bias"),
        (Small::qwen2_moe().and_each("self_attn.q_norm.weight", &[16]), "layers.0.self_attn.q_norm.weight"),
    ] {
        let text = refusal(&model);
        assert!(text.contains(name) && text.contains("has no place in llama.cpp's"), "{text}");
    }
}

/// The reference writes such files, and so does quant; but the user is told.
#[test]
fn what_llama_cpp_does_not_load_has_a_note() {
    let bias = |model: Small, names: [&str; 4], rows: [u64; 4]| {
        names.iter().zip(rows).fold(model, |model, (name, rows)| model.and_each(&format!("self_attn.{name}_proj.bias"), &[rows]))
    };
    let biased = bias(Small::qwen3().with("attention_bias", json!(true)), ["q", "k", "v", "o"], [32, 16, 16, 32]);
    for (model, reason) in [
        (biased, "self_attn.o_proj.bias"),
        (Small::starcoder2(), "use_bias"),
        (Small::olmo2().without("lm_head").with("tie_word_embeddings", json!(true)), "needs a head"),
        (Small::command_r(), "2 layers"),
        (Small::deepseek3(None), "q_lora_rank"),
        (Small::deepseek3(Some(8)).without("shared_experts").with("n_shared_experts", json!(0)), "shared experts"),
        (
            Small::encoder("RobertaForSequenceClassification")
                .with("id2label", Value::Null)
                .with("num_labels", json!(2))
                .reshaped("out_proj.weight", &[2, 32])
                .reshaped("out_proj.bias", &[2]),
            "2 classes",
        ),
    ] {
        let text = notes(&model);
        assert!(text.contains("llama.cpp 0.5.0-dev does not load") && text.contains(reason), "{reason}: {text}");
    }
    for model in [Small::qwen3(), Small::olmo2(), Small::qwen2_moe(), Small::deepseek3(Some(8)), Small::encoder("BertModel"), Small::gpt2()] {
        let text = notes(&model);
        assert!(!text.contains("does not load"), "{text}");
    }
}

/// Which class a GGUF file of `bert` was made from, its tokenizer and its tensors tell.
#[test]
fn encoders_come_back_as_the_class_that_they_were() {
    for class in [
        "BertModel",
        "RobertaModel",
        "RobertaForSequenceClassification",
        "XLMRobertaModel",
        "XLMRobertaForSequenceClassification",
        "DistilBertModel",
        "DistilBertForSequenceClassification",
    ] {
        there_and_back(&Small::encoder(class));
    }
}

#[test]
fn the_kinds_of_text_of_bert_are_as_many_as_config_says() {
    let text = refusal(&Small::encoder("BertModel").with("type_vocab_size", json!(2)));
    assert!(text.contains("token_type_embeddings") && text.contains("[1, 32]") && text.contains("[2, 32]"), "{text}");
    let text = refusal(&Small::encoder("BertModel").with("type_vocab_size", json!(0)));
    assert!(text.contains("type_vocab_size of at least 1"), "{text}");
}

/// Of a committed mixture and a model without experts.
#[test]
fn layers_have_experts_if_config_says_so() {
    let text = |model: &Path| refused(&["convert".as_ref(), model.as_os_str(), model.join("out.gguf").as_os_str()]);
    let dir = tempfile::tempdir().unwrap();
    let model = copy("tiny-llama", dir.path());
    edit(&model, "config.json", |c| (c["num_local_experts"], c["num_experts_per_tok"]) = (json!(4), json!(2)));
    let found = text(&model);
    assert!(found.contains("'num_local_experts': found 4") && found.contains("no experts"), "{found}");
    // A layer with experts and a feed-forward layer without.
    let model = copy("mixtral", dir.path());
    edit_header(&model, |header| {
        let value = header.remove("model.layers.0.self_attn.v_proj.weight").unwrap();
        header.insert("model.layers.0.mlp.down_proj.weight".into(), value);
    });
    let found = text(&model);
    assert!(found.contains("layers.0.mlp.down_proj.weight") && found.contains("3 experts"), "{found}");
}

/// llama.cpp takes the number of tokens for that of embeddings.
#[test]
fn there_are_as_many_tokens_as_embeddings() {
    let text = |change: &dyn Fn(&mut Value)| {
        let dir = tempfile::tempdir().unwrap();
        let model = copy("tiny-llama", dir.path());
        std::fs::remove_file(model.join("tokenizer.model")).unwrap();
        edit(&model, "tokenizer.json", change);
        refused(&["convert".as_ref(), model.as_os_str(), dir.path().join("out.gguf").as_os_str()])
    };
    let token = json!({"id": 1024, "content": "<zz>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let found = text(&|t| t["added_tokens"].as_array_mut().unwrap().push(token.clone()));
    assert!(found.contains("1025 tokens") && found.contains("embeddings of 1024"), "{found}");
    let found = text(&|t| (t["model"]["vocab"], t["model"]["merges"]) = (json!({}), json!([])));
    assert!(found.contains("tokenizer.json") && found.contains("empty vocabulary"), "{found}");
}

/// Values that no model can have, each named by its key.
#[test]
fn bad_settings_are_named_by_their_keys() {
    for (model, key, found) in [
        (Small::qwen3().with("num_key_value_heads", json!(0)), "num_key_value_heads", "found 0"),
        (Small::qwen3().with("rms_norm_eps", Value::Null), "rms_norm_eps", "found null"),
        (Small::qwen3().with("rms_norm_eps", json!(-1)), "rms_norm_eps", "found -1"),
        (Small::qwen3().with("rope_parameters", json!("x")), "rope_parameters", "found \"x\""),
        (Small::qwen3().with("rope_theta", json!("x")), "rope_theta", "found \"x\""),
        (Small::gpt2().with("n_head", json!(0)), "n_head", "found 0"),
        (Small::gpt2().with("n_inner", json!(160)), "n_inner", "found 160"),
        (Small::deepseek3(None).with("qk_rope_head_dim", json!(4_294_967_295u64)), "qk_rope_head_dim", "found 4294967295"),
    ] {
        let text = refusal(&model);
        assert!(text.contains(&format!("key '{key}'")) && text.contains(found), "{key}: {text}");
    }
    // Norms by another name.
    let text = refusal(&Small::cohere2().with("layer_norm_eps", Value::Null).with("rms_norm_eps", Value::Null));
    assert!(text.contains("_norm_eps'") && text.contains("found null"), "{text}");
}

/// Files of Llama do not hold the factors that transformers would need.
#[test]
fn a_long_rope_without_factors_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let model = copy("tiny-llama", dir.path());
    edit(&model, "config.json", |c| {
        c["rope_parameters"] = json!({"rope_type": "longrope", "rope_theta": 10000.0, "long_factor": [1.0], "short_factor": [1.0]})
    });
    let there = dir.path().join("there.gguf");
    convert(&model, &there, &[]);
    let text = refused(&["convert".as_ref(), there.as_os_str(), dir.path().join("back").as_os_str(), "--to".as_ref(), "hf".as_ref()]);
    assert!(text.contains("llama.rope.scaling.type") && text.contains("factors"), "{text}");
}
