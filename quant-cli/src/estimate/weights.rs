//! The bytes of a model's weights under each scheme, planned as `convert --dry-run` plans them.

use std::path::Path;

use quant_core::mix::{self, Ftype, Item, Model, Options};
use quant_core::plan::{Decision, Planned, View};
use quant_core::recipe::Recipe;
use quant_core::source::{Role, Tensor};
use quant_core::{Dtype, Error, Result, Scheme};
use quant_formats::foreign::{self, Form};
use quant_formats::model::ToGguf;
use quant_formats::{Checkpoint, Format, Io, Opening, gguf, model};

use super::config::Config;
use super::dims::Dims;
use super::made::{self, Made};
use crate::args::option_file;

/// The rows of the table: labels, and the schemes or mixes that they stand for.
const SCHEMES: [(&str, &str); 13] = [
    ("f32", "f32"),
    ("bf16, f16", "bf16"),
    ("int8", "int8"),
    ("q8_0", "q8_0"),
    ("q6_k", "q6_k"),
    ("q5_k_m", "q5_k_m"),
    ("q4_k_m", "q4_k_m"),
    ("nf4-dq", "nf4-dq"),
    ("nf4", "nf4"),
    ("q4_0", "q4_0"),
    ("iq4_xs", "iq4_xs"),
    ("q3_k_m", "q3_k_m"),
    ("q2_k", "q2_k"),
];

/// The model whose shape stands for others of which only the number of parameters is known: Mistral 7B.
const REFERENCE: &str = r#"{"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "tie_word_embeddings": false}"#;

/// What is to be estimated.
pub struct Subject {
    /// In a few words.
    pub described: String,
    /// Weights.
    pub parameters: u64,
    /// Whether the sizes are those of another model, scaled.
    pub is_approximate: bool,
    /// The rows of the table.
    pub weights: Vec<Weights>,
    /// What else counts.
    pub dims: Dims,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// The weights under one scheme.
#[derive(Debug, PartialEq)]
pub struct Weights {
    /// The scheme.
    pub scheme: &'static str,
    /// Their bytes.
    pub n_bytes: u64,
}

/// Tensors as GGUF has them, with what the rules of mixes ask; or why there are none.
type Mixable = std::result::Result<(Vec<Tensor>, Model), String>;

/// Opens what is to be estimated.
///
/// # Errors
/// If it cannot be read, or the number of parameters does not follow from a config.json.
pub fn open(path: &Path, io: Io) -> Result<Subject> {
    let name = path.as_os_str().as_encoded_bytes();
    if path.is_file() && name.ends_with(b".json") && !name.ends_with(b".index.json") {
        return of_config(&Config::parse(option_file(path, "a config.json")?.as_bytes(), path)?);
    }
    let checkpoint = quant_formats::open(path, io).or_else(|error| without_weights(path, io).ok_or(error))?;
    match (checkpoint.tensors.is_empty(), checkpoint.config()?) {
        (true, Some(bytes)) => of_config(&Config::parse(&bytes, &path.join("config.json"))?),
        _ => of_checkpoint(checkpoint, io),
    }
}

/// A folder that has a config.json and no weights that are read.
fn without_weights(path: &Path, io: Io) -> Option<Checkpoint> {
    let opening = Opening { io, vocab_only: true, ..Opening::default() };
    let checkpoint = if path.is_dir() { quant_formats::open(path, opening).ok()? } else { return None };
    (checkpoint.format == Format::Hf && checkpoint.tensors.is_empty()).then_some(checkpoint)
}

fn of_config(config: &Config) -> Result<Subject> {
    let Made { plain, gguf, model, mut notes } = made::tensors(config)?;
    notes.insert(0, "the weights are computed from config.json".into());
    let (parameters, described) = (n_parameters(&plain), format!("{}, from config.json", config.model_type()));
    let weights = all(&plain, &Ok((gguf, model)), &mut notes);
    Ok(Subject { described, parameters, is_approximate: false, weights, dims: Dims::of_config(config), notes })
}

fn of_checkpoint(mut checkpoint: Checkpoint, io: Io) -> Result<Subject> {
    gguf::imatrix::refuse_as_model(&checkpoint)?;
    let stored = checkpoint.tensors.iter().map(Tensor::stored_bytes).sum();
    let mut notes = Vec::new();
    match foreign::unpack(&checkpoint) {
        Ok(Some(unpacking)) => checkpoint = foreign::logical(checkpoint, unpacking, Form::Dense)?,
        Ok(None) => {}
        Err(error) => notes.push(format!("taken as it is stored: {error}")),
    }
    if checkpoint.tensors.iter().any(|t| t.packed.is_some() || t.is_weight() && t.scheme.is_quantized()) {
        notes.push("the model is quantized already: no scheme brings back what it has lost, and convert may ask for --allow-requantize".into());
    }
    let config = checkpoint.config().ok().flatten().and_then(|bytes| Config::parse(&bytes, &checkpoint.path.join("config.json")).ok());
    let dims = match &config {
        _ if !checkpoint.kv.is_empty() => Dims::of_metadata(&checkpoint)?,
        Some(config) => Dims::of_config(config),
        None => Dims { remarks: vec!["the KV cache is not counted: there is no config.json beside the tensors".into()], ..Dims::default() },
    };
    let mixable = mixable(&checkpoint, io, &mut notes)?;
    let mut weights = vec![Weights { scheme: "as stored", n_bytes: stored }];
    weights.extend(all(&checkpoint.tensors, &mixable, &mut notes));
    let arch = gguf::find_entry(&checkpoint.kv, "general.architecture").and_then(gguf::Entry::text).map(str::to_owned);
    let kind = arch.or_else(|| config.map(|c| c.model_type().to_owned())).filter(|kind| !kind.is_empty());
    let described = format!("{}{}", checkpoint.format.name(), kind.map_or(String::new(), |kind| format!(", {kind}")));
    Ok(Subject { described, parameters: n_parameters(&checkpoint.tensors), is_approximate: false, weights, dims, notes })
}

/// The rows for a model of `n` parameters that is shaped as [`REFERENCE`].
///
/// # Errors
/// None that depends on `n`.
pub fn scaled(n: u64) -> Result<Vec<Weights>> {
    let of_config = of_config(&Config::parse(REFERENCE.as_bytes(), Path::new("Mistral 7B"))?)?;
    let scaled = |w: &Weights| (u128::from(w.n_bytes) * u128::from(n) / u128::from(of_config.parameters.max(1))) as u64;
    Ok(of_config.weights.iter().map(|w| Weights { scheme: w.scheme, n_bytes: scaled(w) }).collect())
}

fn n_parameters(tensors: &[Tensor]) -> u64 {
    tensors.iter().filter(|t| t.is_weight()).map(Tensor::n_elements).sum()
}

/// The tensors under the names and in the layout of GGUF.
fn mixable(checkpoint: &Checkpoint, io: Io, notes: &mut Vec<String>) -> Result<Mixable> {
    if checkpoint.kv.is_empty() && model::is_mappable(checkpoint) {
        return Ok(mapped(&checkpoint.path, io).map_err(|e| e.to_string().split("; ").next().unwrap_or_default().to_owned()));
    }
    if checkpoint.kv.is_empty() {
        notes.push(
            "mixes go by the names and metadata of GGUF, which this model does not have: their rules for single tensors are not applied".into(),
        );
    }
    Ok(Ok((checkpoint.tensors.clone(), gguf::model(checkpoint, &[])?)))
}

/// The same model once more, on its way to GGUF and a mix.
fn mapped(path: &Path, io: Io) -> Result<(Vec<Tensor>, Model)> {
    let mut checkpoint = quant_formats::open(path, io)?;
    if let Some(unpacking) = foreign::unpack(&checkpoint)? {
        checkpoint = foreign::logical(checkpoint, unpacking, Form::Gguf)?;
    }
    let mapped = model::to_gguf(checkpoint, &ToGguf { is_rounded: true, tensors_only: true, ..ToGguf::default() })?.checkpoint;
    let model = gguf::model(&mapped, &[])?;
    Ok((mapped.tensors, model))
}

/// Every row that applies; a note for those that do not.
fn all(plain: &[Tensor], mixable: &Mixable, notes: &mut Vec<String>) -> Vec<Weights> {
    let mut rows = Vec::new();
    if let Err(why) = mixable {
        notes.push(format!("no mix applies: {why}"));
    }
    for (scheme, text) in SCHEMES {
        let n_bytes = match (text.parse::<Scheme>(), text.parse::<Ftype>()) {
            (Ok(scheme @ (Scheme::Dense(_) | Scheme::FourBit { .. } | Scheme::Int8)), _) => by_recipe(plain, scheme),
            (_, Ok(ftype)) => match mixable {
                Ok((tensors, model)) => by_mix(tensors, model, ftype),
                Err(_) => continue,
            },
            _ => continue,
        };
        match n_bytes {
            Ok(n_bytes) => rows.push(Weights { scheme, n_bytes }),
            Err(error) => notes.push(format!("{scheme} does not apply: {error}")),
        }
    }
    if let Some(share) = kept_experts(plain) {
        notes.push(format!("int8 and nf4 leave experts as they are, as bitsandbytes in transformers 5 does: {share:.0} % of the weights"));
    }
    rows
}

/// The percentage of weights that are experts, if there are any.
fn kept_experts(tensors: &[Tensor]) -> Option<f64> {
    let n: u64 = tensors.iter().filter(|t| t.role == Role::Expert).map(Tensor::n_elements).sum();
    (n > 0).then(|| n as f64 * 100.0 / n_parameters(tensors) as f64)
}

/// Linear layers in `scheme`, or all weights if it is dense.
fn by_recipe(tensors: &[Tensor], scheme: Scheme) -> Result<u64> {
    let recipe = Recipe { default: Some(scheme), ..Recipe::default() };
    let planned = |t: &Tensor| {
        let view = if t.role == Role::Conv1d && scheme.is_quantized() { View::Transposed } else { View::Whole };
        n_bytes(t, recipe.decide(t), view)
    };
    tensors.iter().try_fold(0, |sum, t| add(sum, planned(t)?))
}

/// What llama-quantize makes of the tensors.
fn by_mix(tensors: &[Tensor], model: &Model, ftype: Ftype) -> Result<u64> {
    let mut tensors: Vec<&Tensor> = tensors.iter().collect();
    tensors.sort_by(|a, b| mix::order_key(&a.name).cmp(&mix::order_key(&b.name)));
    let items: Vec<Item<'_>> = tensors.iter().map(|t| Item { name: &t.name, shape: &t.shape, from: t.scheme }).collect();
    let choices = mix::choose(&Options::new(ftype), model, &items)?;
    tensors.iter().zip(choices).try_fold(0, |sum, (t, choice)| {
        let decision = Decision { scheme: choice.scheme, reason: choice.reason };
        add(sum, n_bytes(t, decision, View::Whole)?)
    })
}

fn n_bytes(tensor: &Tensor, decision: Decision, view: View) -> Result<u64> {
    Ok(Planned::new(0, tensor, decision, view)?.n_bytes())
}

fn add(a: u64, b: u64) -> Result<u64> {
    a.checked_add(b).ok_or_else(|| Error::request("the weights have more bytes than can be counted"))
}

/// A tensor of numbers that are not there: its name, shape and type alone.
pub fn imagined(name: &str, shape: &[u64], dtype: Dtype, role: Role) -> Option<Tensor> {
    let n_bytes = dtype.n_bytes(quant_core::dtype::n_elements(shape)?)?;
    let part = quant_core::source::Stored { name: "data".into(), dtype, shape: shape.to_vec(), n_bytes };
    let (name, shape, scheme) = (name.to_owned(), shape.to_vec(), Scheme::Dense(dtype));
    Some(Tensor { name, shape, dtype, scheme, role, parts: vec![part], packed: None })
}
