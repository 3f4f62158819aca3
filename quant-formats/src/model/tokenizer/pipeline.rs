//! What a class of transformers puts around vocabulary and merges, as the text of a tokenizer.json.
//!
//! Source: tokenization_bert.py, …_cohere.py, …_gemma.py, …_gpt2.py, …_gpt_neox.py, …_llama.py, …_qwen2.py, …_qwen3_5.py,
//! …_roberta.py and …_xlm_roberta.py of transformers 5.23.0, written out by tokenizers 0.23.

use serde_json::{Value, json};

use super::class::Class;

/// The settings of tokenizer_config.json that a class looks at.
#[derive(Debug, Default)]
pub(super) struct Flags {
    pub(super) add_prefix_space: Option<bool>,
    pub(super) legacy: bool,
    pub(super) do_lower_case: Option<bool>,
    pub(super) tokenize_chinese_chars: Option<bool>,
    pub(super) strip_accents: Option<bool>,
    /// `None` if there is none: Python makes a text of it.
    pub(super) unk_token: String,
    /// Base64, from the tokenizer.json.
    pub(super) charsmap: Option<String>,
}

/// Everything but vocabulary, merges and post-processor.
pub(super) struct Pipeline {
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    pub(super) decoder: Value,
    /// The model without its vocabulary.
    pub(super) model: Value,
}

/// The special tokens that a class has without being told, by attribute.
pub(super) fn defaults(class: Class) -> &'static [(&'static str, Option<&'static str>)] {
    const END: Option<&str> = Some("<|endoftext|>");
    match class {
        Class::Verbatim => &[],
        Class::Bert => &[("unk", Some("[UNK]")), ("sep", Some("[SEP]")), ("pad", Some("[PAD]")), ("cls", Some("[CLS]")), ("mask", Some("[MASK]"))],
        Class::Cohere => &[
            ("bos", Some("<BOS_TOKEN>")),
            ("eos", Some("<|END_OF_TURN_TOKEN|>")),
            ("unk", Some("<UNK>")),
            ("sep", Some("<SEP>")),
            ("pad", Some("<PAD>")),
            ("cls", Some("<CLS>")),
            ("mask", Some("<MASK_TOKEN>")),
        ],
        Class::Gemma => &[("bos", Some("<bos>")), ("eos", Some("<eos>")), ("unk", Some("<unk>")), ("pad", Some("<pad>")), ("mask", Some("<mask>"))],
        Class::Gpt2 => &[("bos", END), ("eos", END), ("unk", END), ("pad", None)],
        Class::GptNeoX => &[("bos", END), ("eos", END), ("unk", END), ("pad", Some("<|padding|>"))],
        Class::Llama => &[("bos", Some("<s>")), ("eos", Some("</s>")), ("unk", Some("<unk>"))],
        Class::Qwen2 | Class::Qwen35 => &[("bos", None), ("eos", END), ("unk", END), ("pad", END)],
        Class::Roberta | Class::XlmRoberta => &[
            ("bos", Some("<s>")),
            ("eos", Some("</s>")),
            ("unk", Some("<unk>")),
            ("sep", Some("</s>")),
            ("pad", Some("<pad>")),
            ("cls", Some("<s>")),
            ("mask", Some("<mask>")),
        ],
    }
}

/// What `class` builds; none if it takes tokenizer.json as it is.
pub(super) fn of(class: Class, flags: &Flags) -> Option<Pipeline> {
    let prefix = flags.add_prefix_space.unwrap_or(false);
    let byte_bpe = || bpe(json!({"continuing_subword_prefix": "", "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false}));
    Some(match class {
        Class::Verbatim => return None,
        Class::Gpt2 | Class::Roberta => byte_level(Value::Null, byte_level_step(prefix, true), byte_bpe()),
        Class::GptNeoX => byte_level(json!({"type": "NFC"}), byte_level_step(prefix, true), byte_bpe()),
        Class::Cohere => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            byte_level(json!({"type": "NFC"}), sequence(vec![digits, byte_level_step(prefix, true)]), byte_bpe())
        }
        Class::Qwen2 => byte_level(json!({"type": "NFC"}), qwen_steps(QWEN2, prefix), byte_bpe()),
        Class::Qwen35 => byte_level(json!({"type": "NFC"}), qwen_steps(QWEN35, prefix), byte_bpe()),
        Class::Gemma => gemma(flags),
        Class::Llama => llama(flags),
        Class::Bert => bert(flags),
        Class::XlmRoberta => xlm_roberta(flags),
    })
}

const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

fn qwen_steps(pattern: &str, prefix: bool) -> Value {
    let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    sequence(vec![split, byte_level_step(prefix, false)])
}

fn byte_level(normalizer: Value, pre_tokenizer: Value, model: Value) -> Pipeline {
    Pipeline { normalizer, pre_tokenizer, decoder: byte_level_step(true, true), model }
}

fn byte_level_step(add_prefix_space: bool, use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": use_regex})
}

fn sequence(steps: Vec<Value>) -> Value {
    json!({"type": "Sequence", "pretokenizers": steps})
}

fn bpe(settings: Value) -> Value {
    let mut model = json!({"type": "BPE", "dropout": null, "unk_token": null, "ignore_merges": false});
    if let (Value::Object(model), Value::Object(settings)) = (&mut model, settings) {
        model.extend(settings);
    }
    model
}

/// A sequence of decoders that turns `▁` into spaces and byte tokens into bytes.
fn spaces_and_bytes() -> Vec<Value> {
    vec![json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}), json!({"type": "ByteFallback"}), json!({"type": "Fuse"})]
}

fn gemma(flags: &Flags) -> Pipeline {
    Pipeline {
        normalizer: json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
        pre_tokenizer: json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false}),
        decoder: json!({"type": "Sequence", "decoders": spaces_and_bytes()}),
        model: bpe(json!({"unk_token": flags.unk_token, "fuse_unk": true, "byte_fallback": true})),
    }
}

fn llama(flags: &Flags) -> Pipeline {
    let prefix = flags.add_prefix_space.unwrap_or(true);
    let scheme = match (prefix, flags.legacy) {
        (false, _) => "never",
        (true, true) => "always",
        (true, false) => "first",
    };
    let mut decoders = spaces_and_bytes();
    if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Pipeline {
        normalizer: Value::Null,
        pre_tokenizer: json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false}),
        decoder: json!({"type": "Sequence", "decoders": decoders}),
        model: bpe(json!({"fuse_unk": true, "byte_fallback": true})),
    }
}

fn bert(flags: &Flags) -> Pipeline {
    Pipeline {
        normalizer: json!({
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": flags.tokenize_chinese_chars.unwrap_or(true),
            "strip_accents": flags.strip_accents,
            "lowercase": flags.do_lower_case.unwrap_or(true),
        }),
        pre_tokenizer: json!({"type": "BertPreTokenizer"}),
        decoder: json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        model: json!({"type": "WordPiece", "unk_token": flags.unk_token, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}),
    }
}

fn xlm_roberta(flags: &Flags) -> Pipeline {
    let scheme = if flags.add_prefix_space.unwrap_or(true) { "always" } else { "never" };
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
    Pipeline {
        normalizer: flags.charsmap.as_ref().map_or(Value::Null, |map| json!({"type": "Precompiled", "precompiled_charsmap": map})),
        pre_tokenizer: sequence(vec![json!({"type": "WhitespaceSplit"}), metaspace.clone()]),
        decoder: metaspace,
        model: json!({"type": "Unigram", "unk_id": 3, "byte_fallback": false}),
    }
}
