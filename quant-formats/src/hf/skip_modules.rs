//! `llm_int8_skip_modules`: how a model says which of its linear layers bitsandbytes has not quantized.
//!
//! If it is `null`, transformers finds the layers to skip by itself: those that [`super::roles`] calls heads. If it is a list, it
//! must name every linear layer that is left dense, the output embedding included, even one that is tied and not in the file.
//! An entry is matched as a regular expression from the start of a module's path up to a dot or its end, and as plain text at its end.
//! Since some models are saved under other names than they have in memory, both names of such a layer are listed.
//!
//! Source: transformers 5.23.0, `should_convert_module`, `HfQuantizer.get_modules_to_not_convert`, `conversion_mapping`.

use quant_core::source::Role;

use super::config::Config;

/// A matrix of the output that is the weight of a module.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    /// The module's path: the tensor's name without `.weight`.
    pub path: &'a str,
    /// What the tensor is.
    pub role: Role,
    /// Whether it is quantized by bitsandbytes.
    pub is_quantized: bool,
}

/// The names of tied output heads where they are not called `lm_head`: model types, path.
const TIED_HEADS: &[(&[&str], &str)] = &[
    (
        &[
            "bert",
            "big_bird",
            "deberta",
            "deberta-v2",
            "ernie",
            "fnet",
            "layoutlm",
            "megatron-bert",
            "mobilebert",
            "mra",
            "nomic_bert",
            "nystromformer",
            "roc_bert",
            "roformer",
            "squeezebert",
            "tapas",
            "yoso",
        ],
        "cls.predictions.decoder",
    ),
    (
        &[
            "bert-generation",
            "camembert",
            "data2vec-text",
            "gte",
            "ibert",
            "jina_embeddings_v3",
            "longformer",
            "luke",
            "mpnet",
            "roberta",
            "roberta-prelayernorm",
            "xlm-roberta",
            "xlm-roberta-xl",
            "xmod",
        ],
        "lm_head.decoder",
    ),
    (&["canary", "moonshine", "whisper"], "proj_out"),
    (&["biogpt", "trocr"], "output_projection"),
    (&["convbert", "electra"], "generator_lm_head"),
    (&["modernbert", "modernbert-decoder"], "decoder"),
    (&["distilbert"], "vocab_projector"),
    (&["albert"], "predictions.decoder"),
    (&["t5gemma", "t5gemma2"], "lm_head.out_proj"),
    (&["flaubert", "xlm"], "pred_layer.proj"),
    (&["xlnet"], "lm_loss"),
];

/// How paths in files begin, and what transformers 5 makes of it: model types (none: all), in the file, in memory.
const RENAMED: &[(&[&str], &str, &str)] = &[
    (&[], "language_model.model.", "model.language_model."),
    (&[], "language_model.lm_head", "lm_head"),
    (&[], "vision_tower.", "model.vision_tower."),
    (&[], "multi_modal_projector.", "model.multi_modal_projector."),
    (&["qwen2_vl", "qwen2_5_vl"], "visual.", "model.visual."),
    (&["qwen2_vl", "qwen2_5_vl"], "model.layers.", "model.language_model.layers."),
    (&["gpt_neox"], "embed_out", "lm_head"),
];

/// The list for [`super::config::bnb_config`]; none is `null`. `layers` are all matrices of the output, in order.
///
/// # Errors
/// If transformers could not load such a model: something quantized that is no linear layer, or names that cannot be told apart.
pub fn skip_modules(layers: &[Layer], config: Option<&Config>) -> Result<Option<Vec<String>>, String> {
    let is_linear = |role| matches!(role, Role::Linear | Role::Conv1d | Role::Head);
    if let Some(bad) = layers.iter().find(|l| l.is_quantized && !is_linear(l.role)) {
        let (path, role) = (bad.path, bad.role.name());
        return Err(format!("'{path}' is {role}: transformers loads only linear layers quantized by bitsandbytes"));
    }
    if is_default(layers) {
        return Ok(None);
    }
    let model = config.and_then(Config::model_type).unwrap_or_default();
    let mut list: Vec<String> = layers.iter().filter(|l| !l.is_quantized && may_be_linear(l.role)).flat_map(|l| names(l.path, &model)).collect();
    if config.is_some_and(Config::ties_embeddings) && !layers.iter().any(|l| l.role == Role::Head) {
        list.push(tied_head(&model).into());
    }
    check(&list, layers, &model)?;
    Ok(Some(list))
}

/// Whether exactly those layers are quantized that are by default.
fn is_default(layers: &[Layer]) -> bool {
    layers.iter().all(|l| l.is_quantized == matches!(l.role, Role::Linear | Role::Conv1d))
}

/// Whether a matrix may belong to an `nn.Linear`: tied layers and those kept in f32 have the role [`Role::Other`].
fn may_be_linear(role: Role) -> bool {
    matches!(role, Role::Linear | Role::Conv1d | Role::Head | Role::Other)
}

fn tied_head(model: &str) -> &'static str {
    TIED_HEADS.iter().find(|(models, _)| models.contains(&model)).map_or("lm_head", |row| row.1)
}

/// The path in the file and, if it is another one, the path in memory.
fn names(path: &str, model: &str) -> Vec<String> {
    let renamed = RENAMED.iter().filter(|(models, ..)| models.is_empty() || models.contains(&model));
    let in_memory = renamed.filter_map(|(_, from, to)| path.strip_prefix(from).map(|rest| format!("{to}{rest}")));
    std::iter::once(path.to_string()).chain(in_memory).collect()
}

fn check(list: &[String], layers: &[Layer], model: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if let Some(odd) = list.iter().find(|key| !key.chars().all(is_plain)) {
        return Err(format!("'{odd}' cannot stand in llm_int8_skip_modules, whose entries are regular expressions"));
    }
    let quantized: Vec<_> = layers.iter().filter(|l| l.is_quantized).map(|l| (l.path, names(l.path, model))).collect();
    let skipped_by = |key: &String| quantized.iter().find(|(_, names)| names.iter().any(|n| is_skipped(n, key)));
    let clash = list.iter().find_map(|key| Some((key, skipped_by(key)?.0)));
    match clash {
        Some((key, path)) => Err(format!("llm_int8_skip_modules cannot leave '{key}' dense and '{path}' quantized")),
        None => Ok(()),
    }
}

/// Whether transformers skips the module `path` for the entry `key`, which holds no special characters but dots.
fn is_skipped(path: &str, key: &str) -> bool {
    path.ends_with(key) || matches_start(path, key)
}

/// Python's `re.match(rf"(?:{key})(?:(?<=\.)|(?=\.|$))", path)`: a dot in the key is any character.
fn matches_start(path: &str, key: &str) -> bool {
    let n = key.chars().count();
    let begins = path.chars().zip(key.chars()).filter(|(p, k)| p == k || *k == '.').count() == n;
    let before = path.chars().take(n).last();
    begins && (before == Some('.') || path.chars().nth(n).is_none_or(|after| after == '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text.as_bytes()).unwrap()
    }

    fn layer(path: &str, role: Role, is_quantized: bool) -> Layer<'_> {
        Layer { path, role, is_quantized }
    }

    fn list(layers: &[Layer], text: &str) -> Vec<String> {
        skip_modules(layers, Some(&config(text))).unwrap().unwrap()
    }

    #[test]
    fn what_is_left_by_default_needs_no_list() {
        let layers = [
            layer("a.q", Role::Linear, true),
            layer("a.c_fc", Role::Conv1d, true),
            layer("lm_head", Role::Head, false),
            layer("wo", Role::Other, false),
            layer("gate", Role::Router, false),
        ];
        assert_eq!(skip_modules(&layers, None), Ok(None));
    }

    #[test]
    fn a_list_names_every_dense_linear_layer() {
        let layers = [
            layer("l.0.q", Role::Linear, true),
            layer("l.1.q", Role::Linear, false),
            layer("l.1.gate", Role::Router, false),
            layer("l.1.wo", Role::Other, false),
            layer("embed_tokens", Role::Embedding, false),
            layer("lm_head", Role::Head, false),
        ];
        assert_eq!(list(&layers, r#"{"model_type": "llama", "tie_word_embeddings": true}"#), ["l.1.q", "l.1.wo", "lm_head"]);
    }

    #[test]
    fn a_tied_head_is_listed_though_it_is_not_in_the_file() {
        let layers = [layer("l.0.q", Role::Linear, true), layer("l.1.q", Role::Linear, false)];
        assert_eq!(list(&layers, r#"{"model_type": "gemma"}"#), ["l.1.q", "lm_head"]);
        assert_eq!(list(&layers, r#"{"model_type": "whisper"}"#), ["l.1.q", "proj_out"]);
        assert_eq!(list(&layers, r#"{"model_type": "llama"}"#), ["l.1.q"]);
    }

    #[test]
    fn a_quantized_head_needs_a_list() {
        let layers = [layer("l.0.q", Role::Linear, true), layer("lm_head", Role::Head, true)];
        assert_eq!(list(&layers, "{}"), [""; 0]);
    }

    #[test]
    fn a_renamed_layer_is_listed_by_both_names() {
        let layers = [layer("language_model.model.layers.0.q", Role::Linear, false), layer("language_model.lm_head", Role::Head, false)];
        let expected = ["language_model.model.layers.0.q", "model.language_model.layers.0.q", "language_model.lm_head", "lm_head"];
        assert_eq!(list(&layers, r#"{"model_type": "llava"}"#), expected);
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let error = |layers: &[Layer]| skip_modules(layers, None).unwrap_err();
        assert!(error(&[layer("e.0.w1", Role::Expert, true)]).starts_with("'e.0.w1' is expert: "));
        let ends_alike = [layer("q", Role::Linear, false), layer("l.0.q", Role::Linear, true)];
        assert_eq!(error(&ends_alike), "llm_int8_skip_modules cannot leave 'q' dense and 'l.0.q' quantized");
        let inside = [layer("lm_head", Role::Head, false), layer("lm_head.dense", Role::Linear, true), layer("q", Role::Linear, false)];
        assert_eq!(error(&inside), "llm_int8_skip_modules cannot leave 'lm_head' dense and 'lm_head.dense' quantized");
        assert!(error(&[layer("a+b", Role::Linear, false)]).starts_with("'a+b' cannot stand in"));
    }

    /// `not should_convert_module(path, [key])` in transformers 5.23.0.
    #[test]
    fn entries_match_as_in_transformers() {
        for (path, key, expected) in [
            ("lm_head", "lm_head", true),
            ("model.lm_head", "lm_head", true),
            ("lm_head.dense", "lm_head", true),
            ("lm_heads", "lm_head", false),
            ("my_lm_head", "lm_head", true),
            ("model.layers.1.mlp", "model.layers.1", true),
            ("model.layers.11.mlp", "model.layers.1", false),
            ("a.model.layers.1", "model.layers.1", true),
            ("x.model.layers.1.mlp", "model.layers.1", false),
            ("modelXlayersX1.q", "model.layers.1", true),
            ("model.layers.1", "model.layers.1.mlp", false),
            ("l.10.wo", "wo", true),
            ("l.10.two", "wo", true),
            ("wo.x", "wo", true),
            ("world", "wo", false),
            ("a.b", "a.", true),
            ("ab", "a.", true),
            ("a.b.c", "a.", true),
            ("abc", "a.", false),
            ("a.bc", "a", true),
            ("é.q", "é", true),
            ("aé.q", "..", true),
        ] {
            assert_eq!(is_skipped(path, key), expected, "{path} {key}");
        }
    }
}
