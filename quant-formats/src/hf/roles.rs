//! What a tensor is in its model, by its name in the file, its shape and the model's configuration.
//!
//! [`Role::Linear`] and [`Role::Conv1d`] are exactly what bitsandbytes quantizes by default: modules whose type is `nn.Linear` itself
//! or GPT-2's `Conv1D`, except those that transformers leaves out (`get_keys_to_not_convert`): tied weights, the output embedding
//! and the module that the last named parameter is the weight of. A layer with a bias is never the latter.
//! Experts and routers are plain parameters since transformers 5, even where they are saved one by one like linear layers.
//!
//! A name of an unknown model is judged by the same tables: a matrix called `*.weight` that none of them claims is linear.
//! Names of GGUF files and of Meta's original checkpoints are known too.
//!
//! Source: transformers 5.23.0, checked against `tests/goldens/linear_modules.json`; llama.cpp's tensor names.

use quant_core::Dtype;
use quant_core::source::Role;

use super::config::Config;

pub use super::skip_modules::{Layer, skip_modules};

/// Last parts of the paths of output heads.
const HEADS: &[&str] = &[
    "lm_head",
    "embed_out",               // GPT-NeoX
    "vocab_projector",         // DistilBERT
    "generator_lm_head",       // ELECTRA
    "cls.predictions.decoder", // BERT, DeBERTa
    "lm_head.decoder",         // RoBERTa
    "decoder.output_projection",
    "shared_head.head", // multi-token prediction of DeepSeek
    "logits_dense",
    "score", // sequence classification; has no bias
];

/// Whole paths of output heads.
const TOP_HEADS: &[&str] = &[
    "output",          // GGUF, Meta
    "proj_out",        // Whisper
    "decoder",         // ModernBERT
    "head",            // RWKV
    "text_projection", // CLIP: the last parameter
];

/// Last parts of the paths of embeddings.
const EMBEDDINGS: &[&str] = &[
    "wte",
    "wpe",
    "shared",                  // T5, BART
    "embed_in",                // GPT-NeoX
    "relative_attention_bias", // T5
    "bias_values",             // Phi-4 multimodal
    "token_types",             // GGUF
    "cls_token",
    "row_embedder",
    "column_embedder",
];

/// Starts and ends of the last part of the paths of embeddings: `embed_positions`, `word_embeddings`, `token_embd`.
const EMBEDDING_STARTS: &[&str] = &["embed_tokens", "embed_positions", "embed_global"];
const EMBEDDING_ENDS: &[&str] = &["embeddings", "embedding", "embedding_table", "embeddings_table", "embd", "emb", "embed"];

/// What looks like an embedding and is a layer: the embeddings of patches are convolutions or linear.
const NOT_EMBEDDINGS: &[&str] = &["patch_embeddings", "patch_embedding", "patch_embd", "patch_embed", "relative_pos_embeddings"];

/// Parts of paths that hold experts.
const EXPERTS: &[&str] = &["experts", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps", "ffn_gate_up_exps"];

/// Parts of paths of layers that hold experts as stacks of matrices, and may hold other things too.
const MOE: &[&str] = &["experts", "block_sparse_moe", "moe"];

/// Model types whose experts are layers of their own even in transformers 5, and whose matrices are linear.
const LINEAR_EXPERTS: &[&str] = &["nllb-moe", "switch_transformers", "jetmoe"];

/// Last parts of the paths of routers.
const ROUTERS: &[&str] = &["gate", "router", "router.layer", "gate.wg", "ffn_gate_inp", "ffn_gate_inp_shexp"];

/// Parts of names that make a vector a normalisation.
const NORMS: &[&str] = &["norm", "ln_", "ln1", "ln2", "layrnorm"];

/// GPT-2's linear layers that are stored as \[in, out\].
const CONV1D: &[&str] = &["c_attn", "q_attn", "c_fc", "c_proj"];

/// Model types whose [`CONV1D`] layers are `Conv1D`; others use the same names for `nn.Linear`.
const CONV1D_MODELS: &[&str] = &["gpt2", "gpt-sw3", "openai-gpt", "imagegpt", "decision_transformer"];

/// What the other tables would say wrongly: model types (none: all), last part of the path, role.
///
/// An empty last part is any linear layer; one that ends in a dot is a part in the middle, of a linear layer too.
const EXCEPTIONS: &[(&[&str], &str, Role)] = &[
    (&["falcon"], "", Role::Other),                                   // a subclass of nn.Linear
    (&["t5", "mt5", "umt5", "udop", "pop2piano"], "wo", Role::Other), // kept in f32
    (&["dbrx", "jetmoe"], "router.layer", Role::Linear),              // a plain nn.Linear
    (&["afmoe"], "router.gate", Role::Linear),                        // the same
    (&[], "head.attention.out_proj", Role::Other),                    // SigLIP: part of nn.MultiheadAttention
    (&["axk2", "deepseek_v32", "glm_moe_dsa", "mistral_large4"], "indexer.weights_proj", Role::Other), // kept in f32
    (&["deepseek_v4"], "compressor.kv_proj", Role::Other),            // the same
    (&["deepseek_v4"], "compressor.gate_proj", Role::Other),          // the same
    (&["deepseek_v4"], "self_attn.o_a_proj", Role::Other),            // a subclass of nn.Linear
    (&["zamba"], "shared_transf.", Role::Other),                      // tied
    (&["zamba2"], "shared_transformer.", Role::Other),                // tied
    (&["blip-2"], "qformer.", Role::Other),                           // kept in f32
    (&[], "multihead_attn.out_proj", Role::Other),                    // part of nn.MultiheadAttention
    (&["ibert"], "", Role::Other),                                    // another class
    (&["ctrl"], "transformer.w", Role::Embedding),
    (&["mobilebert"], "predictions.dense", Role::Other), // the last parameter
    (&["voxtral_realtime", "nemotron_h_omni"], "multi_modal_projector.linear_2", Role::Other), // the last parameter
];

/// What the tensor `name` of `shape` is. `dtype` is the type of its numbers, `config` the model's configuration if there is one.
pub fn role(name: &str, shape: &[u64], dtype: Dtype, config: Option<&Config>) -> Role {
    let (path, leaf) = name.rsplit_once('.').unwrap_or(("", name));
    let path = if leaf == "weight" { path } else { name };
    match shape.len() {
        _ if !dtype.is_weight() => Role::Data,
        _ if leaf.ends_with("bias") || leaf == "beta" => Role::Bias,
        0 | 1 if is_norm(path, leaf) => Role::Norm,
        n if is_expert(path, n, config) => Role::Expert,
        0 | 1 => Role::Other,
        _ if is_embedding(path) => Role::Embedding,
        2 if leaf == "weight" => matrix_role(path, shape, config),
        _ => Role::Other,
    }
}

/// What a matrix is that is the weight of the module `path`.
fn matrix_role(path: &str, shape: &[u64], config: Option<&Config>) -> Role {
    let model = config.and_then(Config::model_type);
    let role = match path {
        _ if ends_with_any(path, ROUTERS) => Role::Router,
        _ if is_head(path, config) => Role::Head,
        _ if is_conv1d(path, shape, model.as_deref()) => Role::Conv1d,
        _ => Role::Linear,
    };
    let is_exception = |(models, part, _): &&(&[&str], &str, Role)| {
        let is_model = models.is_empty() || model.as_deref().is_some_and(|m| models.contains(&m));
        let is_part = match part.strip_suffix('.') {
            _ if part.is_empty() => role == Role::Linear,
            Some(middle) => role == Role::Linear && path.split('.').any(|p| p == middle),
            None => ends_with(path, part),
        };
        is_model && is_part
    };
    EXCEPTIONS.iter().find(is_exception).map_or(role, |row| row.2)
}

/// A `score` is a head where it has no bias: not where tokens are classified.
fn is_head(path: &str, config: Option<&Config>) -> bool {
    let classifies_tokens = || config.is_some_and(|c| c.architectures().iter().any(|a| a.ends_with("ForTokenClassification")));
    (ends_with_any(path, HEADS) || TOP_HEADS.contains(&path)) && !(ends_with(path, "score") && classifies_tokens())
}

/// By the model's type or, without one, by the shape that a GPT-2 gives to the layer of that name.
fn is_conv1d(path: &str, shape: &[u64], model: Option<&str>) -> bool {
    if !ends_with_any(path, CONV1D) {
        return false;
    }
    match (model, shape) {
        (Some(model), _) => CONV1D_MODELS.contains(&model),
        (None, [rows, columns]) if ends_with(path, "c_attn") => rows.checked_mul(3) == Some(*columns),
        (None, [rows, columns]) if ends_with(path, "mlp.c_proj") => rows > columns,
        (None, [rows, columns]) if ends_with(path, "c_fc") => rows < columns,
        _ => ends_with(path, "attn.c_proj"),
    }
}

/// A vector that is a weight is taken for the weight of a normalisation.
fn is_norm(path: &str, leaf: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    leaf == "weight" || leaf == "gamma" || NORMS.iter().any(|n| lower.contains(n))
}

fn is_embedding(path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or(path);
    let last = last.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
    let looks_like_one = EMBEDDINGS.contains(&last)
        || EMBEDDING_STARTS.iter().any(|start| last.starts_with(start))
        || EMBEDDING_ENDS.iter().any(|end| last.ends_with(end));
    looks_like_one && !NOT_EMBEDDINGS.contains(&last)
}

fn is_expert(path: &str, n_dims: usize, config: Option<&Config>) -> bool {
    let has = |names: &[&str]| path.split('.').any(|part| names.contains(&part));
    let are_linear = || config.and_then(Config::model_type).is_some_and(|m| LINEAR_EXPERTS.contains(&m.as_str()));
    n_dims == 3 && has(MOE) || has(EXPERTS) && !are_linear()
}

fn ends_with_any(path: &str, ends: &[&str]) -> bool {
    ends.iter().any(|end| ends_with(path, end))
}

/// Whether the last parts of `path` are those of `end`.
fn ends_with(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Model {
        config: Box<serde_json::value::RawValue>,
        quantized: Vec<(String, Vec<u64>, String)>,
        left: Vec<(String, Vec<u64>, String)>,
    }

    fn models() -> Vec<(Config, Model)> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/goldens/linear_modules.json");
        let models: Vec<Model> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        models.into_iter().map(|m| (Config::parse(m.config.get().as_bytes()).unwrap(), m)).collect()
    }

    #[test]
    fn linear_is_what_bitsandbytes_quantizes() {
        assert_eq!(models().len(), 75);
        for (config, model) in models() {
            for (name, shape, class) in &model.quantized {
                let expected = if class == "Conv1D" { Role::Conv1d } else { Role::Linear };
                assert_eq!(role(name, shape, Dtype::BF16, Some(&config)), expected, "{:?} {name}", config.architectures());
            }
        }
    }

    #[test]
    fn what_bitsandbytes_leaves_is_not_linear() {
        for (config, model) in models() {
            for (name, shape, class) in &model.left {
                let found = role(name, shape, Dtype::BF16, Some(&config));
                assert!(is_plausible(found, name, shape.len(), class), "{:?} {name} {class}: {found:?}", config.architectures());
            }
        }
    }

    fn is_plausible(role: Role, name: &str, n_dims: usize, class: &str) -> bool {
        match class {
            _ if name.ends_with("bias") => role == Role::Bias,
            "Linear" | "NonDynamicallyQuantizableLinear" => matches!(role, Role::Head | Role::Other),
            "FalconLinear" | "Conv1d" | "Conv2d" | "Conv3d" => role == Role::Other,
            _ if class.ends_with("Router") => role == Role::Router,
            _ if class.contains("Norm") => role == Role::Norm,
            _ if class.contains("Embedding") && n_dims > 1 => role == Role::Embedding,
            _ => !matches!(role, Role::Linear | Role::Conv1d | Role::Data),
        }
    }

    #[test]
    fn without_a_configuration_names_and_shapes_tell() {
        for (config, model) in models().iter().filter(|(c, _)| ["llama", "gpt2", "gpt_bigcode", "bert"].contains(&&*c.model_type().unwrap())) {
            for (name, shape, class) in model.quantized.iter().filter(|q| q.2 == "Conv1D" || !q.0.ends_with("attn.c_proj.weight")) {
                let expected = if class == "Conv1D" { Role::Conv1d } else { Role::Linear };
                let expected = if name == "score.weight" { Role::Head } else { expected };
                assert_eq!(role(name, shape, Dtype::F16, None), expected, "{:?} {name}", config.architectures());
            }
        }
    }

    /// What a person calls these tensors; names from files of Mixtral, DeepSeek V3, gpt-oss, GGUF and Meta.
    #[test]
    fn known_names_have_their_role() {
        for (name, n_dims, expected) in [
            ("model.layers.0.block_sparse_moe.experts.7.w1.weight", 2, Role::Expert),
            ("model.layers.0.block_sparse_moe.gate.weight", 2, Role::Router),
            ("model.layers.0.block_sparse_moe.input_linear.weight", 3, Role::Expert),
            ("model.layers.3.mlp.gate.e_score_correction_bias", 1, Role::Bias),
            ("model.layers.3.mlp.shared_experts.up_proj.weight", 2, Role::Linear),
            ("model.layers.3.mlp.shared_expert_gate.weight", 2, Role::Linear),
            ("model.layers.61.eh_proj.weight", 2, Role::Linear),
            ("model.layers.61.shared_head.head.weight", 2, Role::Head),
            ("model.layers.0.mlp.experts.gate_up_proj", 3, Role::Expert),
            ("model.layers.0.mlp.experts.gate_up_proj_bias", 2, Role::Bias),
            ("model.layers.0.self_attn.sinks", 1, Role::Other),
            ("model.visual.patch_embed.proj.weight", 5, Role::Other),
            ("blk.0.attn_q.weight", 2, Role::Linear),
            ("blk.0.attn_norm.weight", 1, Role::Norm),
            ("blk.0.ffn_gate_exps.weight", 3, Role::Expert),
            ("blk.0.ffn_gate_shexp.weight", 2, Role::Linear),
            ("blk.0.ffn_gate_inp.weight", 2, Role::Router),
            ("token_embd.weight", 2, Role::Embedding),
            ("output.weight", 2, Role::Head),
            ("output_norm.weight", 1, Role::Norm),
            ("layers.0.attention.wq.weight", 2, Role::Linear),
            ("tok_embeddings.weight", 2, Role::Embedding),
            ("bert.embeddings.LayerNorm.gamma", 1, Role::Norm),
            ("bert.embeddings.LayerNorm.beta", 1, Role::Bias),
            ("x", 0, Role::Other),
            ("", 2, Role::Other),
            (".weight", 2, Role::Linear),
        ] {
            assert_eq!(role(name, &vec![8; n_dims], Dtype::F32, None), expected, "{name}");
        }
        assert_eq!(role("model.layers.0.mlp.down_proj.weight", &[8, 8], Dtype::U8, None), Role::Data);
    }
}
