//! Granite 3, dense.
//!
//! Source: `GraniteModel` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev; configuration class of transformers 5.23.

use quant_core::{Error, Result};
use serde_json::{Value, json};

use super::defaults;
use super::llama::LLAMA;
use crate::model::family::{Extra, Family};
use crate::model::hparams::Hparams;
use crate::model::keys::{self, Keys, Meta, rope_parameters};

/// Granite.
pub(crate) const GRANITE: Family = Family {
    arch: "granite",
    classes: &["GraniteForCausalLM"],
    model_type: "granite",
    rename: without_vision,
    prepare,
    extra: no_factors,
    keys,
    config,
    is: |_| true,
    ..LLAMA
};

/// What the four multipliers are called in GGUF and in config.json.
const SCALES: [(&str, &str); 4] = [
    ("attention.scale", "attention_multiplier"),
    ("embedding_scale", "embedding_multiplier"),
    ("residual_scale", "residual_multiplier"),
    ("logit_scale", "logits_scaling"),
];

/// Granite Vision holds this class as its language model.
fn without_vision(_: &Hparams, name: &str) -> Option<String> {
    let is_vision = name.starts_with("encoder.") || ["image_", "layerwise_projectors", "spatial_projectors"].iter().any(|part| name.contains(part));
    (!is_vision).then(|| name.replace("text_model.", ""))
}

fn prepare(h: &mut Hparams) -> Result<()> {
    let sizes = [("hidden_size", 4096), ("intermediate_size", 11008), ("num_hidden_layers", 32), ("num_attention_heads", 32)];
    defaults::counts(h, &sizes);
    defaults::counts(h, &[("vocab_size", 32000), ("max_position_embeddings", 2048)]);
    defaults::numbers(h, &[("rms_norm_eps", 1e-6)]);
    for (_, key) in SCALES {
        h.default(key, json!(1.0));
    }
    defaults::key_value_heads(h, None)?;
    keys::prepare_rope(h, 10000.0);
    Ok(())
}

/// llama.cpp's Granite takes no factors for its rotations.
fn no_factors(h: &Hparams) -> Result<Vec<Extra>> {
    let rope = rope_parameters(h);
    match rope.get("rope_type") {
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("llama3") => {
            Err(Error::file(h.path(), "found rope parameters of the type 'llama3', which llama.cpp's granite does not have"))
        }
        _ => Ok(Vec::new()),
    }
}

fn keys(h: &Hparams, k: &mut Keys) -> Result<()> {
    let mut h = h.clone();
    // The reference leaves it out for this architecture.
    h.set("head_dim", Value::Null);
    keys::common(&h, k)?;
    k.u32("vocab_size", h.need(&["vocab_size"])?);
    k.u32("rope.dimension_count", defaults::head_dim(&h)?);
    for (name, key) in SCALES {
        if let Some(scale) = h.f64(&[key])?.filter(|scale| *scale != 0.0) {
            k.f32(name, scale);
        }
    }
    Ok(())
}

fn config(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    keys::common_config(m, c)?;
    c.set("hidden_act", json!("silu"));
    c.set("attention_bias", json!(m.has_tensor("blk.0.attn_q.bias")));
    c.set("mlp_bias", json!(m.has_tensor("blk.0.ffn_gate.bias")));
    for (name, key) in SCALES {
        c.set(key, m.number(name).unwrap_or(json!(1.0)));
    }
    Ok(())
}
