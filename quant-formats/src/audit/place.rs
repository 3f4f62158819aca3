//! Where in a model a tensor is: its layer, and which part of it. By names of Hugging Face and of GGUF.

use quant_core::source::Role;

/// A part of a layer, or of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are the field's own")]
pub enum Part {
    AttnQ,
    AttnK,
    AttnV,
    AttnQkv,
    AttnO,
    FfnGate,
    FfnUp,
    FfnGateUp,
    FfnDown,
    Experts,
    Router,
    Embedding,
    Head,
    Norm,
    Bias,
    Other,
}

/// Parts by the last parts of paths, without `.weight`. Of several that fit, the first.
const PATHS: &[(Part, &[&str])] = &[
    (Part::AttnQkv, &["qkv_proj", "attn_qkv", "attn.c_attn", "query_key_value", "Wqkv", "qkv"]),
    (Part::AttnO, &["o_proj", "attn_output", "attention.output.dense", "attn.c_proj", "attention.wo", "attention.dense", "attn.out_proj", "out_lin"]),
    (Part::AttnQ, &["q_proj", "attn_q", "self.query", "attention.wq", "q_lin", "q_a_proj", "q_b_proj", "attn_q_a", "attn_q_b"]),
    (Part::AttnK, &["k_proj", "attn_k", "self.key", "attention.wk", "k_lin", "kv_a_proj_with_mqa", "attn_kv_a_mqa", "attn_k_b"]),
    (Part::AttnV, &["v_proj", "attn_v", "self.value", "attention.wv", "v_lin", "kv_b_proj", "attn_v_b", "attn_kv_b"]),
    (Part::FfnGateUp, &["gate_up_proj"]),
    (Part::FfnGate, &["gate_proj", "ffn_gate", "feed_forward.w1", "ffn_gate_shexp"]),
    (Part::FfnUp, &["up_proj", "ffn_up", "feed_forward.w3", "ffn_up_shexp", "mlp.c_fc", "mlp.fc1", "intermediate.dense", "ffn.lin1"]),
    (Part::FfnDown, &["down_proj", "ffn_down", "feed_forward.w2", "ffn_down_shexp", "mlp.c_proj", "mlp.fc2", "output.dense", "ffn.lin2"]),
];

/// Every part with its name, in the order in which reports list them.
const NAMES: [(Part, &str); 16] = [
    (Part::AttnQ, "attn_q"),
    (Part::AttnK, "attn_k"),
    (Part::AttnV, "attn_v"),
    (Part::AttnQkv, "attn_qkv"),
    (Part::AttnO, "attn_o"),
    (Part::FfnGate, "ffn_gate"),
    (Part::FfnUp, "ffn_up"),
    (Part::FfnGateUp, "ffn_gate_up"),
    (Part::FfnDown, "ffn_down"),
    (Part::Experts, "experts"),
    (Part::Router, "router"),
    (Part::Embedding, "embedding"),
    (Part::Head, "head"),
    (Part::Norm, "norm"),
    (Part::Bias, "bias"),
    (Part::Other, "other"),
];

impl Part {
    /// The word for people and programs.
    pub fn name(self) -> &'static str {
        NAMES[self as usize].1
    }

    /// Every part, in the order in which reports list them.
    pub fn all() -> impl Iterator<Item = Part> {
        NAMES.iter().map(|row| row.0)
    }
}

/// What part a tensor of this name and role is.
pub fn part_of(name: &str, role: Role) -> Part {
    match role {
        Role::Embedding => Part::Embedding,
        Role::Head => Part::Head,
        Role::Norm => Part::Norm,
        Role::Bias => Part::Bias,
        Role::Expert => Part::Experts,
        Role::Router => Part::Router,
        Role::Data => Part::Other,
        Role::Linear | Role::Conv1d | Role::Other => {
            let path = name.strip_suffix(".weight").unwrap_or(name);
            let ends = |end: &&str| path.strip_suffix(*end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            PATHS.iter().find(|(_, ends_of)| ends_of.iter().any(ends)).map_or(Part::Other, |row| row.0)
        }
    }
}

/// The number of the layer that a tensor is in: the first number in its name.
pub fn layer_of(name: &str) -> Option<u64> {
    name.split('.').find_map(|part| part.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_worlds_have_the_same_parts() {
        for (here, there, part) in [
            ("model.layers.3.self_attn.q_proj.weight", "blk.3.attn_q.weight", Part::AttnQ),
            ("model.layers.3.self_attn.o_proj.weight", "blk.3.attn_output.weight", Part::AttnO),
            ("model.layers.3.mlp.down_proj.weight", "blk.3.ffn_down.weight", Part::FfnDown),
            ("transformer.h.3.attn.c_attn.weight", "blk.3.attn_qkv.weight", Part::AttnQkv),
            ("transformer.h.3.attn.c_proj.weight", "blk.3.attn_output.weight", Part::AttnO),
            ("encoder.layer.3.attention.output.dense.weight", "blk.3.attn_output.weight", Part::AttnO),
            ("encoder.layer.3.output.dense.weight", "blk.3.ffn_down.weight", Part::FfnDown),
            ("encoder.layer.3.intermediate.dense.weight", "blk.3.ffn_up.weight", Part::FfnUp),
        ] {
            assert_eq!((part_of(here, Role::Linear), part_of(there, Role::Linear)), (part, part), "{here}");
            assert_eq!((layer_of(here), layer_of(there)), (Some(3), Some(3)));
        }
        assert_eq!((part_of("lm_head.weight", Role::Head), layer_of("lm_head.weight")), (Part::Head, None));
        assert_eq!(layer_of("model.layers.2.mlp.experts.7.w1.weight"), Some(2));
    }

    #[test]
    fn the_table_is_indexed_by_the_enum() {
        assert!(NAMES.iter().enumerate().all(|(i, (part, _))| *part as usize == i));
    }
}
