//! StarCoder 2.
//!
//! Source: `StarCoder2Model` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev; configuration class of transformers 5.23.

use quant_core::Result;
use serde_json::{Value, json};

use super::defaults;
use super::llama::{as_it_is, nothing};
use crate::model::family::{Family, Row, row};
use crate::model::hparams::Hparams;
use crate::model::keys::{self, Meta};
use crate::model::names::{ATTENTION, OUTER};
use crate::model::tokenizer::Vocab;

/// A feed-forward layer without a gate.
const NOT_GATED: &[Row] = &[
    row("layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"),
    row("layers.{}.mlp.c_fc", "blk.{}.ffn_up"),
    row("layers.{}.mlp.c_proj", "blk.{}.ffn_down"),
];

/// StarCoder 2.
pub(crate) const STARCODER2: Family = Family {
    arch: "starcoder2",
    classes: &["Starcoder2ForCausalLM"],
    model_type: "starcoder2",
    prefix: "model.",
    tables: &[NOT_GATED, OUTER, ATTENTION],
    rename: as_it_is,
    early: |_, _| Ok(()),
    prepare,
    extra: nothing,
    keys: keys::common,
    config,
    is: |_| true,
    vocab: Vocab::Gpt2,
    forced: &[],
    needed: &["attn_norm", "attn_norm.bias", "ffn_norm", "ffn_norm.bias"],
};

fn prepare(h: &mut Hparams) -> Result<()> {
    let sizes = [("hidden_size", 3072), ("intermediate_size", 12288), ("num_hidden_layers", 30), ("num_attention_heads", 24)];
    defaults::counts(h, &sizes);
    defaults::counts(h, &[("vocab_size", 49152), ("max_position_embeddings", 4096), ("num_key_value_heads", 2)]);
    defaults::numbers(h, &[("norm_epsilon", 1e-5)]);
    keys::prepare_rope(h, 10000.0);
    Ok(())
}

/// GGUF has no sliding window for it: attention of the result is full.
fn config(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    keys::common_config(m, c)?;
    c.set("hidden_act", json!("gelu_pytorch_tanh"));
    c.set("norm_epsilon", m.number("attention.layer_norm_epsilon").unwrap_or(json!(1e-5)));
    c.set("sliding_window", Value::Null);
    c.set("use_bias", json!(m.has_tensor("blk.0.attn_q.bias")));
    Ok(())
}
