//! What configuration classes of transformers fill in where config.json is silent, or null.
//!
//! Source: `PreTrainedConfig` and `RotaryEmbeddingConfigMixin` of transformers 5.23.

use quant_core::Result;
use serde_json::{Map, Value, json};

use crate::model::hparams::Hparams;
use crate::model::keys::{self, HEADS};

/// Counts that a class has unless config.json says otherwise.
pub(crate) fn counts(h: &mut Hparams, defaults: &[(&str, u32)]) {
    for (key, value) in defaults {
        h.default(key, json!(value));
    }
}

/// Numbers that a class has unless config.json says otherwise.
pub(crate) fn numbers(h: &mut Hparams, defaults: &[(&str, f64)]) {
    for (key, value) in defaults {
        h.default(key, json!(value));
    }
}

/// Heads of keys and values: as many as of queries if config.json says null, or says nothing and the class has no number.
pub(crate) fn key_value_heads(h: &mut Hparams, class: Option<u32>) -> Result<()> {
    h.default("num_key_value_heads", json!(class));
    if h.get("num_key_value_heads").is_none() {
        let heads = h.need(&HEADS)?;
        h.set("num_key_value_heads", json!(heads));
    }
    Ok(())
}

/// The size of a head: `head_dim`, or an equal share of the width.
///
/// # Errors
/// If neither can be told.
pub(crate) fn head_dim(h: &Hparams) -> Result<u32> {
    if let Some(size) = h.u32(&["head_dim"])? {
        return Ok(size);
    }
    let (width, heads) = (h.need(&["hidden_size"])?, h.need(&HEADS)?);
    width.checked_div(heads).ok_or_else(|| h.wrong("num_attention_heads", &json!(heads), "at least 1"))
}

/// Rope parameters of layers with full and with sliding attention, each in an object of its own.
///
/// `full` and `sliding` are the thetas of the class. `local` is the key that older files have for the second one, if any.
pub(crate) fn rope_of_two_kinds(h: &mut Hparams, full: f64, sliding: f64, local: Option<&str>) {
    let mut rope = h.object("rope_parameters").cloned().unwrap_or_default();
    let mut of_full = object(&rope, "full_attention");
    of_full.extend(h.object("rope_scaling").cloned().unwrap_or_default());
    let mut of_sliding = object(&rope, "sliding_attention");
    let said = |key: Option<&str>, class: f64| key.and_then(|key| h.get(key)).cloned().unwrap_or(json!(class));
    complete(&mut of_full, said(Some("rope_theta"), full), h);
    complete(&mut of_sliding, said(local, sliding), h);
    rope.insert("full_attention".into(), Value::Object(of_full));
    rope.insert("sliding_attention".into(), Value::Object(of_sliding));
    h.set("rope_parameters", Value::Object(rope));
}

fn object(rope: &Map<String, Value>, key: &str) -> Map<String, Value> {
    rope.get(key).and_then(Value::as_object).cloned().unwrap_or_default()
}

fn complete(rope: &mut Map<String, Value>, theta: Value, h: &Hparams) {
    let kind = rope.get("type").cloned().unwrap_or(json!("default"));
    let kind = rope.entry("rope_type").or_insert(kind).clone();
    rope.entry("rope_theta").or_insert(theta);
    let is_scaled = ["llama3", "yarn", "longrope"].iter().any(|name| kind == *name);
    if let Some(context) = h.get("max_position_embeddings").filter(|_| is_scaled) {
        rope.entry("original_max_position_embeddings").or_insert(context.clone());
    }
}

/// The reverse of [`rope_of_two_kinds`], from config.json that [`keys::common_config`] has written.
pub(crate) fn rope_of_two_kinds_config(m: &keys::Meta<'_>, c: &mut Hparams, sliding: f64) {
    let full = c.object("rope_parameters").cloned().unwrap_or_default();
    let theta = m.number("rope.freq_base_swa").unwrap_or(json!(sliding));
    let sliding = json!({ "rope_type": "default", "rope_theta": theta });
    c.set("rope_parameters", json!({ "full_attention": full, "sliding_attention": sliding }));
}
