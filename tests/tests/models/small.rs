//! Models of a few kilobytes, one for each class that a test needs: a configuration, names and shapes, a tokenizer.

use std::path::{Path, PathBuf};

use quant_tests::made::{self, Made};
use serde_json::{Map, Value, json};

/// Sizes that all of them share: two heads of 16, one of keys and values.
const WIDTH: u64 = 32;
const HEAD: u64 = 16;
const INNER: u64 = 64;
const VOCABULARY: u64 = 256;

/// Names and shapes.
type Tensors = Vec<(String, Vec<u64>)>;

/// A model that is yet to be written.
pub struct Small {
    /// config.json.
    pub config: Map<String, Value>,
    /// Its tensors.
    pub tensors: Tensors,
    /// The files of its tokenizer.
    tokenizer: Vec<(&'static str, Vec<u8>)>,
}

impl Small {
    /// A decoder of one class, with `more` in its configuration beside the sizes.
    fn decoder(class: &str, model_type: &str, more: Value) -> Small {
        let mut config = json!({
            "architectures": [class], "model_type": model_type, "hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "vocab_size": VOCABULARY, "rms_norm_eps": 1e-6,
        });
        let config_of = config.as_object_mut().unwrap();
        config_of.extend(more.as_object().unwrap().clone());
        let mut model = Small { config: config_of.clone(), tensors: Vec::new(), tokenizer: byte_level() };
        model.put(&["model.embed_tokens.weight"], &[VOCABULARY, WIDTH]);
        model.put(&["model.norm.weight"], &[WIDTH]);
        model
    }

    fn put(&mut self, names: &[&str], shape: &[u64]) {
        self.tensors.extend(names.iter().map(|name| ((*name).to_owned(), shape.to_vec())));
    }

    /// Tensors of each of the two layers.
    fn each(&mut self, names: &[&str], shape: &[u64]) {
        for layer in 0..2 {
            names.iter().for_each(|name| self.put(&[&format!("model.layers.{layer}.{name}")], shape));
        }
    }

    fn head(mut self) -> Small {
        self.put(&["lm_head.weight"], &[VOCABULARY, WIDTH]);
        self
    }

    fn attention(&mut self) {
        self.each(&["self_attn.q_proj.weight", "self_attn.o_proj.weight"], &[WIDTH, WIDTH]);
        self.each(&["self_attn.k_proj.weight", "self_attn.v_proj.weight"], &[HEAD, WIDTH]);
    }

    fn feed_forward(&mut self) {
        self.each(&["mlp.gate_proj.weight", "mlp.up_proj.weight"], &[INNER, WIDTH]);
        self.each(&["mlp.down_proj.weight"], &[WIDTH, INNER]);
    }

    fn expert(&mut self, name: &str, inner: u64) {
        self.each(&[&format!("mlp.{name}.gate_proj.weight"), &format!("mlp.{name}.up_proj.weight")], &[inner, WIDTH]);
        self.each(&[&format!("mlp.{name}.down_proj.weight")], &[WIDTH, inner]);
    }

    fn experts(&mut self) {
        self.each(&["mlp.gate.weight"], &[2, WIDTH]);
        self.expert("experts.0", INNER);
        self.expert("experts.1", INNER);
    }

    /// Qwen 2 with experts, without biases.
    pub fn qwen2_moe() -> Small {
        let more = json!({"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": INNER, "shared_expert_intermediate_size": INNER,
            "qkv_bias": false, "decoder_sparse_step": 1});
        let mut model = Small::decoder("Qwen2MoeForCausalLM", "qwen2_moe", more);
        model.attention();
        model.each(&["input_layernorm.weight", "post_attention_layernorm.weight"], &[WIDTH]);
        model.experts();
        model.expert("shared_expert", INNER);
        model.each(&["mlp.shared_expert_gate.weight"], &[1, WIDTH]);
        model.head()
    }

    /// Qwen 3.
    pub fn qwen3() -> Small {
        let mut model = Small::decoder("Qwen3ForCausalLM", "qwen3", json!({"head_dim": HEAD}));
        model.attention();
        model.feed_forward();
        model.each(&["input_layernorm.weight", "post_attention_layernorm.weight"], &[WIDTH]);
        model.each(&["self_attn.q_norm.weight", "self_attn.k_norm.weight"], &[HEAD]);
        model.head()
    }

    /// OLMo 2.
    pub fn olmo2() -> Small {
        let mut model = Small::decoder("Olmo2ForCausalLM", "olmo2", json!({}));
        model.attention();
        model.feed_forward();
        model.each(&["post_attention_layernorm.weight", "post_feedforward_layernorm.weight", "self_attn.q_norm.weight"], &[WIDTH]);
        model.each(&["self_attn.k_norm.weight"], &[HEAD]);
        model.head()
    }

    /// Command R, with norms of queries and keys.
    pub fn command_r() -> Small {
        let mut model = Small::decoder("CohereForCausalLM", "cohere", json!({"use_qk_norm": true, "layer_norm_eps": 1e-5}));
        model.attention();
        model.feed_forward();
        model.each(&["input_layernorm.weight"], &[WIDTH]);
        model.each(&["self_attn.q_norm.weight"], &[2, HEAD]);
        model.each(&["self_attn.k_norm.weight"], &[1, HEAD]);
        model
    }

    /// Command R7B.
    pub fn cohere2() -> Small {
        let more = json!({"layer_norm_eps": 1e-5, "rotary_pct": 1.0, "sliding_window": 16});
        let mut model = Small::decoder("Cohere2ForCausalLM", "cohere2", more);
        model.attention();
        model.feed_forward();
        model.each(&["input_layernorm.weight"], &[WIDTH]);
        model
    }

    /// StarCoder 2, without biases of its layers.
    pub fn starcoder2() -> Small {
        let mut model = Small::decoder("Starcoder2ForCausalLM", "starcoder2", json!({"use_bias": false, "norm_epsilon": 1e-5}));
        model.attention();
        model.each(&["mlp.c_fc.weight"], &[INNER, WIDTH]);
        model.each(&["mlp.c_proj.weight"], &[WIDTH, INNER]);
        for ending in ["weight", "bias"] {
            model.each(&[&format!("input_layernorm.{ending}"), &format!("post_attention_layernorm.{ending}")], &[WIDTH]);
        }
        model.put(&["model.norm.bias"], &[WIDTH]);
        model
    }

    /// DeepSeek V3 without the correction of its router; its queries are compressed if `rank` says so.
    pub fn deepseek3(rank: Option<u64>) -> Small {
        let more = json!({"num_key_value_heads": 2, "q_lora_rank": rank, "kv_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
            "v_head_dim": 8, "n_routed_experts": 2, "num_experts_per_tok": 1, "n_shared_experts": 1, "moe_intermediate_size": INNER,
            "first_k_dense_replace": 0, "n_group": 1, "topk_group": 1, "scoring_func": "sigmoid"});
        let mut model = Small::decoder("DeepseekV3ForCausalLM", "deepseek_v3", more);
        match rank {
            None => model.each(&["self_attn.q_proj.weight"], &[32, WIDTH]),
            Some(rank) => {
                model.each(&["self_attn.q_a_proj.weight"], &[rank, WIDTH]);
                model.each(&["self_attn.q_a_layernorm.weight"], &[rank]);
                model.each(&["self_attn.q_b_proj.weight"], &[32, rank]);
            }
        }
        model.each(&["self_attn.kv_a_proj_with_mqa.weight"], &[16, WIDTH]);
        model.each(&["self_attn.kv_a_layernorm.weight"], &[8]);
        model.each(&["self_attn.kv_b_proj.weight"], &[32, 8]);
        model.each(&["self_attn.o_proj.weight"], &[WIDTH, 16]);
        model.each(&["input_layernorm.weight", "post_attention_layernorm.weight"], &[WIDTH]);
        model.experts();
        model.expert("shared_experts", INNER);
        model.head()
    }

    /// GPT-2.
    pub fn gpt2() -> Small {
        let config = json!({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": WIDTH, "n_layer": 1, "n_head": 2, "n_ctx": 64,
            "n_positions": 64, "vocab_size": VOCABULARY});
        let mut model = Small { config: config.as_object().unwrap().clone(), tensors: Vec::new(), tokenizer: byte_level() };
        model.put(&["transformer.wte.weight"], &[VOCABULARY, WIDTH]);
        model.put(&["transformer.wpe.weight"], &[64, WIDTH]);
        for norm in ["ln_f", "h.0.ln_1", "h.0.ln_2"] {
            model.put(&[&format!("transformer.{norm}.weight"), &format!("transformer.{norm}.bias")], &[WIDTH]);
        }
        for (name, rows, columns) in [("attn.c_attn", 32, 96), ("attn.c_proj", 32, 32), ("mlp.c_fc", 32, 128), ("mlp.c_proj", 128, 32)] {
            model.put(&[&format!("transformer.h.0.{name}.weight")], &[rows, columns]);
            model.put(&[&format!("transformer.h.0.{name}.bias")], &[columns]);
        }
        model
    }

    /// An encoder of BERT's kind of this class. Classes that sort texts have three, with names.
    pub fn encoder(class: &str) -> Small {
        let model_type = match class {
            _ if class.starts_with("Bert") => "bert",
            _ if class.starts_with("Distil") => "distilbert",
            _ if class.starts_with("XLM") => "xlm-roberta",
            _ => "roberta",
        };
        let mut config = json!({"architectures": [class], "model_type": model_type, "vocab_size": VOCABULARY, "max_position_embeddings": 64});
        let sizes = match model_type {
            "distilbert" => json!({"dim": WIDTH, "hidden_dim": INNER, "n_layers": 1, "n_heads": 2}),
            _ => json!({"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": 1, "num_attention_heads": 2,
                "layer_norm_eps": 1e-5, "type_vocab_size": 1, "pad_token_id": if model_type == "bert" { 0 } else { 1 }}),
        };
        let config = config.as_object_mut().unwrap();
        config.extend(sizes.as_object().unwrap().clone());
        let tokenizer = match model_type {
            "roberta" => byte_level(),
            "xlm-roberta" => unigram(),
            _ => word_piece(),
        };
        let mut model = Small { config: config.clone(), tensors: Vec::new(), tokenizer };
        let has_classes = class.ends_with("ForSequenceClassification");
        let prefix = if has_classes { if model_type == "distilbert" { "distilbert." } else { "roberta." } } else { "" };
        model.encoder_layers(prefix, model_type == "distilbert");
        if has_classes {
            model.config.insert("id2label".into(), json!({"0": "no", "1": "maybe", "2": "yes"}));
            let [first, last] =
                if model_type == "distilbert" { ["pre_classifier", "classifier"] } else { ["classifier.dense", "classifier.out_proj"] };
            model.dense(first, WIDTH, WIDTH);
            model.dense(last, 3, WIDTH);
        }
        model
    }

    fn dense(&mut self, name: &str, rows: u64, columns: u64) {
        self.put(&[&format!("{name}.weight")], &[rows, columns]);
        self.put(&[&format!("{name}.bias")], &[rows]);
    }

    fn norm(&mut self, name: &str) {
        self.put(&[&format!("{name}.weight"), &format!("{name}.bias")], &[WIDTH]);
    }

    fn encoder_layers(&mut self, prefix: &str, is_distilled: bool) {
        self.put(&[&format!("{prefix}embeddings.word_embeddings.weight")], &[VOCABULARY, WIDTH]);
        self.put(&[&format!("{prefix}embeddings.position_embeddings.weight")], &[64, WIDTH]);
        self.norm(&format!("{prefix}embeddings.LayerNorm"));
        if !is_distilled {
            self.put(&[&format!("{prefix}embeddings.token_type_embeddings.weight")], &[1, WIDTH]);
        }
        let (layer, attention, inner, norms) = if is_distilled {
            (
                "transformer.layer.0",
                ["attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"],
                ["ffn.lin1", "ffn.lin2"],
                ["sa_layer_norm", "output_layer_norm"],
            )
        } else {
            (
                "encoder.layer.0",
                ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"],
                ["intermediate.dense", "output.dense"],
                ["attention.output.LayerNorm", "output.LayerNorm"],
            )
        };
        attention.iter().for_each(|name| self.dense(&format!("{prefix}{layer}.{name}"), WIDTH, WIDTH));
        self.dense(&format!("{prefix}{layer}.{}", inner[0]), INNER, WIDTH);
        self.dense(&format!("{prefix}{layer}.{}", inner[1]), WIDTH, INNER);
        norms.iter().for_each(|name| self.norm(&format!("{prefix}{layer}.{name}")));
    }

    /// Sets a key of the configuration.
    pub fn with(mut self, key: &str, value: Value) -> Small {
        self.config.insert(key.into(), value);
        self
    }

    /// Leaves out the tensors whose names contain `part`.
    pub fn without(mut self, part: &str) -> Small {
        self.tensors.retain(|(name, _)| !name.contains(part));
        self
    }

    /// Adds a tensor.
    pub fn and(mut self, name: &str, shape: &[u64]) -> Small {
        self.put(&[name], shape);
        self
    }

    /// Adds a tensor to each of two layers.
    pub fn and_each(mut self, name: &str, shape: &[u64]) -> Small {
        self.each(&[name], shape);
        self
    }

    /// Gives the tensors whose names contain `part` another shape.
    pub fn reshaped(mut self, part: &str, shape: &[u64]) -> Small {
        self.tensors.iter_mut().filter(|(name, _)| name.contains(part)).for_each(|(_, old)| *old = shape.to_vec());
        self
    }

    /// Writes it into a folder of its own in `dir`.
    pub fn write(&self, dir: &Path) -> PathBuf {
        let folder = dir.join("small");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("config.json"), Value::Object(self.config.clone()).to_string()).unwrap();
        self.tokenizer.iter().for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).unwrap());
        let numbers =
            |seed: usize, shape: &[u64]| -> Vec<f32> { (0..shape.iter().product()).map(|i| ((i as usize * 7 + seed) % 31) as f32 / 16.0).collect() };
        let tensors: Vec<Made> = self.tensors.iter().enumerate().map(|(i, (name, shape))| Made::bf16(name, shape, &numbers(i, shape))).collect();
        made::write(&folder.join("model.safetensors"), &tensors);
        folder
    }
}

/// 256 characters, each a token.
fn characters() -> Map<String, Value> {
    (0..VOCABULARY as u32).map(|i| (char::from_u32(0x4e00 + i).unwrap().to_string(), json!(i))).collect()
}

fn document(model: &Value, pre_tokenizer: &Value) -> Vec<(&'static str, Vec<u8>)> {
    let json = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null, "model": model});
    let config = json!({"tokenizer_class": "PreTrainedTokenizerFast"});
    vec![("tokenizer.json", json.to_string().into_bytes()), ("tokenizer_config.json", config.to_string().into_bytes())]
}

fn byte_level() -> Vec<(&'static str, Vec<u8>)> {
    let model = json!({"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": characters(), "merges": []});
    document(&model, &json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}))
}

fn word_piece() -> Vec<(&'static str, Vec<u8>)> {
    let mut vocab = characters();
    for (id, text) in ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].into_iter().enumerate() {
        vocab.remove(&char::from_u32(0x4e00 + id as u32).unwrap().to_string());
        vocab.insert(text.into(), json!(id));
    }
    let model =
        json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab});
    document(&model, &json!({"type": "BertPreTokenizer"}))
}

/// A SentencePiece model of five pieces, of the kind unigram.
fn unigram() -> Vec<(&'static str, Vec<u8>)> {
    let mut bytes = Vec::new();
    for (text, kind) in [("<unk>", 2u8), ("<s>", 3), ("</s>", 3), ("▁a", 1), ("b", 1)] {
        bytes.extend([0x0a, text.len() as u8 + 4, 0x0a, text.len() as u8]);
        bytes.extend(text.bytes().chain([0x18, kind]));
    }
    bytes.extend(b"\x12\x02\x18\x01");
    vec![("sentencepiece.bpe.model", bytes), ("tokenizer_config.json", b"{\"tokenizer_class\": \"XLMRobertaTokenizer\"}".to_vec())]
}
