//! Names that most decoders have in common. Families put tables of their own before these.

use super::family::{Change, Heads, Row, changed, row};

/// Embedding, norm and head.
pub(crate) const OUTER: &[Row] = &[row("embed_tokens", "token_embd"), row("norm", "output_norm"), row("/lm_head", "output")];

/// Attention whose queries and keys lie as Hugging Face has them.
pub(crate) const ATTENTION: &[Row] = &[
    row("layers.{}.input_layernorm", "blk.{}.attn_norm"),
    row("layers.{}.self_attn.q_proj", "blk.{}.attn_q"),
    row("layers.{}.self_attn.k_proj", "blk.{}.attn_k"),
    row("layers.{}.self_attn.v_proj", "blk.{}.attn_v"),
    row("layers.{}.self_attn.o_proj", "blk.{}.attn_output"),
];

/// Norms of queries and keys.
pub(crate) const NORMED_HEADS: &[Row] =
    &[row("layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm"), row("layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm")];

/// Queries and keys whose rows are regrouped, as llama.cpp's llama needs them.
pub(crate) const ROTATED: &[Row] = &[
    changed("layers.{}.self_attn.q_proj", "blk.{}.attn_q", Change::Rope(Heads::Query)),
    changed("layers.{}.self_attn.k_proj", "blk.{}.attn_k", Change::Rope(Heads::KeyValue)),
];

/// A gated feed-forward layer and the norm before it.
pub(crate) const FEED_FORWARD: &[Row] = &[
    row("layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"),
    row("layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"),
    row("layers.{}.mlp.up_proj", "blk.{}.ffn_up"),
    row("layers.{}.mlp.down_proj", "blk.{}.ffn_down"),
];

/// A mixture of experts as Qwen and DeepSeek name it. Stacks come in this order once the last expert of a layer was seen.
pub(crate) const EXPERTS: &[Row] = &[
    row("layers.{}.mlp.gate", "blk.{}.ffn_gate_inp"),
    changed("layers.{}.mlp.experts.{e}.down_proj", "blk.{}.ffn_down_exps", Change::Stacked),
    changed("layers.{}.mlp.experts.{e}.gate_proj", "blk.{}.ffn_gate_exps", Change::Stacked),
    changed("layers.{}.mlp.experts.{e}.up_proj", "blk.{}.ffn_up_exps", Change::Stacked),
];
