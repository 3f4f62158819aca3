//! `config.json`: what the rules need to know from it, and the `quantization_config` that is put into it.
//!
//! Source: transformers 5.23.0 (`configuration_utils`, `utils/quantization_config`).

use quant_core::Dtype;
use quant_core::scheme::Book;

use super::json::Object;
use crate::python::json_string;

/// Model types whose weights are tied unless `tie_word_embeddings` says otherwise.
///
/// Source: the default of every class in `CONFIG_MAPPING` of transformers 5.23.0.
const TIED_BY_DEFAULT: &str = "\
    albert aya_vision bart bert bert-generation big_bird bigbird_pegasus biogpt blenderbot blenderbot-small blip \
    blip_text_model bloom camembert canary cohere cohere2 cohere2_moe cohere2_vision cohere_compass_text convbert cpmant \
    csm ctrl d_fine dab-detr data2vec-text deberta deberta-v2 deepseek_vl deepseek_vl_hybrid deformable_detr deimv2 \
    diffusion_gemma diffusion_gemma_text distilbert electra ernie ernie4_5 ernie4_5_moe ernie4_5_vl_moe \
    ernie4_5_vl_moe_text esm falcon falcon_mamba flaubert flava florence2 fnet fun_asr_nano funnel gemma gemma2 gemma3 \
    gemma3_text gemma3n gemma3n_text gemma4 gemma4_text gemma4_unified gemma4_unified_assistant gemma4_unified_text glmasr \
    got_ocr2 gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox_japanese granite_docling granite_docling_text granite_speech \
    granite_speech5_ctc granite_speech_plus granite_swa grounding-dino gte hunyuan_vl hunyuan_vl_text hyperclovax_vision_v2 \
    ibert internvl janus jetmoe jina_embeddings_v3 kimi_k25 kosmos-2 kosmos-2.5 kosmos_2_5_text_model kosmos_2_text_model \
    layoutlm led lfm2 lfm2_moe lfm2_vl lfm3 lfm3_vl lighton_ocr longformer longt5 luke lxmert m2m_100 mamba marian mbart \
    megatron-bert mimi mimi_decoder mimi_encoder minicpm3 minicpm_ocr mistral3 mm-grounding-dino mobilebert modernbert \
    modernbert-decoder moonshine moss_transcribe_diarize mpnet mpt mra mt5 mvp neomme nllb-moe nomic_bert nystromformer \
    openai-gpt opt ovis2 paddleocr_vl paddleocr_vl_text paligemma pe_audio_video pegasus pegasus_x plbart pop2piano \
    pp_chart2table pp_doclayout_v3 pp_doclayout_v4 prophetnet qwen2_5_omni_text qwen3_asr qwen3_vl_moe_text recurrent_gemma \
    roberta roberta-prelayernorm roc_bert roformer rt_detr_v2 sam sam_hq seamless_m4t seamless_m4t_v2 shieldgemma2 smollm3 \
    speech_to_text speecht5 squeezebert starcoder2 switch_transformers t5 t5_gemma_module t5gemma t5gemma2 t5gemma2_decoder \
    t5gemma2_encoder t5gemma2_text tapas trocr udop umt5 vaultgemma vilt visual_bert voxtral_realtime whisper xglm xlm \
    xlm-roberta xlm-roberta-xl xlnet xmod yoso youtu zamba zamba2 zaya";

/// Model types whose weights are tied whatever `tie_word_embeddings` says. Source: the same.
const ALWAYS_TIED: [&str; 11] = ["csm", "hunyuan_vl", "longt5", "mt5", "paddleocr_vl", "pop2piano", "shieldgemma2", "t5", "udop", "umt5", "vilt"];

/// A `config.json`, read.
#[derive(Clone, Debug)]
pub struct Config {
    object: Object,
}

impl Config {
    /// Reads a configuration. That the file is of a reasonable size is the caller's business.
    ///
    /// # Errors
    /// If the bytes are no JSON object in UTF-8, a key stands twice, or nesting is too deep: the reason and the position.
    pub fn parse(bytes: &[u8]) -> Result<Config, String> {
        Ok(Config { object: Object::parse(bytes)? })
    }

    /// The value of `key` as it stands in the file.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.object.value(key)
    }

    /// The value of `key` if it is a string.
    pub fn text(&self, key: &str) -> Option<String> {
        serde_json::from_str(self.value(key)?).ok()
    }

    /// The value of `key` if it is true or false.
    pub fn flag(&self, key: &str) -> Option<bool> {
        serde_json::from_str(self.value(key)?).ok()
    }

    /// `model_type`.
    pub fn model_type(&self) -> Option<String> {
        self.text("model_type")
    }

    /// `architectures`; empty if there are none.
    pub fn architectures(&self) -> Vec<String> {
        self.value("architectures").and_then(|v| serde_json::from_str(v).ok()).unwrap_or_default()
    }

    /// The type of the weights: `dtype`, or else `torch_dtype` as it was called before transformers 5.
    pub fn dtype(&self) -> Option<Dtype> {
        let name = self.text("dtype").or_else(|| self.text("torch_dtype"))?;
        Dtype::from_torch_name(&name)
    }

    /// Whether the output embedding shares its weight with the input embedding, by `tie_word_embeddings` or the model's default.
    pub fn ties_embeddings(&self) -> bool {
        let model = self.model_type().unwrap_or_default();
        if ALWAYS_TIED.contains(&model.as_str()) {
            return true;
        }
        match self.value("tie_word_embeddings") {
            Some(value) => value == "true",
            None => TIED_BY_DEFAULT.split_whitespace().any(|m| m == model),
        }
    }

    /// The value of `quantization_config` as it stands in the file, if there is one and it is not null.
    pub fn quantization_config(&self) -> Option<&str> {
        self.value("quantization_config").filter(|v| *v != "null")
    }

    /// The file with `key` set to `json`, which is put in as it is; nothing else changes.
    ///
    /// A new key goes to its place if the keys are sorted, as transformers sorts them, and to the end if they are not.
    pub fn with(&self, key: &str, json: &str) -> Vec<u8> {
        self.object.with(key, json)
    }

    /// The file without `key`; nothing else changes.
    pub fn without(&self, key: &str) -> Vec<u8> {
        self.object.without(key)
    }
}

/// How bitsandbytes quantized a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bnb {
    /// 4-bit.
    FourBit {
        /// The codebook: `bnb_4bit_quant_type`.
        book: Book,
        /// Double quantization: `bnb_4bit_use_double_quant`.
        nested: bool,
        /// The type that layers compute in: `bnb_4bit_compute_dtype`.
        compute: Dtype,
        /// The type that codes are stored as: `bnb_4bit_quant_storage`, normally [`Dtype::U8`].
        storage: Dtype,
    },
    /// LLM.int8().
    Int8,
}

/// The value of `quantization_config` that transformers 5.23 writes for bitsandbytes, to be put in by [`Config::with`].
///
/// `skip` are the modules of `llm_int8_skip_modules`; none is `null`: those that transformers skips by default.
/// Source: `BitsAndBytesConfig.to_dict` in `json.dumps(indent=2, sort_keys=True)`, one level deep.
pub fn bnb_config(bnb: Bnb, skip: Option<&[String]>) -> String {
    let (is_4bit, [compute, storage, quant_type], nested) = match bnb {
        Bnb::FourBit { book, nested, compute, storage } => (true, [torch_name(compute), torch_name(storage), book.name()], nested),
        Bnb::Int8 => (false, ["float32", "uint8", "fp4"], false),
    };
    let pairs = [
        ("_load_in_4bit", is_4bit.to_string()),
        ("_load_in_8bit", (!is_4bit).to_string()),
        ("bnb_4bit_compute_dtype", json_string(compute)),
        ("bnb_4bit_quant_storage", json_string(storage)),
        ("bnb_4bit_quant_type", json_string(quant_type)),
        ("bnb_4bit_use_double_quant", nested.to_string()),
        ("llm_int8_enable_fp32_cpu_offload", "false".into()),
        ("llm_int8_has_fp16_weight", "false".into()),
        ("llm_int8_skip_modules", skip.map_or("null".into(), list)),
        ("llm_int8_threshold", "6.0".into()),
        ("load_in_4bit", is_4bit.to_string()),
        ("load_in_8bit", (!is_4bit).to_string()),
        ("quant_method", json_string("bitsandbytes")),
    ];
    let lines = pairs.map(|(key, value)| format!("    \"{key}\": {value}"));
    format!("{{\n{}\n  }}", lines.join(",\n"))
}

fn torch_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::I8 => "int8",
        _ => dtype.torch_name().unwrap_or("uint8"),
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "[]".into();
    }
    let lines: Vec<String> = names.iter().map(|n| format!("      {}", json_string(n))).collect();
    format!("[\n{}\n    ]", lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn values_are_read() {
        let c = config(r#"{"model_type": "llama", "architectures": ["A", "B"], "torch_dtype": "float16", "use_cache": false, "x": null}"#);
        assert_eq!(c.model_type().as_deref(), Some("llama"));
        assert_eq!(c.architectures(), ["A", "B"]);
        assert_eq!(c.dtype(), Some(Dtype::F16));
        assert_eq!((c.flag("use_cache"), c.flag("x"), c.flag("model_type")), (Some(false), None, None));
        assert_eq!((c.text("x"), c.text("use_cache"), c.value("x")), (None, None, Some("null")));
    }

    #[test]
    fn dtype_goes_before_torch_dtype() {
        assert_eq!(config(r#"{"torch_dtype": "float16", "dtype": "bfloat16"}"#).dtype(), Some(Dtype::BF16));
        assert_eq!(config(r#"{"torch_dtype": "float16", "dtype": null}"#).dtype(), Some(Dtype::F16));
        assert_eq!(config(r#"{"dtype": "auto"}"#).dtype(), None);
    }

    #[test]
    fn what_is_odd_is_absent() {
        let c = config(r#"{"model_type": 3, "architectures": null, "quantization_config": null}"#);
        assert_eq!((c.model_type(), c.architectures(), c.quantization_config()), (None, vec![], None));
        assert!(!c.ties_embeddings());
        assert_eq!(config(r#"{"quantization_config": {"a": 1}}"#).quantization_config(), Some(r#"{"a": 1}"#));
    }

    /// `CONFIG_MAPPING[model_type](**kwargs).tie_word_embeddings` in transformers 5.23.0.
    #[test]
    fn ties_are_those_of_transformers() {
        for (text, expected) in [
            (r#"{"model_type": "llama"}"#, false),
            (r#"{"model_type": "llama", "tie_word_embeddings": true}"#, true),
            (r#"{"model_type": "gpt2"}"#, true),
            (r#"{"model_type": "gemma3_text"}"#, true),
            (r#"{"model_type": "bert", "tie_word_embeddings": false}"#, false),
            (r#"{"model_type": "qwen2"}"#, false),
            (r#"{"model_type": "t5", "tie_word_embeddings": false}"#, true),
            (r#"{"model_type": "youtu"}"#, true),
            (r#"{"model_type": "albert"}"#, true),
        ] {
            assert_eq!(config(text).ties_embeddings(), expected, "{text}");
        }
    }

    #[test]
    fn quantization_configs_are_those_of_transformers() {
        let bnb = Bnb::FourBit { book: Book::Nf4, nested: true, compute: Dtype::F16, storage: Dtype::BF16 };
        let skip = ["lm_head".to_string(), "é.q".to_string()];
        let four = FOUR_BIT.replace("SKIP", "[\n      \"lm_head\",\n      \"\\u00e9.q\"\n    ]");
        assert_eq!(bnb_config(bnb, Some(&skip)), four);
        assert_eq!(bnb_config(Bnb::Int8, Some(&[])), INT8.replace("SKIP", "[]"));
        assert_eq!(bnb_config(Bnb::Int8, None), INT8.replace("SKIP", "null"));
    }

    /// `BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
    /// bnb_4bit_compute_dtype=torch.float16, bnb_4bit_quant_storage="bfloat16")` in a config.json.
    const FOUR_BIT: &str = r#"{
    "_load_in_4bit": true,
    "_load_in_8bit": false,
    "bnb_4bit_compute_dtype": "float16",
    "bnb_4bit_quant_storage": "bfloat16",
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": true,
    "llm_int8_enable_fp32_cpu_offload": false,
    "llm_int8_has_fp16_weight": false,
    "llm_int8_skip_modules": SKIP,
    "llm_int8_threshold": 6.0,
    "load_in_4bit": true,
    "load_in_8bit": false,
    "quant_method": "bitsandbytes"
  }"#;

    /// `BitsAndBytesConfig(load_in_8bit=True)` in a config.json.
    const INT8: &str = r#"{
    "_load_in_4bit": false,
    "_load_in_8bit": true,
    "bnb_4bit_compute_dtype": "float32",
    "bnb_4bit_quant_storage": "uint8",
    "bnb_4bit_quant_type": "fp4",
    "bnb_4bit_use_double_quant": false,
    "llm_int8_enable_fp32_cpu_offload": false,
    "llm_int8_has_fp16_weight": false,
    "llm_int8_skip_modules": SKIP,
    "llm_int8_threshold": 6.0,
    "load_in_4bit": false,
    "load_in_8bit": true,
    "quant_method": "bitsandbytes"
  }"#;
}
