//! What `quant inspect` shows of GGUF: the mix, and the metadata with its types.

use quant_core::Result;
use quant_core::mix::{self, Ftype, Item};
use quant_formats::Checkpoint;
use quant_formats::gguf::{self, Entry, Scalar, Value, find_entry};
use serde::Serialize;

use crate::inspect::shortened;
use crate::report::{bold, table};

/// Items of an array that are shown.
const ITEMS: u64 = 4;
/// Items of an array that `--all --json` gives.
const ALL_ITEMS: u64 = 1 << 19;
/// Items of an array that the text shows at most.
const LINES: u64 = 32;
/// Characters of a value on a line of the table.
const WIDTH: usize = 60;

/// What there is to know beyond any other format.
#[derive(Serialize)]
pub struct Report {
    pub architecture: Option<String>,
    file_type: Option<String>,
    mix: Option<&'static str>,
    metadata: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    key: String,
    #[serde(rename = "type")]
    ty: String,
    count: Option<u64>,
    value: serde_json::Value,
}

impl Report {
    /// Reads what is to be shown; none for a model without metadata of GGUF.
    pub fn new(checkpoint: &Checkpoint, all: bool, json: bool) -> Result<Option<Report>> {
        if checkpoint.kv.is_empty() && checkpoint.format != quant_formats::Format::Gguf {
            return Ok(None);
        }
        // All of a vocabulary is for programs.
        let most = match (all, json) {
            (true, true) => ALL_ITEMS,
            (true, false) => LINES,
            (false, _) => ITEMS,
        };
        let row = |entry: &Entry| Row::new(checkpoint, entry, most);
        let said = find_entry(&checkpoint.kv, "general.file_type").and_then(Entry::unsigned);
        let ftype = |id: u64| u32::try_from(id).ok().and_then(Ftype::from_id);
        let name = |id: u64| ftype(id).map_or(format!("unknown ({id})"), |f| f.name().to_owned());
        Ok(Some(Report {
            architecture: find_entry(&checkpoint.kv, "general.architecture").and_then(Entry::text).map(str::to_owned),
            file_type: said.map(name),
            mix: recognised(checkpoint, said.and_then(ftype))?.map(Ftype::name),
            metadata: checkpoint.kv.iter().map(row).collect::<Result<_>>()?,
        }))
    }

    /// The quantization in a few words, if it is one of llama-quantize's.
    pub fn described(&self) -> Option<String> {
        match (self.mix, &self.file_type) {
            (Some(mix), Some(said)) if mix != said.as_str() => Some(format!("{mix} by its tensors, {said} by its metadata")),
            (Some(mix), _) => Some(mix.to_owned()),
            (None, said) => said.as_ref().map(|said| format!("{said} by its metadata, the tensors are of no mix")),
        }
    }

    /// The table of the metadata.
    pub fn text(&self, all: bool) -> String {
        let cells = |row: &Row| vec![shortened(&row.key, all), row.ty.clone(), row.shown(all)];
        format!("\n{}\n", bold("Metadata")) + &table(&["key", "type", "value"], self.metadata.iter().map(cells))
    }
}

/// The mix that gives the types of all tensors.
fn recognised(checkpoint: &Checkpoint, stated: Option<Ftype>) -> Result<Option<Ftype>> {
    let items: Vec<Item<'_>> = checkpoint.tensors.iter().map(|t| Item { name: &t.name, shape: &t.shape, from: t.scheme }).collect();
    Ok(mix::recognise(&gguf::model(checkpoint, &[])?, &items, stated))
}

impl Row {
    fn new(checkpoint: &Checkpoint, entry: &Entry, most: u64) -> Result<Row> {
        let ty = entry.items.map_or(entry.kind.name().to_owned(), |(kind, _)| format!("[{}]", kind.name()));
        let value = json(entry.value(checkpoint, most)?);
        Ok(Row { key: entry.key.clone(), ty, count: entry.items.map(|(_, n)| n), value })
    }

    fn shown(&self, all: bool) -> String {
        let text = match &self.value {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Array(items) => {
                let mut shown: Vec<String> = items.iter().map(ToString::to_string).collect();
                if self.count.is_some_and(|n| n > shown.len() as u64) {
                    shown.push("…".into());
                }
                format!("{} items: {}", self.count.unwrap_or_default(), shown.join(", "))
            }
            other => other.to_string(),
        };
        if all || text.chars().count() <= WIDTH { text } else { text.chars().take(WIDTH).collect::<String>() + "…" }
    }
}

fn json(value: Value) -> serde_json::Value {
    match value {
        Value::Text(text) => text.into(),
        Value::Array(items) => items.into_iter().map(json).collect(),
        Value::Scalar(Scalar::Unsigned(n)) => n.into(),
        Value::Scalar(Scalar::Signed(n)) => n.into(),
        Value::Scalar(Scalar::Bool(b)) => b.into(),
        // The shortest text of f32 values is that of f32, not of f64. What is not finite has no place in JSON but as a text.
        Value::Scalar(Scalar::Float(v)) if !v.is_finite() => v.to_string().into(),
        Value::Scalar(Scalar::Float(v)) => {
            let single = v as f32;
            let shortest: f64 = if f64::from(single) == v { single.to_string().parse().unwrap_or(v) } else { v };
            shortest.into()
        }
    }
}
