//! Which biases llama.cpp loads, by architecture.
//!
//! Source: `llama_model::load_tensors` and `create_tensor_qkv` of llama.cpp 0.5.0-dev; modules of transformers 5.23.

use super::super::family::Family;

/// What llama.cpp makes of a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bias {
    /// It loads it; or it is no bias.
    Loaded,
    /// The class of transformers has it, the reference writes it, and llama.cpp then does not load the file.
    Refused,
    /// Neither has it.
    Strange,
}

/// Architectures whose attention has a bias behind it in llama.cpp, and those where only transformers has one.
const BEHIND_ATTENTION: [&[&str]; 2] = [
    &["llama", "granite", "starcoder2", "gpt2", "bert", "gpt-oss"],
    &["gemma", "gemma2", "gemma3", "qwen3", "qwen3moe", "olmo2", "smollm3", "command-r", "deepseek2"],
];
/// The same of feed-forward layers.
const IN_FEED_FORWARD: [&[&str]; 2] = [&["llama", "granite", "starcoder2", "gpt2", "bert"], &["smollm3"]];

impl Bias {
    /// What becomes of the tensor `name`, a name without its layer.
    pub(super) fn of(family: &Family, name: &str) -> Bias {
        let Some(base) = name.strip_suffix(".bias") else { return Bias::Loaded };
        let arch = family.arch;
        let either = |archs: [&[&str]; 2]| match archs.map(|archs| archs.contains(&arch)) {
            [true, _] => Bias::Loaded,
            [_, true] => Bias::Refused,
            _ => Bias::Strange,
        };
        match base {
            "attn_q" | "attn_k" | "attn_v" | "attn_qkv" if arch != "deepseek2" => Bias::Loaded,
            "attn_output" => either(BEHIND_ATTENTION),
            "ffn_gate" | "ffn_up" | "ffn_down" => either(IN_FEED_FORWARD),
            "attn_q_a" | "attn_kv_a_mqa" => Bias::Refused,
            "exp_probs_b" | "cls" | "cls.output" => Bias::Loaded,
            "output" => either([&["qwen2"], &[]]),
            "output_norm" | "attn_norm" | "ffn_norm" => either([&["gpt2", "starcoder2"], &[]]),
            "token_embd_norm" | "attn_output_norm" | "layer_output_norm" => either([&["bert"], &[]]),
            _ => either([&["gpt-oss"], &[]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::families::{gpt2, llama, qwen, smollm3};

    #[test]
    fn biases_are_those_of_the_class() {
        assert_eq!(Bias::of(&llama::LLAMA, "attn_output.bias"), Bias::Loaded);
        assert_eq!(Bias::of(&llama::LLAMA, "attn_norm.bias"), Bias::Strange);
        assert_eq!(Bias::of(&llama::LLAMA, "output.bias"), Bias::Strange);
        assert_eq!(Bias::of(&qwen::QWEN2, "output.bias"), Bias::Loaded);
        assert_eq!(Bias::of(&qwen::QWEN2, "attn_output.bias"), Bias::Strange);
        assert_eq!(Bias::of(&qwen::QWEN3, "attn_output.bias"), Bias::Refused);
        assert_eq!(Bias::of(&smollm3::SMOLLM3, "ffn_up.bias"), Bias::Refused);
        assert_eq!(Bias::of(&gpt2::GPT2, "attn_norm.bias"), Bias::Loaded);
        assert_eq!(Bias::of(&gpt2::GPT2, "attn_norm.weight"), Bias::Loaded);
    }
}
