//! Whether the tensors of a model are those that its metadata promises: what llama.cpp asks of a file when it loads it.
//!
//! Both directions use it: on the way to GGUF it sees the model that is to be written, on the way back the one that was read.
//!
//! Source: `llama_model::load_tensors` of llama.cpp 0.5.0-dev.

mod sizes;

use std::collections::{BTreeMap, BTreeSet};

use quant_core::{Error, Result};

use super::family::Family;
use super::hparams::Hparams;
use crate::checkpoint::Checkpoint;
use sizes::Sizes;

/// What every layer needs: one of the tensors in each line.
const PROJECTIONS: [&[&str]; 6] = [
    &["attn_q", "attn_qkv", "attn_q_b"],
    &["attn_k", "attn_qkv", "attn_kv_b", "attn_k_b"],
    &["attn_v", "attn_qkv", "attn_kv_b", "attn_v_b"],
    &["attn_output"],
    &["ffn_up", "ffn_up_exps"],
    &["ffn_down", "ffn_down_exps"],
];
/// What a layer needs that has the tensor on the left.
const TOGETHER: [(&str, &str); 9] = [
    ("ffn_down_exps", "ffn_gate_inp"),
    ("ffn_down_exps", "ffn_gate_exps"),
    ("ffn_gate_inp", "ffn_down_exps"),
    ("ffn_down_shexp", "ffn_up_shexp"),
    ("ffn_down_shexp", "ffn_gate_shexp"),
    ("ffn_gate_shexp", "ffn_down_shexp"),
    ("ffn_up_shexp", "ffn_down_shexp"),
    ("attn_q_b", "attn_q_a"),
    ("attn_q_b", "attn_q_a_norm"),
];
/// Architectures whose `attention_bias` stands for a bias of each of the four projections.
const BIASED: [&str; 10] = ["llama", "granite", "gemma", "gemma2", "gemma3", "qwen3", "qwen3moe", "olmo2", "smollm3", "command-r"];
/// What a model needs beside its layers, if its family has it at all.
const OUTER: [&str; 4] = ["token_embd", "output_norm", "token_embd_norm", "position_embd"];

/// A GGUF model about to be checked.
struct Model<'a> {
    checkpoint: &'a Checkpoint,
    family: &'static Family,
    sizes: Sizes,
    /// What config.json says that every layer has.
    said: Vec<&'static str>,
}

/// Checks `model`, a checkpoint with tensors and metadata of GGUF: every tensor that its family needs is there, in every layer
/// and in no other, and each has the shape that the metadata gives it.
///
/// # Errors
/// Naming the tensor as it is called in Hugging Face (in GGUF, if `is_gguf`), what was found and what is needed.
pub(crate) fn model(checkpoint: &Checkpoint, family: &'static Family, config: &Hparams, is_gguf: bool) -> Result<()> {
    let sizes = Sizes::read(checkpoint, family, config)?;
    let said = if is_gguf { Vec::new() } else { said(family, config)? };
    let model = Model { checkpoint, family, sizes, said };
    let named = |name: &str| if is_gguf { name.to_owned() } else { hf_name(family, name) };
    let result = model.outer().and_then(|()| model.layers()).and_then(|()| model.head(config)).and_then(|()| model.shapes(config));
    result.map_err(|(name, problem)| Error::tensor(config.path(), &named(&name), problem + &guessed(config)))
}

/// Sizes that the configuration class had to fill in, which may be what is wrong.
fn guessed(config: &Hparams) -> String {
    let sizes = ["hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "vocab_size"];
    let keys: Vec<&str> = sizes.into_iter().filter(|size| config.filled().iter().any(|key| key == size)).collect();
    if keys.is_empty() { String::new() } else { format!("; config.json lacks {}, so the defaults of its class were taken", keys.join(", ")) }
}

/// The tensors of every layer that config.json switches on.
fn said(family: &Family, config: &Hparams) -> Result<Vec<&'static str>> {
    let mut names: Vec<&str> = Vec::new();
    let is_on = |key: &str| config.bool(&[key]).map(|on| on == Some(true));
    if BIASED.contains(&family.arch) && is_on("attention_bias")? {
        names.extend(["attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias"]);
    }
    if ["llama", "granite"].contains(&family.arch) && is_on("mlp_bias")? {
        names.extend(["ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"]);
    }
    if family.arch == "starcoder2" && config.bool(&["use_bias"])? != Some(false) {
        names.extend(["attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias", "ffn_up.bias", "ffn_down.bias"]);
    }
    if family.arch == "command-r" && is_on("use_qk_norm")? {
        names.extend(["attn_q_norm", "attn_k_norm"]);
    }
    Ok(names)
}

/// A tensor and what is wrong with it.
type Problem = (String, String);

impl Model<'_> {
    fn has(&self, name: &str) -> bool {
        self.checkpoint.tensors.iter().any(|t| t.name == name)
    }

    fn outer(&self) -> std::result::Result<(), Problem> {
        let is_known = |name: &&&str| self.family.tables.iter().any(|table| table.iter().any(|row| row.gguf == **name));
        let mut needed = OUTER.iter().filter(is_known).map(|name| format!("{name}.weight"));
        if let Some(name) = needed.find(|name| !self.has(name)) {
            return Err((name, "is missing".into()));
        }
        let has_biases = self.family.needed.contains(&"ffn_norm.bias");
        match ["output_norm", "token_embd_norm"].into_iter().find(|name| self.lacks_bias(name, has_biases)) {
            Some(name) => Err((format!("{name}.bias"), "is missing".into())),
            None => Ok(()),
        }
    }

    /// Whether a normalisation that needs a bias has none.
    fn lacks_bias(&self, name: &str, has_biases: bool) -> bool {
        let is_needed = has_biases || self.family.needed.contains(&"attn_output_norm.bias");
        is_needed && self.has(&format!("{name}.weight")) && !self.has(&format!("{name}.bias"))
    }

    /// The head is missing though config.json says that the embeddings do not take its place.
    fn head(&self, config: &Hparams) -> std::result::Result<(), Problem> {
        let says_untied = config.get("tie_word_embeddings").and_then(serde_json::Value::as_bool) == Some(false);
        let is_headless = config.get("architectures").and_then(|v| v.get(0)?.as_str()).is_some_and(|class| !class.ends_with("ForCausalLM"));
        let has_row = self.family.tables.iter().any(|table| table.iter().any(|row| row.gguf == "output"));
        // Where llama.cpp has no head of its own, one in the checkpoint is left out.
        let has_row = has_row && (self.family.rename)(config, "lm_head.weight").is_some();
        if says_untied && has_row && !is_headless && !self.has("output.weight") {
            return Err(("output.weight".into(), "is missing, and tie_word_embeddings is false".into()));
        }
        Ok(())
    }

    /// Every layer has what it needs, and the same as others of its kind: with experts, or without.
    fn layers(&self) -> std::result::Result<(), Problem> {
        let mut layers: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
        let n = self.sizes.layers;
        for t in &self.checkpoint.tensors {
            let Some((layer, name)) = in_layer(&t.name) else { continue };
            if layer >= n {
                return Err((t.name.clone(), format!("is in layer {layer}, but there are {n} layers")));
            }
            // Weights may have factors beside them in some layers only.
            if name.ends_with(".weight") || name.ends_with(".bias") {
                layers.entry(layer).or_default().insert(name);
            }
        }
        let mut kinds: BTreeMap<bool, (u64, BTreeSet<&str>)> = BTreeMap::new();
        for layer in 0..n {
            let Some(names) = layers.remove(&layer) else {
                return Err((format!("blk.{layer}.attn_output.weight"), format!("is missing, as is all of layer {layer}; there are {n} layers")));
            };
            if let Some(lacking) = self.lacking(layer, &names) {
                return Err((format!("blk.{layer}.{lacking}"), "is missing".into()));
            }
            let (first, others) = kinds.entry(names.contains("ffn_gate_inp.weight")).or_insert_with(|| (layer, names.clone()));
            if let Some(name) = others.difference(&names).next() {
                return Err((format!("blk.{layer}.{name}"), format!("is missing; layer {first} has it")));
            }
            if let Some(name) = names.difference(others).next() {
                return Err((format!("blk.{first}.{name}"), format!("is missing; layer {layer} has it")));
            }
        }
        Ok(())
    }

    /// The first tensor that a layer with these needs and lacks.
    fn lacking(&self, layer: u64, names: &BTreeSet<&str>) -> Option<String> {
        let has = |name: &str| names.contains(whole(name).as_str());
        let own = || self.family.needed.iter().chain(&self.said).copied().find(|name| !has(name) && !has(&format!("{name}_exps")));
        let projection = || PROJECTIONS.iter().find(|any| !any.iter().any(|name| has(name)));
        let companion = || TOGETHER.iter().find(|(with, name)| has(with) && !has(name)).map(|pair| pair.1);
        let of_experts = || self.of_experts(layer, has("ffn_gate_inp")).into_iter().find(|name| !has(name));
        let single = own().map(|name| self.usual(&[name, &format!("{name}_exps")]));
        let single = single.or_else(|| projection().map(|any| self.usual(any)));
        single.or_else(|| companion().or_else(of_experts).map(str::to_owned)).map(|name| whole(&name))
    }

    /// What a layer needs because it has experts, or should have them.
    fn of_experts(&self, layer: u64, has_experts: bool) -> Vec<&'static str> {
        let mut names = Vec::new();
        match self.sizes.dense_layers {
            Some(dense) if layer < dense => return vec!["ffn_down"],
            Some(_) => names.push("ffn_gate_inp"),
            None if !has_experts => return names,
            None => {}
        }
        if self.sizes.shared.is_some_and(|rows| rows > 0) {
            names.push("ffn_down_shexp");
            names.extend((self.family.arch == "qwen2moe").then_some("ffn_gate_inp_shexp"));
        }
        names.extend((self.family.model_type == "deepseek_v3").then_some("exp_probs_b.bias"));
        names
    }

    /// That of several names that the family has first.
    fn usual(&self, any: &[&str]) -> String {
        let is_plain = self.sizes.compressed.as_ref().is_some_and(|c| c.query == 0);
        let any: Vec<&str> = any.iter().copied().filter(|name| !(is_plain && *name == "attn_q_b")).collect();
        let mut rows = self.family.tables.iter().flat_map(|table| table.iter()).filter_map(|row| row.gguf.strip_prefix("blk.{}."));
        let found = rows.find_map(|row| any.iter().copied().find(|name| *name == row.trim_end_matches(".weight")));
        found.or(any.first().copied()).unwrap_or_default().to_owned()
    }

    fn shapes(&self, config: &Hparams) -> std::result::Result<(), Problem> {
        for t in &self.checkpoint.tensors {
            let needed = self.sizes.needed(in_layer(&t.name).map_or(t.name.as_str(), |(_, name)| name));
            let Some(first) = needed.first() else { continue };
            if !needed.contains(&t.shape) {
                let shown = |shape: &[u64]| in_hf(self.family, config, &t.name, shape);
                return Err((t.name.clone(), format!("found the shape {:?}, needed {:?} by the configuration", shown(&t.shape), shown(first))));
            }
        }
        Ok(())
    }
}

/// A name with its ending; that of a weight may be left out.
fn whole(name: &str) -> String {
    if name.ends_with(".bias") { name.to_owned() } else { format!("{name}.weight") }
}

/// The layer of a tensor, and its name there.
fn in_layer(name: &str) -> Option<(u64, &str)> {
    let (layer, name) = name.strip_prefix("blk.")?.split_once('.')?;
    Some((layer.parse().ok()?, name))
}

/// The name in Hugging Face; that of the first expert for a stack.
fn hf_name(family: &Family, name: &str) -> String {
    family.row_of_gguf(name).map_or_else(|| name.to_owned(), |(row, ending, numbers)| row.hf_name(family.prefix, ending, numbers))
}

/// A shape as Hugging Face has it, if its family can tell.
fn in_hf(family: &Family, config: &Hparams, name: &str, shape: &[u64]) -> Vec<u64> {
    let row = family.row_of_gguf(name);
    row.and_then(|(row, _, _)| row.change.to_hf(config, shape).ok()).unwrap_or_else(|| shape.to_vec())
}
