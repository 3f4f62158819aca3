//! The mixes, as a table: which tensors of which file type get another type than the file type's default.
//!
//! Source: `llama_tensor_get_type_impl` in `src/llama-quant.cpp` of llama.cpp 0.5.0-dev.

use super::ftype::Ftype::{self as F};
use super::names::Category::{self, AttnK, AttnOutput, AttnQ, AttnV, Embedding, FfnDown, FfnGate, FfnUp, Output};
use crate::ggml::Type::{self as T};

/// One row: tensors of these categories in files of these types get this type, when all conditions hold.
pub(super) struct Rule {
    /// The categories; empty for all.
    on: &'static [Category],
    /// The file types; empty for all.
    of: &'static [F],
    /// The conditions.
    when: &'static [When],
    /// The type.
    to: T,
}

const fn rule(on: &'static [Category], of: &'static [F], when: &'static [When], to: T) -> Rule {
    Rule { on, of, when, to }
}

/// A condition. Where layers are counted, `i` is a tensor's place among the `n` of its category; see [`Case`].
#[derive(Clone, Copy)]
pub(super) enum When {
    Falcon,
    NotFalcon,
    /// Every key and value serves at least four queries.
    Gqa4,
    /// That, or the model has at least four experts.
    Gqa4OrExperts4,
    Experts8,
    NotExperts8,
    Matrix,
    NoMatrix,
    /// The rows are no multiple of the default type's block.
    OddRows,
    /// The tensor is a stack of experts.
    Stack,
    /// i < count
    First(i64),
    /// i < n / parts
    FirstPart(i64),
    /// n / 8 <= i < 7n / 8
    Middle,
    /// The first and last eighth, and every third between them.
    MoreBits,
}

/// What the conditions ask about one tensor.
#[derive(Clone, Copy)]
pub(super) struct Case<'a> {
    pub(super) arch: &'a str,
    /// Query heads for each key head; 0 without key heads.
    pub(super) gqa: u32,
    pub(super) n_expert: u32,
    pub(super) is_70b: bool,
    pub(super) has_imatrix: bool,
    pub(super) ftype: F,
    pub(super) category: Category,
    /// Whether rows fit blocks of the default type.
    pub(super) fits_default: bool,
    /// The length of the third dimension from the end; 1 without one.
    pub(super) depth: u64,
    /// Which layer's it is, or how many of its category came before.
    pub(super) i: i64,
    /// The number of layers, or of tensors like `attn_v`.
    pub(super) n: i64,
}

const ANY: &[F] = &[];
const MIXTURE: &[F] = &[F::MXFP4_MOE];

/// File types of less than 3 bits: they have rows of their own, and only those, beyond the embeddings.
const LOW: &[F] = &[F::IQ1_S, F::IQ1_M, F::IQ2_XXS, F::IQ2_XS, F::IQ2_S, F::IQ2_M];
const LOWER: &[F] = &[F::IQ1_S, F::IQ1_M, F::IQ2_XXS, F::IQ2_XS];
const LOWEST: &[F] = &[F::IQ1_S, F::IQ1_M];
const UPPER: &[F] = &[F::IQ2_S, F::IQ2_M];

/// Where eight experts leave bits for `attn_output`.
const EXPERTS8_OUTPUT: &[F] = &[F::Q2_K, F::IQ3_XS, F::IQ3_XXS, F::Q3_K_S, F::Q3_K_M, F::IQ4_NL, F::Q4_K_S, F::Q4_K_M, F::IQ3_S, F::IQ3_M, F::IQ4_XS];

/// The first row that fits decides; without one it is the default type.
#[rustfmt::skip]
const RULES: &[Rule] = &[
    // The output, or the embeddings that serve as output.
    rule(&[Output], MIXTURE, &[], T::Q8_0),
    rule(&[Output], ANY, &[When::Falcon], T::Q8_0),
    rule(&[Output], ANY, &[When::OddRows], T::Q8_0),
    rule(&[Output], LOW, &[], T::Q5_K),
    rule(&[Output], &[F::IQ3_XXS], &[], T::Q5_K),
    rule(&[Output], &[F::Q8_0], &[], T::Q8_0),
    rule(&[Output], ANY, &[], T::Q6_K),

    // A file type for mixtures of experts. Latent attention in bailingmoe3 is stacked too; see `Case::holds`.
    rule(&[], MIXTURE, &[When::Stack], T::MXFP4),
    rule(&[], MIXTURE, &[], T::Q8_0),

    rule(&[Embedding], LOWER, &[], T::Q2_K),
    rule(&[Embedding], UPPER, &[], T::IQ3_S),
    rule(&[Embedding], &[F::IQ3_XXS], &[], T::IQ3_S),
    rule(&[Embedding], &[F::TQ1_0, F::TQ2_0, F::Q2_0], &[], T::Q4_K),

    // Below 3 bits.
    rule(&[AttnV], LOW, &[When::Gqa4OrExperts4], T::Q4_K),
    rule(&[AttnV], UPPER, &[], T::IQ3_S),
    rule(&[AttnV], LOWER, &[], T::Q2_K),
    rule(&[AttnK], LOW, &[When::Experts8], T::Q4_K),
    rule(&[FfnDown], UPPER, &[When::FirstPart(8)], T::IQ3_S),
    rule(&[FfnDown], LOWER, &[When::FirstPart(8)], T::Q2_K),
    rule(&[AttnOutput], LOW, &[When::Experts8], T::Q5_K),
    rule(&[AttnOutput], LOWEST, &[], T::IQ2_XXS),
    rule(&[AttnOutput], UPPER, &[], T::IQ3_S),

    // The rows for any file type below do not concern LOW: its own rows above come first.
    rule(&[AttnV], ANY, &[When::Experts8], T::Q8_0),
    rule(&[AttnV], &[F::Q2_K], &[When::Gqa4], T::Q4_K),
    rule(&[AttnV], &[F::Q2_K], &[], T::Q3_K),
    rule(&[AttnV], &[F::Q2_K_S], &[When::Gqa4], T::Q4_K),
    rule(&[AttnV], &[F::IQ3_XXS], &[When::Gqa4], T::Q4_K),
    rule(&[AttnV], &[F::IQ3_XXS], &[When::NoMatrix], T::IQ3_S),
    rule(&[AttnV], &[F::IQ3_XS, F::IQ3_S], &[When::Gqa4], T::Q4_K),
    rule(&[AttnV], &[F::IQ3_M], &[], T::Q4_K),
    rule(&[AttnV], &[F::Q3_K_M], &[When::First(2)], T::Q5_K),
    rule(&[AttnV], &[F::Q3_K_M], &[], T::Q4_K),
    rule(&[AttnV], &[F::Q3_K_L], &[], T::Q5_K),
    rule(&[AttnV], &[F::IQ4_NL, F::IQ4_XS], &[When::Gqa4], T::Q5_K),
    rule(&[AttnV], &[F::Q4_K_M, F::Q5_K_M], &[When::MoreBits], T::Q6_K),
    rule(&[AttnV], &[F::Q4_K_S], &[When::First(4)], T::Q5_K),

    rule(&[AttnK], ANY, &[When::Experts8], T::Q8_0),
    rule(&[AttnK, AttnQ], &[F::IQ3_XS], &[], T::IQ3_XXS),
    rule(&[AttnK, AttnQ], &[F::IQ3_XXS], &[], T::IQ2_S),

    rule(&[FfnDown], &[F::Q2_K], &[], T::Q3_K),
    rule(&[FfnDown], &[F::Q2_K_S], &[When::FirstPart(8)], T::Q4_K),
    rule(&[FfnDown], &[F::IQ3_XXS], &[When::NoMatrix, When::FirstPart(8)], T::Q4_K),
    rule(&[FfnDown], &[F::IQ3_XXS], &[When::NoMatrix], T::Q3_K),
    rule(&[FfnDown], &[F::Q3_K_M], &[When::FirstPart(16)], T::Q5_K),
    rule(&[FfnDown], &[F::Q3_K_M], &[When::NotFalcon], T::Q4_K),
    rule(&[FfnDown], &[F::Q3_K_M], &[When::MoreBits], T::Q4_K),
    rule(&[FfnDown], &[F::IQ3_M], &[When::FirstPart(8)], T::Q4_K),
    rule(&[FfnDown], &[F::IQ3_M], &[When::Experts8, When::MoreBits], T::Q4_K),
    rule(&[FfnDown], &[F::Q3_K_L], &[When::Falcon], T::Q4_K),
    rule(&[FfnDown], &[F::Q3_K_L], &[], T::Q5_K),
    rule(&[FfnDown], &[F::Q4_K_M], &[When::Falcon, When::FirstPart(16)], T::Q6_K),
    rule(&[FfnDown], &[F::Q4_K_M], &[When::Falcon, When::MoreBits], T::Q5_K),
    rule(&[FfnDown], &[F::Q4_K_M], &[When::NotFalcon, When::MoreBits], T::Q6_K),
    rule(&[FfnDown], &[F::IQ4_NL, F::IQ4_XS], &[When::NoMatrix, When::FirstPart(8)], T::Q5_K),
    rule(&[FfnDown], &[F::Q5_K_M], &[When::MoreBits], T::Q6_K),
    rule(&[FfnDown], &[F::Q4_K_S], &[When::NotFalcon, When::FirstPart(8)], T::Q5_K),
    rule(&[FfnDown], &[F::Q4_0], &[When::Matrix, When::FirstPart(8)], T::Q4_1),
    rule(&[FfnDown], &[F::Q5_0], &[When::Matrix, When::FirstPart(8)], T::Q5_1),

    rule(&[AttnOutput], &[F::Q3_K_L], &[When::Falcon], T::Q4_K),
    rule(&[AttnOutput], EXPERTS8_OUTPUT, &[When::NotFalcon, When::Experts8], T::Q5_K),
    rule(&[AttnOutput], &[F::Q2_K], &[When::NotFalcon, When::NotExperts8], T::Q3_K),
    rule(&[AttnOutput], &[F::IQ3_XXS], &[When::NotFalcon, When::NotExperts8], T::IQ3_S),
    rule(&[AttnOutput], &[F::Q3_K_M, F::IQ3_M], &[When::NotFalcon, When::NotExperts8], T::Q4_K),
    rule(&[AttnOutput], &[F::Q3_K_L], &[When::NotFalcon, When::NotExperts8], T::Q5_K),

    rule(&[FfnGate, FfnUp], &[F::IQ3_XS], &[When::Middle], T::IQ3_XXS),
];

/// The type that the mix gives, if it is not left at the default.
pub(super) fn mixed(case: &Case<'_>, default: T) -> T {
    let fits = |rule: &&Rule| {
        let named = (rule.on.is_empty() || rule.on.contains(&case.category)) && (rule.of.is_empty() || rule.of.contains(&case.ftype));
        named && rule.when.iter().all(|when| case.holds(*when))
    };
    let ty = RULES.iter().find(fits).map_or(default, |rule| rule.to);
    // Models of 70B share each attn_v among eight heads: more bits for it cost little.
    let is_cheap = case.is_70b && case.category == AttnV && !LOW.contains(&case.ftype);
    if is_cheap && matches!(ty, T::Q3_K | T::Q4_K) { T::Q5_K } else { ty }
}

/// Whether the layer of `ffn_*` tensors is counted, not read from names, even in mixtures.
pub(super) fn counts_layers(ftype: F) -> bool {
    LOW.contains(&ftype) || MIXTURE.contains(&ftype)
}

impl Case<'_> {
    fn holds(&self, when: When) -> bool {
        let Case { i, n, .. } = *self;
        match when {
            When::Falcon => self.arch == "falcon",
            When::NotFalcon => self.arch != "falcon",
            When::Gqa4 => self.gqa >= 4,
            When::Gqa4OrExperts4 => self.gqa >= 4 || self.n_expert >= 4,
            When::Experts8 => self.n_expert == 8,
            When::NotExperts8 => self.n_expert != 8,
            When::Matrix => self.has_imatrix,
            When::NoMatrix => !self.has_imatrix,
            When::OddRows => !self.fits_default,
            When::Stack => self.depth > 1 && (self.arch != "bailingmoe3" || matches!(self.category, FfnUp | FfnGate | FfnDown)),
            When::First(count) => i < count,
            When::FirstPart(parts) => i < n / parts,
            When::Middle => n / 8 <= i && i < 7 * n / 8,
            // The remainder of a negative number is negative, as it is in C.
            When::MoreBits => i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2,
        }
    }
}

/// The type that takes the place of `ty` where rows do not fit its blocks: none for types that have no substitute.
pub(super) fn substitute(ty: T) -> Option<T> {
    match ty {
        T::IQ1_S | T::IQ1_M | T::IQ2_XXS | T::IQ2_XS | T::IQ2_S | T::IQ3_XXS | T::IQ3_S | T::IQ4_XS => Some(T::IQ4_NL),
        T::Q2_0 | T::Q2_K | T::Q3_K | T::TQ1_0 | T::TQ2_0 => Some(T::Q4_0),
        T::Q4_K => Some(T::Q5_0),
        T::Q5_K => Some(T::Q5_1),
        T::Q6_K => Some(T::Q8_0),
        // Nothing has smaller blocks than these.
        T::Q4_0 | T::Q4_1 | T::Q5_0 | T::Q5_1 | T::Q8_0 | T::IQ4_NL | T::MXFP4 => Some(ty),
        T::Q1_0 | T::NVFP4 => None,
    }
}

/// Whether `llama-quantize` wants an importance matrix for a tensor of the category and type.
pub(super) fn wants_importance(ftype: F, category: Category, ty: T) -> bool {
    let is_low = matches!(ty, T::IQ3_XXS | T::IQ2_XXS | T::IQ2_XS | T::IQ2_S | T::IQ1_M | T::IQ1_S);
    !matches!(category, Output | Embedding) && (is_low || (ty == T::Q2_K && ftype == F::Q2_K_S))
}

/// Models that llama.cpp takes for 70B, by architecture and number of layers.
const SEVENTY: [(&str, u32); 6] = [("llama", 80), ("llama-embed", 80), ("qwen2", 80), ("deci", 80), ("olmo", 80), ("jais2", 68)];

/// Whether llama.cpp takes a model for 70B.
pub(super) fn is_70b(model: &super::Model) -> bool {
    let is_llama = matches!(model.arch.as_str(), "llama" | "llama-embed");
    let is_65b_or_mixture = is_llama && (model.n_head == model.n_head_kv || model.n_expert == 8);
    SEVENTY.contains(&(model.arch.as_str(), model.n_layer)) && !is_65b_or_mixture
}
