//! Which type each tensor of a converted model has.
//!
//! Source: `ModelBase.prepare_tensors` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev.

use std::str::FromStr;

use quant_core::{Dtype, Scheme, ggml};

use super::family::Family;

/// The type that a converted model has, as `--outtype` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Outtype {
    /// f16 or bf16, whichever the first matrix of the model has; else f16.
    #[default]
    Auto,
    /// This one.
    Is(Scheme),
}

/// Names, schemes and numbers of file types.
const OUTTYPES: [(&str, Scheme, u32); 6] = [
    ("f32", Scheme::Dense(Dtype::F32), 0),
    ("f16", Scheme::Dense(Dtype::F16), 1),
    ("bf16", Scheme::Dense(Dtype::BF16), 32),
    ("q8_0", Scheme::Ggml(ggml::Type::Q8_0), 7),
    ("tq1_0", Scheme::Ggml(ggml::Type::TQ1_0), 36),
    ("tq2_0", Scheme::Ggml(ggml::Type::TQ2_0), 37),
];

/// Tensors that llama.cpp only handles in f32, by the last part of their name.
const ALWAYS_F32: [&str; 4] = ["ffn_gate_inp", "ffn_gate_inp_shexp", "position_embd", "token_types"];

impl FromStr for Outtype {
    type Err = String;

    fn from_str(text: &str) -> Result<Outtype, String> {
        if text == "auto" {
            return Ok(Outtype::Auto);
        }
        let found = OUTTYPES.iter().find(|(name, ..)| *name == text);
        found.map(|(_, scheme, _)| Outtype::Is(*scheme)).ok_or_else(|| format!("'{text}' is none of auto, f32, f16, bf16, q8_0, tq1_0, tq2_0"))
    }
}

/// The number of `general.file_type` for a model converted to `scheme`.
pub(crate) fn file_type(scheme: Scheme) -> u32 {
    OUTTYPES.iter().find(|(_, s, _)| *s == scheme).map_or(1, |row| row.2)
}

/// The scheme of the tensor `name` of GGUF with `shape`, when the model is converted to `wanted`.
pub(crate) fn scheme_of(family: &Family, name: &str, shape: &[u64], wanted: Scheme) -> Scheme {
    let dense = |dtype| Scheme::Dense(dtype);
    if shape.len() <= 1 || name.ends_with("_norm.weight") {
        return dense(Dtype::F32);
    }
    if let Some((_, dtype)) = family.forced.iter().find(|(end, _)| name.ends_with(end)) {
        return dense(*dtype);
    }
    let Some(stem) = name.strip_suffix(".weight") else { return dense(Dtype::F32) };
    if ALWAYS_F32.contains(&stem.rsplit('.').next().unwrap_or(stem)) {
        return dense(Dtype::F32);
    }
    let Scheme::Ggml(ty) = wanted else { return wanted };
    let is_ternary = matches!(ty, ggml::Type::TQ1_0 | ggml::Type::TQ2_0);
    let fits = shape.last().is_some_and(|columns| columns.is_multiple_of(ty.block_len()));
    if !fits || is_ternary && matches!(stem, "token_embd" | "output") { dense(Dtype::F16) } else { wanted }
}
