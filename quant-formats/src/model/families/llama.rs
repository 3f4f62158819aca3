//! Llama 1 to 3, Mistral, Mixtral, and what else llama.cpp runs as `llama`.
//!
//! Source: `LlamaModel` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev; configuration classes of transformers 5.23.

use quant_core::{Error, Result};
use serde_json::{Value, json};

use super::defaults;
use crate::model::family::{Change, Extra, Family, Row, USUAL, changed, row};
use crate::model::hparams::Hparams;
use crate::model::keys::{self, Keys, Meta, rope_number, rope_parameters};
use crate::model::names::{ATTENTION, FEED_FORWARD, OUTER, ROTATED};
use crate::model::tokenizer::Vocab;

/// Mixtral's experts.
const EXPERTS: &[Row] = &[
    row("layers.{}.block_sparse_moe.gate", "blk.{}.ffn_gate_inp"),
    changed("layers.{}.block_sparse_moe.experts.{e}.w1", "blk.{}.ffn_gate_exps", Change::Stacked),
    changed("layers.{}.block_sparse_moe.experts.{e}.w2", "blk.{}.ffn_down_exps", Change::Stacked),
    changed("layers.{}.block_sparse_moe.experts.{e}.w3", "blk.{}.ffn_up_exps", Change::Stacked),
];

/// Llama.
pub(crate) const LLAMA: Family = Family {
    arch: "llama",
    classes: &["LlamaForCausalLM", "LLaMAForCausalLM", "LlamaModel", "IQuestCoderForCausalLM"],
    model_type: "llama",
    prefix: "model.",
    tables: &[ROTATED, OUTER, ATTENTION, FEED_FORWARD],
    rename: as_it_is,
    prepare,
    extra: rope_factors,
    early: |_, _| Ok(()),
    keys,
    config,
    is: |m| m.u32("expert_count").unwrap_or(0) == 0 && m.u32("attention.sliding_window").is_none(),
    vocab: Vocab::Llama,
    forced: &[],
    needed: USUAL,
};

/// Mistral.
pub(crate) const MISTRAL: Family = Family {
    classes: &["MistralForCausalLM"],
    model_type: "mistral",
    prepare: |h| {
        mistral_defaults(h);
        prepare(h)
    },
    is: |_| false,
    ..LLAMA
};

/// Mixtral.
pub(crate) const MIXTRAL: Family = Family {
    classes: &["MixtralForCausalLM"],
    model_type: "mixtral",
    tables: &[ROTATED, EXPERTS, OUTER, ATTENTION, FEED_FORWARD],
    prepare: |h| {
        h.default("num_local_experts", json!(8));
        h.default("num_experts_per_tok", json!(2));
        defaults::numbers(h, &[("rms_norm_eps", 1e-5)]);
        mistral_defaults(h);
        common_defaults(h, 1e6)
    },
    config: |m, c| {
        config(m, c)?;
        c.set("num_local_experts", json!(m.need("expert_count")?));
        Ok(())
    },
    is: |m| m.u32("expert_count").unwrap_or(0) > 0,
    ..LLAMA
};

/// Names need no change beyond what all families have.
pub(crate) fn as_it_is(_: &Hparams, name: &str) -> Option<String> {
    Some(name.into())
}

/// No tensors beyond those of the file.
pub(crate) fn nothing(_: &Hparams) -> Result<Vec<Extra>> {
    Ok(Vec::new())
}

fn prepare(h: &mut Hparams) -> Result<()> {
    common_defaults(h, 10000.0)?;
    h.set("head_dim", json!(defaults::head_dim(h)?));
    Ok(())
}

/// What the classes of all these families fill in; Mixtral's leaves `head_dim` out.
fn common_defaults(h: &mut Hparams, theta: f64) -> Result<()> {
    let sizes = [("hidden_size", 4096), ("intermediate_size", 11008), ("num_hidden_layers", 32), ("num_attention_heads", 32)];
    defaults::counts(h, &sizes);
    defaults::counts(h, &[("vocab_size", 32000), ("max_position_embeddings", 2048)]);
    defaults::numbers(h, &[("rms_norm_eps", 1e-6)]);
    defaults::key_value_heads(h, None)?;
    keys::prepare_rope(h, theta);
    Ok(())
}

/// Sizes that the classes of Mistral and Mixtral share.
fn mistral_defaults(h: &mut Hparams) {
    defaults::counts(h, &[("intermediate_size", 14336), ("num_key_value_heads", 8), ("max_position_embeddings", 131_072)]);
}

fn keys(h: &Hparams, k: &mut Keys) -> Result<()> {
    keys::common(h, k)?;
    k.u32("vocab_size", h.need(&["vocab_size"])?);
    k.u32("rope.dimension_count", defaults::head_dim(h)?);
    Ok(())
}

fn config(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    keys::common_config(m, c)?;
    c.set("hidden_act", json!("silu"));
    let usual = c.need(&["hidden_size"])?.checked_div(c.need(&keys::HEADS)?);
    let own = m.u32("rope.dimension_count").filter(|n| Some(*n) != usual);
    if let (None, Some(n)) = (c.get("head_dim"), own) {
        c.set("head_dim", json!(n));
    }
    c.set("attention_bias", json!(m.has_tensor("blk.0.attn_q.bias")));
    c.set("mlp_bias", json!(m.has_tensor("blk.0.ffn_gate.bias")));
    llama3_rope(m, c)
}

/// Names for transformers the rule that gives the factors of the file. Metadata does not; only that slow rotations are those
/// that fit the first context fewer than 1 to 4 times is the same in all such models.
fn llama3_rope(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    let name = "rope_freqs.weight";
    let Some(Value::Array(factors)) = super::phi3::factor_tensor(m, name)? else { return Ok(()) };
    let factors: Vec<f64> = factors.iter().filter_map(Value::as_f64).collect();
    let factor = factors.iter().copied().fold(1.0, f64::max);
    if factors.iter().all(|f| *f == 1.0) {
        return Ok(());
    }
    let mut rope = c.object("rope_parameters").cloned().unwrap_or_default();
    rope.extend([("rope_type".into(), json!("llama3")), ("factor".into(), json!(factor))]);
    rope.extend([("low_freq_factor".into(), json!(1.0)), ("high_freq_factor".into(), json!(4.0))]);
    for power in FIRST_CONTEXTS {
        rope.insert("original_max_position_embeddings".into(), json!(1u64 << power));
        c.set("rope_parameters", Value::Object(rope.clone()));
        let made = rope_factors(c)?.pop().map(|extra| extra.numbers).unwrap_or_default();
        let is_near = |(made, found): (&f32, &f64)| (f64::from(*made) - found).abs() <= 1e-4 * found;
        if made.len() == factors.len() && made.iter().zip(&factors).all(is_near) {
            return Ok(());
        }
    }
    let problem = "found factors of rotations that no rope parameters of the type 'llama3' give";
    Err(Error::tensor(&m.checkpoint().path, name, problem))
}

/// Powers of two that contexts of training are.
const FIRST_CONTEXTS: std::ops::RangeInclusive<u32> = 5..=20;

/// The factors by which Llama 3.1 and later stretch their slow rotations.
pub(crate) fn rope_factors(h: &Hparams) -> Result<Vec<Extra>> {
    let rope = rope_parameters(h);
    let is_llama3 = rope.get("rope_type").and_then(Value::as_str).is_some_and(|kind| kind.eq_ignore_ascii_case("llama3"));
    if !is_llama3 {
        return Ok(Vec::new());
    }
    let number = |key: &str, default: f64| rope_number(&rope, key).unwrap_or(default);
    let dim = defaults::head_dim(h)?;
    let factors = (0..dim).step_by(2).map(|i| rope_factor(i, dim, &number)).collect();
    Ok(vec![Extra { name: "rope_freqs.weight", numbers: factors }])
}

/// One factor, in the arithmetic of PyTorch: f32, where a number over a tensor is the number times the reciprocal.
fn rope_factor(i: u32, dim: u32, number: &dyn Fn(&str, f64) -> f64) -> f32 {
    let factor = number("factor", 8.0) as f32;
    let (low, high) = (number("low_freq_factor", 1.0), number("high_freq_factor", 4.0));
    let context = number("original_max_position_embeddings", 8192.0);
    let freq = (number("rope_theta", 10000.0) as f32).powf(i as f32 / dim as f32).recip();
    let wavelength = freq.recip() * std::f64::consts::TAU as f32;
    if wavelength < (context / high) as f32 {
        1.0
    } else if wavelength > (context / low) as f32 {
        factor
    } else {
        let smooth = (wavelength.recip() * context as f32 - low as f32) / (high - low) as f32;
        ((1.0 - smooth) / factor + smooth).recip()
    }
}
