//! [`Pre`]: how a byte-level BPE tokenizer cuts a text into words, by the name in `tokenizer.ggml.pre`.
//!
//! The cuts are those of llama.cpp. Where it notes that its own form only comes near to that of the model's tokenizer.json
//! (combining marks in the words of Tekken, GPT-4o and Kimi K2), the model's is taken.
//!
//! Source: `llm_tokenizer_bpe` and `llama_vocab::impl::load` of llama-vocab.cpp, llama.cpp 0.5.0-dev; the names are those that
//! `get_vocab_base_pre` of convert_hf_to_gguf.py gives, and those that llama.cpp knows beside them.

use super::parts::Part;
use super::patterns as p;

/// One step of cutting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// What a regular expression finds is a piece, and so is what lies between.
    Split(&'static str),
    /// Each digit is a piece.
    Digits,
    /// The words of GPT-2, and from here on bytes.
    Words,
}

/// How the bytes of a text become characters of the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letters {
    /// Each byte is one of 256 characters, as in GPT-2.
    Bytes,
    /// A space is `▁`, all else is itself.
    Utf8,
}

/// How a text is cut, and what else goes by the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pre {
    /// Cuts, in order, each within the pieces of the one before.
    pub(super) steps: &'static [Step],
    /// What the vocabulary is made of.
    pub(super) letters: Letters,
    /// Whether a word that is a token is that token, whatever the merges say.
    pub(super) ignore_merges: bool,
    /// Whether the text is put into Unicode's composed form first.
    pub(super) nfc: bool,
    /// Whether a beginning-of-text token is added if the file does not say.
    pub(super) adds_bos: bool,
}

use Step::{Digits, Split, Words};

/// What `name` stands for; none if it is not known.
pub(super) fn of(name: &str) -> Option<Pre> {
    let steps = steps(name)?;
    let letters = if matches!(name, "gemma4" | "granite-embed-multi-311m" | "sarvam-moe") { Letters::Utf8 } else { Letters::Bytes };
    Some(Pre { steps, letters, ignore_merges: ignores_merges(name), nfc: is_composed(name), adds_bos: adds_bos(name) })
}

/// What GPT-2 does.
pub(super) fn gpt2() -> Pre {
    Pre { steps: &[Words], letters: Letters::Bytes, ignore_merges: false, nfc: false, adds_bos: false }
}

fn steps(name: &str) -> Option<&'static [Step]> {
    Some(match name {
        "default" => &[Split(p::DEFAULT_PUNCTUATION), Split(p::GPT2), Split(r"\p{N}+"), Split("[0-9][0-9][0-9]")],
        "gpt-2" | "phi-2" | "jina-es" | "jina-de" | "jina-v1-en" | "jina-v2-es" | "jina-v2-de" | "jina-v2-code" | "roberta-bpe" | "gigachat"
        | "a.x-4.0" | "mellum" | "modern-bert" | "exaone4" | "mpt" | "olmo" | "jais" | "trillion" | "granite-docling" => &[Words],
        "starcoder" | "refact" | "command-r" | "smollm" | "codeshell" | "exaone" | "minerva-7b" | "mellum2" => &[Digits, Words],
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2" | "jina-v5-nano" | "dbrx" | "smaug-bpe"
        | "chatglm-bpe" | "glm4" | "glm5" => &[Split(p::LLAMA3)],
        "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "megrez" | "stablelm2" | "hunyuan" | "solar-open" | "grok-2" => &[Split(p::QWEN2)],
        "qwen35" => &[Split(p::QWEN35)],
        "minicpm5" => &[Split(r"\p{N}{1,3}"), Split(p::MINICPM5)],
        "ufakzeka" => &[Split(p::UFAKZEKA)],
        "seed-coder" => &[Split(p::SEED_CODER)],
        "bailingmoe" | "bailingmoe2" | "llada-moe" => &[Split(p::BAILING)],
        "exaone-moe" => &[Split(p::EXAONE_MOE)],
        "jais-2" => &[Split(p::JAIS2)],
        "laguna" => &[Split(r"[^\n]+|[\n]+"), Split(p::QWEN2)],
        "tekken" => &[Split(p::TEKKEN)],
        "gpt-4o" | "llama4" | "kanana2" | "talkie" | "minimax-m2" | "granite-embed-multi-97m" => &[Split(p::GPT_4O)],
        "tiny_aya" | "cohere2moe" => &[Split(p::GROUPS_OF_THREE), Split(p::GPT_4O)],
        "youtu" => &[Split(p::YOUTU_SCRIPTS), Split(p::YOUTU)],
        "kimi-k2" => &[Split(p::KIMI_K2)],
        _ => return special_steps(name),
    })
}

fn special_steps(name: &str) -> Option<&'static [Step]> {
    Some(match name {
        "deepseek-llm" => &[
            Split(r"[\r\n]"),
            Split(p::DEEPSEEK_LETTERS),
            Split(p::DEEPSEEK_PUNCTUATION),
            Split(r"\s+$"),
            Split(p::HAN_AND_HANGUL),
            Split(r"\p{N}+"),
        ],
        "deepseek-coder" => &[Split(r"[\r\n]"), Split(r"\s?\p{L}+"), Split(r"\s?\p{P}+"), Split(p::HAN_AND_HANGUL), Digits],
        "deepseek-v3" | "hunyuan-dense" | "joyai-llm" | "hy_v4" => &[Split(r"\p{N}{1,3}"), Split(p::HAN_AND_KANA), Split(p::DEEPSEEK3)],
        "spark2_5" => &[Split(r"\p{N}{1,3}"), Split(p::HAN_AND_KANA), Split(p::SPARK), Split(r"\p{N}")],
        "afmoe" => &[Split(p::AFMOE_NUMBERS), Split(p::AFMOE_SCRIPTS), Split(p::DEEPSEEK3)],
        "falcon" => &[Split(p::FALCON_PUNCTUATION), Split(p::GPT2), Split("[0-9][0-9][0-9]")],
        "bloom" | "poro-chat" | "gpt3-finnish" => &[Split(p::BLOOM)],
        "viking" => &[Split(p::BLOOM), Digits],
        "superbpe" => &[Split(r"\p{N}+"), Split(p::SUPERBPE_GROUPS)],
        "chameleon" => &[
            Split("<sentinel:[0-9]+>"),
            Split("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"),
            Split(r"([\t\n]|    |  )"),
            Digits,
            Split(p::CHAMELEON_PUNCTUATION),
            Words,
        ],
        // A space is no more a space when this cuts, so that BPE sees whole lines.
        "gemma4" | "granite-embed-multi-311m" | "sarvam-moe" => &[Split(r"[^\n]+|[\n]+")],
        _ => return None,
    })
}

fn ignores_merges(name: &str) -> bool {
    matches!(name, "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2" | "jina-v5-nano")
        || matches!(name, "tekken" | "glm4" | "glm5" | "minicpm5" | "youtu" | "granite-embed-multi-97m")
}

fn is_composed(name: &str) -> bool {
    matches!(name, "qwen2" | "deepseek-r1-qwen" | "f2llmv2" | "qwen35" | "command-r" | "mpt" | "olmo" | "modern-bert")
}

fn adds_bos(name: &str) -> bool {
    matches!(name, "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2" | "jina-v5-nano")
        || matches!(name, "tekken" | "chameleon" | "gemma4" | "granite-embed-multi-311m")
}

impl Pre {
    /// The pre-tokenizer.
    pub(super) fn part(&self) -> Option<Part> {
        let mut parts: Vec<Part> = self.steps.iter().map(|step| step.part()).collect();
        if self.letters == Letters::Bytes && !self.steps.contains(&Words) {
            parts.push(Part::ByteLevel { add_prefix_space: false, trim_offsets: true, use_regex: false });
        }
        Part::pre_tokenizers(parts)
    }
}

impl Step {
    fn part(self) -> Part {
        match self {
            Split(regex) => Part::split(regex),
            Digits => Part::Digits { individual_digits: true },
            Words => Part::ByteLevel { add_prefix_space: false, trim_offsets: true, use_regex: true },
        }
    }
}
