//! Gemma 1 to 3, the language models.
//!
//! Source: `GemmaModel`, `Gemma2Model`, `Gemma3Model` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev; configuration classes of
//! transformers 5.23. What GGUF does not hold and llama.cpp knows by itself: src/models/gemma2.cpp and gemma3.cpp.

use quant_core::{Error, Result};
use serde_json::{Value, json};

use super::defaults;
use super::llama::nothing;
use crate::model::family::{Change, Family, Layout, Row, USUAL, changed, exact};
use crate::model::hparams::Hparams;
use crate::model::keys::{self, Keys, Meta, rope_number, rope_parameters};
use crate::model::link::Link;
use crate::model::names::{ATTENTION, FEED_FORWARD, OUTER};
use crate::model::tokenizer::Vocab;

/// Norms of Gemma 1. All norms of Gemma are stored as what they have beyond 1.
const NORMS: &[Row] = &[
    changed("norm", "output_norm", Change::PlusOne),
    changed("layers.{}.input_layernorm", "blk.{}.attn_norm", Change::PlusOne),
    changed("layers.{}.post_attention_layernorm", "blk.{}.ffn_norm", Change::PlusOne),
];

/// Norms before and after each part of a layer.
const SANDWICH: &[Row] = &[
    changed("norm", "output_norm", Change::PlusOne),
    changed("layers.{}.input_layernorm", "blk.{}.attn_norm", Change::PlusOne),
    changed("layers.{}.post_attention_layernorm", "blk.{}.post_attention_norm", Change::PlusOne),
    changed("layers.{}.pre_feedforward_layernorm", "blk.{}.ffn_norm", Change::PlusOne),
    changed("layers.{}.post_feedforward_layernorm", "blk.{}.post_ffw_norm", Change::PlusOne),
];

/// Norms of queries and keys, and embeddings.
const GEMMA3: &[Row] = &[
    changed("layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm", Change::PlusOne),
    changed("layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm", Change::PlusOne),
    exact("embed_tokens.weight", "token_embd.weight", Change::Other(KNOWN_TOKENS)),
];

/// Rows of embeddings beyond the vocabulary are cut.
const KNOWN_TOKENS: Layout = Layout { to_gguf: known_tokens, to_hf: |_, shape| Some(shape.to_vec()) };

/// Gemma 1.
pub(crate) const GEMMA: Family = Family {
    arch: "gemma",
    classes: &["GemmaForCausalLM"],
    model_type: "gemma",
    prefix: "model.",
    tables: &[NORMS, OUTER, ATTENTION, FEED_FORWARD],
    rename: without_head,
    early: |_, _| Ok(()),
    prepare: prepare_gemma,
    extra: nothing,
    keys: keys_gemma,
    config: config_gemma,
    is: |_| true,
    vocab: Vocab::Gemma,
    forced: &[],
    needed: USUAL,
};

/// Gemma 2.
pub(crate) const GEMMA2: Family = Family {
    arch: "gemma2",
    classes: &["Gemma2ForCausalLM"],
    model_type: "gemma2",
    tables: &[SANDWICH, OUTER, ATTENTION, FEED_FORWARD],
    prepare: prepare_gemma2,
    keys: keys_gemma2,
    config: config_gemma2,
    vocab: Vocab::Gemma2,
    needed: &["attn_norm", "ffn_norm", "ffn_gate", "post_attention_norm", "post_ffw_norm"],
    ..GEMMA
};

/// Gemma 3: the language model, also of checkpoints that see images.
pub(crate) const GEMMA3_TEXT: Family = Family {
    arch: "gemma3",
    classes: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    model_type: "gemma3_text",
    tables: &[GEMMA3, SANDWICH, OUTER, ATTENTION, FEED_FORWARD],
    rename: super::llama::as_it_is,
    prepare: prepare_gemma3,
    keys: keys_gemma3,
    config: config_gemma3,
    vocab: Vocab::Gemma3,
    needed: &["attn_norm", "ffn_norm", "ffn_gate", "post_attention_norm", "post_ffw_norm", "attn_q_norm", "attn_k_norm"],
    ..GEMMA
};

/// The head is the embeddings; some tools write it all the same.
fn without_head(_: &Hparams, name: &str) -> Option<String> {
    (name != "lm_head.weight").then(|| name.into())
}

fn known_tokens(h: &Hparams, shape: &[u64]) -> Option<(Vec<u64>, Link)> {
    let [rows, columns] = *shape else { return None };
    let known = h.u32(&["vocab_size"]).ok().flatten().map_or(rows, |n| rows.min(n.into()));
    let cut = vec![known, columns];
    let link = Link::same(&cut);
    Some((cut, link))
}

fn prepare_gemma(h: &mut Hparams) -> Result<()> {
    let sizes = [("hidden_size", 3072), ("intermediate_size", 24576), ("num_hidden_layers", 28), ("num_attention_heads", 16)];
    defaults::counts(h, &sizes);
    defaults::counts(h, &[("vocab_size", 256_000), ("max_position_embeddings", 8192), ("head_dim", 256)]);
    defaults::numbers(h, &[("rms_norm_eps", 1e-6)]);
    defaults::key_value_heads(h, Some(16))?;
    keys::prepare_rope(h, 10000.0);
    Ok(())
}

/// Sizes that the classes of Gemma 2 and 3 share.
const SIZES: [(&str, u32); 6] = [
    ("hidden_size", 2304),
    ("intermediate_size", 9216),
    ("num_hidden_layers", 26),
    ("num_attention_heads", 8),
    ("num_key_value_heads", 4),
    ("sliding_window", 4096),
];

fn prepare_gemma2(h: &mut Hparams) -> Result<()> {
    defaults::counts(h, &SIZES);
    defaults::numbers(h, &[("final_logit_softcapping", 30.0), ("attn_logit_softcapping", 50.0)]);
    prepare_gemma(h)
}

fn prepare_gemma3(h: &mut Hparams) -> Result<()> {
    defaults::counts(h, &SIZES);
    defaults::counts(h, &[("vocab_size", 262_208), ("max_position_embeddings", 131_072), ("head_dim", 256)]);
    defaults::numbers(h, &[("rms_norm_eps", 1e-6)]);
    defaults::rope_of_two_kinds(h, 1_000_000.0, 10000.0, Some("rope_local_base_freq"));
    Ok(())
}

fn keys_gemma(h: &Hparams, k: &mut Keys) -> Result<()> {
    k.u32("context_length", h.need(&["max_position_embeddings"])?);
    k.u32("embedding_length", h.need(&["hidden_size"])?);
    k.u32("block_count", h.need(&keys::LAYERS)?);
    k.u32("feed_forward_length", h.need(&["intermediate_size"])?);
    k.u32("attention.head_count", h.need(&["num_attention_heads"])?);
    k.u32("attention.head_count_kv", h.need(&["num_key_value_heads"])?);
    k.number("attention.layer_norm_rms_epsilon", h, &["rms_norm_eps"])?;
    k.u32("attention.key_length", h.need(&["head_dim"])?);
    k.u32("attention.value_length", h.need(&["head_dim"])?);
    k.file_type();
    Ok(())
}

fn keys_gemma2(h: &Hparams, k: &mut Keys) -> Result<()> {
    keys_gemma(h, k)?;
    k.number("attn_logit_softcapping", h, &["attn_logit_softcapping"])?;
    k.number("final_logit_softcapping", h, &["final_logit_softcapping"])?;
    k.u32("attention.sliding_window", h.need(&["sliding_window"])?);
    Ok(())
}

fn keys_gemma3(h: &Hparams, k: &mut Keys) -> Result<()> {
    keys::common(h, k)?;
    if let Some(theta) = rope_number(&rope_parameters(h), "rope_theta") {
        k.f32("rope.freq_base", theta);
    }
    if let Some(cap) = h.get("attn_logit_softcapping") {
        return Err(h.wrong("attn_logit_softcapping", cap, "null: Gemma 3 has none"));
    }
    if let Some(cap) = h.f64(&["final_logit_softcapping"])?.filter(|cap| *cap != 0.0) {
        k.f32("final_logit_softcapping", cap);
    }
    if h.get("sliding_window_pattern") != Some(&json!(1)) {
        k.u32("attention.sliding_window", h.need(&["sliding_window"])?);
    }
    Ok(())
}

fn config_gemma(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    keys::common_config(m, c)?;
    c.set("hidden_act", json!("gelu_pytorch_tanh"));
    c.set("hidden_activation", json!("gelu_pytorch_tanh"));
    c.set("attention_bias", json!(m.has_tensor("blk.0.attn_q.bias")));
    Ok(())
}

/// The number of layers of the largest Gemma 2 and the largest Gemma 3, which scale their attention by the width.
const LAYERS_27B: [(&str, u32); 2] = [("gemma2", 46), ("gemma3", 62)];

/// What attention is scaled by is not in GGUF; llama.cpp goes by the number of layers.
fn config_scale(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    let is_27b = LAYERS_27B.contains(&(m.arch(), m.need("block_count")?));
    let scalar = match is_27b {
        true => {
            let (width, heads) = (m.need("embedding_length")?, m.need("attention.head_count")?);
            let none = || Error::file(&m.checkpoint().path, format!("key '{}.attention.head_count': found 0, needed at least 1", m.arch()));
            width.checked_div(heads).ok_or_else(none)?
        }
        false => m.need("attention.key_length")?,
    };
    c.set("query_pre_attn_scalar", json!(scalar));
    Ok(())
}

fn config_gemma2(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    config_gemma(m, c)?;
    config_scale(m, c)?;
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        c.set(key, m.number(key).unwrap_or(Value::Null));
    }
    Ok(())
}

fn config_gemma3(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    config_gemma(m, c)?;
    config_scale(m, c)?;
    defaults::rope_of_two_kinds_config(m, c, 10000.0);
    c.set("final_logit_softcapping", m.number("final_logit_softcapping").unwrap_or(Value::Null));
    // transformers has the same rhythm as llama.cpp by itself: five layers that slide, one that does not.
    if m.u32("attention.sliding_window").is_none() {
        c.set("sliding_window_pattern", json!(1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn rows_beyond_the_vocabulary_are_cut() {
        let h = Hparams::parse(br#"{"vocab_size": 5}"#, Path::new("config.json")).unwrap();
        let (shape, link) = known_tokens(&h, &[8, 3]).unwrap();
        assert_eq!((shape, link.n_elements()), (vec![5, 3], 15));
        assert_eq!(known_tokens(&h, &[4, 3]).unwrap().0, [4, 3]);
        assert!(known_tokens(&h, &[4]).is_none());
    }
}
