//! Which tensor of which file holds which part of the plan.

use quant_core::plan::{PartFill, Plan, PlannedPart};
use quant_core::{Dtype, Error, Result, Scheme};

use super::order;
use super::read::MODEL;
use crate::bnb;
use crate::checkpoint::{Checkpoint, Place};

/// A tensor as it will stand in a file.
#[derive(Clone, Debug)]
pub(crate) struct Laid {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<u64>,
    pub(crate) n_bytes: u64,
    pub(crate) filled: Filled,
    /// Weights that it stands for, in the count of the index.
    pub(crate) parameters: u64,
}

/// Where the bytes of a laid tensor come from.
#[derive(Clone, Debug)]
pub(crate) enum Filled {
    /// Part `part` of planned tensor `tensor`.
    Part { tensor: usize, part: usize },
    /// These bytes.
    Bytes(Vec<u8>),
}

impl Laid {
    pub(crate) fn part(name: String, tensor: usize, part: usize, p: &PlannedPart, parameters: u64) -> Laid {
        let filled = match &p.fill {
            PartFill::Given(bytes) => Filled::Bytes(bytes.clone()),
            _ => Filled::Part { tensor, part },
        };
        Laid { name, dtype: p.dtype, shape: p.shape.clone(), n_bytes: p.n_bytes, filled, parameters }
    }
}

/// One file of the output.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    /// Length and header.
    pub(crate) head: Vec<u8>,
    /// Its tensors in the order of their data, each with its offset from the start of the file.
    pub(crate) tensors: Vec<(Laid, u64)>,
    pub(crate) n_bytes: u64,
}

/// The layout of a whole output.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) files: Vec<File>,
    /// The text of the index, if there is more than one file.
    pub(crate) index: Option<String>,
    /// For each planned tensor, for each part, its place. None for parts that are given or not stored.
    pub(crate) places: Vec<Vec<Option<Place>>>,
}

impl Layout {
    /// Lays out a plan in files of at most `max_shard` bytes of data, as transformers 5.23 does.
    ///
    /// # Errors
    /// If a scheme has no layout in safetensors.
    pub(crate) fn new(plan: &Plan, checkpoint: &Checkpoint, max_shard: u64) -> Result<Layout> {
        let laid = lay(plan, checkpoint)?;
        let metadata = metadata_of(checkpoint);
        let total_parameters: u64 = laid.iter().map(|t| t.parameters).sum();
        let total_size: u64 = laid.iter().map(|t| t.n_bytes).sum();
        let shards = split(laid, max_shard);
        let n = shards.len();
        let name = |i: usize| if n == 1 { MODEL.into() } else { format!("model-{:05}-of-{n:05}.safetensors", i + 1) };
        let files: Vec<File> = shards.into_iter().enumerate().map(|(i, shard)| File::new(name(i), shard, &metadata)).collect();
        let index = (n > 1).then(|| index_text(&files, total_parameters, total_size));
        let places = places(plan, &files);
        Ok(Layout { files, index, places })
    }

    /// The bytes of all files.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.files.iter().map(|f| f.n_bytes).sum::<u64>() + self.index.as_ref().map_or(0, |i| i.len() as u64)
    }
}

/// The tensors of a plan, in its order.
fn lay(plan: &Plan, checkpoint: &Checkpoint) -> Result<Vec<Laid>> {
    let mut out = Vec::new();
    for (i, t) in plan.tensors.iter().enumerate() {
        match t.scheme {
            Scheme::Dense(_) => out.push(Laid::part(t.name.clone(), i, 0, &t.parts[0], t.n_elements())),
            Scheme::FourBit { .. } => bnb::write::four_bit(i, t, checkpoint, &mut out)?,
            Scheme::Int8 => bnb::write::int8(i, t, &mut out)?,
            other => return Err(no_layout(&t.name, other)),
        }
    }
    refuse_same_names(&out)?;
    Ok(out)
}

fn no_layout(tensor: &str, scheme: Scheme) -> Error {
    let file = if matches!(scheme, Scheme::Ggml(_) | Scheme::Opaque(_)) { ".gguf or .bqt" } else { ".bqt" };
    Error::request(format!(
        "tensor '{tensor}': safetensors has no layout for {scheme}; write a {file} file, or choose nf4, fp4, int8 or a dense type"
    ))
}

fn refuse_same_names(laid: &[Laid]) -> Result<()> {
    let mut names: Vec<&str> = laid.iter().map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|w| w[0] == w[1]) {
        Some(same) => Err(Error::request(format!("the output would have two tensors called '{}'", same[0]))),
        None => Ok(()),
    }
}

/// The metadata of the source, or what transformers writes where there is none; sorted, so that bytes repeat.
fn metadata_of(checkpoint: &Checkpoint) -> Vec<(String, String)> {
    let mut metadata = checkpoint.metadata.clone();
    if !metadata.iter().any(|(key, _)| key == "format") {
        metadata.push(("format".into(), "pt".into()));
    }
    metadata.sort();
    metadata
}

/// Fills shards one after the other, in the order of transformers; a tensor over the limit gets a shard of its own, while the
/// open one stays open.
///
/// Source: `split_torch_state_dict_into_shards` of huggingface_hub 2.4.
fn split(mut laid: Vec<Laid>, max_shard: u64) -> Vec<Vec<Laid>> {
    if laid.iter().map(|t| t.n_bytes).sum::<u64>() <= max_shard {
        return vec![laid];
    }
    laid.sort_by_cached_key(|t| order::key(&t.name));
    let (mut shards, mut current, mut size) = (Vec::new(), Vec::new(), 0u64);
    for tensor in laid {
        if tensor.n_bytes > max_shard {
            shards.push(vec![tensor]);
            continue;
        }
        if size + tensor.n_bytes > max_shard {
            shards.push(std::mem::take(&mut current));
            size = 0;
        }
        size += tensor.n_bytes;
        current.push(tensor);
    }
    shards.push(current);
    shards.retain(|shard| !shard.is_empty());
    shards
}

impl File {
    /// Lays out one file: the widest types first, then by name, as the safetensors crate does.
    fn new(name: String, mut laid: Vec<Laid>, metadata: &[(String, String)]) -> File {
        laid.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
        let head = head(&laid, metadata);
        let mut next = head.len() as u64;
        let mut tensors = Vec::with_capacity(laid.len());
        for tensor in laid {
            let offset = next;
            next += tensor.n_bytes;
            tensors.push((tensor, offset));
        }
        File { name, head, tensors, n_bytes: next }
    }
}

/// Length and header, padded with spaces to a multiple of 8.
fn head(laid: &[Laid], metadata: &[(String, String)]) -> Vec<u8> {
    let mut entries = Vec::with_capacity(laid.len() + 1);
    if !metadata.is_empty() {
        let pairs: Vec<String> = metadata.iter().map(|(k, v)| format!("{}:{}", text(k), text(v))).collect();
        entries.push(format!("\"__metadata__\":{{{}}}", pairs.join(",")));
    }
    let mut next = 0;
    for t in laid {
        let shape: Vec<String> = t.shape.iter().map(u64::to_string).collect();
        let (start, end) = (next, next + t.n_bytes);
        next = end;
        entries.push(format!("{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{start},{end}]}}", text(&t.name), t.dtype, shape.join(",")));
    }
    let mut json = format!("{{{}}}", entries.join(","));
    json.push_str(&" ".repeat(json.len().next_multiple_of(8) - json.len()));
    let mut head = (json.len() as u64).to_le_bytes().to_vec();
    head.extend_from_slice(json.as_bytes());
    head
}

/// A JSON string as serde_json writes it.
fn text(s: &str) -> String {
    serde_json::Value::from(s).to_string()
}

/// `model.safetensors.index.json` as `save_pretrained` writes it: sorted, indented by 2.
fn index_text(files: &[File], total_parameters: u64, total_size: u64) -> String {
    let mut map: Vec<(&str, &str)> = files.iter().flat_map(|f| f.tensors.iter().map(|(t, _)| (t.name.as_str(), f.name.as_str()))).collect();
    map.sort_unstable();
    let lines: Vec<String> =
        map.iter().map(|(name, file)| format!("    {}: {}", crate::python::json_string(name), crate::python::json_string(file))).collect();
    format!(
        "{{\n  \"metadata\": {{\n    \"total_parameters\": {total_parameters},\n    \"total_size\": {total_size}\n  }},\n  \"weight_map\": {{\n{}\n  }}\n}}\n",
        lines.join(",\n")
    )
}

fn places(plan: &Plan, files: &[File]) -> Vec<Vec<Option<Place>>> {
    let mut places: Vec<Vec<Option<Place>>> = plan.tensors.iter().map(|t| vec![None; t.parts.len()]).collect();
    for (file, f) in files.iter().enumerate() {
        for (laid, offset) in &f.tensors {
            if let Filled::Part { tensor, part } = laid.filled {
                places[tensor][part] = Some(Place { file, offset: *offset });
            }
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid(sizes: &[u64]) -> Vec<Laid> {
        let tensor = |(i, &n_bytes): (usize, &u64)| Laid {
            name: format!("t.{i}"),
            dtype: Dtype::U8,
            shape: vec![n_bytes],
            n_bytes,
            filled: Filled::Bytes(Vec::new()),
            parameters: 0,
        };
        sizes.iter().enumerate().map(tensor).collect()
    }

    /// The sizes in each shard.
    fn shards(sizes: &[u64], max_shard: u64) -> Vec<Vec<u64>> {
        split(laid(sizes), max_shard).iter().map(|shard| shard.iter().map(|t| t.n_bytes).collect()).collect()
    }

    #[test]
    fn shards_are_cut_as_by_huggingface_hub() {
        assert_eq!(shards(&[4, 6, 1], 10), [vec![4, 6], vec![1]], "what is equal to the limit fits");
        assert_eq!(shards(&[4, 6], 10), [[4, 6]]);
        assert_eq!(shards(&[4, 11, 6, 1], 10), [vec![11], vec![4, 6], vec![1]], "a large one goes first and the open shard stays open");
        assert_eq!(shards(&[], 10), [[0u64; 0]]);
    }
}
