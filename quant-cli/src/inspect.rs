//! `quant inspect`.

use std::collections::BTreeMap;

use quant_core::Result;
use quant_core::source::{Source, Tensor};
use quant_formats::Checkpoint;
use quant_formats::hf::config::Config;
use quant_formats::safetensors::order;
use serde::Serialize;

use crate::args::InspectArgs;
use crate::gguf;
use crate::report::{self, Outcome, bold, table};
use crate::size::{bytes, count};

/// What there is to know about a model without reading its weights.
#[derive(Serialize)]
struct Report {
    path: String,
    format: &'static str,
    architecture: Option<String>,
    quantization: Option<String>,
    parameters: u64,
    bytes: u64,
    bits_per_weight: f64,
    memory: Memory,
    schemes: Vec<SchemeRow>,
    tensors: Vec<TensorRow>,
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gguf: Option<gguf::Report>,
    side_files: Vec<SideFile>,
    notes: Vec<String>,
}

/// Bytes of the weights under common types.
#[derive(Serialize)]
struct Memory {
    f32: u64,
    f16: u64,
    int8: u64,
    int4: u64,
    stored: u64,
}

#[derive(Serialize)]
struct SchemeRow {
    scheme: String,
    tensors: u64,
    parameters: u64,
    bytes: u64,
    bits_per_weight: f64,
}

#[derive(Serialize)]
struct TensorRow {
    name: String,
    shape: Vec<u64>,
    scheme: String,
    dtype: &'static str,
    role: &'static str,
    bytes: u64,
}

#[derive(Serialize)]
struct SideFile {
    name: String,
    bytes: u64,
}

/// Runs the command.
pub fn run(args: &InspectArgs) -> Result<Outcome> {
    let opening = quant_formats::Opening { io: args.io.into(), unknown_types: args.unknown_types, ..Default::default() };
    let mut checkpoint = quant_formats::open(&args.path, opening)?;
    match quant_formats::foreign::unpack(&checkpoint) {
        Ok(Some(unpacking)) => checkpoint = quant_formats::foreign::logical(checkpoint, unpacking, quant_formats::foreign::Form::Dense)?,
        Ok(None) => {}
        Err(error) => checkpoint.notes.push(format!("shown as it is stored: {error}")),
    }
    let report = Report::new(&checkpoint, args.all, args.json)?;
    Ok(Outcome::ok(if args.json { report::json(&report)? } else { report.text(args.all) }))
}

impl Report {
    fn new(checkpoint: &Checkpoint, all: bool, json: bool) -> Result<Report> {
        let tensors = checkpoint.tensors();
        let parameters = tensors.iter().filter(|t| t.is_weight()).map(Tensor::n_elements).sum();
        let stored = tensors.iter().map(Tensor::stored_bytes).sum();
        let config = checkpoint.config().ok().flatten().and_then(|b| Config::parse(&b).ok());
        let gguf = gguf::Report::new(checkpoint, all, json)?;
        let architecture = config.as_ref().and_then(|c| c.architectures().into_iter().next().or_else(|| c.model_type()));
        Ok(Report {
            path: checkpoint.path.display().to_string(),
            format: checkpoint.format.name(),
            architecture: architecture.or_else(|| gguf.as_ref().and_then(|g| g.architecture.clone())),
            quantization: gguf.as_ref().and_then(|g| g.described()).or_else(|| quantization(checkpoint, config.as_ref())),
            parameters,
            bytes: stored,
            bits_per_weight: bits(stored, tensors.iter().map(Tensor::n_elements).sum()),
            memory: Memory { f32: parameters * 4, f16: parameters * 2, int8: parameters, int4: parameters / 2, stored },
            schemes: schemes(tensors),
            tensors: in_order(tensors),
            metadata: checkpoint.metadata.iter().cloned().collect(),
            gguf,
            side_files: checkpoint.side_files.iter().map(|f| SideFile { name: f.name.clone(), bytes: f.n_bytes }).collect(),
            notes: checkpoint.notes.clone(),
        })
    }

    fn text(&self, all: bool) -> String {
        let mut text = format!("{}\n", bold(&safe(&self.path)));
        let architecture = self.architecture.as_deref().map_or(String::new(), |a| format!(", {}", safe(a)));
        let quantization = self.quantization.as_deref().map_or(String::new(), |q| format!(", {}", safe(q)));
        let (format, parameters, size) = (self.format, count(self.parameters), bytes(self.bytes));
        text += &format!(" {format}{architecture}{quantization}: {parameters} parameters, {size}, {:.2} bits a weight\n", self.bits_per_weight);
        let m = &self.memory;
        text += &format!("\n{}\n", bold("Memory for the weights"));
        let row = [m.f32, m.f16, m.int8, m.int4, m.stored].map(bytes).to_vec();
        text += &table(&[">f32", ">f16, bf16", ">8 bits", ">4 bits", ">as stored"], [row]);
        text += &format!("\n{}\n", bold("Stored as"));
        text += &table(&["scheme", ">tensors", ">parameters", ">size", ">bits a weight"], self.schemes.iter().map(SchemeRow::cells));
        text += &format!("\n{}\n", bold("Tensors"));
        text += &table(&["name", ">count", "shape", "scheme", "role", ">size"], if all { self.every_row() } else { self.grouped_rows() });
        text + &self.extras(all)
    }

    fn extras(&self, all: bool) -> String {
        let mut text = self.gguf.as_ref().map_or(String::new(), |gguf| gguf.text(all));
        if !self.metadata.is_empty() {
            text += &format!("\n{}\n", bold("Metadata"));
            let shown = if all { usize::MAX } else { 12 };
            text += &table(&["key", "value"], self.metadata.iter().take(shown).map(|(k, v)| vec![k.clone(), shortened(v, all)]));
            let hidden = self.metadata.len().saturating_sub(shown);
            if hidden > 0 {
                text += &format!(" … and {hidden} more (--all)\n");
            }
        }
        if !self.side_files.is_empty() {
            text += &format!("\n{}\n", bold("Files that come along"));
            text += &table(&["name", ">size"], self.side_files.iter().map(|f| vec![f.name.clone(), bytes(f.bytes)]));
        }
        for note in &self.notes {
            text += &format!("\n{}: {}\n", bold("note"), safe(note));
        }
        text
    }

    fn every_row(&self) -> Vec<Vec<String>> {
        self.tensors.iter().map(|t| t.cells(t.name.clone(), 1, t.bytes)).collect()
    }

    /// One row for the tensors that differ only in the numbers of their names.
    fn grouped_rows(&self) -> Vec<Vec<String>> {
        let mut order = Vec::new();
        let mut groups: BTreeMap<(String, &[u64], &str), Vec<&TensorRow>> = BTreeMap::new();
        for t in &self.tensors {
            let key = (pattern(&t.name), t.shape.as_slice(), t.scheme.as_str());
            groups.entry(key.clone()).or_insert_with(|| {
                order.push(key);
                Vec::new()
            });
            if let Some(group) = groups.get_mut(&(pattern(&t.name), t.shape.as_slice(), t.scheme.as_str())) {
                group.push(t);
            }
        }
        let row = |key: &(String, &[u64], &str)| {
            let group = &groups[key];
            let name = if let [only] = group[..] { only.name.clone() } else { key.0.clone() };
            group[0].cells(name, group.len(), group.iter().map(|t| t.bytes).sum())
        };
        order.iter().map(row).collect()
    }
}

impl SchemeRow {
    fn cells(&self) -> Vec<String> {
        vec![self.scheme.clone(), self.tensors.to_string(), count(self.parameters), bytes(self.bytes), format!("{:.3}", self.bits_per_weight)]
    }
}

impl TensorRow {
    fn new(t: &Tensor) -> TensorRow {
        let (name, shape, scheme) = (t.name.clone(), t.shape.clone(), t.stored_as());
        TensorRow { name, shape, scheme, dtype: t.dtype.name(), role: t.role.name(), bytes: t.stored_bytes() }
    }

    fn cells(&self, name: String, n: usize, size: u64) -> Vec<String> {
        vec![shortened(&name, false), n.to_string(), shape(&self.shape), self.scheme.clone(), self.role.into(), bytes(size)]
    }
}

/// The tensors by name, layers by number.
fn in_order(tensors: &[Tensor]) -> Vec<TensorRow> {
    let mut rows: Vec<TensorRow> = tensors.iter().map(TensorRow::new).collect();
    rows.sort_by_cached_key(|row| order::key(&row.name));
    rows
}

/// How a model is quantized, in a few words.
fn quantization(checkpoint: &Checkpoint, config: Option<&Config>) -> Option<String> {
    let is_quantized = |t: &&Tensor| t.packed.is_some() || t.scheme.is_quantized();
    let mut found: Vec<String> = checkpoint.tensors.iter().filter(is_quantized).map(Tensor::stored_as).collect();
    found.sort();
    found.dedup();
    if !found.is_empty() {
        return Some(format!("quantized: {}", found.join(", ")));
    }
    let method = Config::parse(config?.quantization_config()?.as_bytes()).ok()?.text("quant_method")?;
    Some(format!("quantized with '{method}', which is shown as it is stored"))
}

fn schemes(tensors: &[Tensor]) -> Vec<SchemeRow> {
    let mut rows: Vec<SchemeRow> = Vec::new();
    for t in tensors {
        let scheme = t.stored_as();
        let i = rows.iter().position(|r| r.scheme == scheme).unwrap_or_else(|| {
            rows.push(SchemeRow { scheme, tensors: 0, parameters: 0, bytes: 0, bits_per_weight: 0.0 });
            rows.len() - 1
        });
        rows[i].tensors += 1;
        rows[i].parameters += t.n_elements();
        rows[i].bytes += t.stored_bytes();
    }
    rows.iter_mut().for_each(|r| r.bits_per_weight = bits(r.bytes, r.parameters));
    rows.sort_by_key(|r| std::cmp::Reverse(r.bytes));
    rows
}

fn bits(n_bytes: u64, n: u64) -> f64 {
    if n == 0 { 0.0 } else { n_bytes as f64 * 8.0 / n as f64 }
}

/// A name with its numbers replaced by `*`: `model.layers.*.mlp.up_proj.weight`.
fn pattern(name: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    name.split('.').map(|part| if is_number(part) { "*" } else { part }).collect::<Vec<_>>().join(".")
}

/// A shape, rows first; a very long one by its rank.
pub fn shape(shape: &[u64]) -> String {
    if shape.len() > 8 { format!("[{} dimensions]", shape.len()) } else { format!("{shape:?}") }
}

pub fn safe(text: &str) -> String {
    quant_core::error::Printable(text).to_string()
}

pub fn shortened(text: &str, all: bool) -> String {
    let most = if all { usize::MAX } else { 80 };
    if text.chars().count() <= most { text.into() } else { text.chars().take(most).collect::<String>() + "…" }
}
