//! Values of config.json that no model of its class can have: refused before anything is computed from them.

use quant_core::Result;
use serde_json::{Map, Value, json};

use super::super::family::Family;
use super::super::hparams::Hparams;

/// Counts of heads by all their names.
const HEADS: [&str; 5] = ["num_attention_heads", "n_head", "n_heads", "num_key_value_heads", "n_kv_heads"];
/// What norms add to a variance, by all its names.
pub(super) const EPSILONS: [&str; 5] = ["rms_norm_eps", "norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"];
/// Objects that tell about rotations.
const ROPE: [&str; 2] = ["rope_parameters", "rope_scaling"];
/// Objects of that kind that stand in such objects, one for each kind of layer.
const KINDS: [&str; 2] = ["full_attention", "sliding_attention"];
/// Numbers in them.
const NUMBERS: [&str; 4] = ["rope_theta", "factor", "original_max_position_embeddings", "partial_rotary_factor"];

/// Checks config.json as it is, before defaults are filled in.
///
/// # Errors
/// Naming the key, what was found and what is needed.
pub(crate) fn settings(h: &Hparams, family: &Family) -> Result<()> {
    for key in HEADS {
        if h.u32(&[key])? == Some(0) {
            return Err(h.wrong(key, &json!(0), "at least 1"));
        }
    }
    for key in EPSILONS {
        if let Some(value) = h.f64(&[key])?.filter(|value| *value < 0.0) {
            return Err(h.wrong(key, &json!(value), "a number that is not negative"));
        }
    }
    h.f64(&["rope_theta"])?;
    for key in ROPE {
        rope(h, key)?;
    }
    if family.arch == "gpt2" { inner(h) } else { Ok(()) }
}

/// An object about rotations, and what stands in it.
fn rope(h: &Hparams, key: &str) -> Result<()> {
    let Some(value) = h.get(key) else { return Ok(()) };
    let object = value.as_object().ok_or_else(|| h.wrong(key, value, "an object or null"))?;
    numbers(h, key, object)?;
    KINDS.iter().try_for_each(|kind| match object.get(*kind) {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(of_kind)) => numbers(h, &format!("{key}.{kind}"), of_kind),
        Some(other) => Err(h.wrong(&format!("{key}.{kind}"), other, "an object or null")),
    })
}

fn numbers(h: &Hparams, place: &str, object: &Map<String, Value>) -> Result<()> {
    let bad = NUMBERS.iter().find_map(|key| object.get(*key).filter(|v| !v.is_null() && !v.is_number()).map(|v| (key, v)));
    bad.map_or(Ok(()), |(key, value)| Err(h.wrong(&format!("{place}.{key}"), value, "a number")))
}

/// The reference, and so its metadata, knows one width of GPT-2's feed-forward layers.
fn inner(h: &Hparams) -> Result<()> {
    let width = h.u32(&["n_embd", "hidden_size"])?.unwrap_or(768);
    match h.u32(&["n_inner"])? {
        Some(inner) if Some(inner) != width.checked_mul(4) => {
            Err(h.wrong("n_inner", &json!(inner), &format!("null or 4 × {width}, which is what the metadata of gpt2 says")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::families::{gpt2::GPT2, llama::LLAMA};

    fn checked(family: &Family, json: &str) -> String {
        let h = Hparams::parse(json.as_bytes(), Path::new("config.json")).unwrap();
        settings(&h, family).map_or_else(|e| e.to_string(), |()| "good".into())
    }

    #[test]
    fn values_that_no_model_can_have_are_named_by_their_keys() {
        for (json, key, needed) in [
            (r#"{"num_key_value_heads": 0}"#, "'num_key_value_heads': found 0", "at least 1"),
            (r#"{"num_attention_heads": 0}"#, "'num_attention_heads': found 0", "at least 1"),
            (r#"{"n_head": 0}"#, "'n_head': found 0", "at least 1"),
            (r#"{"rms_norm_eps": -1}"#, "'rms_norm_eps': found -1", "not negative"),
            (r#"{"rms_norm_eps": "a"}"#, "'rms_norm_eps': found \"a\"", "a number"),
            (r#"{"rope_theta": "10000"}"#, "'rope_theta': found \"10000\"", "a number"),
            (r#"{"rope_parameters": "x"}"#, "'rope_parameters': found \"x\"", "an object"),
            (r#"{"rope_scaling": []}"#, "'rope_scaling': found []", "an object"),
            (r#"{"rope_parameters": {"rope_theta": "1"}}"#, "'rope_parameters.rope_theta': found \"1\"", "a number"),
            (r#"{"rope_parameters": {"full_attention": 1}}"#, "'rope_parameters.full_attention': found 1", "an object"),
            (r#"{"rope_parameters": {"sliding_attention": {"factor": []}}}"#, "'rope_parameters.sliding_attention.factor'", "a number"),
        ] {
            let found = checked(&LLAMA, json);
            assert!(found.contains(key) && found.contains(needed), "{json}: {found}");
        }
        assert_eq!(checked(&LLAMA, r#"{"rope_parameters": null, "rope_theta": null, "num_key_value_heads": null, "rms_norm_eps": 0}"#), "good");
    }

    #[test]
    fn the_inner_width_of_gpt2_is_four_times_the_outer() {
        assert_eq!(checked(&GPT2, r#"{"n_embd": 96, "n_inner": 384}"#), "good");
        assert_eq!(checked(&GPT2, r#"{"n_embd": 96, "n_inner": null}"#), "good");
        let found = checked(&GPT2, r#"{"n_embd": 96, "n_inner": 160}"#);
        assert!(found.contains("'n_inner': found 160") && found.contains("4 × 96"), "{found}");
    }
}
