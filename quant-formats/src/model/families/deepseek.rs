//! DeepSeek V2 and V3, and what else has their classes: R1, Kimi K2, Moonlight.
//!
//! llama.cpp runs their attention in its absorbed form, in which all heads share one compressed key; for that the matrix that
//! expands keys and values is split, and its key half transposed.
//!
//! Source: `DeepseekV2Model` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev; `DeepseekV2Config` and `DeepseekV3Config` of
//! transformers 5.23.

use quant_core::Result;
use serde_json::{Value, json};

use super::llama::nothing;
use crate::model::family::{Change, Family, Layout, Row, changed, exact, matches, row};
use crate::model::hparams::Hparams;
use crate::model::keys::{self, Keys, Meta, rope_number, rope_parameters};
use crate::model::link::{Axis, Link};
use crate::model::names::{ATTENTION, EXPERTS, FEED_FORWARD, OUTER};
use crate::model::tokenizer::Vocab;

/// Keys and values that are compressed.
const COMPRESSED: &[Row] = &[
    row("layers.{}.self_attn.q_a_proj", "blk.{}.attn_q_a"),
    row("layers.{}.self_attn.q_a_layernorm", "blk.{}.attn_q_a_norm"),
    row("layers.{}.self_attn.q_b_proj", "blk.{}.attn_q_b"),
    row("layers.{}.self_attn.kv_a_proj_with_mqa", "blk.{}.attn_kv_a_mqa"),
    row("layers.{}.self_attn.kv_a_layernorm", "blk.{}.attn_kv_a_norm"),
    changed("layers.{}.self_attn.kv_b_proj", "blk.{}.attn_k_b", Change::Other(KEYS)),
    changed("layers.{}.self_attn.kv_b_proj", "blk.{}.attn_v_b", Change::Other(VALUES)),
    row("layers.{}.mlp.shared_experts.gate_proj", "blk.{}.ffn_gate_shexp"),
    row("layers.{}.mlp.shared_experts.up_proj", "blk.{}.ffn_up_shexp"),
    row("layers.{}.mlp.shared_experts.down_proj", "blk.{}.ffn_down_shexp"),
    exact("layers.{}.mlp.gate.e_score_correction_bias", "blk.{}.exp_probs_b.bias", Change::Same),
];

/// The name that the reference gives the correction before it looks it up, and what old GGUF files did not split.
const OTHER_NAMES: &[Row] =
    &[row("layers.{}.mlp.gate.e_score_correction", "blk.{}.exp_probs_b"), row("layers.{}.self_attn.kv_b_proj", "blk.{}.attn_kv_b")];

const KEYS: Layout = Layout { to_gguf: |h, shape| Expansion::of(h, shape)?.keys(), to_hf: |h, shape| whole(h, shape, 1) };
const VALUES: Layout = Layout { to_gguf: |h, shape| Expansion::of(h, shape)?.values(), to_hf: |h, shape| whole(h, shape, 2) };

/// DeepSeek V3 and R1.
pub(crate) const DEEPSEEK3: Family = Family {
    arch: "deepseek2",
    classes: &["DeepseekV3ForCausalLM"],
    model_type: "deepseek_v3",
    prefix: "model.",
    tables: &[COMPRESSED, EXPERTS, OTHER_NAMES, OUTER, ATTENTION, FEED_FORWARD],
    rename,
    prepare: prepare3,
    extra: nothing,
    early: |_, _| Ok(()),
    keys,
    config: config3,
    is: is3,
    vocab: Vocab::Gpt2,
    forced: &[],
    needed: &["attn_norm", "ffn_norm", "ffn_gate", "attn_kv_a_mqa", "attn_kv_a_norm"],
};

/// DeepSeek V2.
pub(crate) const DEEPSEEK2: Family =
    Family { classes: &["DeepseekV2ForCausalLM"], model_type: "deepseek_v2", prepare: prepare2, config: config2, is: |m| !is3(m), ..DEEPSEEK3 };

/// Leaves out layers that predict further tokens, and a head that is the embedding.
fn rename(h: &Hparams, name: &str) -> Option<String> {
    let layers = h.u32(&["num_hidden_layers"]).ok().flatten().map_or(u64::MAX, u64::from);
    let layer = name.strip_prefix("model.layers.").and_then(|rest| matches("{}", rest.split('.').next()?)?.layer);
    let is_tied = h.get("tie_word_embeddings").and_then(Value::as_bool) == Some(true);
    let is_left_out = layer.is_some_and(|n| n >= layers) || is_tied && matches!(name, "lm_head.weight" | "model.lm_head.weight");
    (!is_left_out).then(|| name.into())
}

/// \[heads × (key + value), rank\]: the rows of a head are those that expand its keys, then those that expand its values.
struct Expansion {
    heads: u64,
    key: u64,
    value: u64,
    rank: u64,
}

impl Expansion {
    fn of(h: &Hparams, shape: &[u64]) -> Option<Expansion> {
        let &[rows, rank] = shape else { return None };
        let count = |keys: &[&str]| h.u32(keys).ok().flatten().map(u64::from);
        let heads = count(&["num_key_value_heads"])?;
        let (key, value) = (count(&["qk_nope_head_dim"])?, count(&["v_head_dim"])?);
        (heads.checked_mul(key.checked_add(value)?)? == rows).then_some(Expansion { heads, key, value, rank })
    }

    /// The axis of heads, which have so many rows in GGUF.
    fn heads(&self, rows: u64) -> Option<Axis> {
        Some(Axis { len: self.heads, hf: self.key.checked_add(self.value)?.checked_mul(self.rank)?, gguf: rows.checked_mul(self.rank)? })
    }

    fn keys(&self) -> Option<(Vec<u64>, Link)> {
        let Expansion { heads, key, rank, .. } = *self;
        let axes = vec![self.heads(key)?, Axis { len: rank, hf: 1, gguf: key }, Axis { len: key, hf: rank, gguf: 1 }];
        Some((vec![heads, rank, key], Link::of(axes)))
    }

    fn values(&self) -> Option<(Vec<u64>, Link)> {
        let Expansion { heads, value, rank, .. } = *self;
        let axes = vec![self.heads(value)?, Axis { len: value, hf: rank, gguf: rank }, Axis { len: rank, hf: 1, gguf: 1 }];
        let hf_at = self.key.checked_mul(rank)?;
        Some((vec![heads, value, rank], Link { hf_at, ..Link::of(axes) }))
    }
}

/// The matrix that expands keys and values, from the shape of one half, whose rank is at `rank`.
fn whole(h: &Hparams, shape: &[u64], rank: usize) -> Option<Vec<u64>> {
    let &[heads, _, _] = shape else { return None };
    let count = |key: &str| h.u32(&[key]).ok().flatten().map(u64::from);
    let rows = heads.checked_mul(count("qk_nope_head_dim")?.checked_add(count("v_head_dim")?)?)?;
    Some(vec![rows, *shape.get(rank)?])
}

fn prepare3(h: &mut Hparams) -> Result<()> {
    // Of models that bring a configuration class of their own the reference has no more than config.json.
    if h.text(&["model_type"])? == Some("deepseek_v3") {
        for (key, value) in [
            ("vocab_size", json!(129_280)),
            ("hidden_size", json!(7168)),
            ("intermediate_size", json!(18432)),
            ("moe_intermediate_size", json!(2048)),
            ("num_hidden_layers", json!(61)),
            ("num_attention_heads", json!(128)),
            ("n_shared_experts", json!(1)),
            ("n_routed_experts", json!(256)),
            ("routed_scaling_factor", json!(2.5)),
            ("n_group", json!(8)),
            ("topk_group", json!(4)),
            ("num_experts_per_tok", json!(8)),
            ("first_k_dense_replace", json!(3)),
            ("norm_topk_prob", json!(true)),
            ("max_position_embeddings", json!(4096)),
        ] {
            h.default(key, value);
        }
        prepare(h)?;
    }
    keys::prepare_rope(h, 10000.0);
    Ok(())
}

fn prepare2(h: &mut Hparams) -> Result<()> {
    if h.text(&["model_type"])? == Some("deepseek_v2") {
        for (key, value) in [
            ("vocab_size", json!(102_400)),
            ("hidden_size", json!(4096)),
            ("intermediate_size", json!(11008)),
            ("moe_intermediate_size", json!(1407)),
            ("num_hidden_layers", json!(32)),
            ("num_attention_heads", json!(32)),
            ("n_shared_experts", json!(2)),
            ("n_routed_experts", json!(64)),
            ("routed_scaling_factor", json!(1.0)),
            ("first_k_dense_replace", json!(0)),
            ("norm_topk_prob", json!(false)),
            ("max_position_embeddings", json!(2048)),
        ] {
            h.default(key, value);
        }
        prepare(h)?;
    }
    keys::prepare_rope(h, 10000.0);
    Ok(())
}

/// What both configuration classes do.
fn prepare(h: &mut Hparams) -> Result<()> {
    for (key, value) in [
        ("rms_norm_eps", json!(1e-6)),
        ("kv_lora_rank", json!(512)),
        ("q_lora_rank", json!(1536)),
        ("qk_rope_head_dim", json!(64)),
        ("v_head_dim", json!(128)),
        ("qk_nope_head_dim", json!(128)),
        ("tie_word_embeddings", json!(false)),
    ] {
        h.default(key, value);
    }
    if h.get("num_key_value_heads").is_none() {
        h.set("num_key_value_heads", json!(h.need(&["num_attention_heads"])?));
    }
    h.set("head_dim", json!(h.need(&["qk_rope_head_dim"])?));
    Ok(())
}

fn keys(h: &Hparams, k: &mut Keys) -> Result<()> {
    let mut one_head = h.clone();
    one_head.set("num_key_value_heads", json!(1));
    one_head.default("rms_norm_eps", json!(1e-6));
    keys::common(&one_head, k)?;
    let dense = h.u32(&["first_k_dense_replace"])?;
    let all_dense = || if h.get("n_routed_experts").is_none() { h.need(&["num_hidden_layers"]) } else { Ok(0) };
    k.u32("leading_dense_block_count", dense.map_or_else(all_dense, Ok)?);
    k.u32("vocab_size", h.need(&["vocab_size"])?);
    k.count("attention.q_lora_rank", h, &["q_lora_rank"])?;
    attention(h, k)?;
    k.u32("expert_feed_forward_length", h.need(&["moe_intermediate_size", "intermediate_size"])?);
    k.count("expert_count", h, &["n_routed_experts"])?;
    k.u32("expert_shared_count", h.u32(&["n_shared_experts"])?.unwrap_or(0));
    k.number("expert_weights_scale", h, &["routed_scaling_factor"])?;
    if h.bool(&["norm_topk_prob"])? == Some(true) {
        k.bool("expert_weights_norm", true);
    }
    k.u32("rope.dimension_count", h.need(&["qk_rope_head_dim"])?);
    if let Some(all) = h.object("rope_parameters").and_then(|rope| rope_number(rope, "mscale_all_dim")) {
        k.f32("rope.scaling.yarn_log_multiplier", 0.1 * all);
    }
    Ok(())
}

/// The lengths of keys and values, of the absorbed form and of each head.
fn attention(h: &Hparams, k: &mut Keys) -> Result<()> {
    let rank = h.u32(&["kv_lora_rank"])?.unwrap_or(512);
    let (rotated, plain) = (h.need(&["qk_rope_head_dim"])?, h.need(&["qk_nope_head_dim"])?);
    let sum = |a: u32, key: &str| {
        let (key, larger) = if a > rotated { (key, a) } else { ("qk_rope_head_dim", rotated) };
        a.checked_add(rotated).ok_or_else(|| h.wrong(key, &json!(larger), "lengths of keys that 32 bits can count together"))
    };
    k.u32("attention.kv_lora_rank", rank);
    k.u32("attention.key_length", sum(rank, "kv_lora_rank")?);
    k.u32("attention.value_length", rank);
    k.u32("attention.key_length_mla", sum(plain, "qk_nope_head_dim")?);
    k.u32("attention.value_length_mla", h.need(&["v_head_dim"])?);
    Ok(())
}

/// Whether a GGUF file is of V3, whose router has sigmoids and a correction.
fn is3(m: &Meta<'_>) -> bool {
    const SIGMOID: u32 = 2;
    m.u32("expert_gating_func") == Some(SIGMOID) || m.checkpoint().tensors.iter().any(|t| t.name.ends_with(".exp_probs_b.bias"))
}

fn config3(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    config(m, c)?;
    c.set("rope_interleave", json!(true));
    // Layers that predict further tokens are not in GGUF.
    c.set("num_nextn_predict_layers", json!(0));
    Ok(())
}

fn config2(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    config(m, c)?;
    let has_groups = m.u32("expert_group_count").is_some_and(|n| n > 1);
    c.set("topk_method", json!(if has_groups { "group_limited_greedy" } else { "greedy" }));
    Ok(())
}

/// What both have, from metadata.
fn config(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    keys::common_config(m, c)?;
    let rotated = m.need("rope.dimension_count")?;
    // Files from before the absorbed form have the lengths of the heads under the usual keys.
    let either = |new: &str, old: &str| m.u32(new).map_or_else(|| m.need(old), Ok);
    let key = either("attention.key_length_mla", "attention.key_length")?;
    for (key, value) in [
        ("num_key_value_heads", m.need("attention.head_count")?),
        ("kv_lora_rank", m.need("attention.kv_lora_rank")?),
        ("qk_rope_head_dim", rotated),
        ("qk_nope_head_dim", key.saturating_sub(rotated)),
        ("head_dim", rotated),
        ("v_head_dim", either("attention.value_length_mla", "attention.value_length")?),
        ("moe_intermediate_size", m.need("expert_feed_forward_length")?),
        ("n_routed_experts", m.need("expert_count")?),
        ("n_shared_experts", m.u32("expert_shared_count").unwrap_or(0)),
        ("first_k_dense_replace", m.u32("leading_dense_block_count").unwrap_or(0)),
    ] {
        c.set(key, json!(value));
    }
    for (name, key) in [("attention.q_lora_rank", "q_lora_rank"), ("expert_group_count", "n_group"), ("expert_group_used_count", "topk_group")] {
        c.set(key, m.number(name).unwrap_or(Value::Null));
    }
    c.set("routed_scaling_factor", m.number("expert_weights_scale").unwrap_or(json!(1.0)));
    c.set("norm_topk_prob", json!(m.bool("expert_weights_norm").unwrap_or(false)));
    c.set("attention_bias", json!(m.has_tensor("blk.0.attn_kv_a_mqa.bias")));
    c.set("hidden_act", json!("silu"));
    gating(m, c);
    stretch(m, c);
    Ok(())
}

fn gating(m: &Meta<'_>, c: &mut Hparams) {
    let names = [(1, "softmax"), (2, "sigmoid")];
    let found = m.u32("expert_gating_func").and_then(|id| names.iter().find(|(n, _)| *n == id));
    if let Some((_, name)) = found {
        c.set("scoring_func", json!(name));
    }
}

/// The factor by which long contexts sharpen attention. GGUF has one number for the two of the configuration, which are equal
/// in all published models.
fn stretch(m: &Meta<'_>, c: &mut Hparams) {
    let scale = m.number("rope.scaling.yarn_log_multiplier").and_then(|v| v.as_f64());
    let mut rope = rope_parameters(c);
    if let Some(scale) = scale {
        let all = ((scale * 10.0) as f32).to_string().parse::<f64>().unwrap_or(scale * 10.0);
        rope.insert("mscale".into(), json!(all));
        rope.insert("mscale_all_dim".into(), json!(all));
        c.set("rope_parameters", Value::Object(rope));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::link::order;

    fn hparams(json: &str) -> Hparams {
        Hparams::parse(json.as_bytes(), Path::new("config.json")).unwrap()
    }

    #[test]
    fn keys_are_split_off_and_transposed() {
        // Two heads, each with 2 rows for keys and 1 for values, of rank 2.
        let h = hparams(r#"{"num_key_value_heads": 2, "qk_nope_head_dim": 2, "v_head_dim": 1}"#);
        let expansion = Expansion::of(&h, &[6, 2]).unwrap();
        let (shape, keys) = expansion.keys().unwrap();
        assert_eq!((&shape[..], &order(&keys)[..]), (&[2, 2, 2][..], &[0, 2, 1, 3, 6, 8, 7, 9][..]));
        let (shape, values) = expansion.values().unwrap();
        assert_eq!((&shape[..], &order(&values)[..]), (&[2, 1, 2][..], &[4, 5, 10, 11][..]));
        assert_eq!((whole(&h, &[2, 2, 2], 1), whole(&h, &[2, 1, 2], 2)), (Some(vec![6, 2]), Some(vec![6, 2])));
        assert!(Expansion::of(&h, &[7, 2]).is_none());
    }

    #[test]
    fn lengths_that_do_not_fit_are_named_by_their_keys() {
        let found = |json: &str| {
            let h = hparams(json);
            attention(&h, &mut Keys::new("deepseek2", 0)).unwrap_err().to_string()
        };
        let json = r#"{"kv_lora_rank": 32, "qk_nope_head_dim": 8, "v_head_dim": 8, "qk_rope_head_dim": 4294967295}"#;
        assert!(found(json).contains("'qk_rope_head_dim': found 4294967295"), "{}", found(json));
        let json = r#"{"kv_lora_rank": 4294967295, "qk_nope_head_dim": 8, "v_head_dim": 8, "qk_rope_head_dim": 32}"#;
        assert!(found(json).contains("'kv_lora_rank': found 4294967295"), "{}", found(json));
    }

    #[test]
    fn layers_that_predict_further_tokens_are_left_out() {
        let h = hparams(r#"{"num_hidden_layers": 2, "tie_word_embeddings": true}"#);
        assert_eq!(rename(&h, "model.layers.1.mlp.gate.weight").as_deref(), Some("model.layers.1.mlp.gate.weight"));
        assert_eq!(rename(&h, "model.layers.2.eh_proj.weight"), None);
        assert_eq!(rename(&h, "lm_head.weight"), None);
    }
}
