//! All families, one file each.

pub(crate) mod bert;
pub(crate) mod command_r;
pub(crate) mod deepseek;
pub(crate) mod defaults;
pub(crate) mod gemma;
pub(crate) mod gpt2;
pub(crate) mod gpt_oss;
pub(crate) mod granite;
pub(crate) mod llama;
pub(crate) mod olmo;
pub(crate) mod phi3;
pub(crate) mod qwen;
pub(crate) mod smollm3;
pub(crate) mod starcoder;

use super::family::Family;

/// Every family. Where a class or an architecture stands in several, the first that fits is taken.
pub(crate) const ALL: &[&Family] = &[
    &llama::LLAMA,
    &llama::MISTRAL,
    &llama::MIXTRAL,
    &qwen::QWEN2,
    &qwen::KORMO,
    &qwen::QWEN2_MOE,
    &qwen::QWEN3,
    &qwen::QWEN3_MOE,
    &gemma::GEMMA,
    &gemma::GEMMA2,
    &gemma::GEMMA3_TEXT,
    &olmo::OLMO2,
    &olmo::OLMO3,
    &granite::GRANITE,
    &smollm3::SMOLLM3,
    &starcoder::STARCODER2,
    &command_r::COMMAND_R,
    &command_r::COHERE2,
    &phi3::PHI3,
    &gpt2::GPT2,
    &bert::ROBERTA,
    &bert::ROBERTA_CLASSES,
    &bert::XLM_ROBERTA,
    &bert::XLM_ROBERTA_CLASSES,
    &bert::DISTILBERT,
    &bert::DISTILBERT_CLASSES,
    &bert::BERT,
    &bert::CAMEMBERT,
    &deepseek::DEEPSEEK3,
    &deepseek::DEEPSEEK2,
    &gpt_oss::GPT_OSS,
];
