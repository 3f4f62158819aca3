//! Which files of a model folder belong to the model: those that are carried along with the weights, and those that are left.
//!
//! A file that no table names is left, with a reason that is reported: nothing of unknown nature is copied.

/// What becomes of a file in a model folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It belongs to the model and is carried along as it is.
    Carried,
    /// It holds weights in safetensors files, or is their index: the reader's business.
    Weights,
    /// It is not carried along, for this reason.
    Left(&'static str),
}

/// Endings of safetensors files.
const WEIGHTS: &[&str] = &["safetensors"];

/// Endings of files that are carried along: configuration, tokenizers, code, texts and the pictures that texts show.
const CARRIED: &[&str] = &[
    "json", "jsonl", "txt", "md", "rst", "jinja", "jinja2", "py", "yaml", "yml", "toml", "cfg", "ini", // configuration, templates, code, texts
    "model", "vocab", "tiktoken", "bpe", "spm", "tsv", "csv", // tokenizers
    "png", "jpg", "jpeg", "gif", "svg", "webp", "pdf", "html", "css", "bib", "cff", // what a README shows
];

/// Beginnings of names that are carried whatever their ending, unless it is one of a file that is left; a `.`, `-` or `_` follows.
const CARRIED_NAMES: &[&str] = &[
    "license",
    "licence",
    "copying",
    "copyright",
    "notice",
    "readme",
    "use_policy",
    "authors",
    "citation", // the legal and the explaining ones
    "tokenizer",
    "vocab",
    "merges",
    "chat_template", // tokenizer.model.v3
];

/// Endings of files that are left, and what they are.
const LEFT: &[(&[&str], &str)] = &[
    (&["bin", "pt", "pth", "ckpt", "pkl", "pickle", "distcp", "nemo"], "weights in another format (PyTorch)"),
    (&["gguf", "ggml", "llamafile"], "weights in another format (GGUF)"),
    (&["h5", "keras", "tflite", "pb"], "weights in another format (TensorFlow)"),
    (&["msgpack", "orbax"], "weights in another format (Flax)"),
    (&["onnx", "onnx_data", "ort"], "weights in another format (ONNX)"),
    (&["bqt"], "weights in another format (BQT)"),
    (&["ot", "npz", "npy", "mlmodel", "mlpackage", "engine", "plan", "pdparams", "rknn", "xml"], "weights in another format"),
    (&["zip", "tar", "gz", "tgz", "bz2", "xz", "zst", "7z", "rar"], "an archive"),
    (&["lock", "incomplete", "tmp", "part", "swp", "bak", "orig"], "a temporary file"),
    (&["log", "out", "err"], "a log"),
];

/// What becomes of the file `name` in a model folder; with a slash in it, it lies in a sub-folder.
///
/// Endings are compared without regard to case. Sizes and contents are not looked at.
pub fn side(name: &str) -> Side {
    let lower = name.to_ascii_lowercase();
    if let Some(reason) = left_by_place(&lower) {
        return Side::Left(reason);
    }
    match index_of(&lower) {
        Some(stem) if has_ending(stem, WEIGHTS) => Side::Weights,
        Some(_) => Side::Left("the index of weights in another format"),
        None => by_ending(&lower),
    }
}

/// Whether the file `name` in a model folder is carried along with the weights.
pub fn is_carried(name: &str) -> bool {
    side(name) == Side::Carried
}

fn left_by_place(lower: &str) -> Option<&'static str> {
    match lower {
        _ if lower.contains(['/', '\\', '\0']) => Some("in a sub-folder"),
        _ if lower.is_empty() || lower.starts_with('.') => Some("hidden"),
        _ if lower.contains(".partial.") || lower.ends_with(".partial") => Some("an unfinished output"),
        _ if lower.ends_with('~') => Some("a temporary file"),
        _ => None,
    }
}

/// The name of the weights file that `lower` is an index of: `model.safetensors` for `model.safetensors.index.json`.
fn index_of(lower: &str) -> Option<&str> {
    let (stem, rest) = lower.split_once(".index.")?;
    rest.ends_with("json").then_some(stem)
}

fn by_ending(lower: &str) -> Side {
    if has_ending(lower, WEIGHTS) {
        return Side::Weights;
    }
    if let Some((_, reason)) = LEFT.iter().find(|(endings, _)| has_ending(lower, endings)) {
        return Side::Left(reason);
    }
    if has_ending(lower, CARRIED) || is_carried_name(lower) {
        return Side::Carried;
    }
    Side::Left("of no kind that is known to belong to a model")
}

fn is_carried_name(lower: &str) -> bool {
    CARRIED_NAMES.iter().any(|n| lower.strip_prefix(n).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_', '.'])))
}

fn has_ending(lower: &str, endings: &[&str]) -> bool {
    lower.rsplit_once('.').is_some_and(|(stem, ending)| !stem.is_empty() && endings.contains(&ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names found in public model folders.
    const FOUND_CARRIED: &[&str] = &[
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "tokenizer.model.v3",
        "sentencepiece.bpe.model",
        "spiece.model",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "qwen.tiktoken",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
        "preprocessor_config.json",
        "processor_config.json",
        "configuration_deepseek.py",
        "params.json",
        "README.md",
        "LICENSE",
        "LICENSE.txt",
        "LICENSE-MODEL",
        "Notice",
        "USE_POLICY.md",
        "figure.PNG",
    ];

    const FOUND_LEFT: &[(&str, &str)] = &[
        ("pytorch_model.bin", "weights in another format (PyTorch)"),
        ("pytorch_model-00001-of-00002.bin", "weights in another format (PyTorch)"),
        ("consolidated.00.pth", "weights in another format (PyTorch)"),
        ("tokenizer.bin", "weights in another format (PyTorch)"),
        ("training_args.bin", "weights in another format (PyTorch)"),
        ("pytorch_model.bin.index.json", "the index of weights in another format"),
        ("flax_model.msgpack.index.json", "the index of weights in another format"),
        ("tf_model.h5", "weights in another format (TensorFlow)"),
        ("flax_model.msgpack", "weights in another format (Flax)"),
        ("model.onnx", "weights in another format (ONNX)"),
        ("Model-Q4_K.GGUF", "weights in another format (GGUF)"),
        ("rust_model.ot", "weights in another format"),
        (".gitattributes", "hidden"),
        (".config.json", "hidden"),
        ("", "hidden"),
        ("original/params.json", "in a sub-folder"),
        ("..\\config.json", "in a sub-folder"),
        ("model.safetensors.partial.4f2a", "an unfinished output"),
        ("config.json.partial", "an unfinished output"),
        ("config.json~", "a temporary file"),
        ("Makefile", "of no kind that is known to belong to a model"),
        ("licensed_data", "of no kind that is known to belong to a model"),
    ];

    const FOUND_WEIGHTS: &[&str] = &[
        "model.safetensors",
        "model-00001-of-00003.safetensors",
        "model.safetensors.index.json",
        "model.safetensors.index.fp16.json",
        "MODEL.SAFETENSORS",
    ];

    #[test]
    fn every_file_of_a_folder_has_its_place() {
        for name in FOUND_CARRIED {
            assert_eq!(side(name), Side::Carried, "{name}");
        }
        for name in FOUND_WEIGHTS {
            assert_eq!(side(name), Side::Weights, "{name}");
        }
        for (name, reason) in FOUND_LEFT {
            assert_eq!(side(name), Side::Left(reason), "{name}");
        }
    }

    #[test]
    fn no_ending_stands_in_two_tables() {
        let left = LEFT.iter().flat_map(|row| row.0);
        let mut all: Vec<_> = CARRIED.iter().chain(WEIGHTS).chain(left).collect();
        let n = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), n);
    }
}
