use std::path::Path;

use clap::Parser;

use super::config::Config;
use super::*;

/// The command line of `estimate` on its own.
#[derive(Parser)]
struct Alone {
    #[command(flatten)]
    args: EstimateArgs,
}

fn estimate(args: &[&str]) -> Result<serde_json::Value> {
    let args = Alone::try_parse_from([&["quant", "--json"], args].concat()).map_err(|e| Error::request(e.to_string()))?;
    run(&args.args).map(|outcome| serde_json::from_str(&outcome.text).unwrap())
}

fn data(name: &str) -> String {
    format!("{}/../tests/data/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Labels and sizes of the weights.
fn weights(report: &serde_json::Value) -> Vec<(String, u64)> {
    let rows = report["schemes"].as_array().unwrap();
    rows.iter().map(|row| (row["scheme"].as_str().unwrap().into(), row["weights"].as_u64().unwrap())).collect()
}

#[test]
fn parameters_are_read() {
    assert_eq!([parameters("7B"), parameters("1.5b"), parameters("350M")], [Ok(7_000_000_000), Ok(1_500_000_000), Ok(350_000_000)]);
    assert_eq!([parameters("1T"), parameters("2k"), parameters("6738415616")], [Ok(1_000_000_000_000), Ok(2000), Ok(6_738_415_616)]);
    for text in ["", "B", "7G", "7BB", "-7B", "1e9", "0", "0.1", "1.2.3B", "9999T", "7 B"] {
        assert!(parameters(text).is_err(), "{text}");
    }
}

/// Llama 2 7B: 2 × 32 × 32 × 128 × 4096 × 2 bytes are 2 GiB.
#[test]
fn the_kv_cache_is_counted() {
    let llama = Cache::uniform(32, 32 * 128, 32 * 128);
    let gib = |scheme: KvType| llama.n_bytes(4096, 1, scheme.scheme()).unwrap() as f64 / f64::from(1 << 30);
    assert_eq!([gib(KvType::F16), gib(KvType::Bf16), gib(KvType::F32)], [2.0, 2.0, 4.0]);
    assert_eq!([gib(KvType::Q8), gib(KvType::Q4)], [2.0 * 8.5 / 16.0, 2.0 * 4.5 / 16.0]);
    assert_eq!(llama.n_bytes(8192, 3, KvType::F16.scheme()), Some(12 << 30));
    // A block of 32 numbers is the least that a quantized cache takes.
    assert_eq!(Cache::uniform(1, 33, 1).n_bytes(1, 1, KvType::Q8.scheme()), Some(3 * 34));
    assert_eq!(Cache::uniform(1 << 40, 1 << 20, 0).n_bytes(1 << 30, 1, KvType::F16.scheme()), None);
}

/// DeepSeek V3: 61 layers × (512 + 64).
#[test]
fn latent_attention_keeps_less() {
    let config = r#"{"model_type": "deepseek_v3", "num_hidden_layers": 61, "num_attention_heads": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64}"#;
    let dims = Dims::of_config(&parsed(config));
    assert_eq!(dims.cache, Some(Cache::uniform(61, 576, 0)));
    assert!(dims.notes(1)[0].contains("counted compressed"));
}

fn parsed(text: &str) -> Config {
    Config::parse(text.as_bytes(), Path::new("config.json")).unwrap()
}

/// The parameters that published models are said to have.
#[test]
fn parameters_follow_from_config_json() {
    for (text, expected) in PUBLISHED {
        let made = made::tensors(&parsed(text)).unwrap();
        let n = |tensors: &[quant_core::source::Tensor]| tensors.iter().map(quant_core::source::Tensor::n_elements).sum::<u64>();
        assert_eq!((n(&made.plain), n(&made.gguf)), (expected, expected), "{text}");
    }
}

/// Llama 2 7B, Llama 3 8B, Mistral 7B, Mixtral 8x7B, Qwen 2.5 7B and 0.5B, Qwen 3 8B and 30B-A3B, Qwen 1.5 MoE, Gemma 2B, Gemma 2 9B,
/// Phi-3 mini, OLMo 2 7B, DeepSeek V2 Lite, DeepSeek V3.
const PUBLISHED: [(&str, u64); 15] = [
    (
        r#"{"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "vocab_size": 32000}"#,
        6_738_415_616,
    ),
    (
        r#"{"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256}"#,
        8_030_261_248,
    ),
    (
        r#"{"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000}"#,
        7_241_732_096,
    ),
    (
        r#"{"model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8, "vocab_size": 32000}"#,
        46_702_792_704,
    ),
    (
        r#"{"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064}"#,
        7_615_616_512,
    ),
    (
        r#"{"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": true}"#,
        494_032_768,
    ),
    (
        r#"{"model_type": "qwen3", "head_dim": 128, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 151936}"#,
        8_190_735_360,
    ),
    (
        r#"{"model_type": "qwen3_moe", "head_dim": 128, "hidden_size": 2048, "moe_intermediate_size": 768, "num_experts": 128, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "vocab_size": 151936}"#,
        30_532_122_624,
    ),
    (
        r#"{"model_type": "qwen2_moe", "hidden_size": 2048, "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632, "num_experts": 60, "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 151936}"#,
        14_315_784_192,
    ),
    (
        r#"{"model_type": "gemma", "head_dim": 256, "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 18, "num_attention_heads": 8, "num_key_value_heads": 1, "vocab_size": 256000}"#,
        2_506_172_416,
    ),
    (
        r#"{"model_type": "gemma2", "head_dim": 256, "hidden_size": 3584, "intermediate_size": 14336, "num_hidden_layers": 42, "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 256000}"#,
        9_241_705_984,
    ),
    (
        r#"{"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32064}"#,
        3_821_079_552,
    ),
    (
        r#"{"model_type": "olmo2", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 100352}"#,
        7_298_617_344,
    ),
    (
        r#"{"model_type": "deepseek_v2", "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 64, "n_shared_experts": 2, "first_k_dense_replace": 1, "moe_layer_freq": 1, "num_hidden_layers": 27, "num_attention_heads": 16, "kv_lora_rank": 512, "q_lora_rank": null, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 102400}"#,
        15_706_484_224,
    ),
    (
        r#"{"model_type": "deepseek_v3", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1, "first_k_dense_replace": 3, "num_hidden_layers": 61, "num_attention_heads": 128, "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 129280}"#,
        671_026_419_200,
    ),
];

/// With weights and without, a model has the same parameters, and every scheme the same bytes.
#[test]
fn a_configuration_stands_for_its_weights() {
    for model in ["tiny-llama", "models/mixtral", "models/phi3", "models/gemma2"] {
        let whole = estimate(&[&data(model)]).unwrap();
        let alone = estimate(&[&(data(model) + "/config.json")]).unwrap();
        let keys = ["parameters", "context", "kv_cache", "overhead"];
        assert_eq!(keys.map(|key| &whole[key]), keys.map(|key| &alone[key]), "{model}");
        let (with, without) = (weights(&whole), weights(&alone));
        assert_eq!(with[1..], without[..], "{model}");
        // Without weights bf16 is as stored.
        assert_eq!(with[0].1, without[1].1, "{model}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(data("tiny-llama/config.json"), folder.path().join("config.json")).unwrap();
    let alone = estimate(&[folder.path().to_str().unwrap()]).unwrap();
    assert_eq!(weights(&alone), weights(&estimate(&[&data("tiny-llama/config.json")]).unwrap()));
    assert_eq!(alone["notes"][0], "the weights are computed from config.json");
}

/// 2 × 1024 × 256 + 256 + 4 × (2 × 256 × 256 + 2 × 128 × 256 + 3 × 768 × 256 + 2 × 256) parameters; 4 layers × 2 × 2 heads × 64.
#[test]
fn tiny_llama_is_what_it_is() {
    let hf = estimate(&[&data("tiny-llama"), "--batch", "3"]).unwrap();
    assert_eq!((hf["parameters"].as_u64(), hf["context"].as_u64()), (Some(3_672_320), Some(512)));
    assert_eq!(hf["kv_cache"].as_u64(), Some(4 * 2 * 2 * 64 * 512 * 3 * 2));
    assert_eq!(hf["overhead"].as_u64(), Some(300_000_000 + 512 * (256 + 768 + 1024) * 4));
    let gguf = estimate(&[&data("tiny-llama.gguf"), "--batch", "3"]).unwrap();
    for key in ["parameters", "context", "kv_cache", "overhead"] {
        assert_eq!(hf[key], gguf[key], "{key}");
    }
    let sizes = weights(&gguf);
    assert_eq!((sizes.len(), sizes[1].1, sizes[2].1), (14, 4 * 3_672_320, 2 * 3_672_320));
    // The norms are f32 here, which bitsandbytes' schemes leave as they are.
    let is_mix = |(scheme, _): &(String, u64)| scheme.contains("_k") || scheme.ends_with("_0") || scheme == "iq4_xs";
    let mixes = |report| weights(report).into_iter().filter(is_mix).collect::<Vec<_>>();
    assert_eq!((mixes(&gguf), mixes(&gguf).len()), (mixes(&hf), 8));
}

#[test]
fn parameters_alone_give_an_approximation() {
    let report = estimate(&["--params", "7B", "--layers", "32", "--kv-heads", "8", "--head-dim", "128", "--fits", "6GB"]).unwrap();
    assert_eq!((report["approximate"].as_bool(), report["kv_cache"].as_u64()), (Some(true), Some(512 << 20)));
    let fits: Vec<&str> = report["schemes"].as_array().unwrap().iter().filter(|r| r["fits"] == true).map(|r| r["scheme"].as_str().unwrap()).collect();
    assert_eq!(fits, ["q4_k_m", "nf4-dq", "nf4", "q4_0", "iq4_xs", "q3_k_m", "q2_k"]);
    assert_eq!(weights(&report)[1], ("bf16, f16".into(), 14_000_000_000));
    let alone = estimate(&["--params", "7B"]).unwrap();
    assert!(alone["kv_cache"].is_null() && alone["notes"].to_string().contains("the KV cache is not counted: it needs --layers"));
}

#[test]
fn what_cannot_be_estimated_is_refused() {
    let refused = |args: &[&str]| estimate(args).unwrap_err().to_string();
    assert!(refused(&["--params", "7B", "--layers", "32"]).contains("--kv-heads"));
    assert!(refused(&["x", "--params", "7B"]).contains("cannot be used with"));
    assert!(refused(&[]).contains("--params"));
    assert!(refused(&["/nowhere"]).contains("/nowhere"));
    let made = |text: &str| made::tensors(&parsed(text)).err().unwrap().to_string();
    assert!(made(r#"{"model_type": "mamba"}"#).contains("found the model type 'mamba', whose parameters are not computed; give --params N"));
    assert!(made("{}").contains("found no model type"));
    assert!(made(r#"{"model_type": "llama"}"#).contains("found no 'hidden_size'"));
    let with = |layers: &str, width: &str| {
        format!(
            r#"{{"model_type": "llama", "hidden_size": {width}, "intermediate_size": 8, "num_attention_heads": 1, "num_hidden_layers": {layers}, "vocab_size": 8}}"#
        )
    };
    assert!(made(&with("100000", "8")).contains("found 100000 layers, at most 10000 are counted"));
    assert!(made(&with("2", "-8")).contains("key 'hidden_size': found -8, needed an integer from 0 to"));
    assert!(made(&with("2", "268435456")).contains("more weights than are counted"));
}

#[test]
fn what_should_be_known_is_noted() {
    let notes = |args: &[&str]| estimate(args).unwrap()["notes"].to_string();
    let hybrid = parsed(
        r#"{"num_hidden_layers": 4, "layer_types": ["linear_attention", "linear_attention", "mamba", "full_attention"],
        "num_attention_heads": 2, "hidden_size": 8}"#,
    );
    let dims = Dims::of_config(&hybrid);
    assert_eq!((dims.cache, &dims.remarks[0][..]), (Some(Cache::uniform(1, 8, 8)), "the states of layers without a KV cache are not counted"));
    assert!(Dims::of_config(&parsed(r#"{"model_type": "modernbert"}"#)).remarks[0].contains("has no KV cache"));
    let gemma = data("models/gemma2");
    assert!(notes(&[&gemma]).contains("look back 16 tokens"));
    assert!(notes(&[&gemma, "--context", "512"]).contains("the model takes 256 tokens, the context has 512"));
    assert!(notes(&[&data("models/mixtral")]).contains("leave experts as they are"));
    assert!(notes(&[&data("tiny-llama/model.safetensors")]).contains("their rules for single tensors are not applied"));
}
