//! OLMo 2 and 3.
//!
//! Source: `Olmo2Model` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev; configuration classes of transformers 5.23.

use quant_core::Result;
use serde_json::{Value, json};

use super::defaults;
use super::llama::{as_it_is, nothing};
use crate::gguf::{self, Scalar, find_entry};
use crate::model::family::{Family, Row, row};
use crate::model::hparams::Hparams;
use crate::model::keys::{self, Keys, LAYERS, Meta};
use crate::model::names::{ATTENTION, FEED_FORWARD, NORMED_HEADS, OUTER};
use crate::model::tokenizer::Vocab;

/// Norms stand after each part of a layer only.
const NORMS: &[Row] =
    &[row("layers.{}.post_attention_layernorm", "blk.{}.post_attention_norm"), row("layers.{}.post_feedforward_layernorm", "blk.{}.post_ffw_norm")];

/// OLMo 2.
pub(crate) const OLMO2: Family = Family {
    arch: "olmo2",
    classes: &["Olmo2ForCausalLM"],
    model_type: "olmo2",
    prefix: "model.",
    tables: &[NORMS, OUTER, ATTENTION, NORMED_HEADS, FEED_FORWARD],
    rename: as_it_is,
    early: |_, _| Ok(()),
    prepare: prepare_olmo2,
    extra: nothing,
    keys: keys_olmo,
    config: config_olmo2,
    is: |m| m.u32("attention.sliding_window").is_none(),
    vocab: Vocab::Gpt2,
    forced: &[],
    needed: &["post_attention_norm", "post_ffw_norm", "attn_q_norm", "attn_k_norm", "ffn_gate"],
};

/// OLMo 3, which has layers with sliding attention.
pub(crate) const OLMO3: Family =
    Family { classes: &["Olmo3ForCausalLM"], model_type: "olmo3", prepare: prepare_olmo3, config: config_olmo3, is: |_| true, ..OLMO2 };

/// Where GGUF keeps which layers slide.
const PATTERN: &str = "attention.sliding_window_pattern";

fn prepare_sizes(h: &mut Hparams) -> Result<()> {
    let sizes = [("hidden_size", 4096), ("intermediate_size", 11008), ("num_hidden_layers", 32), ("num_attention_heads", 32)];
    defaults::counts(h, &sizes);
    defaults::counts(h, &[("vocab_size", 50304), ("max_position_embeddings", 2048)]);
    defaults::numbers(h, &[("rms_norm_eps", 1e-5)]);
    defaults::key_value_heads(h, None)
}

fn prepare_olmo2(h: &mut Hparams) -> Result<()> {
    prepare_sizes(h)?;
    keys::prepare_rope(h, 10000.0);
    Ok(())
}

fn prepare_olmo3(h: &mut Hparams) -> Result<()> {
    prepare_sizes(h)?;
    defaults::counts(h, &[("sliding_window", 4096)]);
    if h.get("layer_types").is_none() {
        let kind = |i: u32| if (i + 1).is_multiple_of(4) { "full_attention" } else { "sliding_attention" };
        let kinds: Vec<&str> = (0..h.need(&LAYERS)?.min(MAX_LAYERS)).map(kind).collect();
        h.set("layer_types", json!(kinds));
    }
    defaults::rope_of_two_kinds(h, 500_000.0, 500_000.0, None);
    Ok(())
}

/// More layers than any model has: a number from a file must not cost memory.
const MAX_LAYERS: u32 = 1 << 16;

fn keys_olmo(h: &Hparams, k: &mut Keys) -> Result<()> {
    keys::common(h, k)?;
    let Some(window) = h.u32(&["sliding_window"])? else { return Ok(()) };
    k.u32("attention.sliding_window", window);
    k.bools(PATTERN, &slides(h)?);
    Ok(())
}

/// Which layers slide.
///
/// # Errors
/// If `layer_types` does not say it of each layer.
fn slides(h: &Hparams) -> Result<Vec<bool>> {
    let layers = h.need(&LAYERS)?;
    let Some(kinds) = h.get("layer_types") else { return Ok((0..layers.min(MAX_LAYERS)).map(|i| !(i + 1).is_multiple_of(4)).collect()) };
    let slides = |kind: &Value| match kind.as_str() {
        Some("sliding_attention") => Some(true),
        Some("full_attention") => Some(false),
        _ => None,
    };
    let slides: Option<Vec<bool>> = kinds.as_array().and_then(|kinds| kinds.iter().map(slides).collect());
    let needed = || format!("sliding_attention or full_attention for each of {layers} layers");
    slides.filter(|slides| slides.len() as u64 == u64::from(layers)).ok_or_else(|| h.wrong("layer_types", kinds, &needed()))
}

fn config_olmo2(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    keys::common_config(m, c)?;
    c.set("hidden_act", json!("silu"));
    c.set("attention_bias", json!(m.has_tensor("blk.0.attn_q.bias")));
    Ok(())
}

fn config_olmo3(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    config_olmo2(m, c)?;
    defaults::rope_of_two_kinds_config(m, c, 500_000.0);
    let checkpoint = m.checkpoint();
    let Some(entry) = find_entry(&checkpoint.kv, &format!("{}.{PATTERN}", m.arch())) else { return Ok(()) };
    let gguf::Value::Array(layers) = entry.value(checkpoint, MAX_LAYERS.into())? else { return Ok(()) };
    let slides = |layer: &gguf::Value| matches!(layer, gguf::Value::Scalar(Scalar::Bool(true)));
    let kinds: Vec<&str> = layers.iter().map(|layer| if slides(layer) { "sliding_attention" } else { "full_attention" }).collect();
    c.set("layer_types", json!(kinds));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_layer_slides_or_does_not() {
        let of = |kinds: &str| {
            let json = format!(r#"{{"num_hidden_layers": 2, "layer_types": {kinds}}}"#);
            slides(&Hparams::parse(json.as_bytes(), Path::new("config.json")).unwrap()).map_err(|e| e.to_string())
        };
        assert_eq!(of(r#"["full_attention", "sliding_attention"]"#), Ok(vec![false, true]));
        assert_eq!(of("null"), Ok(vec![true, true]));
        for bad in [r#"["full_attention"]"#, r#"["full_attention", "sliding_attention", "full_attention"]"#, r#"["full_attention", "x"]"#, "5"] {
            let problem = of(bad).unwrap_err();
            assert!(problem.contains("'layer_types'") && problem.contains("each of 2 layers"), "{problem}");
        }
    }
}
