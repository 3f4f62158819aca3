//! The architecture's metadata: written ([`Keys`]) and read ([`Meta`]); what most architectures have in common.
//!
//! Source: `TextModel.set_gguf_parameters` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev.

use quant_core::{Error, Result};
use serde_json::{Map, Value, json};

use super::hparams::Hparams;
use crate::checkpoint::Checkpoint;
use crate::gguf::{Entry, find_entry};

/// Metadata under construction. A key that is set twice keeps its place and gets the new value.
pub(crate) struct Keys {
    arch: String,
    file_type: u32,
    entries: Vec<Entry>,
}

impl Keys {
    /// Nothing yet, for an architecture. `file_type` is the number of `general.file_type`.
    pub(crate) fn new(arch: &str, file_type: u32) -> Keys {
        Keys { arch: arch.into(), file_type, entries: Vec::new() }
    }

    /// All keys, in order.
    pub(crate) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// The whole key: names with a first part of their own stand for themselves.
    fn key(&self, name: &str) -> String {
        let is_whole = ["general.", "tokenizer."].iter().any(|start| name.starts_with(start));
        if is_whole { name.into() } else { format!("{}.{name}", self.arch) }
    }

    /// Puts a value.
    pub(crate) fn put(&mut self, entry: Entry) {
        match self.entries.iter_mut().find(|e| e.key == entry.key) {
            Some(there) => *there = entry,
            None => self.entries.push(entry),
        }
    }

    /// A u32: `attention.head_count` becomes `llama.attention.head_count`.
    pub(crate) fn u32(&mut self, name: &str, value: u32) {
        self.put(Entry::u32(self.key(name), value));
    }

    /// A number, rounded to f32.
    pub(crate) fn f32(&mut self, name: &str, value: f64) {
        self.put(Entry::f32(self.key(name), value as f32));
    }

    /// A truth value.
    pub(crate) fn bool(&mut self, name: &str, value: bool) {
        self.put(Entry::bool(self.key(name), value));
    }

    /// A text.
    pub(crate) fn string(&mut self, name: &str, value: &str) {
        self.put(Entry::string(self.key(name), value));
    }

    /// An array of i32, as gguf-py writes lists of integers.
    pub(crate) fn i32s(&mut self, name: &str, values: &[i32]) {
        self.put(Entry::i32s(self.key(name), values));
    }

    /// An array of truth values.
    pub(crate) fn bools(&mut self, name: &str, values: &[bool]) {
        self.put(Entry::bools(self.key(name), values));
    }

    /// `general.file_type`.
    pub(crate) fn file_type(&mut self) {
        self.u32("general.file_type", self.file_type);
    }

    /// A count under the first of `keys` that the configuration has; nothing if it has none.
    pub(crate) fn count(&mut self, name: &str, h: &Hparams, keys: &[&str]) -> Result<()> {
        if let Some(value) = h.u32(keys)? {
            self.u32(name, value);
        }
        Ok(())
    }

    /// A number under the first of `keys` that the configuration has; nothing if it has none.
    pub(crate) fn number(&mut self, name: &str, h: &Hparams, keys: &[&str]) -> Result<()> {
        if let Some(value) = h.f64(keys)? {
            self.f32(name, value);
        }
        Ok(())
    }
}

/// Keys under which configurations keep their numbers.
pub(crate) const LAYERS: [&str; 4] = ["n_layers", "num_hidden_layers", "n_layer", "num_layers"];
const CONTEXT: [&str; 6] = ["max_position_embeddings", "n_ctx", "n_positions", "max_length", "max_sequence_length", "model_max_length"];
const WIDTH: [&str; 3] = ["hidden_size", "n_embd", "dim"];
const FEED_FORWARD: [&str; 5] = ["prefix_dense_intermediate_size", "dense_intermediate_size", "intermediate_size", "n_inner", "hidden_dim"];
pub(crate) const HEADS: [&str; 3] = ["num_attention_heads", "n_head", "n_heads"];
const HEADS_KV: [&str; 2] = ["num_key_value_heads", "n_kv_heads"];
const GATING: [&str; 6] =
    ["score_function", "scoring_func", "score_func", "moe_router_activation", "moe_router_activation_func", "expert_selection_fn"];

/// The keys that most architectures have.
pub(crate) fn common(h: &Hparams, k: &mut Keys) -> Result<()> {
    k.u32("block_count", h.need(&LAYERS)?);
    k.count("context_length", h, &CONTEXT)?;
    k.count("embedding_length", h, &WIDTH)?;
    k.count("feed_forward_length", h, &FEED_FORWARD)?;
    k.count("attention.head_count", h, &HEADS)?;
    k.count("attention.head_count_kv", h, &HEADS_KV)?;
    if h.bool(&["is_causal"])? == Some(false) {
        k.bool("attention.causal", false);
    }
    rope(h, k)?;
    k.number("attention.layer_norm_rms_epsilon", h, &["rms_norm_eps", "norm_eps"])?;
    k.number("attention.layer_norm_epsilon", h, &["layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"])?;
    k.count("expert_count", h, &super::family::EXPERTS)?;
    k.count("expert_used_count", h, &["num_experts_per_tok", "num_experts_per_token", "top_k_experts"])?;
    k.count("expert_group_count", h, &["n_group"])?;
    k.count("expert_group_used_count", h, &["topk_group"])?;
    if let Some(text) = h.text(&GATING)? {
        let ids = [("softmax", 1), ("sigmoid", 2), ("sqrtsoftplus", 4)];
        let id = ids.iter().find(|(name, _)| *name == text);
        k.u32("expert_gating_func", id.ok_or_else(|| h.wrong("scoring_func", &json!(text), "softmax, sigmoid or sqrtsoftplus"))?.1);
    }
    k.count("attention.key_length", h, &["head_dim"])?;
    k.count("attention.value_length", h, &["head_dim"])?;
    k.file_type();
    Ok(())
}

/// The rotary embedding, of full attention where layers differ.
pub(crate) fn rope_parameters(h: &Hparams) -> Map<String, Value> {
    let all = h.object("rope_parameters").cloned().unwrap_or_default();
    match all.get("full_attention") {
        Some(Value::Object(full)) => full.clone(),
        _ => all,
    }
}

/// The number `key` of rope parameters.
pub(crate) fn rope_number(rope: &Map<String, Value>, key: &str) -> Option<f64> {
    rope.get(key)?.as_f64()
}

fn rope(h: &Hparams, k: &mut Keys) -> Result<()> {
    let rope = rope_parameters(h);
    let kind = rope.get("rope_type").and_then(Value::as_str);
    match (kind, rope_number(&rope, "factor")) {
        (Some("linear"), Some(factor)) => {
            k.string("rope.scaling.type", "linear");
            k.f32("rope.scaling.factor", factor);
        }
        (Some("yarn"), Some(factor)) => yarn(h, k, &rope, factor)?,
        (Some("su" | "longrope"), _) => k.string("rope.scaling.type", "longrope"),
        _ => {}
    }
    if let Some(sections) = h.object("rope_parameters").and_then(|r| r.get("mrope_section")).and_then(Value::as_array) {
        let mut sections: Vec<i32> = sections.iter().filter_map(Value::as_i64).filter_map(|n| n.try_into().ok()).collect();
        sections.resize(4, 0);
        k.i32s("rope.dimension_sections", &sections);
    }
    if let Some(theta) = rope_number(&rope, "rope_theta") {
        k.f32("rope.freq_base", theta);
    }
    let sliding = h.object("rope_parameters").and_then(|r| r.get("sliding_attention")).and_then(Value::as_object);
    if let Some(theta) = sliding.and_then(|r| rope_number(r, "rope_theta")) {
        k.f32("rope.freq_base_swa", theta);
    }
    Ok(())
}

fn yarn(h: &Hparams, k: &mut Keys, rope: &Map<String, Value>, factor: f64) -> Result<()> {
    k.string("rope.scaling.type", "yarn");
    k.f32("rope.scaling.factor", factor);
    let original = rope.get("original_max_position_embeddings").and_then(Value::as_u64).and_then(|n| n.try_into().ok());
    k.u32("rope.scaling.original_context_length", original.ok_or_else(|| h.missing(&["original_max_position_embeddings"]))?);
    for (name, keys) in [
        ("yarn_ext_factor", &["extrapolation_factor"][..]),
        ("yarn_attn_factor", &["attention_factor", "attn_factor"]),
        ("yarn_beta_fast", &["beta_fast"]),
        ("yarn_beta_slow", &["beta_slow"]),
    ] {
        let key = keys.iter().find(|key| rope.contains_key(**key));
        if let Some(value) = key.and_then(|key| rope_number(rope, key)) {
            k.f32(&format!("rope.scaling.{name}"), value);
        }
    }
    Ok(())
}

/// What every configuration class of transformers does: rope parameters in one object, whatever the age of the file.
///
/// `theta` is the class's default for `rope_theta`.
pub(crate) fn prepare_rope(h: &mut Hparams, theta: f64) {
    let given = |key: &str| h.object(key).filter(|object| !object.is_empty()).cloned();
    let mut rope = given("rope_scaling").or_else(|| given("rope_parameters")).unwrap_or_default();
    if rope.contains_key("full_attention") || rope.contains_key("sliding_attention") {
        h.set("rope_parameters", Value::Object(rope));
        return;
    }
    let global = ["global_rope_theta", "rope_global_theta", "rope_theta_global", "rope_theta", "rotary_emb_base"];
    let theta = h.find(&global).map_or(json!(theta), |(_, v)| v.clone());
    rope.entry("rope_theta").or_insert(theta);
    if let Some(kind) = rope.get("type").cloned() {
        rope.entry("rope_type").or_insert(kind);
    }
    if let Some((_, value)) = h.find(&["partial_rotary_factor", "rope_pct", "rope_percent"]) {
        rope.entry("partial_rotary_factor").or_insert(value.clone());
    }
    let context = if is_stretched(&rope) { "max_position_embeddings" } else { ORIGINAL_CONTEXT };
    if let Some(context) = h.get(context).cloned() {
        rope.entry(ORIGINAL_CONTEXT).or_insert(context);
    }
    h.set("rope_parameters", Value::Object(rope));
}

/// The length of contexts before rope stretched them.
const ORIGINAL_CONTEXT: &str = "original_max_position_embeddings";

/// [`prepare_rope`] for a class with a field of its own for the original context, which goes before that of the rope parameters.
pub(crate) fn prepare_rope_with_field(h: &mut Hparams, theta: f64) {
    prepare_rope(h, theta);
    let mut rope = h.object("rope_parameters").cloned().unwrap_or_default();
    if let Some(context) = h.get(ORIGINAL_CONTEXT).cloned().filter(|_| is_stretched(&rope)) {
        rope.insert(ORIGINAL_CONTEXT.into(), context);
        h.set("rope_parameters", Value::Object(rope));
    }
}

/// Whether the context was stretched in a way that needs its original length.
fn is_stretched(rope: &Map<String, Value>) -> bool {
    matches!(rope.get("rope_type").and_then(Value::as_str), Some("yarn" | "llama3" | "longrope"))
}

/// The metadata of a GGUF file, by names without the architecture.
pub(crate) struct Meta<'a> {
    checkpoint: &'a Checkpoint,
    arch: &'a str,
}

impl<'a> Meta<'a> {
    /// The metadata of `checkpoint`; none if it names no architecture.
    pub(crate) fn of(checkpoint: &'a Checkpoint) -> Option<Meta<'a>> {
        let arch = find_entry(&checkpoint.kv, "general.architecture")?.text()?;
        Some(Meta { checkpoint, arch })
    }

    /// `general.architecture`.
    pub(crate) fn arch(&self) -> &'a str {
        self.arch
    }

    /// The file.
    pub(crate) fn checkpoint(&self) -> &'a Checkpoint {
        self.checkpoint
    }

    fn entry(&self, name: &str) -> Option<&'a Entry> {
        let kv = &self.checkpoint.kv;
        if name.starts_with("general.") || name.starts_with("tokenizer.") {
            find_entry(kv, name)
        } else {
            find_entry(kv, &format!("{}.{name}", self.arch))
        }
    }

    /// A count.
    pub(crate) fn u32(&self, name: &str) -> Option<u32> {
        self.entry(name)?.unsigned()?.try_into().ok()
    }

    /// A count that must be there.
    ///
    /// # Errors
    /// If it is not.
    pub(crate) fn need(&self, name: &str) -> Result<u32> {
        let problem =
            || Error::file(&self.checkpoint.path, format!("found no metadata '{}.{name}' that is a count, which config.json needs", self.arch));
        self.u32(name).ok_or_else(problem)
    }

    /// A number as JSON: the shortest decimal that gives the f32.
    pub(crate) fn number(&self, name: &str) -> Option<Value> {
        use crate::gguf::Scalar;
        match self.entry(name)?.scalar()? {
            Scalar::Float(v) => (v as f32).to_string().parse::<f64>().ok().filter(|v| v.is_finite()).map(|v| json!(v)),
            Scalar::Unsigned(n) => Some(json!(n)),
            Scalar::Signed(n) => Some(json!(n)),
            Scalar::Bool(_) => None,
        }
    }

    /// A text.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.entry(name)?.text()
    }

    /// A truth value.
    pub(crate) fn bool(&self, name: &str) -> Option<bool> {
        match self.entry(name)?.scalar()? {
            crate::gguf::Scalar::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn has_tensor(&self, name: &str) -> bool {
        self.checkpoint.tensors.iter().any(|t| t.name == name)
    }
}

/// The sizes that all configurations have, from metadata.
pub(crate) fn sizes_config(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    for (name, key) in [
        ("block_count", "num_hidden_layers"),
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
    ] {
        c.set(key, json!(m.need(name)?));
    }
    Ok(())
}

/// What most configurations have, from metadata: the reverse of [`common`].
///
/// # Errors
/// If a size is missing, or rotations are stretched by factors that are not in the file.
pub(crate) fn common_config(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    sizes_config(m, c)?;
    refuse_longrope(m)?;
    for (name, key) in [
        ("attention.head_count_kv", "num_key_value_heads"),
        ("attention.key_length", "head_dim"),
        ("expert_used_count", "num_experts_per_tok"),
        ("vocab_size", "vocab_size"),
        ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        ("attention.layer_norm_epsilon", "layer_norm_eps"),
        ("attention.sliding_window", "sliding_window"),
    ] {
        if let Some(value) = m.number(name) {
            c.set(key, value);
        }
    }
    c.set("rope_parameters", Value::Object(rope_config(m)));
    c.set("tie_word_embeddings", json!(!m.has_tensor("output.weight")));
    let embedding = m.checkpoint().tensors.iter().find(|t| t.name == "token_embd.weight");
    if let Some(rows) = embedding.and_then(|t| t.shape.first()) {
        c.set("vocab_size", json!(rows));
    }
    for (name, key) in [("bos", "bos_token_id"), ("eos", "eos_token_id"), ("padding", "pad_token_id")] {
        let id = m.number(&format!("tokenizer.ggml.{name}_token_id"));
        c.set(key, id.unwrap_or(Value::Null));
    }
    Ok(())
}

/// Only Phi-3 has the factors of a long rope in GGUF, as the reference makes it; transformers needs them.
fn refuse_longrope(m: &Meta<'_>) -> Result<()> {
    if m.arch() == "phi3" || m.text("rope.scaling.type") != Some("longrope") {
        return Ok(());
    }
    let problem = "found 'longrope', whose factors config.json needs and a GGUF file of this architecture does not hold";
    Err(Error::file(&m.checkpoint().path, format!("key '{}.rope.scaling.type': {problem}", m.arch())))
}

/// `rope_parameters`, from metadata.
fn rope_config(m: &Meta<'_>) -> Map<String, Value> {
    let mut rope = Map::new();
    rope.insert("rope_type".into(), json!(m.text("rope.scaling.type").filter(|kind| *kind != "none").unwrap_or("default")));
    for (name, key) in [
        ("rope.freq_base", "rope_theta"),
        ("rope.scaling.factor", "factor"),
        ("rope.scaling.original_context_length", "original_max_position_embeddings"),
        ("rope.scaling.yarn_ext_factor", "extrapolation_factor"),
        ("rope.scaling.yarn_attn_factor", "attention_factor"),
        ("rope.scaling.yarn_beta_fast", "beta_fast"),
        ("rope.scaling.yarn_beta_slow", "beta_slow"),
    ] {
        if let Some(value) = m.number(name) {
            rope.insert(key.into(), value);
        }
    }
    rope.entry("rope_theta").or_insert(json!(10000.0));
    rope
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The original context after [`prepare_rope`], and after [`prepare_rope_with_field`].
    fn contexts(json: &str) -> [Option<f64>; 2] {
        [prepare_rope as fn(&mut Hparams, f64), prepare_rope_with_field].map(|prepare| {
            let mut h = Hparams::parse(json.as_bytes(), Path::new("config.json")).unwrap();
            prepare(&mut h, 10000.0);
            rope_number(&rope_parameters(&h), ORIGINAL_CONTEXT)
        })
    }

    #[test]
    fn the_original_context_is_that_of_the_rope_parameters_unless_the_class_has_a_field_for_it() {
        let inside = r#""rope_type": "llama3", "original_max_position_embeddings": 64"#;
        let config = |rope: &str, beside: &str| format!(r#"{{"rope_scaling": {{{rope}}}, "max_position_embeddings": 256{beside}}}"#);
        let beside = r#", "original_max_position_embeddings": 128"#;
        assert_eq!(contexts(&config(inside, beside)), [Some(64.0), Some(128.0)]);
        assert_eq!(contexts(&config(r#""rope_type": "llama3""#, beside)), [Some(256.0), Some(128.0)]);
        assert_eq!(contexts(&config(r#""rope_type": "llama3""#, "")), [Some(256.0), Some(256.0)]);
        assert_eq!(contexts(&config(r#""rope_type": "linear""#, beside)), [Some(128.0), Some(128.0)]);
        assert_eq!(contexts(&config(r#""rope_type": "linear""#, "")), [None, None]);
    }
}
