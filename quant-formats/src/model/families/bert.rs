//! BERT and its relatives: encoders that make embeddings of texts.
//!
//! Source: `BertModel`, `RobertaModel`, `XLMRobertaModel`, `DistilBertModel` of convert_hf_to_gguf.py, llama.cpp 0.5.0-dev;
//! configuration classes of transformers 5.23.

pub(super) mod pooling;

use quant_core::Result;
use serde_json::{Map, Value, json};

use super::llama::nothing;
use crate::gguf::{self, Entry, find_entry};
use crate::model::family::{Change, Family, Layout, Row, changed, row};
use crate::model::hparams::Hparams;
use crate::model::keys::{self, Keys, Meta};
use crate::model::link::Link;
use crate::model::tokenizer::Vocab;

/// The encoder.
const ENCODER: &[Row] = &[
    row("embeddings.word_embeddings", "token_embd"),
    row("embeddings.token_type_embeddings", "token_types"),
    row("embeddings.position_embeddings", "position_embd"),
    row("embeddings.LayerNorm", "token_embd_norm"),
    row("encoder.layer.{}.attention.self.query", "blk.{}.attn_q"),
    row("encoder.layer.{}.attention.self.key", "blk.{}.attn_k"),
    row("encoder.layer.{}.attention.self.value", "blk.{}.attn_v"),
    row("encoder.layer.{}.attention.output.dense", "blk.{}.attn_output"),
    row("encoder.layer.{}.attention.output.LayerNorm", "blk.{}.attn_output_norm"),
    row("encoder.layer.{}.intermediate.dense", "blk.{}.ffn_up"),
    row("encoder.layer.{}.output.dense", "blk.{}.ffn_down"),
    row("encoder.layer.{}.output.LayerNorm", "blk.{}.layer_output_norm"),
];

/// The classifier of BERT: one layer if its labels have names.
const NAMED_CLASSES: &[Row] = &[row("/classifier", "cls.output")];
/// The same layer without names: where it goes, and what [`rename`] calls it, so that the table above does not take it.
const OTHER_CLASSES: &[Row] = &[row("/classifier", "cls"), row("/classifier.unnamed", "cls")];

/// The classifier of RoBERTa: two layers.
const TWO_LAYERS: &[Row] = &[row("/classifier.dense", "cls"), row("/classifier.out_proj", "cls.output")];

/// Positions of RoBERTa: the first ones, up to that of padding, are never used, and not in GGUF.
const POSITIONS: &[Row] = &[changed("embeddings.position_embeddings", "position_embd", Change::Other(USED))];
const USED: Layout = Layout { to_gguf: used, to_hf: with_unused };

/// The encoder of DistilBERT.
const DISTILLED: &[Row] = &[
    row("embeddings.word_embeddings", "token_embd"),
    row("embeddings.position_embeddings", "position_embd"),
    row("embeddings.LayerNorm", "token_embd_norm"),
    row("transformer.layer.{}.attention.q_lin", "blk.{}.attn_q"),
    row("transformer.layer.{}.attention.k_lin", "blk.{}.attn_k"),
    row("transformer.layer.{}.attention.v_lin", "blk.{}.attn_v"),
    row("transformer.layer.{}.attention.out_lin", "blk.{}.attn_output"),
    row("transformer.layer.{}.sa_layer_norm", "blk.{}.attn_output_norm"),
    row("transformer.layer.{}.ffn.lin1", "blk.{}.ffn_up"),
    row("transformer.layer.{}.ffn.lin2", "blk.{}.ffn_down"),
    row("transformer.layer.{}.output_layer_norm", "blk.{}.layer_output_norm"),
    row("/pre_classifier", "cls"),
    row("/classifier", "cls.output"),
];

/// BERT. GGUF has no pooling layer, so that all of them come back as the bare encoder.
pub(crate) const BERT: Family = Family {
    arch: "bert",
    classes: &["BertModel", "BertForMaskedLM", "BertForSequenceClassification"],
    model_type: "bert",
    prefix: "",
    tables: &[ENCODER, NAMED_CLASSES, OTHER_CLASSES],
    rename,
    prepare: |h| prepare(h, 0),
    extra: nothing,
    early: |_, _| Ok(()),
    keys,
    config: |m, c| config(m, c),
    is: |_| true,
    vocab: Vocab::Bert,
    forced: &[],
    needed: &[
        "attn_output_norm",
        "attn_output_norm.bias",
        "layer_output_norm",
        "layer_output_norm.bias",
        "attn_q.bias",
        "attn_k.bias",
        "attn_v.bias",
        "attn_output.bias",
        "ffn_up.bias",
        "ffn_down.bias",
    ],
};

/// CamemBERT, which the reference takes for BERT.
pub(crate) const CAMEMBERT: Family =
    Family { classes: &["CamembertModel"], model_type: "camembert", prepare: |h| prepare(h, 1), is: |_| false, ..BERT };

/// RoBERTa.
pub(crate) const ROBERTA: Family = Family {
    classes: &["RobertaModel"],
    model_type: "roberta",
    tables: &[POSITIONS, TWO_LAYERS, ENCODER],
    prepare: prepare_shifted,
    config: config_shifted,
    is: |m| m.text("tokenizer.ggml.model") == Some("gpt2") && !has_classes(m),
    vocab: Vocab::Roberta,
    ..BERT
};

/// RoBERTa with a classifier.
pub(crate) const ROBERTA_CLASSES: Family = Family {
    classes: &["RobertaForSequenceClassification"],
    prefix: "roberta.",
    is: |m| m.text("tokenizer.ggml.model") == Some("gpt2") && has_classes(m),
    ..ROBERTA
};

/// XLM-RoBERTa, such as bge-m3.
pub(crate) const XLM_ROBERTA: Family = Family {
    classes: &["XLMRobertaModel"],
    model_type: "xlm-roberta",
    is: |m| m.text("tokenizer.ggml.model") == Some("t5") && !has_classes(m),
    vocab: Vocab::XlmRoberta,
    ..ROBERTA
};

/// XLM-RoBERTa with a classifier, such as bge-reranker.
pub(crate) const XLM_ROBERTA_CLASSES: Family = Family {
    classes: &["XLMRobertaForSequenceClassification"],
    prefix: "roberta.",
    is: |m| m.text("tokenizer.ggml.model") == Some("t5") && has_classes(m),
    ..XLM_ROBERTA
};

/// DistilBERT.
pub(crate) const DISTILBERT: Family = Family {
    classes: &["DistilBertModel", "DistilBertForMaskedLM"],
    model_type: "distilbert",
    tables: &[DISTILLED],
    prepare: prepare_distilled,
    keys: |h, k| {
        k.f32("attention.layer_norm_epsilon", 1e-12);
        keys(h, k)
    },
    config: config_distilled,
    is: |m| !m.has_tensor("token_types.weight") && !has_classes(m),
    ..BERT
};

/// DistilBERT with a classifier.
pub(crate) const DISTILBERT_CLASSES: Family = Family {
    classes: &["DistilBertForSequenceClassification"],
    prefix: "distilbert.",
    is: |m| !m.has_tensor("token_types.weight") && has_classes(m),
    ..DISTILBERT
};

/// What heads have beyond the encoder, and llama.cpp does not run.
const LEFT_OUT: [&str; 5] = ["cls.predictions", "cls.seq_relationship", "vocab_", "embeddings.position_ids", "pooler.dense."];

/// Names without the prefix of the class, norms by their new names.
fn rename(h: &Hparams, name: &str) -> Option<String> {
    let name = ["bert.", "roberta.", "distilbert."].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
    if LEFT_OUT.iter().any(|start| name.starts_with(start)) {
        return None;
    }
    for (old, new) in [(".gamma", ".weight"), (".beta", ".bias")] {
        if let Some(stem) = name.strip_suffix(old) {
            return Some(format!("{stem}{new}"));
        }
    }
    let is_bert = h.text(&["model_type"]).ok().flatten() == Some("bert");
    match name.strip_prefix("classifier.") {
        Some(ending @ ("weight" | "bias")) if is_bert && labels(h).is_ok_and(|l| l.is_empty()) => Some(format!("classifier.unnamed.{ending}")),
        _ => Some(name.into()),
    }
}

fn has_classes(m: &Meta<'_>) -> bool {
    m.has_tensor("cls.output.weight")
}

/// How many positions come before the first that is used.
fn offset(h: &Hparams) -> Option<u64> {
    Some(h.u32(&["pad_token_id"]).ok()?.map_or(0, |id| u64::from(id) + 1))
}

fn used(h: &Hparams, shape: &[u64]) -> Option<(Vec<u64>, Link)> {
    let &[rows, columns] = shape else { return None };
    let skipped = offset(h)?;
    let shape = vec![rows.checked_sub(skipped)?, columns];
    let hf_at = skipped.checked_mul(columns)?;
    let link = Link { hf_at, lacking: hf_at, ..Link::same(&shape) };
    Some((shape, link))
}

fn with_unused(h: &Hparams, shape: &[u64]) -> Option<Vec<u64>> {
    let &[rows, columns] = shape else { return None };
    // What is not in the file is not more than what is.
    let unused = offset(h).filter(|n| *n <= rows)?;
    Some(vec![rows.checked_add(unused)?, columns])
}

/// What the configuration classes have in common. They differ in the id of padding.
fn prepare(h: &mut Hparams, padding: u32) -> Result<()> {
    for (key, value) in [
        ("vocab_size", json!(30522)),
        ("hidden_size", json!(768)),
        ("num_hidden_layers", json!(12)),
        ("num_attention_heads", json!(12)),
        ("intermediate_size", json!(3072)),
        ("max_position_embeddings", json!(512)),
        ("type_vocab_size", json!(2)),
        ("layer_norm_eps", json!(1e-12)),
        ("pad_token_id", json!(padding)),
    ] {
        h.default(key, value);
    }
    Ok(())
}

/// RoBERTa counts positions from the one after that of padding.
fn prepare_shifted(h: &mut Hparams) -> Result<()> {
    if h.text(&["model_type"])? == Some("roberta") {
        h.default("vocab_size", json!(50265));
    }
    prepare(h, 1)?;
    let skipped = h.u32(&["pad_token_id"])?.map_or(0, |id| u64::from(id) + 1);
    let all = u64::from(h.need(&["max_position_embeddings"])?);
    let left = all.checked_sub(skipped).ok_or_else(|| h.wrong("max_position_embeddings", &json!(all), "more than pad_token_id + 1"))?;
    h.set("max_position_embeddings", json!(left));
    Ok(())
}

fn prepare_distilled(h: &mut Hparams) -> Result<()> {
    for (other, key) in [("hidden_size", "dim"), ("num_attention_heads", "n_heads"), ("num_hidden_layers", "n_layers")] {
        if let Some(value) = h.get(other).cloned() {
            h.default(key, value);
        }
    }
    for (key, value) in [
        ("vocab_size", json!(30522)),
        ("max_position_embeddings", json!(512)),
        ("n_layers", json!(6)),
        ("n_heads", json!(12)),
        ("dim", json!(768)),
        ("hidden_dim", json!(3072)),
        // It has no segments, which GGUF calls one.
        ("type_vocab_size", json!(1)),
    ] {
        h.default(key, value);
    }
    Ok(())
}

fn keys(h: &Hparams, k: &mut Keys) -> Result<()> {
    keys::common(h, k)?;
    k.bool("attention.causal", false);
    if let Some(kind) = pooling::kind(h)? {
        k.u32("pooling_type", kind);
    }
    if let Some(classes) = h.text(&["classifier_pooling"])? {
        let kind = pooling::of_mode(classes).filter(|_| classes != "lasttoken");
        k.u32("classifier.pooling_type", kind.ok_or_else(|| h.wrong("classifier_pooling", &json!(classes), "cls or mean"))?);
    }
    let labels = labels(h)?;
    if !labels.is_empty() {
        k.put(Entry::strings("bert.classifier.output_labels", &labels));
    }
    Ok(())
}

/// The names of the classes, in order. None if there are two without names of their own, which is what every configuration says
/// that does not say anything.
fn labels(h: &Hparams) -> Result<Vec<String>> {
    let Some(Value::Object(named)) = h.get("id2label") else {
        let n = h.u32(&["num_labels"])?.unwrap_or(2);
        return Ok(if n == 2 { Vec::new() } else { (0..n.min(1 << 16)).map(|i| format!("LABEL_{i}")).collect() });
    };
    let wrong = || h.wrong("id2label", &Value::Object(named.clone()), "an object of numbers and names");
    let label = |(id, name): (&String, &Value)| Some((id.trim().parse::<i64>().ok()?, name.as_str()?.to_owned()));
    let mut labels = named.iter().map(label).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
    labels.sort();
    let is_nameless = labels.len() == 2 && labels.iter().any(|(id, name)| *id == 0 && name == "LABEL_0");
    Ok(if is_nameless { Vec::new() } else { labels.into_iter().map(|(_, name)| name).collect() })
}

fn config(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    keys::sizes_config(m, c)?;
    c.set("layer_norm_eps", m.number("attention.layer_norm_epsilon").unwrap_or(json!(1e-12)));
    c.set("hidden_act", json!("gelu"));
    sizes(m, c);
    class_names(m, c)
}

/// Sizes that follow from tensors, and special tokens.
fn sizes(m: &Meta<'_>, c: &mut Hparams) {
    for (name, key) in [("token_embd.weight", "vocab_size"), ("token_types.weight", "type_vocab_size")] {
        let rows = m.checkpoint().tensors.iter().find(|t| t.name == name).and_then(|t| t.shape.first());
        if let Some(rows) = rows {
            c.set(key, json!(rows));
        }
    }
    for (name, key) in [("bos", "bos_token_id"), ("eos", "eos_token_id"), ("padding", "pad_token_id")] {
        c.set(key, m.number(&format!("tokenizer.ggml.{name}_token_id")).unwrap_or(Value::Null));
    }
}

fn class_names(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    const MOST: u64 = 1 << 16;
    let Some(entry) = find_entry(&m.checkpoint().kv, "bert.classifier.output_labels") else {
        return Ok(());
    };
    let gguf::Value::Array(items) = entry.value(m.checkpoint(), MOST)? else { return Ok(()) };
    let (mut names, mut ids) = (Map::new(), Map::new());
    for (id, item) in items.iter().enumerate() {
        if let gguf::Value::Text(name) = item {
            names.insert(id.to_string(), json!(name));
            ids.insert(name.clone(), json!(id));
        }
    }
    c.set("id2label", Value::Object(names));
    c.set("label2id", Value::Object(ids));
    Ok(())
}

fn config_shifted(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    config(m, c)?;
    c.default("pad_token_id", json!(1));
    if c.get("pad_token_id").is_none() {
        c.set("pad_token_id", json!(1));
    }
    let skipped = c.need(&["pad_token_id"])?.saturating_add(1);
    c.set("max_position_embeddings", json!(m.need("context_length")?.saturating_add(skipped)));
    Ok(())
}

fn config_distilled(m: &Meta<'_>, c: &mut Hparams) -> Result<()> {
    for (name, key) in [
        ("block_count", "n_layers"),
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "dim"),
        ("feed_forward_length", "hidden_dim"),
        ("attention.head_count", "n_heads"),
    ] {
        c.set(key, json!(m.need(name)?));
    }
    c.set("activation", json!("gelu"));
    sizes(m, c);
    class_names(m, c)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn hparams(json: &str) -> Hparams {
        Hparams::parse(json.as_bytes(), Path::new("config.json")).unwrap()
    }

    #[test]
    fn positions_before_that_of_padding_are_not_in_gguf() {
        let h = hparams(r#"{"pad_token_id": 1}"#);
        let (shape, link) = used(&h, &[66, 8]).unwrap();
        assert_eq!((&shape[..], link.hf_at, link.lacking), (&[64, 8][..], 16, 16));
        assert_eq!(with_unused(&h, &shape), Some(vec![66, 8]));
        assert_eq!(used(&h, &[1, 8]), None);
        assert_eq!(with_unused(&hparams(r#"{"pad_token_id": 4000000000}"#), &[64, 8]), None);
        assert_eq!(used(&hparams(r#"{"pad_token_id": null}"#), &[66, 8]).unwrap().0, [66, 8]);
    }

    #[test]
    fn classes_are_in_the_order_of_their_numbers() {
        let label = |json: &str| labels(&hparams(json)).unwrap();
        assert!(label("{}").is_empty());
        assert!(label(r#"{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}"#).is_empty());
        assert_eq!(label(r#"{"id2label": {"0": "LABEL_0"}}"#), ["LABEL_0"]);
        assert_eq!(label(r#"{"id2label": {"10": "z", "9": "b", "0": "no"}}"#), ["no", "b", "z"]);
        assert_eq!(label(r#"{"num_labels": 1}"#), ["LABEL_0"]);
        assert!(labels(&hparams(r#"{"id2label": {"a": "b"}}"#)).is_err());
    }

    #[test]
    fn names_lose_the_prefix_of_their_class_and_what_is_not_run() {
        let h = hparams(r#"{"model_type": "bert"}"#);
        let named = |name: &str| rename(&h, name);
        assert_eq!(named("bert.embeddings.LayerNorm.gamma").as_deref(), Some("embeddings.LayerNorm.weight"));
        assert_eq!(named("bert.embeddings.LayerNorm.beta").as_deref(), Some("embeddings.LayerNorm.bias"));
        assert_eq!(named("classifier.weight").as_deref(), Some("classifier.unnamed.weight"));
        for left_out in ["bert.pooler.dense.weight", "cls.predictions.bias", "embeddings.position_ids", "vocab_transform.weight"] {
            assert_eq!(named(left_out), None, "{left_out}");
        }
    }
}
