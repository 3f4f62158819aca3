//! [`Class`]: which of its tokenizers transformers builds for a model folder.
//!
//! Some classes take tokenizer.json as it is. Others take only vocabulary, merges and post-processor from it and build the rest
//! anew, so that the class decides what the check string of [`super::pre`] becomes.
//!
//! Source: `AutoTokenizer.from_pretrained` and its tables, transformers 5.23.0 without mistral-common.

use quant_core::Result;
use serde_json::Value;

use super::folder::{Folder, Object};

/// A tokenizer of transformers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// tokenizer.json as it is.
    Verbatim,
    Bert,
    Cohere,
    Gemma,
    Gpt2,
    GptNeoX,
    Llama,
    Qwen2,
    Qwen35,
    Roberta,
    XlmRoberta,
}

/// What a name of a class stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Class(Class),
    /// A class that builds its own tokenizer in a way that is not rebuilt here.
    Foreign,
    /// No class: transformers then takes tokenizer.json as it is.
    Unknown,
}

/// The class of a folder, and its name if transformers may build something else than is built here.
pub(super) struct Choice {
    pub(super) class: Class,
    pub(super) foreign: Option<String>,
}

/// Model types by the class registered for them; all others have none.
#[rustfmt::skip]
const REGISTERED: &[(&str, &[&str])] = &[
    (
        "TokenizersBackend",
        &[
            "aria", "arctic", "beam", "bigbird_pegasus", "camembertv2-base", "canary", "chatlm", "cohere_asr", "ernie4_5", "ernie4_5_moe",
            "EvollaModel", "flex_olmo", "fuyu", "glm", "glm4", "glm4_moe", "glm4_moe_lite", "glm4v", "glm4v_moe", "glm_image", "glmasr",
            "got_ocr2", "gpt_bigcode", "gradium_phonon_tts", "granite", "granitemoe", "granitemoehybrid", "granitemoeshared", "h2ovl_chat",
            "hyperclovax", "hyperclovax_vlm", "internlm2", "internlm3", "iquestcoder", "jamba", "kimi_k25", "kimi_linear", "kosmos-2",
            "llava", "llava_next", "mimo_v2_flash", "minicpm3", "minicpm_ocr", "minicpmv", "minicpmv4_6", "minicpmv4_7", "minimax_m2",
            "ministral", "ministral3", "mistral", "mistral3", "mistral_large4", "mixtral", "modernbert", "modernbert-decoder", "molmo",
            "molmo2", "nemo_speechlm", "nemotron", "nvfp4", "nystromformer", "olmo2", "olmo3", "olmo_hybrid", "opencua", "openvla",
            "paddleocr_vl", "pegasus_x", "persimmon", "phi3", "phi3_v", "phimoe", "pix2struct", "pixtral", "pocket_tts", "smolvlm",
            "stablelm", "step3_vl", "umt5", "vipllava", "voxtral", "voxtral_realtime", "xlm-roberta-xl",
        ],
    ),
    (
        "BertTokenizer",
        &[
            "align", "bark", "bert", "blip", "bros", "chinese_clip", "convbert", "distilbert", "electra", "ernie", "flava", "git",
            "grounding-dino", "layoutlm", "megatron-bert", "mm-grounding-dino", "nezha", "nomic_bert", "qdqbert", "realm", "retribert",
            "squeezebert", "tvp", "vilt", "visual_bert",
        ],
    ),
    (
        "Qwen2Tokenizer",
        &[
            "audioflamingo3", "colqwen2", "cosmos3_omni", "dots3_note", "fun_asr_nano", "hunyuan_vl", "internvl", "lighton_ocr",
            "moss_transcribe_diarize", "ovis2", "qianfan_ocr", "qwen2", "qwen2_5_omni", "qwen2_5_vl", "qwen2_audio", "qwen2_moe", "qwen2_vl",
            "qwen3", "qwen3_asr", "qwen3_moe", "qwen3_next", "qwen3_omni_moe", "qwen3_vl", "qwen3_vl_moe", "vibevoice",
        ],
    ),
    ("Qwen3_5Tokenizer", &["qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen4_exp"]),
    ("CohereTokenizer", &["aya_vision", "cohere", "cohere2"]),
    (
        "RobertaTokenizer",
        &[
            "bart", "bridgetower", "clap", "data2vec-text", "ibert", "lilt", "longformer", "mega", "mra", "roberta", "roberta-prelayernorm",
        ],
    ),
    (
        "GPT2Tokenizer",
        &[
            "blip-2", "codegen", "dbrx", "emu3", "gpt2", "gpt_neo", "gptj", "hyperclovax_vision_v2", "instructblip", "instructblipvideo",
            "jais2", "opt", "phi", "starcoder2",
        ],
    ),
    (
        "GemmaTokenizer",
        &[
            "diffusion_gemma", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "recurrent_gemma", "shieldgemma2",
            "t5gemma", "zaya",
        ],
    ),
    ("GPTNeoXTokenizer", &["falcon_mamba", "gpt_neox", "mamba", "mamba2", "mpt", "olmo", "olmoe", "rwkv", "xlstm"]),
    ("LlamaTokenizer", &["idefics", "idefics2"]),
    ("CodeLlamaTokenizer", &["code_llama"]),
    ("XLMRobertaTokenizer", &["gte", "jina_embeddings_v3", "metaclip_2", "trocr", "xlm-roberta", "xmod"]),
    ("AlbertTokenizer", &["albert", "yoso"]),
    ("CamembertTokenizer", &["camembert"]),
    ("DebertaTokenizer", &["deberta"]),
    ("DebertaV2Tokenizer", &["deberta-v2"]),
    ("LEDTokenizer", &["led"]),
    ("LxmertTokenizer", &["lxmert"]),
    ("MPNetTokenizer", &["mpnet"]),
    ("MobileBertTokenizer", &["mobilebert"]),
    ("MvpTokenizer", &["mvp"]),
    ("T5Tokenizer", &["mt5", "musicgen", "musicgen_melody", "switch_transformers", "t5"]),
];

/// Model types whose own word on their class is not believed.
#[rustfmt::skip]
const DISBELIEVED: &[&str] = &[
    "arctic", "camembertv2-base", "chatlm", "cohere_asr", "ernie4_5", "ernie4_5_moe", "fuyu", "h2ovl_chat", "hyperclovax",
    "hyperclovax_vision_v2", "hyperclovax_vlm", "internlm2", "internlm3", "iquestcoder", "jamba", "llava", "llava_next", "minicpm3",
    "minicpmv", "minimax_m2", "modernbert", "modernbert-decoder", "molmo", "molmo2", "nemotron", "nvfp4", "opencua", "openvla",
    "paddleocr_vl", "phi3", "phi3_v", "phimoe", "qwen2", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen4_exp", "siglip2", "smolvlm",
    "step3_vl", "vipllava",
];

/// Classes that build their own tokenizer and are not rebuilt here, without the ending of their names.
#[rustfmt::skip]
const FOREIGN: &[&str] = &[
    "Albert", "Barthez", "BigBird", "Blenderbot", "CLIP", "Camembert", "CodeGen", "CodeLlama", "DPRContextEncoder", "DPRQuestionEncoder",
    "DPRReader", "Deberta", "DebertaV2", "Esmc", "FNet", "Funnel", "Herbert", "Lasr", "LayoutLMv2", "LayoutLMv3", "LayoutXLM", "Luke",
    "MBart", "MBart50", "MLuke", "MPNet", "MarkupLM", "Nllb", "Nougat", "OpenAIGPT", "Pegasus", "Reformer", "RemBert", "RoFormer",
    "SeamlessM4T", "Siglip2", "Splinter", "T5", "Tipsv2", "Udop", "VideoPrism", "Whisper", "XGLM", "XLNet",
];

/// Chooses the class of a folder. `config` is config.json and `own` is tokenizer_config.json.
///
/// # Errors
/// If a file cannot be read.
pub(super) fn choose(folder: Folder<'_>, config: &Object, own: &Object) -> Result<Choice> {
    let model_type = config.text("model_type").unwrap_or_default();
    let declared = own.text("tokenizer_class").filter(|name| !name.is_empty()).or_else(|| config.text("tokenizer_class"));
    let registered = registered(&model_type);
    let disbelieved = DISBELIEVED.contains(&model_type.as_str());
    let Some(declared) = declared.filter(|name| !name.is_empty()) else { return Ok(Choice::of(registered.unwrap_or("TokenizersBackend"))) };
    let declared = without_fast(&declared);
    if has_code(own)? {
        return Ok(Choice::of(declared));
    }
    if declared == "LlamaTokenizer" && !disbelieved && is_byte_level(folder)? {
        return Ok(Choice::of("TokenizersBackend"));
    }
    Ok(Choice::of(match registered {
        Some(name) if name != declared && name == "TokenizersBackend" => name,
        Some(name) if name != declared && disbelieved => name,
        _ => declared,
    }))
}

impl Choice {
    fn of(name: &str) -> Choice {
        match named(name) {
            Named::Class(class) => Choice { class, foreign: None },
            Named::Foreign => Choice { class: Class::Verbatim, foreign: Some(name.into()) },
            Named::Unknown => Choice { class: Class::Verbatim, foreign: None },
        }
    }
}

fn registered(model_type: &str) -> Option<&'static str> {
    REGISTERED.iter().find(|(_, types)| types.contains(&model_type)).map(|(name, _)| *name)
}

fn named(name: &str) -> Named {
    Named::Class(match name {
        "BertTokenizer"
        | "ConvBertTokenizer"
        | "DistilBertTokenizer"
        | "ElectraTokenizer"
        | "LayoutLMTokenizer"
        | "LxmertTokenizer"
        | "MobileBertTokenizer"
        | "SqueezeBertTokenizer" => Class::Bert,
        "BartTokenizer" | "LEDTokenizer" | "LongformerTokenizer" | "MvpTokenizer" | "RobertaTokenizer" => Class::Roberta,
        "CohereTokenizer" => Class::Cohere,
        "GPT2Tokenizer" => Class::Gpt2,
        "GPTNeoXTokenizer" => Class::GptNeoX,
        "GemmaTokenizer" => Class::Gemma,
        "LlamaTokenizer" | "Phi3Tokenizer" => Class::Llama,
        "Qwen2Tokenizer" => Class::Qwen2,
        "Qwen3_5Tokenizer" => Class::Qwen35,
        "XLMRobertaTokenizer" => Class::XlmRoberta,
        _ if name.strip_suffix("Tokenizer").is_some_and(|stem| FOREIGN.contains(&stem)) => return Named::Foreign,
        _ => return Named::Unknown,
    })
}

fn without_fast(name: &str) -> &str {
    name.strip_suffix("Fast").unwrap_or(name)
}

/// Whether the folder brings code of its own for its tokenizer. It is not run; the reference asks first.
fn has_code(own: &Object) -> Result<bool> {
    Ok(match own.value("auto_map")? {
        Some(Value::Object(map)) => map.get("AutoTokenizer").is_some_and(|v| !v.is_null()),
        Some(Value::Array(_)) => true,
        _ => false,
    })
}

fn is_byte_level(folder: Folder<'_>) -> Result<bool> {
    const NAME: &[u8] = b"\"ByteLevel\"";
    let json = folder.bytes("tokenizer.json")?;
    Ok(json.is_some_and(|bytes| bytes.windows(NAME.len()).any(|w| w == NAME)))
}
