//! The tensors that a config.json stands for, without weights: Llama and its relatives, dense and with experts.
//!
//! Names are those of GGUF; roles follow from them. What differs between the two worlds stands in two lists.
//!
//! Source: the classes of transformers 5.23 and their layouts in llama.cpp 0.5.0-dev; checked against the parameter counts of published
//! models.

use quant_core::mix::Model;
use quant_core::source::{Role, Tensor};
use quant_core::{Dtype, Result};
use quant_formats::hf::roles;
use serde_json::Value;

use super::config::Config;
use super::weights::imagined;

/// Model types whose tensors are known, and their architectures in llama.cpp.
const KNOWN: [(&str, &str); 17] = [
    ("llama", "llama"),
    ("mistral", "llama"),
    ("mixtral", "llama"),
    ("qwen2", "qwen2"),
    ("qwen2_moe", "qwen2moe"),
    ("qwen3", "qwen3"),
    ("qwen3_moe", "qwen3moe"),
    ("gemma", "gemma"),
    ("gemma2", "gemma2"),
    ("gemma3_text", "gemma3"),
    ("phi3", "phi3"),
    ("olmo2", "olmo2"),
    ("granite", "granite"),
    ("smollm3", "smollm3"),
    ("deepseek_v2", "deepseek2"),
    ("deepseek_v3", "deepseek2"),
    ("kimi_k2", "deepseek2"),
];

/// The most layers and weights of a model that is imagined.
const MAX_LAYERS: u64 = 10_000;
const MAX_WEIGHTS: u64 = 1 << 50;

/// Tensors in both worlds.
pub struct Made {
    /// As transformers has them, in the type of the model.
    pub plain: Vec<Tensor>,
    /// As llama.cpp has them, vectors and routers in f32.
    pub gguf: Vec<Tensor>,
    /// What the rules of mixes ask.
    pub model: Model,
    /// What is not counted.
    pub notes: Vec<String>,
}

/// The numbers that all layers share.
struct Build<'a> {
    config: &'a Config,
    kind: &'a str,
    width: u64,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    has_attention_bias: bool,
    n_experts: u64,
    made: Made,
    n_weights: u64,
}

/// The worlds that a tensor is in.
#[derive(Clone, Copy, PartialEq)]
enum World {
    Both,
    Plain,
    Gguf,
}

/// The tensors of a model.
///
/// # Errors
/// If its type is not one of those that are known, or it lacks a number.
pub fn tensors(config: &Config) -> Result<Made> {
    let kind = config.model_type();
    let Some((_, arch)) = KNOWN.iter().find(|(known, _)| *known == kind) else {
        let known = KNOWN.map(|(known, _)| known).join(", ");
        let found = if kind.is_empty() { "no model type".into() } else { format!("the model type '{kind}'") };
        return Err(config.bad(format!("found {found}, whose parameters are not computed; give --params N, or the weights; known are {known}")));
    };
    let mut build = Build::new(config, kind, arch)?;
    let layers = config.need("num_hidden_layers")?;
    if layers > MAX_LAYERS {
        return Err(config.bad(format!("found {layers} layers, at most {MAX_LAYERS} are counted")));
    }
    let vocabulary = config.need("vocab_size")?;
    build.put("token_embd.weight", &[vocabulary, build.width])?;
    for layer in 0..layers {
        build.layer(layer)?;
    }
    build.put("output_norm.weight", &[build.width])?;
    if !config.ties_embeddings() {
        build.put("output.weight", &[vocabulary, build.width])?;
    }
    for (name, n) in rotations(config, build.head_dim) {
        build.put_in(World::Gguf, name, &[n], None)?;
    }
    build.made.notes.extend(not_counted(config));
    Ok(build.made)
}

/// Factors of rotations that a stretched context has in llama.cpp, and their number.
fn rotations(config: &Config, head_dim: u64) -> Vec<(&'static str, u64)> {
    let rope = config.get("rope_parameters").or_else(|| config.get("rope_scaling"));
    let Some(rope) = rope.and_then(Value::as_object) else { return Vec::new() };
    let is_llama3 = ["rope_type", "type"].iter().any(|key| rope.get(*key).is_some_and(|kind| kind == "llama3"));
    let listed = [("rope_factors_long.weight", "long_factor"), ("rope_factors_short.weight", "short_factor")];
    let listed = listed.into_iter().filter_map(|(name, key)| Some((name, rope.get(key)?.as_array()?.len() as u64)));
    listed.chain(is_llama3.then_some(("rope_freqs.weight", head_dim.div_ceil(2)))).collect()
}

/// What a configuration has beside the layers that are counted.
fn not_counted(config: &Config) -> Vec<String> {
    let mut notes = Vec::new();
    if ["vision_config", "audio_config"].iter().any(|key| config.get(key).is_some()) {
        notes.push("the parts for images and sound are not counted".into());
    }
    if config.count(&["num_nextn_predict_layers"]).is_ok_and(|n| n.is_some_and(|n| n > 0)) {
        notes.push("the layers that predict further tokens are not counted".into());
    }
    notes
}

impl<'a> Build<'a> {
    fn new(config: &'a Config, kind: &'a str, arch: &str) -> Result<Build<'a>> {
        let (width, heads) = (config.need("hidden_size")?, config.need("num_attention_heads")?);
        let is_latent = arch == "deepseek2";
        let is_plain = ["llama", "phi3"].contains(&kind) && config.get("num_key_value_heads").is_none();
        let kv_heads = if is_latent || is_plain { heads } else { config.need("num_key_value_heads")? };
        let experts = config.count(&["num_local_experts", "num_experts", "n_routed_experts"])?;
        let n_experts = experts.filter(|_| has_experts(kind)).unwrap_or(0);
        let n = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let n_layer = n(config.need("num_hidden_layers")?);
        // llama.cpp runs latent attention with one head of keys.
        let n_head_kv = if is_latent { 1 } else { n(kv_heads) };
        let model = Model { arch: arch.into(), n_layer, n_head: n(heads), n_head_kv, n_expert: n(n_experts) };
        let head_dim = config.head_dim().ok_or_else(|| config.bad("found no size of a head, which the number of parameters depends on"))?;
        let has_attention_bias = config.flag("attention_bias") == Some(true);
        let made = Made { plain: Vec::new(), gguf: Vec::new(), model, notes: Vec::new() };
        Ok(Build { config, kind, width, heads, kv_heads, head_dim, has_attention_bias, n_experts, made, n_weights: 0 })
    }

    fn put(&mut self, name: &str, shape: &[u64]) -> Result<()> {
        self.put_in(World::Both, name, shape, None)
    }

    /// Adds a tensor. Its role follows from its name, unless it is given.
    fn put_in(&mut self, world: World, name: &str, shape: &[u64], role: Option<Role>) -> Result<()> {
        let dtype = self.config.dtype();
        let role = role.unwrap_or_else(|| roles::role(name, shape, dtype, None));
        let too_large = |config: &Config| config.bad(format!("'{name}' of shape {shape:?} has more weights than are counted"));
        let gguf_dtype = if shape.len() == 1 || name.contains("ffn_gate_inp") { Dtype::F32 } else { dtype };
        let (Some(plain), Some(gguf)) = (imagined(name, shape, dtype, role), imagined(name, shape, gguf_dtype, role)) else {
            return Err(too_large(self.config));
        };
        self.n_weights = self.n_weights.saturating_add(plain.n_elements());
        if self.n_weights > MAX_WEIGHTS {
            return Err(too_large(self.config));
        }
        if world != World::Gguf {
            self.made.plain.push(plain);
        }
        if world != World::Plain {
            self.made.gguf.push(gguf);
        }
        Ok(())
    }

    fn layer(&mut self, layer: u64) -> Result<()> {
        let blk = |name: &str| format!("blk.{layer}.{name}");
        let norms: &[&str] = match self.kind {
            "olmo2" => &["post_attention_norm", "post_ffw_norm"],
            "gemma2" | "gemma3_text" => &["attn_norm", "ffn_norm", "post_attention_norm", "post_ffw_norm"],
            _ => &["attn_norm", "ffn_norm"],
        };
        for norm in norms {
            self.put(&blk(&format!("{norm}.weight")), &[self.width])?;
        }
        match self.made.model.arch.as_str() {
            "deepseek2" => self.latent_attention(&blk)?,
            _ => self.attention(&blk)?,
        }
        if self.is_mixture(layer)? { self.experts(&blk) } else { self.feed_forward(&blk) }
    }

    fn attention(&mut self, blk: &dyn Fn(&str) -> String) -> Result<()> {
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        if self.kind == "phi3" {
            self.put(&blk("attn_qkv.weight"), &[queries + 2 * keys, self.width])?;
        } else {
            let qkv_bias = self.config.flag("qkv_bias").unwrap_or(true);
            let has_bias = self.has_attention_bias || self.kind == "qwen2" || self.kind == "qwen2_moe" && qkv_bias;
            for (name, rows) in [("attn_q", queries), ("attn_k", keys), ("attn_v", keys)] {
                self.put(&blk(&format!("{name}.weight")), &[rows, self.width])?;
                if has_bias {
                    self.put(&blk(&format!("{name}.bias")), &[rows])?;
                }
            }
        }
        self.put(&blk("attn_output.weight"), &[self.width, queries])?;
        if self.has_attention_bias {
            self.put(&blk("attn_output.bias"), &[self.width])?;
        }
        let normed = match self.kind {
            "qwen3" | "qwen3_moe" | "gemma3_text" => Some((self.head_dim, self.head_dim)),
            "olmo2" => Some((queries, keys)),
            _ => None,
        };
        if let Some((query, key)) = normed {
            self.put(&blk("attn_q_norm.weight"), &[query])?;
            self.put(&blk("attn_k_norm.weight"), &[key])?;
        }
        Ok(())
    }

    /// DeepSeek's, whose keys and values are expanded from a compressed vector.
    fn latent_attention(&mut self, blk: &dyn Fn(&str) -> String) -> Result<()> {
        let config = self.config;
        let (rank, rotated) = (config.need("kv_lora_rank")?, config.need("qk_rope_head_dim")?);
        let (key, value) = (config.need("qk_nope_head_dim")?, config.need("v_head_dim")?);
        let (width, heads) = (self.width, self.heads);
        match config.count(&["q_lora_rank"])? {
            Some(q_rank) => {
                self.put(&blk("attn_q_a.weight"), &[q_rank, width])?;
                self.put(&blk("attn_q_a_norm.weight"), &[q_rank])?;
                self.put(&blk("attn_q_b.weight"), &[heads * (key + rotated), q_rank])?;
            }
            None => self.put(&blk("attn_q.weight"), &[heads * (key + rotated), width])?,
        }
        self.put(&blk("attn_kv_a_mqa.weight"), &[rank + rotated, width])?;
        self.put(&blk("attn_kv_a_norm.weight"), &[rank])?;
        self.put_in(World::Plain, &blk("attn_kv_b.weight"), &[heads * (key + value), rank], None)?;
        self.put_in(World::Gguf, &blk("attn_k_b.weight"), &[heads, rank, key], None)?;
        self.put_in(World::Gguf, &blk("attn_v_b.weight"), &[heads, value, rank], None)?;
        self.put(&blk("attn_output.weight"), &[width, heads * value])
    }

    /// Whether a layer has experts.
    fn is_mixture(&self, layer: u64) -> Result<bool> {
        if self.n_experts == 0 {
            return Ok(false);
        }
        let n = |key: &str, usual: u64| self.config.count(&[key]).map(|n| n.unwrap_or(usual));
        Ok(match self.kind {
            "qwen2_moe" | "qwen3_moe" => {
                let dense = self.config.get("mlp_only_layers").and_then(Value::as_array);
                let is_dense = dense.is_some_and(|layers| layers.iter().any(|n| n.as_u64() == Some(layer)));
                !is_dense && (layer + 1).is_multiple_of(n("decoder_sparse_step", 1)?)
            }
            "mixtral" => true,
            _ => layer >= n("first_k_dense_replace", 0)? && layer.is_multiple_of(n("moe_layer_freq", 1)?),
        })
    }

    fn feed_forward(&mut self, blk: &dyn Fn(&str) -> String) -> Result<()> {
        let forward = self.config.need("intermediate_size")?;
        if self.kind == "phi3" {
            self.put(&blk("ffn_up.weight"), &[2 * forward, self.width])?;
            return self.put(&blk("ffn_down.weight"), &[self.width, forward]);
        }
        let has_bias = self.config.flag("mlp_bias") == Some(true);
        for (name, rows, columns) in [("ffn_gate", forward, self.width), ("ffn_up", forward, self.width), ("ffn_down", self.width, forward)] {
            self.put(&blk(&format!("{name}.weight")), &[rows, columns])?;
            if has_bias {
                self.put(&blk(&format!("{name}.bias")), &[rows])?;
            }
        }
        Ok(())
    }

    fn experts(&mut self, blk: &dyn Fn(&str) -> String) -> Result<()> {
        let (n, width) = (self.n_experts, self.width);
        let forward = self.config.need(if self.kind == "mixtral" { "intermediate_size" } else { "moe_intermediate_size" })?;
        self.put(&blk("ffn_gate_inp.weight"), &[n, width])?;
        for (name, rows, columns) in [("ffn_gate_exps", forward, width), ("ffn_up_exps", forward, width), ("ffn_down_exps", width, forward)] {
            self.put(&blk(&format!("{name}.weight")), &[n, rows, columns])?;
        }
        if matches!(self.kind, "deepseek_v3" | "kimi_k2") {
            self.put(&blk("exp_probs_b.bias"), &[n])?;
        }
        let shared = match self.kind {
            "qwen2_moe" => {
                self.put_in(World::Plain, &blk("ffn_gate_inp_shexp.weight"), &[1, width], Some(Role::Linear))?;
                self.put_in(World::Gguf, &blk("ffn_gate_inp_shexp.weight"), &[width], None)?;
                self.config.need("shared_expert_intermediate_size")?
            }
            "qwen3_moe" | "mixtral" => 0,
            _ => forward * self.config.count(&["n_shared_experts"])?.unwrap_or(0),
        };
        for (name, rows, columns) in [("ffn_gate_shexp", shared, width), ("ffn_up_shexp", shared, width), ("ffn_down_shexp", width, shared)] {
            if shared > 0 {
                self.put(&blk(&format!("{name}.weight")), &[rows, columns])?;
            }
        }
        Ok(())
    }
}

/// Whether layers of a model type may have experts.
fn has_experts(kind: &str) -> bool {
    matches!(kind, "mixtral" | "qwen2_moe" | "qwen3_moe" | "deepseek_v2" | "deepseek_v3" | "kimi_k2")
}
