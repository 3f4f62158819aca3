//! config.json, as far as sizes depend on it.

use std::path::{Path, PathBuf};

use quant_core::{Dtype, Error, Result};
use quant_formats::hf::config;
use serde_json::{Map, Value};

/// The largest count.
const MAX_COUNT: u64 = 1 << 28;

/// A config.json with its `text_config` on top, if it has one.
pub struct Config {
    map: Map<String, Value>,
    path: PathBuf,
    parsed: config::Config,
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// If it is no JSON object.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Config> {
        let bad = |problem: String| Error::file(path, problem);
        let value: Value = serde_json::from_slice(bytes).map_err(|e| bad(format!("cannot be read as JSON: {e}")))?;
        let Value::Object(mut map) = value else { return Err(bad("found no JSON object, needed one".into())) };
        if let Some(Value::Object(text)) = map.get("text_config").cloned() {
            map.extend(text);
        }
        let parsed = config::Config::parse(Value::Object(map.clone()).to_string().as_bytes()).map_err(bad)?;
        Ok(Config { map, path: path.into(), parsed })
    }

    /// An error of this file.
    pub fn bad(&self, problem: impl Into<String>) -> Error {
        Error::file(&self.path, problem)
    }

    /// The value of `key`; null counts as absent.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// The first of `keys` that is there, as a count: small enough that two of them can be multiplied.
    ///
    /// # Errors
    /// If it is no integer, or too large.
    pub fn count(&self, keys: &[&str]) -> Result<Option<u64>> {
        let Some((key, value)) = keys.iter().find_map(|key| Some((key, self.get(key)?))) else { return Ok(None) };
        let found: String = value.to_string().chars().take(60).collect();
        let bad = || self.bad(format!("key '{key}': found {found}, needed an integer from 0 to {MAX_COUNT}"));
        value.as_u64().filter(|n| *n <= MAX_COUNT).map(Some).ok_or_else(bad)
    }

    /// A count that must be there.
    ///
    /// # Errors
    /// If it is not.
    pub fn need(&self, key: &str) -> Result<u64> {
        let missing = || self.bad(format!("found no '{key}', which the number of parameters depends on; --params N goes without"));
        self.count(&[key])?.ok_or_else(missing)
    }

    /// The value of `key` if it is true or false.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// `model_type`; empty if there is none.
    pub fn model_type(&self) -> &str {
        self.get("model_type").and_then(Value::as_str).unwrap_or_default()
    }

    /// The type of the weights, bf16 if it is not said.
    pub fn dtype(&self) -> Dtype {
        self.parsed.dtype().filter(|d| d.is_weight()).unwrap_or(Dtype::BF16)
    }

    /// Whether the head shares its weight with the embedding.
    pub fn ties_embeddings(&self) -> bool {
        self.parsed.ties_embeddings()
    }

    /// The width of the model.
    pub fn width(&self) -> Option<u64> {
        self.lenient(&["hidden_size", "n_embd", "dim", "d_model"])
    }

    /// The width of feed-forward layers: of dense ones, or of all experts that a token sees.
    pub fn feed_forward(&self) -> Option<u64> {
        let experts = self.lenient(&["moe_intermediate_size"]).zip(self.lenient(&["num_experts_per_tok"]));
        let used = experts.and_then(|(width, n)| width.checked_mul(n));
        self.lenient(&["intermediate_size", "n_inner", "ffn_dim", "hidden_dim"]).max(used)
    }

    /// Layers of any kind.
    pub fn layers(&self) -> Option<u64> {
        self.lenient(&["num_hidden_layers", "n_layers", "n_layer", "num_layers"])
    }

    /// Layers that keep keys and values.
    pub fn attention_layers(&self) -> Option<u64> {
        let all = self.layers()?;
        let kinds: Option<Vec<&str>> =
            self.get("layer_types").and_then(Value::as_array).map(|kinds| kinds.iter().filter_map(Value::as_str).collect());
        let keeps = |kind: &&&str| kind.contains("attention") && !kind.contains("linear");
        match (kinds, self.lenient(&["full_attention_interval"])) {
            (Some(kinds), _) => Some(kinds.iter().filter(keeps).count() as u64),
            (None, Some(interval)) => all.checked_div(interval),
            (None, None) => Some(all),
        }
    }

    /// Heads of keys and values.
    pub fn kv_heads(&self) -> Option<u64> {
        let shared = (self.flag("multi_query") == Some(true)).then_some(1);
        self.lenient(&["num_key_value_heads", "n_kv_heads", "num_kv_heads"]).or(shared).or_else(|| self.heads())
    }

    /// Heads of queries.
    pub fn heads(&self) -> Option<u64> {
        self.lenient(&["num_attention_heads", "n_head", "n_heads"])
    }

    /// The size of a head: as said, or as the class has it, or an equal share of the width.
    pub fn head_dim(&self) -> Option<u64> {
        let of_class = match self.model_type() {
            "qwen3" | "qwen3_moe" => Some(128),
            "gemma" | "gemma2" | "gemma3_text" => Some(256),
            _ => None,
        };
        let share = || self.width()?.checked_div(self.heads()?);
        self.lenient(&["head_dim"]).or(of_class).or_else(share)
    }

    fn lenient(&self, keys: &[&str]) -> Option<u64> {
        self.count(keys).ok().flatten()
    }
}
