//! SmolLM 3.
//!
//! Source: `SmolLM3Model` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev; configuration class of transformers 5.23.

use quant_core::Result;
use serde_json::json;

use super::defaults;
use super::llama::LLAMA;
use crate::model::family::{Extra, Family};
use crate::model::hparams::Hparams;
use crate::model::keys::{self, Keys, Meta};

/// SmolLM 3.
pub(crate) const SMOLLM3: Family =
    Family { arch: "smollm3", classes: &["SmolLM3ForCausalLM"], model_type: "smollm3", prepare, extra, keys, config, is: |_| true, ..LLAMA };

fn prepare(h: &mut Hparams) -> Result<()> {
    let sizes = [("hidden_size", 2048), ("intermediate_size", 11008), ("num_hidden_layers", 36), ("num_attention_heads", 16)];
    defaults::counts(h, &sizes);
    defaults::counts(h, &[("vocab_size", 128_256), ("max_position_embeddings", 32768)]);
    defaults::numbers(h, &[("rms_norm_eps", 1e-6)]);
    defaults::key_value_heads(h, Some(4))?;
    keys::prepare_rope(h, 2_000_000.0);
    Ok(())
}

fn extra(h: &Hparams) -> Result<Vec<Extra>> {
    let mut h = h.clone();
    h.set("head_dim", json!(defaults::head_dim(&h)?));
    (LLAMA.extra)(&h)
}

fn keys(h: &Hparams, k: &mut Keys) -> Result<()> {
    keys::common(h, k)?;
    k.u32("vocab_size", h.need(&["vocab_size"])?);
    k.u32("rope.dimension_count", defaults::head_dim(h)?);
    Ok(())
}

/// That every fourth layer rotates nothing is not in GGUF: llama.cpp and transformers know it by themselves.
fn config(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    keys::common_config(m, c)?;
    c.set("hidden_act", json!("silu"));
    c.set("attention_bias", json!(m.has_tensor("blk.0.attn_q.bias")));
    c.set("mlp_bias", json!(m.has_tensor("blk.0.ffn_gate.bias")));
    Ok(())
}
