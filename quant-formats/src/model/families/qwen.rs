//! Qwen 1.5 to 3, dense and with experts.
//!
//! Source: `Qwen2Model`, `Qwen2MoeModel`, `Qwen3Model`, `Qwen3MoeModel` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev;
//! configuration classes of transformers 5.23.

use quant_core::{Error, Result};
use serde_json::json;

use super::bert::pooling;
use super::defaults;
use super::llama::{as_it_is, nothing};
use crate::model::family::{Change, Family, Layout, Row, USUAL, exact, row};
use crate::model::hparams::Hparams;
use crate::model::keys::{self, Keys, Meta};
use crate::model::link::{Axis, Link};
use crate::model::names::{ATTENTION, EXPERTS, FEED_FORWARD, NORMED_HEADS, OUTER};
use crate::model::tokenizer::Vocab;

/// Norms of KORMo, which is Qwen2 otherwise.
const KORMO_NORMS: &[Row] = &[row("layers.{}.pre_attention_layernorm", "blk.{}.attn_norm"), row("layers.{}.pre_mlp_layernorm", "blk.{}.ffn_norm")];

/// What layers with experts have besides them. llama.cpp knows no layers without.
const BESIDE_EXPERTS: &[Row] = &[
    row("layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"),
    row("layers.{}.mlp.shared_expert_gate", "blk.{}.ffn_gate_inp_shexp"),
    row("layers.{}.mlp.shared_expert.gate_proj", "blk.{}.ffn_gate_shexp"),
    row("layers.{}.mlp.shared_expert.up_proj", "blk.{}.ffn_up_shexp"),
    row("layers.{}.mlp.shared_expert.down_proj", "blk.{}.ffn_down_shexp"),
];

/// Experts that are stacked already, as transformers 5 has them in memory. The way back writes them one by one.
const FUSED: &[Row] = &[
    exact("layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps.weight", Change::Same),
    exact("layers.{}.mlp.experts.down_proj.weight", "blk.{}.ffn_down_exps.weight", Change::Same),
    exact("layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight", Change::Other(FIRST_HALF)),
    exact("layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_up_exps.weight", Change::Other(SECOND_HALF)),
    exact("layers.{}.mlp.experts.gate_up_proj.weight", "blk.{}.ffn_gate_exps.weight", Change::Other(FIRST_HALF)),
    exact("layers.{}.mlp.experts.gate_up_proj.weight", "blk.{}.ffn_up_exps.weight", Change::Other(SECOND_HALF)),
];

const FIRST_HALF: Layout = Layout { to_gguf: |_, shape| half(shape, 0), to_hf: |_, shape| whole(shape) };
const SECOND_HALF: Layout = Layout { to_gguf: |_, shape| half(shape, 1), to_hf: |_, shape| whole(shape) };

/// Qwen 1.5 to 2.5.
pub(crate) const QWEN2: Family = Family {
    arch: "qwen2",
    classes: &["Qwen2ForCausalLM", "Qwen2Model"],
    model_type: "qwen2",
    prefix: "model.",
    tables: &[OUTER, ATTENTION, FEED_FORWARD],
    rename: as_it_is,
    early: |_, _| Ok(()),
    prepare: prepare_qwen2,
    extra: nothing,
    keys: keys_qwen2,
    config: config_qwen2,
    is: |_| true,
    vocab: Vocab::SentencePieceOrGpt2,
    forced: &[],
    needed: BIASED,
};

/// KORMo, whose class transformers does not have: its config.json stands for itself.
pub(crate) const KORMO: Family = Family {
    classes: &["KORMoForCausalLM"],
    tables: &[KORMO_NORMS, OUTER, ATTENTION, FEED_FORWARD],
    prepare: |h| {
        keys::prepare_rope(h, 10000.0);
        Ok(())
    },
    is: |_| false,
    needed: USUAL,
    ..QWEN2
};

/// Qwen 1.5 and 2 with experts.
pub(crate) const QWEN2_MOE: Family = Family {
    arch: "qwen2moe",
    classes: &["Qwen2MoeForCausalLM"],
    model_type: "qwen2_moe",
    tables: &[EXPERTS, BESIDE_EXPERTS, OUTER, ATTENTION, FUSED],
    prepare: prepare_qwen2_moe,
    keys: keys_moe,
    config: config_qwen2_moe,
    vocab: Vocab::Gpt2,
    // Biases too, unless qkv_bias is false.
    needed: USUAL,
    ..QWEN2
};

/// What layers of Qwen 2 have.
const BIASED: &[&str] = &["attn_norm", "ffn_norm", "ffn_gate", "attn_q.bias", "attn_k.bias", "attn_v.bias"];
/// What layers of Qwen 3 have.
const NORMED: &[&str] = &["attn_norm", "ffn_norm", "ffn_gate", "attn_q_norm", "attn_k_norm"];

/// Qwen 3.
pub(crate) const QWEN3: Family = Family {
    arch: "qwen3",
    classes: &["Qwen3ForCausalLM", "Qwen3Model"],
    model_type: "qwen3",
    tables: &[OUTER, ATTENTION, NORMED_HEADS, FEED_FORWARD],
    prepare: prepare_qwen3,
    keys: keys_qwen3,
    config: config_qwen3,
    needed: NORMED,
    ..QWEN2
};

/// Qwen 3 with experts.
pub(crate) const QWEN3_MOE: Family = Family {
    arch: "qwen3moe",
    classes: &["Qwen3MoeForCausalLM"],
    model_type: "qwen3_moe",
    tables: &[EXPERTS, BESIDE_EXPERTS, OUTER, ATTENTION, NORMED_HEADS, FUSED],
    prepare: prepare_qwen3_moe,
    config: config_qwen3_moe,
    needed: NORMED,
    ..QWEN2_MOE
};

/// One half of the rows of each expert.
fn half(shape: &[u64], which: u64) -> Option<(Vec<u64>, Link)> {
    let [experts, rows, columns] = *shape else { return None };
    if rows % 2 != 0 {
        return None;
    }
    let n = (rows / 2).checked_mul(columns)?;
    let step = n.checked_mul(2)?;
    let axes = vec![Axis { len: experts, hf: step, gguf: n }, Axis { len: n, hf: 1, gguf: 1 }];
    Some((vec![experts, rows / 2, columns], Link { hf_at: which * n, ..Link::of(axes) }))
}

fn whole(shape: &[u64]) -> Option<Vec<u64>> {
    let [experts, rows, columns] = *shape else { return None };
    Some(vec![experts, rows.checked_mul(2)?, columns])
}

fn prepare_qwen2(h: &mut Hparams) -> Result<()> {
    let sizes = [("hidden_size", 4096), ("intermediate_size", 22016), ("num_hidden_layers", 32), ("num_attention_heads", 32)];
    defaults::counts(h, &sizes);
    defaults::counts(h, &[("vocab_size", 151_936), ("max_position_embeddings", 32768)]);
    defaults::numbers(h, &[("rms_norm_eps", 1e-6)]);
    defaults::key_value_heads(h, Some(32))?;
    keys::prepare_rope(h, 10000.0);
    Ok(())
}

fn prepare_qwen3(h: &mut Hparams) -> Result<()> {
    defaults::counts(h, &[("head_dim", 128)]);
    prepare_qwen2(h)
}

fn prepare_qwen2_moe(h: &mut Hparams) -> Result<()> {
    let sizes = [("hidden_size", 2048), ("intermediate_size", 5632), ("num_hidden_layers", 24), ("num_attention_heads", 16)];
    defaults::counts(h, &sizes);
    let experts = [("num_experts", 60), ("num_experts_per_tok", 4), ("moe_intermediate_size", 1408), ("shared_expert_intermediate_size", 5632)];
    defaults::counts(h, &experts);
    defaults::key_value_heads(h, Some(16))?;
    prepare_qwen2(h)
}

fn prepare_qwen3_moe(h: &mut Hparams) -> Result<()> {
    let sizes = [("hidden_size", 2048), ("intermediate_size", 6144), ("num_hidden_layers", 24), ("num_attention_heads", 32)];
    defaults::counts(h, &sizes);
    let experts = [("num_experts", 128), ("num_experts_per_tok", 8), ("moe_intermediate_size", 768)];
    defaults::counts(h, &experts);
    defaults::key_value_heads(h, Some(4))?;
    prepare_qwen2(h)
}

fn keys_qwen2(h: &Hparams, k: &mut Keys) -> Result<()> {
    keys::common(h, k)?;
    if let Some(kind) = pooling::kind(h)? {
        k.u32("pooling_type", kind);
    }
    Ok(())
}

fn keys_qwen3(h: &Hparams, k: &mut Keys) -> Result<()> {
    refuse_rerankers(h)?;
    keys_qwen2(h, k)
}

fn keys_moe(h: &Hparams, k: &mut Keys) -> Result<()> {
    keys::common(h, k)?;
    k.count("expert_feed_forward_length", h, &["moe_intermediate_size"])?;
    k.count("expert_shared_feed_forward_length", h, &["shared_expert_intermediate_size"])
}

/// The reference knows rerankers by their names alone, and keeps two rows of their head: those of "yes" and "no".
fn refuse_rerankers(h: &Hparams) -> Result<()> {
    let folder = h.path().parent().and_then(|folder| std::fs::canonicalize(folder).ok()).unwrap_or_default();
    let name = folder.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let origin = h.text(&["_name_or_path"]).ok().flatten().unwrap_or_default().to_lowercase();
    let is_named = |text: &str| text.contains("qwen3-reranker") || text.contains("qwen3-vl-reranker");
    if is_named(&name) || is_named(&origin) {
        let problem = "is that of a Qwen3 reranker, whose head llama.cpp cuts to two rows, which quant does not do";
        return Err(Error::file(h.path(), format!("{problem}; a folder of another name converts it as a language model")));
    }
    Ok(())
}

fn config_qwen2(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    keys::common_config(m, c)?;
    c.set("hidden_act", json!("silu"));
    Ok(())
}

fn config_qwen3(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    config_qwen2(m, c)?;
    c.set("attention_bias", json!(m.has_tensor("blk.0.attn_q.bias")));
    Ok(())
}

fn config_qwen2_moe(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    config_qwen2(m, c)?;
    config_moe(m, c)?;
    let shared = "blk.0.ffn_up_shexp.weight";
    c.set("shared_expert_intermediate_size", json!(size(m, "expert_shared_feed_forward_length", shared)?));
    c.set("qkv_bias", json!(m.has_tensor("blk.0.attn_q.bias")));
    // What llama.cpp does.
    c.set("norm_topk_prob", json!(false));
    Ok(())
}

fn config_qwen3_moe(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    config_qwen3(m, c)?;
    config_moe(m, c)?;
    c.set("norm_topk_prob", json!(true));
    Ok(())
}

fn config_moe(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    c.set("num_experts", json!(m.need("expert_count")?));
    c.set("moe_intermediate_size", json!(size(m, "expert_feed_forward_length", "blk.0.ffn_up_exps.weight")?));
    c.set("decoder_sparse_step", json!(1));
    c.set("mlp_only_layers", json!([]));
    Ok(())
}

/// The inner size of experts: as metadata has it, or as the matrix `tensor` has rows. Older files lack the key.
fn size(m: &Meta<'_>, key: &str, tensor: &str) -> Result<u64> {
    let rows = |shape: &[u64]| shape.len().checked_sub(2).and_then(|i| shape.get(i)).copied();
    let found = m.checkpoint().tensors.iter().find(|t| t.name == tensor).and_then(|t| rows(&t.shape));
    m.u32(key).map(u64::from).or(found).map_or_else(|| m.need(key).map(u64::from), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_fused_experts_are_symmetric() {
        let (shape, link) = half(&[3, 8, 5], 1).unwrap();
        assert_eq!(shape, [3, 4, 5]);
        assert_eq!(whole(&shape).unwrap(), [3, 8, 5]);
        assert_eq!((link.hf_at, link.gguf_at, link.n_elements()), (20, 0, 60));
        assert_eq!(link.to_gguf().ends(), (119, 59));
        assert!(half(&[3, 7, 5], 0).is_none());
        assert!(half(&[8, 5], 0).is_none());
    }
}
