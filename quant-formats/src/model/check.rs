//! Whether the tensors of a model are those that its metadata promises: what llama.cpp asks of a file when it loads it.
//!
//! Both directions use it: on the way to GGUF it sees the model that is to be written, on the way back the one that was read.
//!
//! Source: `llama_model::load_tensors` of llama.cpp 0.5.0-dev.

mod biases;
mod notes;
mod settings;
mod sizes;

use std::collections::{BTreeMap, BTreeSet};

use quant_core::{Error, Result};

use super::family::Family;
use super::hparams::Hparams;
use crate::checkpoint::Checkpoint;
use crate::gguf::find_entry;
use biases::Bias;
use sizes::Sizes;

pub(crate) use notes::notes;
pub(crate) use settings::settings;

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
const TOGETHER: [(&str, &str); 7] = [
    ("ffn_down_exps", "ffn_gate_inp"),
    ("ffn_down_exps", "ffn_gate_exps"),
    ("ffn_gate_inp", "ffn_down_exps"),
    ("ffn_down_shexp", "ffn_up_shexp"),
    ("ffn_down_shexp", "ffn_gate_shexp"),
    ("ffn_gate_shexp", "ffn_down_shexp"),
    ("ffn_up_shexp", "ffn_down_shexp"),
];
/// What queries have that go through a narrow layer.
const COMPRESSED: [&str; 3] = ["attn_q_a", "attn_q_a_norm", "attn_q_b"];
/// What a feed-forward layer has that is no mixture of experts.
const DENSE: [&str; 3] = ["ffn_gate", "ffn_up", "ffn_down"];
/// Architectures whose `attention_bias` stands for a bias of each of the four projections.
const BIASED: [&str; 10] = ["llama", "granite", "gemma", "gemma2", "gemma3", "qwen3", "qwen3moe", "olmo2", "smollm3", "command-r"];
/// What a model needs beside its layers, if its family has it at all.
const OUTER: [&str; 4] = ["token_embd", "output_norm", "token_embd_norm", "position_embd"];

/// Where the model to be checked comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A GGUF file.
    Gguf,
    /// A checkpoint of Hugging Face. If it is bare, no name begins as those of a class with a head do: the class without one
    /// was saved, whatever config.json calls it.
    Hf {
        /// Whether it is.
        is_bare: bool,
    },
}

impl Origin {
    /// That of a checkpoint of Hugging Face. Names of a family without a prefix do not tell whether it is bare.
    pub(crate) fn hf(checkpoint: &Checkpoint, family: &Family) -> Origin {
        let has_prefix = |name: &str| name.replace("language_model.", "").starts_with(family.prefix);
        Origin::Hf { is_bare: !checkpoint.tensors.iter().any(|t| has_prefix(&t.name)) }
    }
}

/// A GGUF model about to be checked.
struct Model<'a> {
    checkpoint: &'a Checkpoint,
    family: &'static Family,
    origin: Origin,
    sizes: Sizes,
    /// What config.json says that every layer has.
    said: Vec<&'static str>,
}

/// Checks a model, a checkpoint with tensors and metadata of GGUF: every tensor that its family needs is there, in every layer
/// and in no other, and each has the shape that the metadata gives it; there are as many tokens as embeddings.
///
/// # Errors
/// Naming the tensor as its origin calls it, what was found and what is needed.
pub(crate) fn model(checkpoint: &Checkpoint, family: &'static Family, config: &Hparams, origin: Origin) -> Result<()> {
    let is_gguf = origin == Origin::Gguf;
    let sizes = Sizes::read(checkpoint, family, config)?;
    let said = said(family, config, is_gguf)?;
    let model = Model { checkpoint, family, origin, sizes, said };
    let named = |name: &str| if is_gguf { name.to_owned() } else { hf_name(family, name) };
    let result = model.outer().and_then(|()| model.layers()).and_then(|()| model.head(config)).and_then(|()| model.shapes(config));
    let result = result.and_then(|()| model.biases());
    result.map_err(|(name, problem)| Error::tensor(config.path(), &named(&name), problem + &guessed(config)))?;
    if is_gguf { Ok(()) } else { tokens(checkpoint, config).and_then(|()| epsilon(checkpoint, family, config)) }
}

/// What norms add to a variance. llama.cpp has no default.
fn epsilon(checkpoint: &Checkpoint, family: &Family, config: &Hparams) -> Result<()> {
    let has = |name: &str| find_entry(&checkpoint.kv, &format!("{}.attention.{name}", family.arch)).is_some();
    if has("layer_norm_rms_epsilon") || has("layer_norm_epsilon") {
        return Ok(());
    }
    let key = settings::EPSILONS.into_iter().find(|key| config.has(key)).unwrap_or(settings::EPSILONS[0]);
    Err(config.wrong(key, &serde_json::Value::Null, "a number"))
}

/// llama.cpp takes the number of tokens for that of the embeddings.
fn tokens(checkpoint: &Checkpoint, config: &Hparams) -> Result<()> {
    let tokens = find_entry(&checkpoint.kv, "tokenizer.ggml.tokens").and_then(|entry| entry.items.as_ref()).map(|items| items.1);
    let rows = checkpoint.tensors.iter().find(|t| t.name == "token_embd.weight").and_then(|t| t.shape.first().copied());
    match (tokens, rows) {
        (Some(tokens), Some(rows)) if tokens != rows => {
            let problem = format!("found a tokenizer of {tokens} tokens, but embeddings of {rows}; llama.cpp needs as many of one as of the other");
            Err(Error::file(config.path(), problem))
        }
        _ => Ok(()),
    }
}

/// Sizes that the configuration class had to fill in, which may be what is wrong.
fn guessed(config: &Hparams) -> String {
    let sizes = ["hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "vocab_size"];
    let keys: Vec<&str> = sizes.into_iter().filter(|size| config.filled().iter().any(|key| key == size)).collect();
    if keys.is_empty() { String::new() } else { format!("; config.json lacks {}, so the defaults of its class were taken", keys.join(", ")) }
}

/// The tensors of every layer that config.json switches on. That of a GGUF file is made from its tensors.
fn said(family: &Family, config: &Hparams, is_gguf: bool) -> Result<Vec<&'static str>> {
    let mut names: Vec<&str> = Vec::new();
    if is_gguf {
        return Ok(names);
    }
    let is_on = |key: &str| config.bool(&[key]).map(|on| on == Some(true));
    if family.arch == "qwen2moe" && config.bool(&["qkv_bias"])? != Some(false) {
        names.extend(["attn_q.bias", "attn_k.bias", "attn_v.bias"]);
    }
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
        let is_known = |name: &&&str| self.family.rows().any(|row| row.gguf == **name || row.gguf.strip_suffix(".weight") == Some(**name));
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
        let has_row = self.family.rows().any(|row| row.gguf == "output");
        // Where llama.cpp has no head of its own, one in the checkpoint is left out.
        let has_row = has_row && (self.family.rename)(config, "lm_head.weight").is_some();
        let is_bare = self.origin == Origin::Hf { is_bare: true };
        if says_untied && has_row && !is_headless && !is_bare && !self.has("output.weight") {
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
            let in_layer = |name: String| format!("blk.{layer}.{name}");
            if let Some((name, problem)) = self.queries(&names).or_else(|| self.misplaced(layer, &names)) {
                return Err((in_layer(name), problem));
            }
            if let Some(lacking) = self.lacking(layer, &names) {
                return Err((in_layer(lacking), "is missing".into()));
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

    /// What of compressed queries is missing, or there without need.
    fn queries(&self, names: &BTreeSet<&str>) -> Option<Problem> {
        let rank = self.sizes.compressed.as_ref()?.query;
        let find = |is_there: bool| COMPRESSED.map(whole).into_iter().find(|name| names.contains(name.as_str()) == is_there);
        if rank == 0 {
            return find(true).map(|name| (name, "is there, but q_lora_rank is null, so that queries are not compressed".into()));
        }
        let plain = names
            .get("attn_q.weight")
            .map(|name| ((*name).to_owned(), format!("is there, but q_lora_rank is {rank}, so that queries are compressed")));
        plain.or_else(|| find(false).map(|name| (name, format!("is missing; q_lora_rank is {rank}"))))
    }

    /// A part of a feed-forward layer of the other kind.
    fn misplaced(&self, layer: u64, names: &BTreeSet<&str>) -> Option<Problem> {
        let dense = self.sizes.dense_layers?;
        let find = |any: &[&str]| any.iter().map(|name| whole(name)).find(|name| names.contains(name.as_str()));
        if layer < dense {
            return find(&["ffn_gate_inp", "ffn_down_exps"]).map(|name| (name, format!("is there, but the first {dense} layers have no experts")));
        }
        let experts = self.sizes.experts;
        find(&DENSE).map(|name| (name, format!("is there, but this layer has {experts} experts by the configuration")))
    }

    /// Nothing has a bias that llama.cpp has no place for.
    fn biases(&self) -> std::result::Result<(), Problem> {
        let is_strange = |name: &str| Bias::of(self.family, name) == Bias::Strange;
        let mut tensors = self.checkpoint.tensors.iter().filter(|_| self.origin != Origin::Gguf);
        match tensors.find(|t| is_strange(in_layer(&t.name).map_or(&t.name, |(_, name)| name))) {
            Some(t) => Err((t.name.clone(), format!("has no place in llama.cpp's {}; --generic converts with names unchanged", self.family.arch))),
            None => Ok(()),
        }
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
        names
    }

    /// That of several names that the family has first.
    fn usual(&self, any: &[&str]) -> String {
        let is_plain = self.sizes.compressed.as_ref().is_some_and(|c| c.query == 0);
        let any: Vec<&str> = any.iter().copied().filter(|name| !(is_plain && *name == "attn_q_b")).collect();
        let mut rows = self.family.rows().filter_map(|row| row.gguf.strip_prefix("blk.{}."));
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
