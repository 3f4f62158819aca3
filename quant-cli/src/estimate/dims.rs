//! [`Dims`]: what the memory of a model depends on beside its weights.

use quant_core::{Result, Scheme};
use quant_formats::Checkpoint;
use quant_formats::gguf::{Entry, Scalar, Value, find_entry};

use super::config::Config;

/// The most layers whose heads are listed one by one.
const MAX_LAYERS: u64 = 10_000;

const RECURRENT: &str = "the states of layers without a KV cache are not counted";
const NO_CACHE: &str = "the model has no KV cache: it reads all tokens at once";

/// The numbers, as far as they are known.
#[derive(Debug, Default)]
pub struct Dims {
    /// What each token leaves in the KV cache; none if that is not known, or there is none.
    pub cache: Option<Cache>,
    /// The most tokens that the model takes.
    pub context: Option<u64>,
    /// Width, feed-forward width and vocabulary together: what a token's activations go by.
    pub widths: Option<u64>,
    /// How many tokens layers with sliding attention look back.
    pub window: Option<u64>,
    /// What a user should know about these numbers.
    pub remarks: Vec<String>,
}

/// Numbers that one token leaves in the KV cache.
#[derive(Debug, PartialEq)]
pub struct Cache {
    rows: Vec<Row>,
}

/// Layers that are alike, and the numbers of one.
#[derive(Debug, PartialEq)]
struct Row {
    layers: u64,
    keys: u64,
    values: u64,
}

impl Cache {
    /// Layers that are all alike.
    pub fn uniform(layers: u64, keys: u64, values: u64) -> Cache {
        Cache { rows: vec![Row { layers, keys, values }] }
    }

    /// The bytes of so many tokens in so many sequences; none if that is more than can be counted.
    pub fn n_bytes(&self, context: u64, batch: u64, scheme: Scheme) -> Option<u64> {
        let row = |row: &Row| row_bytes(row.keys, scheme)?.checked_add(row_bytes(row.values, scheme)?)?.checked_mul(row.layers);
        let token = self.rows.iter().try_fold(0u64, |sum, r| sum.checked_add(row(r)?))?;
        token.checked_mul(context)?.checked_mul(batch)
    }
}

/// The bytes of `n` numbers of one token in one layer, in whole blocks.
fn row_bytes(n: u64, scheme: Scheme) -> Option<u64> {
    match scheme {
        Scheme::Dense(dtype) => dtype.n_bytes(n),
        Scheme::Ggml(ty) => n.div_ceil(ty.block_len()).checked_mul(ty.block_bytes()),
        _ => None,
    }
}

impl Dims {
    /// What a user should know when so many tokens are asked for.
    pub fn notes(&self, context: u64) -> Vec<String> {
        let mut notes = self.remarks.clone();
        if let Some(most) = self.context.filter(|most| context > *most) {
            notes.push(format!("the model takes {most} tokens, the context has {context}"));
        }
        if let Some(window) = self.window.filter(|window| self.cache.is_some() && context > *window) {
            notes.push(format!("some layers look back {window} tokens only; a runtime that makes use of that needs less for the KV cache"));
        }
        notes
    }

    /// From config.json. What it does not say stays unknown.
    pub fn of_config(config: &Config) -> Dims {
        let n = |keys: &[&str]| config.count(keys).ok().flatten();
        let mut dims = Dims {
            context: n(&["max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "seq_length"]),
            widths: widths(config.width(), config.feed_forward(), n(&["vocab_size"])),
            window: n(&["sliding_window"]).filter(|_| config.flag("use_sliding_window") != Some(false)),
            ..Dims::default()
        };
        let kind = config.model_type();
        if ["bert", "electra", "mpnet"].iter().any(|name| kind.contains(name)) {
            dims.remarks.push(NO_CACHE.into());
            return dims;
        }
        if config.flag("is_encoder_decoder") == Some(true) {
            dims.remarks.push("the KV cache of models with an encoder and a decoder is not counted".into());
            return dims;
        }
        let latent = n(&["kv_lora_rank"]).zip(n(&["qk_rope_head_dim"]));
        let per_layer = match latent {
            Some((rank, rotated)) => Some((rank + rotated, 0)),
            None => config.kv_heads().zip(config.head_dim()).and_then(|(heads, size)| heads.checked_mul(size)).map(|n| (n, n)),
        };
        dims.cache = config.attention_layers().zip(per_layer).map(|(layers, (keys, values))| Cache::uniform(layers, keys, values));
        dims.remark_on_cache(latent.is_some());
        if config.attention_layers() < config.layers() {
            dims.remarks.push(RECURRENT.into());
        }
        dims
    }

    /// From the metadata of GGUF.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn of_metadata(checkpoint: &Checkpoint) -> Result<Dims> {
        let kv = &checkpoint.kv;
        let Some(arch) = find_entry(kv, "general.architecture").and_then(Entry::text) else { return Ok(Dims::default()) };
        let entry = |name: &str| find_entry(kv, &format!("{arch}.{name}"));
        let n = |name: &str| entry(name).and_then(Entry::unsigned).filter(|n| *n <= u32::MAX.into());
        let rows = |name: &str| checkpoint.tensors.iter().find(|t| t.name == name).and_then(|t| t.shape.first().copied());
        let forward = numbers(checkpoint, entry("feed_forward_length"))?.into_iter().max();
        let mut dims = Dims {
            context: n("context_length"),
            widths: widths(n("embedding_length"), forward, n("vocab_size").or_else(|| rows("token_embd.weight"))),
            window: n("attention.sliding_window").filter(|n| *n > 0),
            ..Dims::default()
        };
        let is_causal = entry("attention.causal").and_then(Entry::scalar) != Some(Scalar::Bool(false));
        if !is_causal {
            dims.remarks.push(NO_CACHE.into());
            return Ok(dims);
        }
        let latent = n("attention.kv_lora_rank").zip(n("rope.dimension_count"));
        dims.cache = match (n("block_count"), latent) {
            (Some(layers), Some((rank, rotated))) => Some(Cache::uniform(layers, rank + rotated, 0)),
            (Some(layers), None) => heads(checkpoint, entry("attention.head_count_kv").or_else(|| entry("attention.head_count")), layers)?
                .zip(head_sizes(&n))
                .map(|(heads, (key, value))| Cache {
                    rows: heads.iter().map(|&(layers, n)| Row { layers, keys: n * key, values: n * value }).collect(),
                }),
            (None, _) => None,
        };
        dims.remark_on_cache(latent.is_some());
        if kv.iter().any(|e| e.key.starts_with(&format!("{arch}.ssm."))) {
            dims.remarks.push(RECURRENT.into());
        }
        Ok(dims)
    }

    fn remark_on_cache(&mut self, is_latent: bool) {
        if self.cache.is_none() {
            self.remarks.push("the KV cache is not counted: the model does not say how many layers, heads and numbers a head it has".into());
        } else if is_latent {
            self.remarks
                .push("the KV cache is counted compressed; a runtime that keeps whole keys and values, such as transformers, needs more".into());
        }
    }
}

fn widths(width: Option<u64>, forward: Option<u64>, vocabulary: Option<u64>) -> Option<u64> {
    width?.checked_add(forward.unwrap_or(0))?.checked_add(vocabulary?)
}

/// Layers and the heads of keys in each: of all, or one by one.
fn heads(checkpoint: &Checkpoint, entry: Option<&Entry>, layers: u64) -> Result<Option<Vec<(u64, u64)>>> {
    let found = numbers(checkpoint, entry)?;
    Ok(match found[..] {
        [] => None,
        [n] => Some(vec![(layers, n)]),
        _ => Some(found.iter().take(layers.min(MAX_LAYERS) as usize).map(|&n| (1, n)).collect()),
    })
}

/// An integer, or those of an array.
fn numbers(checkpoint: &Checkpoint, entry: Option<&Entry>) -> Result<Vec<u64>> {
    let number = |value: &Value| match value {
        Value::Scalar(Scalar::Unsigned(n)) => Some(*n),
        Value::Scalar(Scalar::Signed(n)) => u64::try_from(*n).ok(),
        _ => None,
    };
    let Some(entry) = entry else { return Ok(Vec::new()) };
    let found = match entry.value(checkpoint, MAX_LAYERS)? {
        Value::Array(items) => items.iter().filter_map(number).collect::<Vec<_>>(),
        value => number(&value).into_iter().collect(),
    };
    Ok(found.into_iter().filter(|n| *n <= u32::MAX.into()).collect())
}

/// Numbers of a key and of a value in one head: an equal share of the width, unless the file says otherwise.
fn head_sizes(n: &dyn Fn(&str) -> Option<u64>) -> Option<(u64, u64)> {
    let usual = || n("embedding_length")?.checked_div(n("attention.head_count")?);
    Some((n("attention.key_length").or_else(usual)?, n("attention.value_length").or_else(usual)?))
}
