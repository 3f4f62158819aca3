//! All families, one file each.

pub(crate) mod bert;
pub(crate) mod deepseek;
pub(crate) mod gpt2;
pub(crate) mod gpt_oss;
pub(crate) mod llama;
pub(crate) mod phi3;

use super::family::Family;

/// Every family. Where a class or an architecture stands in several, the first that fits is taken.
pub(crate) const ALL: &[&Family] = &[
    &llama::LLAMA,
    &llama::MISTRAL,
    &llama::MIXTRAL,
    &phi3::PHI3,
    &gpt2::GPT2,
    &deepseek::DEEPSEEK3,
    &deepseek::DEEPSEEK2,
    &gpt_oss::GPT_OSS,
    &bert::ROBERTA,
    &bert::ROBERTA_CLASSES,
    &bert::XLM_ROBERTA,
    &bert::XLM_ROBERTA_CLASSES,
    &bert::DISTILBERT,
    &bert::BERT,
    &bert::CAMEMBERT,
];
