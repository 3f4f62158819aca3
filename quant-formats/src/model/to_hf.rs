//! A GGUF model, shown as the Hugging Face checkpoint that it was made from: the reverse of [`super::to_gguf`].

use std::collections::BTreeMap;
use std::sync::Arc;

use quant_core::source::{Packed, Role, Stored, Tensor};
use quant_core::{Dtype, Error, Result, Scheme};
use serde_json::{Value, json};

use super::families;
use super::family::{Change, Family, Numbers};
use super::hparams::Hparams;
use super::keys::Meta;
use super::to_gguf::Mapped;
use super::view::{Linked, Piece, Side};
use super::{back, metadata};
use crate::checkpoint::{At, Checkpoint, Format, Made, SideFile};

/// Tensors of GGUF that are computed from the configuration.
const COMPUTED: [&str; 3] = ["rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"];

/// A tensor of Hugging Face under construction.
struct Output {
    shape: Vec<u64>,
    pieces: Vec<Piece>,
}

/// Whether a checkpoint is one that [`to_hf`] may map: it has metadata of GGUF.
pub fn is_mappable_back(checkpoint: &Checkpoint) -> bool {
    !checkpoint.kv.is_empty()
}

/// Shows `base` as the checkpoint of Hugging Face that it was made from, with numbers of type `dtype`, or of the type that most
/// of its matrices have.
///
/// # Errors
/// If its architecture is not known, or metadata or a tensor is not what the architecture has: what was found and what is
/// needed.
pub fn to_hf(base: Checkpoint, dtype: Option<Dtype>) -> Result<Mapped> {
    let base = Arc::new(base);
    let meta = Meta::of(&base)
        .ok_or_else(|| Error::file(&base.path, "found no metadata 'general.architecture'; --generic converts with names unchanged"))?;
    let family = family_of(&meta)?;
    let dtype = dtype.unwrap_or_else(|| common_dtype(&base));
    let mut config = Hparams::parse(b"{}", &base.path)?;
    (family.config)(&meta, &mut config)?;
    config.set("architectures", json!([family.classes.first().copied().unwrap_or_default()]));
    config.set("model_type", json!(family.model_type));
    config.set("dtype", dtype.torch_name().map_or(Value::Null, |name| json!(name)));
    let text = config.to_json();
    (family.prepare)(&mut config)?;
    super::check::model(&base, family, &config, super::check::Origin::Gguf)?;
    let mut notes = base.notes.clone();
    let outputs = outputs(&base, family, &config)?;
    let side_files = side_files(&base, text, &mut notes)?;
    let mut checkpoint = Checkpoint { side_files, notes, ..Checkpoint::empty(Format::Hf, &base.path) };
    let mut schemes = Vec::new();
    for (name, output) in outputs {
        let (tensor, place) = shown(&base, name, output)?;
        checkpoint.tensors.push(tensor);
        checkpoint.places.push(vec![place]);
        schemes.push(Scheme::Dense(dtype));
    }
    checkpoint.base = Some(base);
    crate::open::settle(&mut checkpoint)?;
    Ok(Mapped { checkpoint, schemes })
}

/// The family of an architecture; where several share one, the first that says it is.
fn family_of(meta: &Meta<'_>) -> Result<&'static Family> {
    let found = families::ALL.iter().find(|f| f.arch == meta.arch() && (f.is)(meta));
    found.copied().ok_or_else(|| {
        let mut known: Vec<&str> = families::ALL.iter().map(|f| f.arch).collect();
        known.sort_unstable();
        known.dedup();
        let problem = format!("found the architecture '{}', which is not known on the way to Hugging Face", meta.arch());
        Error::file(&meta.checkpoint().path, format!("{problem}; --generic converts with names unchanged; known are {}", known.join(", ")))
    })
}

/// The type of most numbers in dense matrices; bf16 if there are none.
fn common_dtype(base: &Checkpoint) -> Dtype {
    let mut counts: BTreeMap<Dtype, u64> = BTreeMap::new();
    let mut quantized = 0;
    for t in base.tensors.iter().filter(|t| t.shape.len() >= 2) {
        match t.scheme {
            Scheme::Dense(dtype) if dtype.is_weight() => *counts.entry(dtype).or_default() += t.n_elements(),
            _ => quantized += t.n_elements(),
        }
    }
    let most = counts.into_iter().max_by_key(|(_, n)| *n);
    most.filter(|(_, n)| *n > quantized).map_or(Dtype::BF16, |(dtype, _)| dtype)
}

/// The tensors of the checkpoint, by name.
fn outputs(base: &Checkpoint, family: &Family, h: &Hparams) -> Result<BTreeMap<String, Output>> {
    let mut outputs: BTreeMap<String, Output> = BTreeMap::new();
    for (index, tensor) in base.tensors.iter().enumerate() {
        if COMPUTED.contains(&tensor.name.as_str()) {
            continue;
        }
        let bad = |problem: String| Error::tensor(base.file_of(index), &tensor.name, problem);
        let Some((row, ending, numbers)) = family.row_of_gguf(&tensor.name) else {
            return Err(bad(format!("has no place in a checkpoint of {}; --generic converts with names unchanged", family.model_type)));
        };
        if !tensor.is_weight() {
            return Err(bad(format!("found the type {}, needed weights", tensor.scheme)));
        }
        let shape = row.change.to_hf(h, &tensor.shape).map_err(|e| bad(e.to_string()))?;
        let experts = match row.change {
            Change::Stacked => tensor.shape.first().copied().unwrap_or(0),
            _ => 1,
        };
        if matches!(row.change, Change::Stacked) && tensor.shape.len() != 3 {
            return Err(bad(format!("found the shape {:?}, needed a stack of experts", tensor.shape)));
        }
        for expert in 0..experts {
            let (found, link) = row.change.to_gguf(h, &shape, expert).map_err(|e| bad(e.to_string()))?;
            if found != tensor.shape {
                return Err(bad(format!("found the shape {:?}, needed {found:?}", tensor.shape)));
            }
            let expert = matches!(row.change, Change::Stacked).then_some(expert);
            let name = row.hf_name(family.prefix, ending, Numbers { expert, ..numbers });
            let output = outputs.entry(name).or_insert_with(|| Output { shape: shape.clone(), pieces: Vec::new() });
            if output.shape != shape {
                return Err(bad(format!("does not fit the other parts of its tensor, whose shape is {:?}", output.shape)));
            }
            output.pieces.push(Piece::new(index, &link, Side::Hf));
        }
    }
    Ok(outputs)
}

/// How an output is seen, and where its bytes are made.
fn shown(base: &Arc<Checkpoint>, name: String, output: Output) -> Result<(Tensor, At)> {
    let Output { shape, pieces } = output;
    let n = shape.iter().product::<u64>();
    let stored: Vec<&Tensor> = pieces.iter().map(|p| &base.tensors[p.tensor]).collect();
    let quantized = stored.iter().find(|t| t.scheme.is_quantized());
    let share = |t: &&&Tensor| t.n_bytes() * n / t.n_elements().max(1);
    let packed = quantized.map(|t| Packed { label: t.scheme.to_string(), n_bytes: share(&t) });
    let dtype = match Linked::scheme(base, &pieces, None) {
        Scheme::Dense(dtype) => dtype,
        _ => Dtype::F32,
    };
    let linked = Linked::new(base.clone(), pieces, Scheme::Dense(dtype), n).map_err(|problem| Error::tensor(&base.path, &name, problem))?;
    let size = dtype.n_bytes(n).ok_or_else(|| Error::tensor(&base.path, &name, "has more bytes than 64 bits count"))?;
    let part = Stored { name: "data".into(), dtype, shape: shape.clone(), n_bytes: size };
    let tensor = Tensor { name, shape, dtype, scheme: Scheme::Dense(dtype), role: Role::Other, parts: vec![part], packed };
    Ok((tensor, At::Made(Made(Arc::new(linked)))))
}

/// config.json, the tokenizer, and what else is known about the model.
fn side_files(base: &Checkpoint, config: Vec<u8>, notes: &mut Vec<String>) -> Result<Vec<SideFile>> {
    let mut files = vec![("config.json".to_owned(), config)];
    let (tokenizer, more) = back::tokenizer_files(base)?;
    files.extend(tokenizer);
    notes.extend(more);
    if let Some(generation) = metadata::generation_config(&base.kv) {
        files.push(("generation_config.json".into(), pretty(&generation)));
    }
    if let Some(card) = metadata::model_card(base) {
        files.push(("README.md".into(), card.into_bytes()));
    }
    files.sort();
    Ok(files.into_iter().map(|(name, bytes)| SideFile { name, n_bytes: bytes.len() as u64, at: At::Bytes(bytes) }).collect())
}

/// JSON in lines, with a line break at the end.
pub(crate) fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    text.push('\n');
    text.into_bytes()
}
