//! Command R, Aya and their successors.
//!
//! Source: `CommandR2Model` and `Cohere2Model` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev; configuration classes of
//! transformers 5.23.

use quant_core::Result;
use serde_json::json;

use super::defaults;
use super::llama::{as_it_is, nothing};
use crate::model::family::{Change, Family, Row, exact, row};
use crate::model::hparams::Hparams;
use crate::model::keys::{self, Keys, Meta};
use crate::model::names::{ATTENTION, NORMED_HEADS};
use crate::model::tokenizer::Vocab;

/// What surrounds the layers; the head is the embeddings.
const OUTER: &[Row] = &[row("embed_tokens", "token_embd"), row("norm", "output_norm")];

/// Attention and feed-forward layer stand side by side, behind one norm.
const FEED_FORWARD: &[Row] = &[
    row("layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"),
    row("layers.{}.mlp.up_proj", "blk.{}.ffn_up"),
    row("layers.{}.mlp.down_proj", "blk.{}.ffn_down"),
];

/// Layers of Command R7B. llama.cpp takes no biases here, so they have no place.
const WEIGHTS: &[Row] = &[
    weight("embed_tokens.weight", "token_embd.weight"),
    weight("norm.weight", "output_norm.weight"),
    weight("layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight"),
    weight("layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight"),
    weight("layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight"),
    weight("layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight"),
    weight("layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight"),
    weight("layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight"),
    weight("layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight"),
    weight("layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight"),
];

const fn weight(hf: &'static str, gguf: &'static str) -> Row {
    exact(hf, gguf, Change::Same)
}

/// Command R, Command R+, Aya.
pub(crate) const COMMAND_R: Family = Family {
    arch: "command-r",
    classes: &["CohereForCausalLM"],
    model_type: "cohere",
    prefix: "model.",
    tables: &[OUTER, ATTENTION, NORMED_HEADS, FEED_FORWARD],
    rename: as_it_is,
    early: |_, _| Ok(()),
    prepare,
    extra: nothing,
    keys,
    config,
    is: |_| true,
    vocab: Vocab::Gpt2,
    forced: &[],
    needed: &["attn_norm", "ffn_gate"],
};

/// Command R7B and Command A, with sliding attention in three of four layers.
pub(crate) const COHERE2: Family = Family {
    arch: "cohere2",
    classes: &["Cohere2ForCausalLM"],
    model_type: "cohere2",
    tables: &[WEIGHTS],
    prepare: prepare_cohere2,
    keys: keys_cohere2,
    config: config_cohere2,
    ..COMMAND_R
};

fn prepare_sizes(h: &mut Hparams) -> Result<()> {
    let sizes = [("hidden_size", 8192), ("intermediate_size", 22528), ("num_hidden_layers", 40), ("num_attention_heads", 64)];
    defaults::counts(h, &sizes);
    defaults::counts(h, &[("vocab_size", 256_000), ("max_position_embeddings", 8192)]);
    defaults::numbers(h, &[("layer_norm_eps", 1e-5), ("logit_scale", 0.0625)]);
    defaults::key_value_heads(h, None)
}

fn prepare(h: &mut Hparams) -> Result<()> {
    prepare_sizes(h)?;
    // Command R was trained on longer texts than its config.json says in the usual place.
    if let Some((_, length)) = h.find(&["model_max_length"]) {
        let length = length.clone();
        h.set("max_position_embeddings", length);
    }
    keys::prepare_rope(h, 500_000.0);
    Ok(())
}

fn prepare_cohere2(h: &mut Hparams) -> Result<()> {
    prepare_sizes(h)?;
    let share = defaults::head_dim(h)?;
    defaults::counts(h, &[("sliding_window", 4096), ("head_dim", share)]);
    // In config.json of the models, not in the class.
    defaults::numbers(h, &[("rotary_pct", 1.0)]);
    keys::prepare_rope(h, 10000.0);
    Ok(())
}

fn keys(h: &Hparams, k: &mut Keys) -> Result<()> {
    keys::common(h, k)?;
    k.number("logit_scale", h, &["logit_scale"])?;
    k.string("rope.scaling.type", "none");
    Ok(())
}

fn keys_cohere2(h: &Hparams, k: &mut Keys) -> Result<()> {
    keys::common(h, k)?;
    k.number("logit_scale", h, &["logit_scale"])?;
    k.u32("attention.sliding_window", h.need(&["sliding_window"])?);
    k.u32("vocab_size", h.need(&["vocab_size"])?);
    k.u32("rope.dimension_count", rotated(h)?);
    k.string("rope.scaling.type", "none");
    Ok(())
}

/// How many numbers of a head rotate.
fn rotated(h: &Hparams) -> Result<u32> {
    let (width, heads) = (h.need(&["hidden_size"])?, h.need(&["num_attention_heads"])?);
    let share = width.checked_div(heads).ok_or_else(|| h.wrong("num_attention_heads", &json!(heads), "at least 1"))?;
    let part = h.f64(&["rotary_pct"])?.ok_or_else(|| h.missing(&["rotary_pct"]))?;
    // A cast to an integer saturates.
    Ok((part * f64::from(share)) as u32)
}

fn config(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    keys::common_config(m, c)?;
    c.set("hidden_act", json!("silu"));
    c.set("logit_scale", m.number("logit_scale").unwrap_or(json!(0.0625)));
    c.set("attention_bias", json!(m.has_tensor("blk.0.attn_q.bias")));
    c.set("use_qk_norm", json!(m.has_tensor("blk.0.attn_q_norm.weight")));
    Ok(())
}

/// transformers has the same rhythm as llama.cpp by itself: three layers that slide, one that does not and rotates nothing.
fn config_cohere2(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    config(m, c)?;
    c.set("rotary_pct", json!(1.0));
    Ok(())
}
