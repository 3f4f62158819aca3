//! The shapes that metadata gives the tensors of a model.

use quant_core::{Error, Result};

use super::super::family::{EXPERTS, Family};
use super::super::hparams::Hparams;
use crate::checkpoint::Checkpoint;
use crate::gguf::{Entry, find_entry};

/// Architectures whose layers all have experts if the model has any. llama.cpp takes Llama and Granite for models without if
/// metadata has no number of experts, and the others for nothing else than mixtures.
const ALL_EXPERTS: [&str; 5] = ["llama", "granite", "qwen2moe", "qwen3moe", "gpt-oss"];

/// The sizes that metadata gives a model.
pub(super) struct Sizes {
    arch: &'static str,
    pub(super) layers: u64,
    /// Layers before the first with experts, if that is said or every layer has them.
    pub(super) dense_layers: Option<u64>,
    context: u64,
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
    pub(super) experts: u64,
    expert: u64,
    pub(super) shared: Option<u64>,
    vocabulary: Option<u64>,
    /// Kinds of text that BERT tells apart.
    segments: Option<u64>,
    pub(super) compressed: Option<Compressed>,
}

/// Sizes of compressed keys and values.
pub(super) struct Compressed {
    pub(super) query: u64,
    rank: u64,
    rotary: u64,
    key: u64,
    value: u64,
}

impl Sizes {
    /// Reads them.
    ///
    /// # Errors
    /// If one is missing, or no tensor can have it.
    pub(super) fn read(checkpoint: &Checkpoint, family: &'static Family, config: &Hparams) -> Result<Sizes> {
        let value = |name: &str| find_entry(&checkpoint.kv, &format!("{}.{name}", family.arch)).and_then(Entry::unsigned);
        let lacking = |name: &str| Error::file(config.path(), format!("found no {name}, which {} needs", family.arch));
        let need = |name: &str, keys: &[&str]| {
            let key = keys.iter().find(|key| config.find(&[key]).is_some()).or(keys.last()).copied().unwrap_or_default();
            value(name).filter(|n| *n > 0).ok_or_else(|| lacking(&format!("{key} of at least 1")))
        };
        let width = need("embedding_length", &["n_embd", "dim", "hidden_size"])?;
        let heads = need("attention.head_count", &["n_head", "n_heads", "num_attention_heads"])?;
        // The shapes tell whether a default fits, unless the size of a head follows from it.
        let is_filled = |key: &str| config.filled().iter().any(|filled| filled == key);
        if is_filled("num_attention_heads") && value("attention.key_length").is_none_or(|head| heads.checked_mul(head) == Some(width)) {
            return Err(config.missing(&["num_attention_heads"]));
        }
        let heads_kv = value("attention.head_count_kv").unwrap_or(heads);
        if heads_kv == 0 {
            return Err(lacking("num_key_value_heads of at least 1"));
        }
        let own = |mla: &str, name: &str| value(mla).or_else(|| value(name)).or_else(|| width.is_multiple_of(heads).then_some(width / heads));
        let uneven = || lacking(&format!("head_dim, and hidden_size {width} is no multiple of num_attention_heads {heads}"));
        let key = own("attention.key_length_mla", "attention.key_length").ok_or_else(uneven)?;
        let head_value = own("attention.value_length_mla", "attention.value_length").ok_or_else(uneven)?;
        let large = || Error::file(config.path(), format!("found {heads} heads of {key} numbers, which no tensor can have"));
        let rows = |heads: u64, numbers: u64| heads.checked_mul(numbers).filter(|n| *n > 0 && *n < 1 << 40).ok_or_else(large);
        let feed_forward = value("feed_forward_length").unwrap_or(0);
        // Files of Qwen that are older than the key.
        let share = || value("expert_used_count").filter(|_| family.arch.starts_with("qwen")).and_then(|used| feed_forward.checked_div(used));
        let expert = value("expert_feed_forward_length").or_else(share).unwrap_or(feed_forward);
        let shared = value("expert_shared_feed_forward_length").or_else(|| value("expert_shared_count")?.checked_mul(expert));
        let compressed = value("attention.kv_lora_rank").map(|rank| Compressed {
            query: value("attention.q_lora_rank").unwrap_or(0),
            rank,
            rotary: value("rope.dimension_count").unwrap_or(0),
            key,
            value: head_value,
        });
        let vocabulary = config.u32(&["vocab_size"])?.map(u64::from);
        if vocabulary == Some(0) {
            return Err(lacking("vocab_size of at least 1"));
        }
        let (experts, used) = (value("expert_count").unwrap_or(0), value("expert_used_count"));
        if experts > 0 && used.is_none_or(|used| used == 0 || used > experts) {
            return Err(lacking(&format!("num_experts_per_tok from 1 to {experts}, the number of experts")));
        }
        let segments = config.u32(&["type_vocab_size"])?.map(u64::from).filter(|_| family.arch == "bert");
        if segments == Some(0) {
            return Err(lacking("type_vocab_size of at least 1"));
        }
        refuse_other_kind(family, config, experts)?;
        Ok(Sizes {
            arch: family.arch,
            dense_layers: value("leading_dense_block_count").or_else(|| (ALL_EXPERTS.contains(&family.arch) && experts > 0).then_some(0)),
            context: need("context_length", &["n_ctx", "n_positions", "max_position_embeddings"])?,
            layers: need("block_count", &["n_layer", "n_layers", "num_hidden_layers"])?,
            width,
            heads,
            query: rows(heads, key)?,
            key: rows(heads_kv, key)?,
            value: rows(heads_kv, head_value)?,
            attention: rows(heads, head_value)?,
            head: key,
            heads_kv,
            feed_forward,
            experts,
            expert,
            shared,
            vocabulary,
            segments,
            compressed,
        })
    }

    /// The shapes that a tensor of this name, without its layer, may have; none if nothing is known of it.
    pub(super) fn needed(&self, name: &str) -> Vec<Vec<u64>> {
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
            "position_embd" => vec![vec![self.context, width]],
            "token_types" => vec![vec![self.segments?, width]],
            "ffn_gate_inp_shexp" => vec![vec![1, width], vec![width]],
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
        let of_heads = |heads: u64, rows: u64| match self.arch {
            "olmo2" => vec![vec![rows]],
            "command-r" => vec![vec![heads, self.head]],
            _ => vec![vec![self.head]],
        };
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

/// A number of experts in the configuration of a class without, or none in that of a class with experts.
fn refuse_other_kind(family: &Family, config: &Hparams, experts: u64) -> Result<()> {
    let has_experts = family.rows().any(|row| row.gguf.starts_with("blk.{}.ffn_gate_inp"));
    let is_other = ALL_EXPERTS.contains(&family.arch) && has_experts != (experts > 0);
    let key = EXPERTS.iter().find(|key| config.find(&[key]).is_some()).copied().unwrap_or(EXPERTS[0]);
    let needed = if has_experts { "experts in every layer" } else { "none: this class has no experts" };
    let problem = || Error::file(config.path(), format!("key '{key}': found {experts}, needed {needed}"));
    if is_other { Err(problem()) } else { Ok(()) }
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
