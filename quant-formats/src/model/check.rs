//! Whether the tensors of a model are those that its metadata promises: what llama.cpp asks of a file when it loads it.
//!
//! Both directions use it: on the way to GGUF it sees the model that is to be written, on the way back the one that was read.
//!
//! Source: `llama_model::load_tensors` of llama.cpp 0.5.0-dev.

use std::collections::{BTreeMap, BTreeSet};

use quant_core::{Error, Result};

use super::family::Family;
use super::hparams::Hparams;
use crate::checkpoint::Checkpoint;
use crate::gguf::{Entry, find_entry};

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
const TOGETHER: [(&str, &str); 6] = [
    ("ffn_down_exps", "ffn_gate_inp"),
    ("ffn_down_exps", "ffn_gate_exps"),
    ("ffn_down_shexp", "ffn_up_shexp"),
    ("ffn_down_shexp", "ffn_gate_shexp"),
    ("attn_q_b", "attn_q_a"),
    ("attn_q_b", "attn_q_a_norm"),
];
/// What a model needs beside its layers, if its family has it at all.
const OUTER: [&str; 4] = ["token_embd", "output_norm", "token_embd_norm", "position_embd"];

/// A GGUF model about to be checked.
struct Model<'a> {
    checkpoint: &'a Checkpoint,
    family: &'static Family,
    sizes: Sizes,
}

/// Checks `model`, a checkpoint with tensors and metadata of GGUF: every tensor that its family needs is there, in every layer
/// and in no other, and each has the shape that the metadata gives it.
///
/// # Errors
/// Naming the tensor as it is called in Hugging Face (in GGUF, if `is_gguf`), what was found and what is needed.
pub(crate) fn model(checkpoint: &Checkpoint, family: &'static Family, config: &Hparams, is_gguf: bool) -> Result<()> {
    let sizes = Sizes::read(checkpoint, family, config)?;
    let model = Model { checkpoint, family, sizes };
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

/// A tensor and what is wrong with it.
type Problem = (String, String);

impl Model<'_> {
    fn has(&self, name: &str) -> bool {
        self.checkpoint.tensors.iter().any(|t| t.name == name)
    }

    fn outer(&self) -> std::result::Result<(), Problem> {
        let is_known = |name: &&&str| self.family.tables.iter().any(|table| table.iter().any(|row| row.gguf == **name));
        let mut needed = OUTER.iter().filter(is_known).map(|name| format!("{name}.weight"));
        match needed.find(|name| !self.has(name)) {
            Some(name) => Err((name, "is missing".into())),
            None => Ok(()),
        }
    }

    /// The head is missing though config.json says that the embeddings do not take its place.
    fn head(&self, config: &Hparams) -> std::result::Result<(), Problem> {
        let says_untied = config.get("tie_word_embeddings").and_then(serde_json::Value::as_bool) == Some(false);
        let is_headless = config.get("architectures").and_then(|v| v.get(0)?.as_str()).is_some_and(|class| !class.ends_with("ForCausalLM"));
        let has_row = self.family.tables.iter().any(|table| table.iter().any(|row| row.gguf == "output"));
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
            layers.entry(layer).or_default().insert(name);
        }
        let mut kinds: BTreeMap<bool, (u64, BTreeSet<&str>)> = BTreeMap::new();
        for layer in 0..n {
            let Some(names) = layers.remove(&layer) else {
                return Err((format!("blk.{layer}.attn_output.weight"), format!("is missing, as is all of layer {layer}; there are {n} layers")));
            };
            if let Some(lacking) = self.lacking(&names) {
                return Err((format!("blk.{layer}.{lacking}.weight"), "is missing".into()));
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

    /// The first tensor that a layer with these tensors needs and lacks.
    fn lacking(&self, names: &BTreeSet<&str>) -> Option<&'static str> {
        let has = |name: &str| names.contains(format!("{name}.weight").as_str());
        let own = self.family.needed.iter().copied().find(|name| !has(name) && !has(&format!("{name}_exps")));
        let projection = || PROJECTIONS.iter().find(|any| !any.iter().any(|name| has(name))).and_then(|any| self.usual(any));
        let companion = || TOGETHER.iter().find(|(with, name)| has(with) && !has(name)).map(|pair| pair.1);
        own.or_else(projection).or_else(companion)
    }

    /// That of several names that the family has first.
    fn usual(&self, any: &[&'static str]) -> Option<&'static str> {
        let mut rows = self.family.tables.iter().flat_map(|table| table.iter()).filter_map(|row| row.gguf.strip_prefix("blk.{}."));
        rows.find_map(|row| any.iter().copied().find(|name| *name == row.trim_end_matches(".weight"))).or(any.first().copied())
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

/// The sizes that metadata gives a model.
struct Sizes {
    arch: &'static str,
    layers: u64,
    width: u64,
    heads: u64,
    /// Rows of queries, keys, values, and what attention gives.
    query: u64,
    key: u64,
    value: u64,
    attention: u64,
    /// Numbers of a head.
    head: u64,
    heads_kv: u64,
    feed_forward: u64,
    experts: u64,
    expert: u64,
    shared: Option<u64>,
    vocabulary: Option<u64>,
    compressed: Option<Compressed>,
}

/// Sizes of compressed keys and values.
struct Compressed {
    query: u64,
    rank: u64,
    rotary: u64,
    key: u64,
    value: u64,
}

impl Sizes {
    fn read(checkpoint: &Checkpoint, family: &'static Family, config: &Hparams) -> Result<Sizes> {
        let value = |name: &str| find_entry(&checkpoint.kv, &format!("{}.{name}", family.arch)).and_then(Entry::unsigned);
        let lacking = |name: &str| Error::file(config.path(), format!("found no {name}, which {} needs", family.arch));
        let need = |name: &str, keys: &str| value(name).filter(|n| *n > 0).ok_or_else(|| lacking(keys));
        let width = need("embedding_length", "hidden_size of at least 1")?;
        let heads = need("attention.head_count", "num_attention_heads of at least 1")?;
        // The shapes tell whether a default fits, unless the size of a head follows from it.
        let is_filled = |key: &str| config.filled().iter().any(|filled| filled == key);
        if is_filled("num_attention_heads") && value("attention.key_length").is_none_or(|head| heads.checked_mul(head) == Some(width)) {
            return Err(config.missing(&["num_attention_heads"]));
        }
        let heads_kv = value("attention.head_count_kv").unwrap_or(heads);
        let own = |mla: &str, name: &str| value(mla).or_else(|| value(name)).or_else(|| width.is_multiple_of(heads).then_some(width / heads));
        let uneven = || lacking(&format!("head_dim, and hidden_size {width} is no multiple of num_attention_heads {heads}"));
        let key = own("attention.key_length_mla", "attention.key_length").ok_or_else(uneven)?;
        let head_value = own("attention.value_length_mla", "attention.value_length").ok_or_else(uneven)?;
        let large = || Error::file(config.path(), format!("found {heads} heads of {key} numbers, which no tensor can have"));
        let rows = |heads: u64, numbers: u64| heads.checked_mul(numbers).filter(|n| *n > 0 && *n < 1 << 40).ok_or_else(large);
        let feed_forward = value("feed_forward_length").unwrap_or(0);
        let expert = value("expert_feed_forward_length").unwrap_or(feed_forward);
        let shared = value("expert_shared_feed_forward_length").or_else(|| value("expert_shared_count")?.checked_mul(expert));
        let compressed = value("attention.kv_lora_rank").map(|rank| Compressed {
            query: value("attention.q_lora_rank").unwrap_or(0),
            rank,
            rotary: value("rope.dimension_count").unwrap_or(0),
            key,
            value: head_value,
        });
        Ok(Sizes {
            arch: family.arch,
            layers: need("block_count", "num_hidden_layers of at least 1")?,
            width,
            heads,
            query: rows(heads, key)?,
            key: rows(heads_kv, key)?,
            value: rows(heads_kv, head_value)?,
            attention: rows(heads, head_value)?,
            head: key,
            heads_kv,
            feed_forward,
            experts: value("expert_count").unwrap_or(0),
            expert,
            shared,
            vocabulary: config.u32(&["vocab_size"])?.map(u64::from),
            compressed,
        })
    }

    /// The shapes that a tensor of this name, without its layer, may have; none if nothing is known of it.
    fn needed(&self, name: &str) -> Vec<Vec<u64>> {
        let Some((base, ending)) = name.rsplit_once('.') else { return Vec::new() };
        let matrix = match self.matrix(base).or_else(|| self.compressed.as_ref().and_then(|c| c.matrix(base, self))) {
            Some(matrices) => matrices,
            None => return self.vector(base),
        };
        match ending {
            "weight" => matrix,
            "bias" => matrix.into_iter().map(|shape| shape.into_iter().rev().skip(1).rev().collect()).collect(),
            _ => Vec::new(),
        }
    }

    /// Shapes of matrices and stacks.
    fn matrix(&self, base: &str) -> Option<Vec<Vec<u64>>> {
        let Sizes { width, feed_forward, experts, expert, .. } = *self;
        Some(match base {
            "token_embd" | "output" => vec![vec![self.vocabulary?, width]],
            "attn_q" => vec![vec![self.query, width]],
            "attn_k" => vec![vec![self.key, width]],
            "attn_v" => vec![vec![self.value, width]],
            "attn_qkv" => vec![vec![self.query + self.key + self.value, width]],
            "attn_output" => vec![vec![width, self.attention]],
            "ffn_up" if self.arch == "phi3" => vec![vec![feed_forward.saturating_mul(2), width]],
            "ffn_gate" | "ffn_up" => vec![vec![feed_forward, width]],
            "ffn_down" => vec![vec![width, feed_forward]],
            "ffn_gate_inp" => vec![vec![experts, width]],
            "ffn_gate_exps" | "ffn_up_exps" => vec![vec![experts, expert, width]],
            "ffn_down_exps" => vec![vec![experts, width, expert]],
            "ffn_gate_shexp" | "ffn_up_shexp" => vec![vec![self.shared?, width]],
            "ffn_down_shexp" => vec![vec![width, self.shared?]],
            _ => return None,
        })
    }

    /// Shapes of vectors.
    fn vector(&self, base: &str) -> Vec<Vec<u64>> {
        let of_heads = |heads: u64, rows: u64| vec![vec![self.head], vec![rows], vec![heads, self.head]];
        match base {
            "attn_q_norm" => of_heads(self.heads, self.query),
            "attn_k_norm" => of_heads(self.heads_kv, self.key),
            "attn_q_a_norm" => self.compressed.iter().map(|c| vec![c.query]).collect(),
            "attn_kv_a_norm" => self.compressed.iter().map(|c| vec![c.rank]).collect(),
            "attn_sinks" => vec![vec![self.heads]],
            "exp_probs_b" => vec![vec![self.experts]],
            _ if base.ends_with("_norm") => vec![vec![self.width]],
            _ => Vec::new(),
        }
    }
}

impl Compressed {
    fn matrix(&self, base: &str, sizes: &Sizes) -> Option<Vec<Vec<u64>>> {
        let &Compressed { query, rank, rotary, key, value } = self;
        let plain = key.saturating_sub(rotary);
        Some(match base {
            "attn_q_a" => vec![vec![query, sizes.width]],
            "attn_q_b" => vec![vec![sizes.query, query]],
            "attn_kv_a_mqa" => vec![vec![rank.saturating_add(rotary), sizes.width]],
            "attn_k_b" => vec![vec![sizes.heads, rank, plain]],
            "attn_v_b" => vec![vec![sizes.heads, value, rank]],
            "attn_kv_b" => vec![vec![sizes.heads.saturating_mul(plain.saturating_add(value)), rank]],
            _ => return None,
        })
    }
}
