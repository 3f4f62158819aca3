//! Phi-3, Phi-3.5 and Phi-4: decoders with fused projections, of which some have long contexts.
//!
//! Source: `Phi3MiniModel` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev; `Phi3Config` of transformers 5.23.

use quant_core::source::Source;
use quant_core::{Dtype, Error, Result, Scheme};
use serde_json::{Map, Value, json};

use super::llama::as_it_is;
use crate::model::family::{Extra, Family, Row, row};
use crate::model::hparams::Hparams;
use crate::model::keys::{self, Keys, Meta, rope_number, rope_parameters};
use crate::model::metadata::is_nothing;
use crate::model::names::{ATTENTION, FEED_FORWARD, OUTER};
use crate::model::tokenizer::Vocab;

/// Projections that are fused in both worlds.
const FUSED: &[Row] = &[row("layers.{}.self_attn.qkv_proj", "blk.{}.attn_qkv"), row("layers.{}.mlp.gate_up_proj", "blk.{}.ffn_up")];

/// The tensors that stretch rotations, and their keys in `rope_parameters`.
const FACTORS: [(&str, &str); 2] = [("rope_factors_long.weight", "long_factor"), ("rope_factors_short.weight", "short_factor")];

/// Phi-3 and Phi-4.
pub(crate) const PHI3: Family = Family {
    arch: "phi3",
    classes: &["Phi3ForCausalLM"],
    model_type: "phi3",
    prefix: "model.",
    tables: &[FUSED, OUTER, ATTENTION, FEED_FORWARD],
    rename: as_it_is,
    prepare,
    extra,
    early,
    keys,
    config,
    is: |_| true,
    vocab: Vocab::Phi3,
    forced: &[],
    needed: &["attn_norm", "ffn_norm"],
};

fn prepare(h: &mut Hparams) -> Result<()> {
    for (key, value) in [
        ("vocab_size", json!(32064)),
        ("hidden_size", json!(3072)),
        ("intermediate_size", json!(8192)),
        ("num_hidden_layers", json!(32)),
        ("num_attention_heads", json!(32)),
        ("max_position_embeddings", json!(4096)),
        ("original_max_position_embeddings", json!(4096)),
        ("rms_norm_eps", json!(1e-5)),
    ] {
        h.default(key, value);
    }
    if h.get("num_key_value_heads").is_none() {
        h.set("num_key_value_heads", json!(h.need(&keys::HEADS)?));
    }
    keys::prepare_rope_with_field(h, 10000.0);
    let mut rope = h.object("rope_parameters").cloned().unwrap_or_default();
    // The configuration class knows one way to stretch rotations, under three names.
    if matches!(rope.get("rope_type").and_then(Value::as_str), Some("su" | "yarn")) {
        rope.insert("rope_type".into(), json!("longrope"));
    }
    rope.insert("original_max_position_embeddings".into(), json!(h.need(&["original_max_position_embeddings"])?));
    h.set("rope_parameters", Value::Object(rope));
    Ok(())
}

/// Numbers that keys and tensors both need.
struct Rope {
    context: u32,
    original_context: u32,
    n_dims: u32,
    parameters: Map<String, Value>,
}

impl Rope {
    fn of(h: &Hparams) -> Result<Rope> {
        let parameters = rope_parameters(h);
        let (width, heads) = (h.need(&["hidden_size"])?, h.need(&["num_attention_heads"])?);
        let part = rope_number(&parameters, "partial_rotary_factor").unwrap_or(1.0);
        if !(0.0..=1.0).contains(&part) {
            return Err(h.wrong("partial_rotary_factor", &json!(part), "a number from 0 to 1"));
        }
        let n_dims = ((part * f64::from(width)) as u32).checked_div(heads);
        Ok(Rope {
            context: h.need(&["max_position_embeddings"])?,
            original_context: h.need(&["original_max_position_embeddings"])?,
            n_dims: n_dims.ok_or_else(|| h.wrong("num_attention_heads", &json!(heads), "at least one head"))?,
            parameters,
        })
    }

    /// The factors under `key`; none if the model has no long context.
    fn factors(&self, h: &Hparams, key: &str) -> Result<Option<Vec<f32>>> {
        // What is nothing to Python counts as absent, as in the reference; anything else must be the list.
        if self.parameters.get("long_factor").is_none_or(is_nothing) {
            return Ok(None);
        }
        let half = self.n_dims / 2;
        let needed = || format!("a list of {half} numbers, one for each pair of rotated dimensions");
        let found = self.parameters.get(key).unwrap_or(&Value::Null);
        let numbers: Option<Vec<f32>> = found.as_array().and_then(|list| list.iter().map(|v| v.as_f64().map(|v| v as f32)).collect());
        let fits = |list: &Vec<f32>| list.len() as u64 == u64::from(half) && self.n_dims.is_multiple_of(2);
        Ok(Some(numbers.filter(fits).ok_or_else(|| h.wrong(&format!("rope_parameters.{key}"), found, &needed()))?))
    }
}

/// Tensors by which long contexts stretch rotations.
fn extra(h: &Hparams) -> Result<Vec<Extra>> {
    let rope = Rope::of(h)?;
    let mut found = Vec::new();
    for (name, key) in FACTORS {
        if let Some(numbers) = rope.factors(h, key)? {
            found.push(Extra { name, numbers });
        }
    }
    Ok(found)
}

/// The factor of attention at long contexts: the reference has it before all other keys, as it comes with the tensors.
fn early(h: &Hparams, k: &mut Keys) -> Result<()> {
    let rope = Rope::of(h)?;
    if rope.factors(h, "long_factor")?.is_none() {
        return Ok(());
    }
    let kind = rope.parameters.get("rope_type").unwrap_or(&Value::Null);
    if kind.as_str() != Some("longrope") {
        return Err(h.wrong("rope_parameters.rope_type", kind, "longrope, as there are factors"));
    }
    let (context, original) = (f64::from(rope.context), f64::from(rope.original_context));
    if original <= 1.0 {
        return Err(h.wrong("original_max_position_embeddings", &json!(original), "more than 1"));
    }
    let scale = context / original;
    let factor = if scale > 1.0 { (1.0 + scale.ln() / original.ln()).sqrt() } else { 1.0 };
    k.f32("rope.scaling.attn_factor", factor);
    Ok(())
}

fn keys(h: &Hparams, k: &mut Keys) -> Result<()> {
    let rope = Rope::of(h)?;
    k.u32("context_length", rope.context);
    k.u32("rope.scaling.original_context_length", rope.original_context);
    k.u32("embedding_length", h.need(&["hidden_size"])?);
    k.u32("feed_forward_length", h.need(&["intermediate_size"])?);
    k.u32("block_count", h.need(&keys::LAYERS)?);
    k.u32("attention.head_count", h.need(&["num_attention_heads"])?);
    k.u32("attention.head_count_kv", h.need(&["num_key_value_heads"])?);
    k.number("attention.layer_norm_rms_epsilon", h, &["rms_norm_eps"])?;
    k.u32("rope.dimension_count", rope.n_dims);
    k.f32("rope.freq_base", rope_number(&rope.parameters, "rope_theta").ok_or_else(|| h.missing(&["rope_theta"]))?);
    k.file_type();
    // Phi-4 has none; 0 says so.
    k.u32("attention.sliding_window", h.u32(&["sliding_window"])?.unwrap_or(0));
    Ok(())
}

fn config(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    keys::common_config(m, c)?;
    let window = m.u32("attention.sliding_window").filter(|n| *n > 0);
    c.set("sliding_window", window.map_or(Value::Null, |n| json!(n)));
    c.set("hidden_act", json!("silu"));
    let original = m.u32("rope.scaling.original_context_length").map_or_else(|| m.need("context_length"), Ok)?;
    c.set("original_max_position_embeddings", json!(original));
    let mut rope = Map::new();
    rope.insert("rope_theta".into(), m.number("rope.freq_base").unwrap_or(json!(10000.0)));
    rope.insert("partial_rotary_factor".into(), json!(rotated_part(m, c)?));
    let mut kind = "default";
    for (name, key) in FACTORS {
        if let Some(numbers) = factor_tensor(m, name)? {
            rope.insert(key.into(), numbers);
            kind = "longrope";
        }
    }
    rope.insert("rope_type".into(), json!(kind));
    c.set("rope_parameters", Value::Object(rope));
    Ok(())
}

/// Which part of each head is rotated: a number that, multiplied by the length of a head, does not fall short of the dimensions.
fn rotated_part(m: &Meta<'_>, c: &Hparams) -> Result<f64> {
    let (width, heads) = (c.need(&["hidden_size"])?, c.need(&["num_attention_heads"])?);
    let head = f64::from(width.checked_div(heads).unwrap_or(0)).max(1.0);
    let n_dims = m.u32("rope.dimension_count").map_or(head, f64::from);
    let part = n_dims / head;
    Ok(if part * head < n_dims { part.next_up() } else { part })
}

/// The numbers of a tensor of factors as JSON; none if there is no such tensor.
pub(crate) fn factor_tensor(m: &Meta<'_>, name: &str) -> Result<Option<Value>> {
    let checkpoint = m.checkpoint();
    let Some(index) = checkpoint.tensors.iter().position(|t| t.name == name) else { return Ok(None) };
    let n = checkpoint.tensors[index].n_elements();
    if checkpoint.tensors[index].scheme != Scheme::Dense(Dtype::F32) || n > 1 << 16 {
        let problem = format!("found {n} elements of {}, needed a short list of f32", checkpoint.tensors[index].scheme);
        return Err(Error::tensor(&checkpoint.path, name, problem));
    }
    let mut bytes = vec![0; n as usize * 4];
    checkpoint.read(index, 0, 0, &mut bytes)?;
    let number = |b: &[u8; 4]| f32::from_le_bytes(*b).to_string().parse::<f64>().ok().filter(|v| v.is_finite());
    let numbers: Option<Vec<f64>> = bytes.as_chunks().0.iter().map(number).collect();
    Ok(Some(json!(numbers.ok_or_else(|| Error::tensor(&checkpoint.path, name, "found a number that is not finite"))?)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn prepared(json: &str) -> Hparams {
        let mut h = Hparams::parse(json.as_bytes(), Path::new("config.json")).unwrap();
        prepare(&mut h).unwrap();
        h
    }

    fn with_factors(long: &str, short: &str) -> String {
        format!(
            r#"{{"hidden_size": 16, "num_attention_heads": 2, "max_position_embeddings": 131072,
            "rope_scaling": {{"type": "su", "long_factor": {long}, "short_factor": {short}}}}}"#
        )
    }

    /// Which of these the reference takes, its own runs say: a list of the right length, and what is false in Python.
    #[test]
    fn factors_that_are_no_list_of_that_length_are_refused() {
        let of = |long: &str, short: &str| extra(&prepared(&with_factors(long, short))).map_err(|e| e.to_string());
        let good = "[1, 1, 1, 1]";
        for bad in [r#""abcd""#, "5", "true", r#"{"a": 1}"#, "[1, 1, 1]", "[1, 1, 1, 1, 1]", r#"["1", "1", "1", "1"]"#, "[[1], [1], [1], [1]]"] {
            let refused = of(bad, good).map(|found| found.len()).unwrap_err();
            assert!(refused.contains("long_factor") && refused.contains("a list of 4 numbers"), "{refused}");
            let refused = of(good, bad).map(|found| found.len()).unwrap_err();
            assert!(refused.contains("short_factor") && refused.contains("a list of 4 numbers"), "{refused}");
        }
        assert!(of(good, "null").is_err() && of(good, "[]").is_err());
        for nothing in ["null", "[]", r#""""#, "0", "false", "{}"] {
            assert!(of(nothing, good).unwrap().is_empty(), "{nothing}");
        }
    }

    #[test]
    fn long_contexts_have_factors_for_each_pair_of_dimensions() {
        let config = |short: &str| with_factors("[1, 2, 3, 4.5]", short);
        let found = extra(&prepared(&config("[1, 1, 1, 2]"))).unwrap();
        assert_eq!((found[0].name, &found[0].numbers[..]), ("rope_factors_long.weight", &[1.0, 2.0, 3.0, 4.5][..]));
        assert_eq!((found[1].name, &found[1].numbers[..]), ("rope_factors_short.weight", &[1.0, 1.0, 1.0, 2.0][..]));
        let mut keys = Keys::new("phi3", 0);
        early(&prepared(&config("[1, 1, 1, 2]")), &mut keys).unwrap();
        let factor = keys.into_entries()[0].scalar();
        assert_eq!(factor, Some(crate::gguf::Scalar::Float(f64::from(1.190_238_1_f32))));
        assert!(extra(&prepared(&config("[1, 1, 1]"))).is_err());
        for part in ["1.5", "-0.5"] {
            let json = format!(r#"{{"hidden_size": 16, "num_attention_heads": 2, "partial_rotary_factor": {part}}}"#);
            let refused = extra(&prepared(&json)).map(|found| found.len()).unwrap_err().to_string();
            assert!(refused.contains("'partial_rotary_factor'") && refused.contains(part), "{refused}");
        }
        assert!(extra(&prepared("{}")).unwrap().is_empty());
    }
}
