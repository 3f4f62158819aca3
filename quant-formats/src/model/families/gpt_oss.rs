//! gpt-oss: attention with sinks, and experts whose gates and inputs lie row by row in turn.
//!
//! Source: `GptOssModel` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev; `GptOssConfig` of transformers 5.23.

use quant_core::Result;
use serde_json::{Value, json};

use super::llama::{as_it_is, nothing};
use crate::model::family::{Change, Family, Layout, Row, exact, row};
use crate::model::hparams::Hparams;
use crate::model::keys::{self, Keys, Meta};
use crate::model::link::{Axis, Link};
use crate::model::names::{ATTENTION, OUTER};
use crate::model::tokenizer::Vocab;

/// Experts as transformers has them: a matrix \[inputs, outputs\] for each.
const EXPERTS: &[Row] = &[
    row("layers.{}.post_attention_layernorm", "blk.{}.post_attention_norm"),
    exact("layers.{}.self_attn.sinks", "blk.{}.attn_sinks.weight", Change::Same),
    row("layers.{}.mlp.router", "blk.{}.ffn_gate_inp"),
    exact("layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight", Change::Other(GATE)),
    exact("layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_up_exps.weight", Change::Other(UP)),
    exact("layers.{}.mlp.experts.gate_up_proj_bias", "blk.{}.ffn_gate_exps.bias", Change::Other(GATE_BIAS)),
    exact("layers.{}.mlp.experts.gate_up_proj_bias", "blk.{}.ffn_up_exps.bias", Change::Other(UP_BIAS)),
    exact("layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps.weight", Change::Other(DOWN)),
    exact("layers.{}.mlp.experts.down_proj_bias", "blk.{}.ffn_down_exps.bias", Change::Same),
];

/// Experts of MXFP4, which lie as \[outputs, inputs\].
const PACKED: &[Row] = &[
    exact("layers.{}.mlp.experts.gate_up_proj_blocks", "blk.{}.ffn_gate_exps.weight", Change::Other(PACKED_GATE)),
    exact("layers.{}.mlp.experts.gate_up_proj_blocks", "blk.{}.ffn_up_exps.weight", Change::Other(PACKED_UP)),
    exact("layers.{}.mlp.experts.down_proj_blocks", "blk.{}.ffn_down_exps.weight", Change::Same),
];

const GATE: Layout = Layout { to_gguf: |h, shape| in_turn(h, shape, 0), to_hf: whole };
const UP: Layout = Layout { to_gguf: |h, shape| in_turn(h, shape, 1), to_hf: whole };
const GATE_BIAS: Layout = Layout { to_gguf: |_, shape| biases(shape, 0), to_hf: whole_bias };
const UP_BIAS: Layout = Layout { to_gguf: |_, shape| biases(shape, 1), to_hf: whole_bias };
const DOWN: Layout = Layout { to_gguf: down, to_hf: |_, shape| swapped(shape) };
const PACKED_GATE: Layout = Layout { to_gguf: |_, shape| every_other_row(shape, 0), to_hf: whole };
const PACKED_UP: Layout = Layout { to_gguf: |_, shape| every_other_row(shape, 1), to_hf: whole };

/// gpt-oss.
pub(crate) const GPT_OSS: Family = Family {
    arch: "gpt-oss",
    classes: &["GptOssForCausalLM"],
    model_type: "gpt_oss",
    prefix: "model.",
    tables: &[EXPERTS, PACKED, OUTER, ATTENTION],
    rename: as_it_is,
    prepare,
    extra: nothing,
    early: |_, _| Ok(()),
    keys,
    config,
    is: |_| true,
    vocab: Vocab::Gpt2,
    forced: &[],
    needed: &[
        "attn_norm",
        "post_attention_norm",
        "ffn_gate",
        "attn_sinks",
        "attn_q.bias",
        "attn_k.bias",
        "attn_v.bias",
        "attn_output.bias",
        "ffn_gate_inp.bias",
        "ffn_gate_exps.bias",
        "ffn_up_exps.bias",
        "ffn_down_exps.bias",
    ],
};

/// Whether a stack of experts lies as \[outputs, inputs\]. Shapes do not tell, as all published models have as many inputs as
/// outputs; the configuration does.
fn is_packed(h: &Hparams, shape: &[u64], inputs: &str) -> bool {
    let is_mxfp4 = h.object("quantization_config").and_then(|q| q.get("quant_method")).and_then(Value::as_str) == Some("mxfp4");
    let columns = h.u32(&[inputs]).ok().flatten().map(u64::from);
    is_mxfp4 && shape.last().copied() == columns
}

/// Gates (`first` 0) or inputs (1) of \[experts, inputs, 2 × outputs\].
fn in_turn(h: &Hparams, shape: &[u64], first: u64) -> Option<(Vec<u64>, Link)> {
    if is_packed(h, shape, "hidden_size") {
        return every_other_row(shape, first);
    }
    let &[experts, inputs, both] = shape else { return None };
    let outputs = half(both)?;
    let axes = vec![
        Axis { len: experts, hf: inputs.checked_mul(both)?, gguf: outputs.checked_mul(inputs)? },
        Axis { len: outputs, hf: 2, gguf: inputs },
        Axis { len: inputs, hf: both, gguf: 1 },
    ];
    Some((vec![experts, outputs, inputs], Link { hf_at: first, ..Link::of(axes) }))
}

/// The same of \[experts, 2 × outputs, inputs\].
fn every_other_row(shape: &[u64], first: u64) -> Option<(Vec<u64>, Link)> {
    let &[experts, both, inputs] = shape else { return None };
    let outputs = half(both)?;
    let axes = vec![
        Axis { len: experts, hf: both.checked_mul(inputs)?, gguf: outputs.checked_mul(inputs)? },
        Axis { len: outputs, hf: inputs.checked_mul(2)?, gguf: inputs },
        Axis { len: inputs, hf: 1, gguf: 1 },
    ];
    Some((vec![experts, outputs, inputs], Link { hf_at: first.checked_mul(inputs)?, ..Link::of(axes) }))
}

/// The same of \[experts, 2 × outputs\].
fn biases(shape: &[u64], first: u64) -> Option<(Vec<u64>, Link)> {
    let &[experts, both] = shape else { return None };
    let outputs = half(both)?;
    let axes = vec![Axis { len: experts, hf: both, gguf: outputs }, Axis { len: outputs, hf: 2, gguf: 1 }];
    Some((vec![experts, outputs], Link { hf_at: first, ..Link::of(axes) }))
}

fn half(both: u64) -> Option<u64> {
    both.is_multiple_of(2).then_some(both / 2)
}

/// \[experts, inputs, outputs\] transposed, unless it lies so already.
fn down(h: &Hparams, shape: &[u64]) -> Option<(Vec<u64>, Link)> {
    if is_packed(h, shape, "intermediate_size") {
        return Some((shape.to_vec(), Link::same(shape)));
    }
    let &[experts, inputs, outputs] = shape else { return None };
    let each = inputs.checked_mul(outputs)?;
    let axes =
        vec![Axis { len: experts, hf: each, gguf: each }, Axis { len: inputs, hf: outputs, gguf: 1 }, Axis { len: outputs, hf: 1, gguf: inputs }];
    Some((vec![experts, outputs, inputs], Link::of(axes)))
}

/// Gates and inputs together, as transformers has them.
fn whole(_: &Hparams, shape: &[u64]) -> Option<Vec<u64>> {
    let &[experts, outputs, inputs] = shape else { return None };
    Some(vec![experts, inputs, outputs.checked_mul(2)?])
}

fn whole_bias(_: &Hparams, shape: &[u64]) -> Option<Vec<u64>> {
    let &[experts, outputs] = shape else { return None };
    Some(vec![experts, outputs.checked_mul(2)?])
}

fn swapped(shape: &[u64]) -> Option<Vec<u64>> {
    let &[experts, outputs, inputs] = shape else { return None };
    Some(vec![experts, inputs, outputs])
}

fn prepare(h: &mut Hparams) -> Result<()> {
    for (key, value) in [
        ("num_hidden_layers", json!(36)),
        ("num_local_experts", json!(128)),
        ("vocab_size", json!(201_088)),
        ("hidden_size", json!(2880)),
        ("intermediate_size", json!(2880)),
        ("head_dim", json!(64)),
        ("num_attention_heads", json!(64)),
        ("num_key_value_heads", json!(8)),
        ("sliding_window", json!(128)),
        ("max_position_embeddings", json!(131_072)),
        ("rms_norm_eps", json!(1e-5)),
        ("num_experts_per_tok", json!(4)),
    ] {
        h.default(key, value);
    }
    if h.get("rope_parameters").is_none() && h.get("rope_scaling").is_none() {
        let yarn = json!({"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
            "original_max_position_embeddings": 4096});
        h.set("rope_parameters", yarn);
    }
    keys::prepare_rope(h, 150_000.0);
    Ok(())
}

fn keys(h: &Hparams, k: &mut Keys) -> Result<()> {
    keys::common(h, k)?;
    k.u32("attention.sliding_window", h.need(&["sliding_window"])?);
    k.u32("expert_feed_forward_length", h.need(&["intermediate_size"])?);
    Ok(())
}

fn config(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    keys::common_config(m, c)?;
    c.set("num_local_experts", json!(m.need("expert_count")?));
    c.set("intermediate_size", json!(m.need("expert_feed_forward_length")?));
    c.set("hidden_act", json!("silu"));
    c.set("attention_bias", json!(m.has_tensor("blk.0.attn_q.bias")));
    // GGUF does not say that the bounds of the stretch are not rounded; they never are in these models.
    if let Some(mut rope) = c.object("rope_parameters").cloned() {
        rope.insert("truncate".into(), json!(false));
        c.set("rope_parameters", Value::Object(rope));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::link::order;

    fn hparams(json: &str) -> Hparams {
        Hparams::parse(json.as_bytes(), Path::new("config.json")).unwrap()
    }

    #[test]
    fn gates_and_inputs_lie_in_turn() {
        // One expert of 2 inputs and 2 outputs: gate, input, gate, input for each input.
        let (shape, gate) = in_turn(&hparams("{}"), &[1, 2, 4], 0).unwrap();
        assert_eq!((&shape[..], &order(&gate)[..]), (&[1, 2, 2][..], &[0, 4, 2, 6][..]));
        assert_eq!(order(&in_turn(&hparams("{}"), &[1, 2, 4], 1).unwrap().1), [1, 5, 3, 7]);
        assert_eq!(order(&biases(&[2, 4], 1).unwrap().1), [1, 3, 5, 7]);
        assert_eq!(whole(&hparams("{}"), &shape), Some(vec![1, 2, 4]));
        assert_eq!(in_turn(&hparams("{}"), &[1, 2, 3], 0), None);
    }

    #[test]
    fn packed_experts_have_their_outputs_first() {
        let (shape, input) = every_other_row(&[1, 4, 2], 1).unwrap();
        assert_eq!((&shape[..], &order(&input)[..]), (&[1, 2, 2][..], &[2, 3, 6, 7][..]));
        let mxfp4 = hparams(r#"{"hidden_size": 2, "intermediate_size": 2, "quantization_config": {"quant_method": "mxfp4"}}"#);
        assert_eq!(in_turn(&mxfp4, &[1, 4, 2], 1), every_other_row(&[1, 4, 2], 1));
        assert_eq!(order(&down(&mxfp4, &[1, 2, 2]).unwrap().1), [0, 1, 2, 3]);
        assert_eq!(order(&down(&hparams("{}"), &[1, 2, 2]).unwrap().1), [0, 2, 1, 3]);
    }
}
