//! Models that are what their class has, and that llama.cpp does not load all the same: the reference writes their files, so
//! they are written here too, with a note.
//!
//! Source: `llama_model::load_tensors` of llama.cpp 0.5.0-dev.

use quant_core::Result;

use super::super::family::Family;
use super::super::hparams::Hparams;
use super::biases::Bias;
use super::{hf_name, in_layer};
use crate::checkpoint::Checkpoint;
use crate::gguf::{Entry, find_entry};

/// Architectures without a head of llama.cpp's that takes the embeddings in its place.
const HEAD_NEEDED: [&str; 3] = ["qwen2moe", "olmo2", "gpt-oss"];
/// From so many layers on, llama.cpp takes a model of Command R for one with norms of queries and keys.
const COMMAND_R_PLUS: u64 = 64;
/// Numbers of layers by which llama.cpp knows models of DeepSeek without compressed queries; of such with 48 layers it is the
/// number of tokens.
const LITE: [u64; 2] = [26, 27];
const LITE_48: (u64, u64) = (48, 128_256);

/// A model, looked at for what llama.cpp does not load.
struct Seen<'a> {
    checkpoint: &'a Checkpoint,
    family: &'a Family,
}

/// A note for each reason why llama.cpp would not load the GGUF model `checkpoint`.
///
/// # Errors
/// If a setting is of the wrong type.
pub(crate) fn notes(checkpoint: &Checkpoint, family: &Family, config: &Hparams) -> Result<Vec<String>> {
    let seen = Seen { checkpoint, family };
    let no_biases = family.arch == "starcoder2" && config.bool(&["use_bias"])? == Some(false);
    let no_biases = no_biases.then(|| "it has no place for use_bias false".to_owned()).filter(|_| !seen.has("blk.0.attn_output.bias"));
    let reasons = [seen.bias(), no_biases, seen.head(), seen.norms(), seen.experts(), seen.queries(), seen.classes()];
    let note = |reason| format!("converted as the reference does, but llama.cpp 0.5.0-dev does not load the result: {reason}");
    Ok(reasons.into_iter().flatten().map(note).collect())
}

impl Seen<'_> {
    fn has(&self, name: &str) -> bool {
        self.checkpoint.tensors.iter().any(|t| t.name == name)
    }

    fn count(&self, name: &str) -> Option<u64> {
        find_entry(&self.checkpoint.kv, &format!("{}.{name}", self.family.arch)).and_then(Entry::unsigned)
    }

    fn rows(&self, name: &str) -> Option<u64> {
        self.checkpoint.tensors.iter().find(|t| t.name == name)?.shape.first().copied()
    }

    fn bias(&self) -> Option<String> {
        let is_refused = |name: &str| Bias::of(self.family, in_layer(name).map_or(name, |(_, name)| name)) == Bias::Refused;
        let first = self.checkpoint.tensors.iter().find(|t| is_refused(&t.name))?;
        Some(format!("its {} has no '{}'", self.family.arch, hf_name(self.family, &first.name)))
    }

    fn head(&self) -> Option<String> {
        let is_needed = HEAD_NEEDED.contains(&self.family.arch) && !self.has("output.weight");
        is_needed.then(|| format!("its {} needs a head beside the embeddings, which the checkpoint does not have", self.family.arch))
    }

    fn norms(&self) -> Option<String> {
        let layers = self.count("block_count").filter(|_| self.family.arch == "command-r")?;
        let differs = self.has("blk.0.attn_q_norm.weight") != (layers >= COMMAND_R_PLUS);
        differs.then(|| {
            format!("models of {COMMAND_R_PLUS} layers and more have norms of queries and keys there, and no others; this one has {layers} layers")
        })
    }

    fn experts(&self) -> Option<String> {
        let is_lacking = self.family.arch == "deepseek2" && self.count("expert_shared_count") == Some(0);
        let has_experts = self.checkpoint.tensors.iter().any(|t| t.name.ends_with(".ffn_gate_inp.weight"));
        (is_lacking && has_experts).then(|| "its deepseek2 needs shared experts".to_owned())
    }

    fn queries(&self) -> Option<String> {
        let layers = self.count("block_count").filter(|_| self.family.arch == "deepseek2")?;
        let is_48 = self.rows("token_embd.weight").is_some_and(|rows| (layers, rows) == LITE_48);
        let (is_lite, is_plain) = (is_48 || LITE.contains(&layers), self.has("blk.0.attn_q.weight"));
        let kind = if is_plain { "no compressed queries (q_lora_rank)" } else { "compressed queries (q_lora_rank)" };
        (is_lite != is_plain)
            .then(|| format!("it takes only models of 26 or 27 layers to have plain queries; this one has {layers} layers and {kind}"))
    }

    fn classes(&self) -> Option<String> {
        let named = find_entry(&self.checkpoint.kv, "bert.classifier.output_labels").and_then(|e| e.items.as_ref());
        let needed = named.map_or(1, |items| items.1);
        if let Some(rows) = self.rows("cls.output.weight").filter(|rows| *rows != needed) {
            return Some(format!("it takes {rows} classes without names of their own for one"));
        }
        let width = self.count("embedding_length");
        let rows = self.rows("cls.weight").filter(|rows| Some(*rows) != width)?;
        Some(format!("it takes the layer of {rows} classes without names for one that comes before"))
    }
}
