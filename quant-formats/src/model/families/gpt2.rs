//! GPT-2.
//!
//! Source: `GPT2Model` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev; `GPT2Config` of transformers 5.23.

use quant_core::Result;
use serde_json::{Value, json};

use super::llama::nothing;
use crate::model::family::{Change, Family, Row, changed, row};
use crate::model::hparams::Hparams;
use crate::model::keys::{Keys, Meta};
use crate::model::tokenizer::Vocab;

/// Its linear layers have a row for each input; their weights are transposed.
const TENSORS: &[Row] = &[
    row("wte", "token_embd"),
    row("wpe", "position_embd"),
    row("ln_f", "output_norm"),
    row("/lm_head", "output"),
    row("h.{}.ln_1", "blk.{}.attn_norm"),
    changed("h.{}.attn.c_attn", "blk.{}.attn_qkv", Change::Transposed),
    changed("h.{}.attn.c_proj", "blk.{}.attn_output", Change::Transposed),
    row("h.{}.ln_2", "blk.{}.ffn_norm"),
    changed("h.{}.mlp.c_fc", "blk.{}.ffn_up", Change::Transposed),
    changed("h.{}.mlp.c_proj", "blk.{}.ffn_down", Change::Transposed),
];

/// GPT-2. Published files have no prefix, those of transformers have.
pub(crate) const GPT2: Family = Family {
    arch: "gpt2",
    classes: &["GPT2LMHeadModel"],
    model_type: "gpt2",
    prefix: "transformer.",
    tables: &[TENSORS],
    rename,
    prepare,
    extra: nothing,
    early: |_, _| Ok(()),
    keys,
    config,
    is: |_| true,
    vocab: Vocab::Gpt2,
    forced: &[],
    needed: &["attn_norm", "attn_norm.bias", "ffn_norm", "ffn_norm.bias", "attn_qkv.bias", "attn_output.bias", "ffn_up.bias", "ffn_down.bias"],
};

/// Masks, which old files have as tensors, are left out.
fn rename(_: &Hparams, name: &str) -> Option<String> {
    let is_mask = name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
    (!is_mask).then(|| name.into())
}

fn prepare(h: &mut Hparams) -> Result<()> {
    // The configuration class takes the names that most others have, too.
    for (other, key) in
        [("hidden_size", "n_embd"), ("max_position_embeddings", "n_positions"), ("num_attention_heads", "n_head"), ("num_hidden_layers", "n_layer")]
    {
        if let Some(value) = h.get(other).cloned() {
            h.default(key, value);
        }
    }
    for (key, value) in [
        ("vocab_size", json!(50257)),
        ("n_positions", json!(1024)),
        ("n_embd", json!(768)),
        ("n_layer", json!(12)),
        ("n_head", json!(12)),
        ("layer_norm_epsilon", json!(1e-5)),
    ] {
        h.default(key, value);
    }
    Ok(())
}

fn keys(h: &Hparams, k: &mut Keys) -> Result<()> {
    let width = h.need(&["n_embd"])?;
    k.u32("block_count", h.need(&["n_layer"])?);
    // Files that transformers writes today have no n_ctx, which the reference does not take.
    let context = h.u32(&["n_ctx"])?;
    k.u32("context_length", context.map_or_else(|| h.need(&["n_positions"]), Ok)?);
    k.u32("embedding_length", width);
    // The reference does not look at n_inner.
    k.u32("feed_forward_length", width.checked_mul(4).ok_or_else(|| h.wrong("n_embd", &json!(width), "a quarter of 32 bits"))?);
    k.u32("attention.head_count", h.need(&["n_head"])?);
    k.number("attention.layer_norm_epsilon", h, &["layer_norm_epsilon"])?;
    k.file_type();
    Ok(())
}

fn config(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    let width = m.need("embedding_length")?;
    let context = m.need("context_length")?;
    for (key, value) in [
        ("n_layer", m.need("block_count")?),
        ("n_head", m.need("attention.head_count")?),
        ("n_embd", width),
        ("n_ctx", context),
        ("n_positions", context),
    ] {
        c.set(key, json!(value));
    }
    c.set("layer_norm_epsilon", m.number("attention.layer_norm_epsilon").unwrap_or(json!(1e-5)));
    c.set("activation_function", json!("gelu_new"));
    let rows = |name: &str| m.checkpoint().tensors.iter().find(|t| t.name == name).and_then(|t| t.shape.first().copied());
    if let Some(n) = rows("token_embd.weight") {
        c.set("vocab_size", json!(n));
    }
    let inner = rows("blk.0.ffn_up.weight").filter(|n| *n != u64::from(width) * 4);
    c.set("n_inner", inner.map_or(Value::Null, |n| json!(n)));
    c.set("tie_word_embeddings", json!(!m.has_tensor("output.weight")));
    for key in ["bos", "eos", "padding"] {
        let name = if key == "padding" { "pad" } else { key };
        c.set(&format!("{name}_token_id"), m.number(&format!("tokenizer.ggml.{key}_token_id")).unwrap_or(Value::Null));
    }
    Ok(())
}
