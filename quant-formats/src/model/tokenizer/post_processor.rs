//! [`PostProcessor`]: which tokens a text gets at its ends, and which tokens those are, read from the post-processor of tokenizer.json.
//!
//! The reference compares the tokens of a template with what stands in tokenizer_config.json as JSON: a token that stands there as an
//! object is equal to none. Then the first token counts as `cls_token` if there is none, and the last one makes the `eos_token` an
//! `eot_token`. That is kept.
//!
//! Source: `SpecialVocab._try_load_from_tokenizer_json` of gguf-py/gguf/vocab.py, llama.cpp 0.5.0-dev.

use quant_core::Result;
use serde_json::Value;

use super::folder::{Object, truthy};
use super::special::Names;

/// A walk over the steps of a post-processor.
pub(super) struct PostProcessor<'a> {
    pub(super) names: &'a mut Names,
    /// The kinds of special tokens that are looked for; `eot` and `eom` may be added.
    pub(super) kinds: &'a mut Vec<String>,
    /// Kinds, and whether a text gets that token.
    pub(super) add: &'a mut Vec<(String, bool)>,
    pub(super) notes: &'a mut Vec<String>,
}

/// The tokens at the ends of a text, as known so far. Null is unknown.
struct Ends {
    bos: Value,
    eos: Value,
    cls: Value,
    sep: Value,
}

impl PostProcessor<'_> {
    /// Reads the post-processor of a tokenizer.json.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn read(mut self, json: &Object) -> Result<()> {
        let known = |key: &str| self.names.get(key).cloned().unwrap_or_default();
        let mut ends = Ends { bos: known("bos_token"), eos: known("eos_token"), cls: known("cls_token"), sep: known("sep_token") };
        if !truthy(&ends.bos) && truthy(&ends.cls) {
            ends.bos = ends.cls.clone();
            self.names.set("bos_token", ends.bos.clone());
        }
        if !truthy(&ends.eos) && truthy(&ends.sep) {
            ends.eos = ends.sep.clone();
            self.names.set("eos_token", ends.eos.clone());
        }
        let Some(processor) = json.value("post_processor")?.filter(truthy) else { return Ok(()) };
        let steps = match processor.get("processors").and_then(Value::as_array) {
            Some(steps) => steps.clone(),
            None => vec![processor],
        };
        for step in &steps {
            match step.get("type").and_then(Value::as_str) {
                Some("ByteLevel") => self.byte_level(),
                Some("RobertaProcessing") => self.roberta(step, &mut ends),
                Some("TemplateProcessing") => self.template(step, &mut ends),
                _ => (),
            }
        }
        Ok(())
    }

    fn set_add(&mut self, kind: &str, value: bool) {
        match self.add.iter_mut().find(|(old, _)| old == kind) {
            Some(entry) => entry.1 = value,
            None => self.add.push((kind.into(), value)),
        }
    }

    fn byte_level(&mut self) {
        for kind in ["bos", "eos"] {
            if !self.add.iter().any(|(old, _)| old == kind) {
                self.add.push((kind.into(), false));
            }
        }
    }

    fn roberta(&mut self, step: &Value, ends: &mut Ends) {
        for kind in ["bos", "eos", "sep"] {
            self.set_add(kind, true);
        }
        if !self.names.has_config {
            return;
        }
        let first = |key: &str, other: &Value| step.get(key).map_or_else(|| other.clone(), |pair| pair.get(0).cloned().unwrap_or_default());
        if !truthy(&ends.cls) {
            ends.cls = first("cls", &ends.bos);
            self.names.set("cls_token", ends.cls.clone());
        }
        if !truthy(&ends.sep) {
            ends.sep = first("sep", &ends.eos);
            self.names.set("sep_token", ends.sep.clone());
        }
    }

    fn template(&mut self, step: &Value, ends: &mut Ends) {
        let list = |key: &str| step.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let (single, pair) = (list("single"), list("pair"));
        let (mut first, mut last) = (None, None);
        if let [start, .., end] = single {
            first = special_id(start).cloned();
            last = special_id(end).cloned();
        }
        if let Some(token) = &first {
            self.starts_with(token, ends);
        }
        if let Some(token) = &last {
            self.ends_with(token, ends);
        }
        self.pair(pair, first.as_ref(), last.as_ref(), ends);
    }

    fn starts_with(&mut self, token: &Value, ends: &mut Ends) {
        if !self.names.has_config {
            ends.bos = token.clone();
        } else if *token != ends.bos && *token != ends.cls {
            if !truthy(&ends.bos) {
                ends.bos = token.clone();
                self.names.set("bos_token", token.clone());
            }
            if !truthy(&ends.cls) {
                ends.cls = token.clone();
                self.names.set("cls_token", token.clone());
            }
        }
        let known = *token == ends.bos || *token == ends.cls;
        self.set_add("bos", known);
        if !known {
            self.notes.push(format!("tokenizer.json puts {token} first, which is neither bos_token nor cls_token: add_bos_token is false"));
        }
    }

    fn ends_with(&mut self, token: &Value, ends: &mut Ends) {
        if !self.names.has_config {
            ends.eos = token.clone();
        } else if *token != ends.eos {
            match ["eot", "eom"].into_iter().find(|kind| !self.kinds.iter().any(|old| old == kind)) {
                Some(kind) => {
                    self.kinds.push(kind.into());
                    self.names.set(&format!("{kind}_token"), ends.eos.clone());
                }
                None => self.notes.push(format!("tokenizer.json puts {token} last instead of eos_token, which is not written any more")),
            }
            ends.eos = token.clone();
            self.names.set("eos_token", token.clone());
        }
        let known = *token == ends.eos;
        self.set_add("eos", known);
    }

    /// Whether two texts get a separator between them: `A sep B`, or `A eos sep B`.
    fn pair(&mut self, pair: &[Value], first: Option<&Value>, last: Option<&Value>, ends: &Ends) {
        let begins = first.is_some() && pair.first().and_then(special_id) == first;
        let stops = last.is_some() && pair.last().and_then(special_id) == last;
        let between = pair.get(usize::from(begins)..pair.len().saturating_sub(usize::from(stops))).unwrap_or_default();
        let [a, middle @ .., b] = between else { return };
        let sequence = |part: &Value, name: &str| part.get("Sequence").and_then(|s| s.get("id")).and_then(Value::as_str) == Some(name);
        if !sequence(a, "A") || !sequence(b, "B") {
            self.notes.push("the pair template of tokenizer.json is of an unknown form: add_sep_token is not written".into());
            return;
        }
        let separates = |part: &Value| special_id(part).is_some_and(|token| *token == ends.sep || *token == ends.eos);
        let add = match middle {
            [] => return,
            [one, two] => separates(two) || separates(one) && last.is_none(),
            [one, ..] => separates(one) && last.is_none(),
        };
        self.set_add("sep", add);
        if add && !truthy(&ends.sep) && self.names.has_config {
            self.names.set("sep_token", ends.eos.clone());
        }
    }
}

/// The special token of a part of a template.
fn special_id(part: &Value) -> Option<&Value> {
    part.get("SpecialToken")?.get("id").filter(|id| truthy(id))
}
