//! Command lines and recipes that must be refused, whatever the model.

use std::path::Path;

use quant_tests::made::{self, Made};

use super::{folder, write};

/// Name, arguments, what the message must name (an option or a file), reason.
pub const CASES: [(&str, &[&str], &str, &str); 46] = [
    ("scheme_unknown", &["convert", "m", "out/x", "--type", "nf5"], "--type", "unknown scheme 'nf5'"),
    ("scheme_empty", &["convert", "m", "out/x", "--type", ""], "--type", "unknown scheme ''"),
    ("scheme_block_63", &["convert", "m", "out/x", "--type", "nf4:63"], "--type", "block size '63' is not one of"),
    ("scheme_block_0", &["convert", "m", "out/x.bqt", "--type", "affine4:0"], "--type", "'0' is neither a block size"),
    ("scheme_of_9_bits", &["convert", "m", "out/x.bqt", "--type", "affine9"], "--type", "'9' is not a number of bits"),
    ("scheme_profile_unknown", &["convert", "m", "out/x", "--type", "nf4@tpu"], "--type", "profile 'tpu' is neither cuda nor cpu"),
    ("scheme_profile_of_int8", &["convert", "m", "out/x", "--type", "int8@cpu"], "--type", "a profile makes no difference"),
    ("rule_without_scheme", &["convert", "m", "out/x", "--tensor-type", "up_proj"], "--tensor-type", "needs REGEX=SCHEME"),
    ("rule_of_unknown_scheme", &["convert", "m", "out/x", "--tensor-type", "up_proj=nf5"], "--tensor-type", "unknown scheme 'nf5'"),
    ("rule_with_bad_regex", &["convert", "m", "out/x", "--tensor-type", "(=nf4"], "--tensor-type", "unclosed group"),
    ("rule_with_regex_bomb", &["convert", "m", "out/x", "--tensor-type", "((a{1000}){1000}){1000}=nf4"], "--tensor-type", "size limit"),
    ("keep_with_bad_regex", &["convert", "m", "out/x", "--type", "nf4", "--keep", "[z-a]"], "--keep", "invalid character class range"),
    ("keep_with_look_ahead", &["convert", "m", "out/x", "--type", "nf4", "--keep", "(?=a)"], "--keep", "look-around"),
    ("shard_size_unit_unknown", &["convert", "m", "out/x", "--max-shard-size", "5XB"], "--max-shard-size", "unknown unit 'XB'"),
    ("shard_size_0", &["convert", "m", "out/x", "--max-shard-size", "0"], "--max-shard-size", "out of range"),
    ("shard_size_negative", &["convert", "m", "out/x", "--max-shard-size=-5GB"], "--max-shard-size", "-5GB"),
    ("shard_size_huge", &["convert", "m", "out/x", "--max-shard-size", "99999999999TB"], "--max-shard-size", "out of range"),
    ("shard_size_of_a_file", &["convert", "m", "out/x.bqt", "--max-shard-size", "5GB"], "--max-shard-size", "needs a folder as output"),
    ("shard_size_of_one_file", &["convert", "m", "out/x.safetensors", "--max-shard-size", "5GB"], "--max-shard-size", "needs a folder as output"),
    ("gguf_has_no_nf4", &["convert", "m", "out/x.gguf", "--type", "nf4", "--generic"], "mlp", "GGUF has no type for nf4"),
    ("gguf_file_of_shards", &["convert", "m", "out/x.GGUF", "--max-shard-size", "1MB", "--generic"], "--max-shard-size", "needs a folder as output"),
    ("gguf_mix_unknown", &["convert", "m", "out/x", "--to", "gguf", "--type", "q4_k_x"], "--type", "unknown scheme 'q4_k_x'"),
    ("form_unknown", &["convert", "m", "out/x", "--to", "onnx"], "--to", "invalid value 'onnx'"),
    ("affine_to_a_folder", &["convert", "m", "out/x", "--type", "affine4"], "up_proj.weight", "safetensors has no layout for affine4"),
    (
        "absmax_to_a_file",
        &["convert", "m", "out/x.safetensors", "--type", "absmax8:row"],
        "up_proj.weight",
        "safetensors has no layout for absmax8:row",
    ),
    ("int8_block_to_a_folder", &["convert", "m", "out/x", "--type", "int8-block"], "up_proj.weight", "safetensors has no layout for int8-block"),
    (
        "embedding_to_nf4_in_a_folder",
        &["convert", "m", "out/x", "--tensor-type", "embed=nf4"],
        "embed_tokens.weight",
        "transformers loads nf4 only in linear layers",
    ),
    ("norm_to_int8_in_a_folder", &["convert", "m", "out/x", "--tensor-type", "norm=int8"], "norm.weight", "int8"),
    (
        "mixture_in_a_folder",
        &["convert", "m", "out/x", "--type", "nf4", "--tensor-type", "up_proj=int8"],
        "up_proj.weight",
        "either 4-bit or int8, not both",
    ),
    ("recipe_missing", &["convert", "m", "out/x", "--recipe", "none.toml"], "none.toml", "No such file"),
    ("recipe_is_a_folder", &["convert", "m", "out/x", "--recipe", "m"], "m", "is a folder; needed a regular file"),
    ("recipe_key_unknown", &["convert", "m", "out/x", "--recipe", "key.toml"], "key.toml", "unknown field `default`"),
    ("recipe_rule_key_unknown", &["convert", "m", "out/x", "--recipe", "rule.toml"], "rule.toml", "unknown field `scheme`"),
    ("recipe_regex_bad", &["convert", "m", "out/x", "--recipe", "regex.toml"], "regex.toml", "unclosed group"),
    ("recipe_scheme_unknown", &["convert", "m", "out/x", "--recipe", "scheme.toml"], "scheme.toml", "unknown scheme 'nf5'"),
    ("recipe_no_toml", &["convert", "m", "out/x", "--recipe", "words.toml"], "words.toml", "not a recipe"),
    ("recipe_not_utf_8", &["convert", "m", "out/x", "--recipe", "bytes.toml"], "bytes.toml", "UTF-8"),
    ("recipe_and_type", &["convert", "m", "out/x", "--recipe", "key.toml", "--type", "nf4"], "--recipe", "cannot be used with"),
    ("memory_too_small", &["convert", "m", "out/x", "--type", "nf4", "--memory", "100"], "--memory", "the memory budget is too small"),
    ("memory_without_number", &["convert", "m", "out/x", "--memory", "much"], "--memory", "unknown unit 'much'"),
    ("threads_0", &["convert", "m", "out/x", "--threads", "0"], "--threads", "0 is not in 1..=1024"),
    ("option_unknown", &["convert", "m", "out/x", "--quantise"], "--quantise", "unexpected argument"),
    ("output_missing", &["convert", "m"], "<OUTPUT>", "required arguments were not provided"),
    ("output_folder_missing", &["convert", "m", "out/none/x"], "out/none", "does not exist; create it first"),
    ("gguf_without_a_class", &["convert", "m", "out/x.gguf"], "config.json", "found no 'architectures'"),
    ("exl2_to_be_changed", &["convert", "exl2", "out/x", "--type", "f32"], "exl2", "not read"),
];

/// Makes everything that the command lines speak of.
pub fn make(dir: &Path) {
    model(&dir.join("m"), r#"{"model_type": "llama"}"#);
    model(&dir.join("exl2"), r#"{"model_type": "llama", "quantization_config": {"quant_method": "exl2", "bits": 4}}"#);
    let recipes: [(&str, &[u8]); 6] = [
        ("key.toml", b"default = 'nf4'"),
        ("rule.toml", b"[[tensor]]\nmatch = 'a'\nscheme = 'nf4'"),
        ("regex.toml", b"[[tensor]]\nmatch = '('\ntype = 'nf4'"),
        ("scheme.toml", b"type = 'nf5'"),
        ("words.toml", b"please quantize to nf4"),
        ("bytes.toml", b"type = '\xff'"),
    ];
    recipes.iter().for_each(|(name, text)| write(&dir.join(name), text));
}

/// A model of one layer.
pub fn model(dir: &Path, config: &str) {
    folder(dir);
    write(&dir.join("config.json"), config);
    let matrix = |name: &str| Made::bf16(name, &[64, 64], &[0.5; 4096]);
    let layer = |rest: &str| format!("model.layers.0.{rest}.weight");
    let tensors = [
        matrix("model.embed_tokens.weight"),
        matrix(&layer("mlp.up_proj")),
        matrix(&layer("mlp.down_proj")),
        Made::bf16(&layer("input_layernorm"), &[64], &[1.0; 64]),
        matrix("lm_head.weight"),
    ];
    made::write(&dir.join("model.safetensors"), &tensors);
}
