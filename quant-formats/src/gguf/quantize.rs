//! What llama-quantize does to a model: types by mix, tensors in its order, layers pruned, metadata updated.
//!
//! Source: `llama_model_quantize_impl` and `tools/quantize` of llama.cpp 0.5.0-dev.

use std::collections::BTreeMap;
use std::sync::Arc;

use quant_core::mix::{self, Choice, Ftype, Item, Model, Options};
use quant_core::plan::{Decision, Plan, Planned, View};
use quant_core::source::{Importance, Source};
use quant_core::{Error, Result, Scheme, ggml};

use super::entry::{Entry, Kind, find};
use super::imatrix::ImportanceMatrix;
use super::layout::{set, unsplit};
use crate::checkpoint::{At, Checkpoint};

/// The version of ggml's quantized types.
const QUANTIZATION_VERSION: u32 = 2;
/// Marks a file type that no file said.
const GUESSED: u32 = 1024;
/// Texts that llama-quantize writes about an importance matrix are cut at so many bytes.
const TEXT_LIMIT: usize = 127;

/// A request in the terms of llama-quantize.
#[derive(Clone, Debug)]
pub struct Mix {
    /// The mix and what bends it.
    pub options: Options,
    /// Keep every type: `COPY`.
    pub copy: bool,
    /// The importance matrix, and its path as the user gave it.
    pub importance: Option<(Arc<ImportanceMatrix>, String)>,
    /// Layers to leave out.
    pub prune_layers: Vec<u64>,
    /// Metadata to set, as `--override-kv` does.
    pub overrides: Vec<Entry>,
    /// Whether tensors stay in the order and in the shards of the source.
    pub keep_split: bool,
}

/// A tensor on its way into the plan.
struct Chosen {
    source: usize,
    name: String,
    choice: Choice,
}

/// Plans what llama-quantize would write.
///
/// # Errors
/// If a tensor cannot have the type that its mix asks for, or lacks its importance.
pub(crate) fn plan(checkpoint: &Checkpoint, mix: &Mix, is_kept: &dyn Fn(&str) -> Option<String>) -> Result<Plan> {
    let named = visiting_order(checkpoint, mix)?;
    let item = |(source, name): &(usize, String)| (checkpoint.tensors[*source].clone(), name.clone());
    let tensors: Vec<_> = named.iter().map(item).collect();
    let items: Vec<Item<'_>> = tensors.iter().map(|(t, name)| Item { name, shape: &t.shape, from: t.scheme }).collect();
    let choices =
        if mix.copy { items.iter().map(|_| copied()).collect() } else { mix::choose(&mix.options, &model(checkpoint, &mix.overrides)?, &items)? };
    let chosen = named.into_iter().zip(choices).map(|((source, name), choice)| Chosen { source, name, choice });
    let tensors = chosen.map(|chosen| planned(checkpoint, mix, chosen, is_kept)).collect::<Result<Vec<_>>>()?;
    Ok(Plan { tensors })
}

fn copied() -> Choice {
    Choice { scheme: None, reason: "copied".into(), fallback: None, needs_importance: false }
}

/// The tensors as llama-quantize visits them, with their new names.
fn visiting_order(checkpoint: &Checkpoint, mix: &Mix) -> Result<Vec<(usize, String)>> {
    let mut order: Vec<usize> = (0..checkpoint.tensors.len()).collect();
    let key = |&i: &usize| mix::order_key(&checkpoint.tensors[i].name);
    order.sort_by(|a, b| key(a).cmp(&key(b)));
    let numbers = renumbering(order.iter().map(|&i| checkpoint.tensors[i].name.as_str()), &mix.prune_layers)?;
    if mix.keep_split {
        order.sort_unstable();
    }
    let renamed = |i: usize| renamed(&checkpoint.tensors[i].name, &numbers).map(|name| (i, name));
    Ok(order.into_iter().filter_map(renamed).collect())
}

/// The new number of every layer when some are pruned; none for those. Empty if none are.
fn renumbering<'a>(names: impl Iterator<Item = &'a str>, pruned: &[u64]) -> Result<BTreeMap<u64, Option<u64>>> {
    let mut numbers = BTreeMap::new();
    if pruned.is_empty() {
        return Ok(numbers);
    }
    let first = pruned.iter().min().copied().unwrap_or_default();
    let mut next = 0;
    for layer in names.filter_map(|name| layer_of(name).map(|(_, layer)| layer)) {
        numbers.entry(layer).or_insert_with(|| {
            let number = (!pruned.contains(&layer)).then_some(if layer < first { layer } else { next });
            next = number.map_or(next, |n| n + 1);
            number
        });
    }
    if numbers.values().all(Option::is_none) {
        return Err(Error::request("--prune-layers: no layer would be left"));
    }
    match pruned.iter().find(|layer| !numbers.contains_key(layer)) {
        Some(layer) => Err(Error::request(format!("--prune-layers: the model has no layer {layer}"))),
        None => Ok(numbers),
    }
}

/// Where the number of a layer stands in a name, and the number.
fn layer_of(name: &str) -> Option<(std::ops::Range<usize>, u64)> {
    let mut from = 0;
    while let Some(found) = name[from..].find("blk.") {
        let start = from + found + 4;
        let digits = name[start..].bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 && name[start + digits..].starts_with('.') {
            return name[start..start + digits].parse().ok().map(|layer| (start..start + digits, layer));
        }
        from = start;
    }
    None
}

fn renamed(name: &str, numbers: &BTreeMap<u64, Option<u64>>) -> Option<String> {
    let Some((place, layer)) = layer_of(name) else { return Some(name.into()) };
    match numbers.get(&layer) {
        None => Some(name.into()),
        Some(number) => number.map(|n| format!("{}{n}{}", &name[..place.start], &name[place.end..])),
    }
}

fn planned(checkpoint: &Checkpoint, mix: &Mix, chosen: Chosen, is_kept: &dyn Fn(&str) -> Option<String>) -> Result<Planned> {
    let Chosen { source, name, choice } = chosen;
    let tensor = &checkpoint.tensors[source];
    let kept = is_kept(&tensor.name);
    let decision = match kept {
        Some(pattern) => Decision { scheme: None, reason: pattern },
        None => Decision { scheme: choice.scheme, reason: choice.reason },
    };
    let mut planned = Planned::new(source, tensor, decision, View::Whole)?;
    planned.name = name;
    if planned.copied {
        return Ok(planned);
    }
    planned.importance = importance(mix, checkpoint, &planned)?;
    let needs = |ty: ggml::Type| choice.needs_importance || ty.needs_importance();
    if matches!(planned.scheme, Scheme::Ggml(ty) if needs(ty)) && planned.importance.is_none() {
        let why = if mix.importance.is_some() { "the importance matrix has no entry for it" } else { "give an importance matrix with --imatrix" };
        return Err(Error::request(format!("tensor '{}': {} needs the importance of its columns: {why}", planned.name, planned.scheme)));
    }
    Ok(planned)
}

/// The importance of a tensor's columns, if its type is one that ggml quantizes to and the matrix has them.
fn importance(mix: &Mix, checkpoint: &Checkpoint, planned: &Planned) -> Result<Option<Arc<dyn Importance>>> {
    let (Some((matrix, path)), Scheme::Ggml(_)) = (&mix.importance, planned.scheme) else { return Ok(None) };
    let name = &checkpoint.tensors[planned.source].name;
    let Some(found) = matrix.n_values(name) else { return Ok(None) };
    let dim = |i: usize| planned.shape.iter().rev().nth(i).copied().unwrap_or(1);
    let needed = dim(0).checked_mul(dim(2)).filter(|_| dim(3) == 1);
    if needed == Some(found) {
        return Ok(matrix.of(name));
    }
    // These tables are looked up, not multiplied: what is there belongs to a tied output.
    if matches!(name.as_str(), "token_embd.weight" | "per_layer_token_embd.weight") {
        return Ok(None);
    }
    match needed {
        Some(needed) => Err(matrix.of_other_model(name, found, needed)),
        None => Err(Error::request(format!("{path}: tensor '{name}': found importance, needed no more than three dimensions"))),
    }
}

/// What the rules of a mix ask about the model: from overrides, then from the metadata of its file.
///
/// # Errors
/// If the file cannot be read.
pub fn model(checkpoint: &Checkpoint, overrides: &[Entry]) -> Result<Model> {
    let kv = &checkpoint.kv;
    let arch = find(kv, "general.architecture").and_then(Entry::text).unwrap_or_default().to_owned();
    let value = |name: &str| -> Result<Option<u32>> {
        let key = format!("{arch}.{name}");
        let entry = find(overrides, &key).or_else(|| find(kv, &key));
        let Some(entry) = entry else { return Ok(None) };
        Ok(first_number(checkpoint, entry)?.and_then(|n| n.try_into().ok()))
    };
    let layers = || checkpoint.tensors.iter().filter_map(|t| layer_of(&t.name)).map(|(_, layer)| layer + 1).max().unwrap_or(0) as u32;
    let n_head = value("attention.head_count")?.unwrap_or(0);
    Ok(Model {
        n_layer: value("block_count")?.unwrap_or_else(layers),
        n_head,
        n_head_kv: value("attention.head_count_kv")?.unwrap_or(n_head),
        n_expert: value("expert_count")?.unwrap_or(0),
        arch,
    })
}

/// An integer, or the first of an array.
fn first_number(checkpoint: &Checkpoint, entry: &Entry) -> Result<Option<u64>> {
    let Some((kind, n)) = entry.items else { return Ok(entry.unsigned()) };
    let (Some(n_bytes), 1..) = (kind.n_bytes(), n) else { return Ok(None) };
    let mut bytes = vec![0; n_bytes as usize];
    checkpoint.read_at(&entry.at, 12, &mut bytes)?;
    Ok(Entry::new("", kind, bytes).unsigned())
}

/// The metadata of what [`plan`] makes.
pub(crate) fn kv(checkpoint: &Checkpoint, mix: &Mix, plan: &Plan) -> Vec<Entry> {
    let mut kv = checkpoint.kv.clone();
    set(&mut kv, Entry::u32("general.quantization_version", QUANTIZATION_VERSION));
    let file_type = if mix.copy { file_type(checkpoint) } else { mix.options.ftype.id() };
    set(&mut kv, Entry::u32("general.file_type", file_type));
    unsplit(&mut kv);
    mix.overrides.iter().for_each(|entry| set(&mut kv, entry.clone()));
    if let Some((matrix, path)) = &mix.importance {
        set(&mut kv, Entry::string("quantize.imatrix.file", cut(path)));
        if let Some(dataset) = matrix.datasets().first() {
            set(&mut kv, Entry::string("quantize.imatrix.dataset", cut(dataset)));
        }
        set(&mut kv, Entry::u32("quantize.imatrix.entries_count", matrix.n_entries() as u32));
        if matrix.n_chunks() > 0 {
            set(&mut kv, Entry::u32("quantize.imatrix.chunks_count", matrix.n_chunks()));
        }
    }
    if !mix.prune_layers.is_empty() {
        let arch = find(&kv, "general.architecture").and_then(Entry::text).unwrap_or_default().to_owned();
        let layers = plan.tensors.iter().filter_map(|t| layer_of(&t.name)).map(|(_, layer)| layer + 1).max().unwrap_or(0);
        set(&mut kv, Entry::u32(format!("{arch}.block_count"), layers as u32));
    }
    kv
}

/// The first bytes of a text that may be stored, in whole characters.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(TEXT_LIMIT)).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    &text[..end]
}

/// The type that a file says it is, or the one that most of its tensors have.
fn file_type(checkpoint: &Checkpoint) -> u32 {
    if let Some(said) = find(&checkpoint.kv, "general.file_type").filter(|e| e.kind == Kind::U32).and_then(Entry::unsigned) {
        return said as u32;
    }
    let mut order: Vec<&quant_core::source::Tensor> = checkpoint.tensors().iter().collect();
    order.sort_by(|a, b| mix::order_key(&a.name).cmp(&mix::order_key(&b.name)));
    let (mut counts, mut most, mut scheme) = (BTreeMap::new(), 0u64, None);
    for tensor in order {
        let count = counts.entry(ggml::id_of(tensor.scheme)).or_insert(0u64);
        *count += 1;
        if *count > most {
            (most, scheme) = (*count, Some(tensor.scheme));
        }
    }
    // The name of a type is that of its mix, or an alias of its middle one.
    let ftype = scheme.and_then(|s| s.to_string().parse::<Ftype>().ok());
    ftype.map_or(0, Ftype::id) | GUESSED
}

/// For each planned tensor the shard of the source that it lies in, and how many shards there are.
pub(crate) fn shards_of(checkpoint: &Checkpoint, plan: &Plan) -> (Vec<usize>, usize) {
    let input = |source: usize| match checkpoint.places[source].first() {
        Some(At::File { input, .. }) => *input,
        _ => 0,
    };
    let inputs: Vec<usize> = plan.tensors.iter().map(|t| input(t.source)).collect();
    let mut distinct = inputs.clone();
    distinct.sort_unstable();
    distinct.dedup();
    let files = inputs.iter().map(|i| distinct.binary_search(i).unwrap_or(0)).collect();
    (files, distinct.len().max(1))
}
