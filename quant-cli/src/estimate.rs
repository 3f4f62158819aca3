//! `quant estimate`: the memory that a model needs under each scheme, before anything is downloaded or written.

mod config;
mod dims;
mod made;
mod weights;

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args as ClapArgs, ValueEnum};
use quant_core::{Dtype, Error, Result, Scheme, ggml};
use serde::Serialize;

use crate::args::Io;
use crate::report::{self, Outcome, bold, table};
use crate::size::{bytes, count, parse as size};
use dims::{Cache, Dims};
use weights::{Subject, Weights};

const HELP: &str = "\
Columns:
  weights   what convert writes for the tensors, without headers and files beside them
  KV cache  2 × layers × key heads × head size × context × batch, in the type of --kv-type;
            layers × (rank + rotated part) × context × batch where keys and values are
            kept compressed (kv_lora_rank)
  overhead  an estimate: 300 MB for the runtime, and the activations of 512 tokens in f32,
            512 × (width + feed-forward + vocabulary) × 4 bytes; attention is taken to need
            no memory that grows with the square of the context
  With --params the bits a weight are those of a model shaped as Mistral 7B.

Examples:
  quant estimate Llama-3.2-1B
  quant estimate Llama-3.2-1B/config.json --context 32768 --kv-type q8_0
  quant estimate model.gguf --fits 12GB
  quant estimate --params 7B --layers 32 --kv-heads 8 --head-dim 128
  quant estimate --params 70B --json | jq '.schemes[] | {scheme, total}'";

/// Arguments of `estimate`.
#[derive(ClapArgs)]
#[command(after_help = HELP, group = ArgGroup::new("subject").required(true).args(["model", "params"]))]
pub struct EstimateArgs {
    /// A model of any format that is read, a folder with a config.json and no weights, or a config.json
    #[arg(value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// The number of parameters instead of a model, for example 7B, 1.5B, 350M
    #[arg(long, value_name = "N", value_parser = parameters)]
    pub params: Option<u64>,
    /// Tokens of a sequence; by default 4096, or the most that the model takes if that is less
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 32))]
    pub context: Option<u64>,
    /// Sequences at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub batch: u64,
    /// The type of the KV cache
    #[arg(long, value_enum, default_value_t)]
    pub kv_type: KvType,
    /// Layers, for the KV cache with --params
    #[arg(long, value_name = "N", requires_all = ["params", "kv_heads", "head_dim"], value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub layers: Option<u64>,
    /// Heads of keys and values in a layer, for the KV cache with --params
    #[arg(long, value_name = "N", requires_all = ["params", "layers", "head_dim"], value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub kv_heads: Option<u64>,
    /// The size of a head, for the KV cache with --params
    #[arg(long, value_name = "N", requires_all = ["params", "layers", "kv_heads"], value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub head_dim: Option<u64>,
    /// Mark the schemes whose total fits into so much memory
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub fits: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// How to read files
    #[arg(long, value_enum, default_value_t)]
    pub io: Io,
}

/// The type of a KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum KvType {
    /// 16-bit floats
    #[default]
    F16,
    /// bfloat16
    Bf16,
    /// 32-bit floats
    F32,
    /// 8.5 bits a number
    #[value(name = "q8_0")]
    Q8,
    /// 4.5 bits a number
    #[value(name = "q4_0")]
    Q4,
}

impl KvType {
    fn scheme(self) -> Scheme {
        match self {
            KvType::F16 => Scheme::Dense(Dtype::F16),
            KvType::Bf16 => Scheme::Dense(Dtype::BF16),
            KvType::F32 => Scheme::Dense(Dtype::F32),
            KvType::Q8 => Scheme::Ggml(ggml::Type::Q8_0),
            KvType::Q4 => Scheme::Ggml(ggml::Type::Q4_0),
        }
    }
}

/// The context if none is asked for.
const CONTEXT: u64 = 4096;
/// What a runtime takes before it has a model: the libraries of a GPU and their context. An estimate.
const RUNTIME: u64 = 300_000_000;
/// Tokens that are computed at once.
const TOKENS: u64 = 512;
/// The sum of widths that activations go by where a model does not tell: a large vocabulary and a little more.
const UNKNOWN_WIDTHS: u64 = 128 << 10;

/// What a model needs.
#[derive(Serialize)]
struct Report {
    model: Option<String>,
    described: String,
    parameters: u64,
    approximate: bool,
    context: u64,
    batch: u64,
    kv_type: String,
    kv_cache: Option<u64>,
    overhead: u64,
    available: Option<u64>,
    schemes: Vec<Row>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Row {
    scheme: &'static str,
    bits_per_weight: f64,
    weights: u64,
    kv_cache: Option<u64>,
    overhead: u64,
    total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fits: Option<bool>,
}

/// Runs the command.
pub fn run(args: &EstimateArgs) -> Result<Outcome> {
    let subject = match (&args.model, args.params) {
        (Some(path), _) => weights::open(path, args.io.into())?,
        (None, Some(n)) => of_parameters(args, n)?,
        (None, None) => return Err(Error::request("needs a model, or --params")),
    };
    let report = Report::new(args, subject)?;
    Ok(Outcome::ok(if args.json { report::json(&report)? } else { report.text() }))
}

/// A model of which only its number of parameters is known, and perhaps its attention.
fn of_parameters(args: &EstimateArgs, n: u64) -> Result<Subject> {
    let mut notes =
        vec!["the weights are approximate: their bits are those of Mistral 7B, scaled; larger models have smaller shares of embeddings".to_owned()];
    let cache = match (args.layers, args.kv_heads, args.head_dim) {
        (Some(layers), Some(heads), Some(size)) => Some(Cache::uniform(layers, heads * size, heads * size)),
        _ => {
            notes.push("the KV cache is not counted: it needs --layers, --kv-heads and --head-dim".into());
            None
        }
    };
    let dims = Dims { cache, ..Dims::default() };
    let weights = weights::scaled(n)?;
    Ok(Subject { described: "a model shaped as Mistral 7B".into(), parameters: n, is_approximate: true, weights, dims, notes })
}

impl Report {
    fn new(args: &EstimateArgs, subject: Subject) -> Result<Report> {
        let Subject { described, parameters, is_approximate, weights, dims, mut notes } = subject;
        let context = args.context.unwrap_or_else(|| dims.context.map_or(CONTEXT, |most| most.clamp(1, CONTEXT)));
        notes.extend(dims.notes(context));
        let too_large = || Error::request("the memory for this context, batch and model is too large to be counted");
        let kv_cache = match &dims.cache {
            Some(cache) => Some(cache.n_bytes(context, args.batch, args.kv_type.scheme()).ok_or_else(too_large)?),
            None => None,
        };
        let widths = dims.widths.unwrap_or_else(|| {
            notes.push(format!("the overhead is that of a model whose widths and vocabulary sum to {UNKNOWN_WIDTHS}"));
            UNKNOWN_WIDTHS
        });
        let overhead = widths.checked_mul(TOKENS * 4).and_then(|n| n.checked_add(RUNTIME)).ok_or_else(too_large)?;
        let row = |w: &Weights| {
            let total = w.n_bytes.checked_add(kv_cache.unwrap_or(0)).and_then(|n| n.checked_add(overhead)).ok_or_else(too_large)?;
            let bits_per_weight = if parameters == 0 { 0.0 } else { w.n_bytes as f64 * 8.0 / parameters as f64 };
            let fits = args.fits.map(|most| total <= most);
            Ok(Row { scheme: w.scheme, bits_per_weight, weights: w.n_bytes, kv_cache, overhead, total, fits })
        };
        let schemes = weights.iter().map(row).collect::<Result<Vec<Row>>>()?;
        notes.extend(args.fits.and_then(|most| too_large_for(&schemes, most)));
        Ok(Report {
            model: args.model.as_deref().map(|path: &Path| path.display().to_string()),
            described,
            parameters,
            approximate: is_approximate,
            context,
            batch: args.batch,
            kv_type: args.kv_type.scheme().to_string(),
            kv_cache,
            overhead,
            available: args.fits,
            schemes,
            notes,
        })
    }

    fn text(&self) -> String {
        let safe = |text: &str| quant_core::error::Printable(text).to_string();
        let mut text = self.model.as_ref().map_or(String::new(), |model| format!("{}\n", bold(&safe(model))));
        text += &format!(" {}: {} parameters\n\n", safe(&self.described), count(self.parameters));
        let about = if self.approximate { "≈ " } else { "" };
        let fits = self.available.map(|n| format!("fits {}", bytes(n)));
        let mut headings = vec!["scheme", ">bits a weight", ">weights", ">KV cache", ">overhead", ">total"];
        headings.extend(fits.as_deref());
        let cells = |row: &Row| {
            let kv_cache = row.kv_cache.map_or("–".into(), bytes);
            let bits = format!("{about}{:.2}", row.bits_per_weight);
            let sizes = [about.to_owned() + &bytes(row.weights), kv_cache, bytes(row.overhead), about.to_owned() + &bytes(row.total)];
            let fits = row.fits.map(|fits| if fits { "yes" } else { "no" }.to_owned());
            [row.scheme.to_owned(), bits].into_iter().chain(sizes).chain(fits).collect()
        };
        text += &table(&headings, self.schemes.iter().map(cells));
        let sequences = if self.batch == 1 { String::new() } else { format!(", {} sequences", self.batch) };
        if self.kv_cache.is_some() {
            text += &format!("\n KV cache: {} tokens in {}{sequences}\n", self.context, self.kv_type);
        }
        text += " overhead: an estimate for the runtime and the activations of 512 tokens; see --help\n";
        for note in &self.notes {
            text += &format!("\n{}: {}\n", bold("note"), safe(note));
        }
        text
    }
}

/// Says that no scheme fits, with what the smallest one needs.
fn too_large_for(schemes: &[Row], most: u64) -> Option<String> {
    let least = schemes.iter().min_by_key(|row| row.total).filter(|row| row.total > most)?;
    let advice = match least.total - least.weights {
        _ if least.overhead > most => "; the overhead alone is more",
        beside if beside > most => "; KV cache and overhead alone are more, so a shorter --context or a smaller --batch is needed",
        _ => "",
    };
    Some(format!("nothing fits {}: {} needs {}{advice}", bytes(most), least.scheme, bytes(least.total)))
}

/// Reads `7B`, `1.5B`, `350M`, `1T`, `6738415616`.
fn parameters(text: &str) -> std::result::Result<u64, String> {
    let bad = || format!("'{text}' is not a number of parameters; write for example 7B, 1.5B or 350M");
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let factor = match text[split..].to_ascii_uppercase().as_str() {
        "" => 1.0,
        "K" => 1e3,
        "M" => 1e6,
        "B" => 1e9,
        "T" => 1e12,
        _ => return Err(bad()),
    };
    let number: f64 = text[..split].parse().map_err(|_| bad())?;
    let n = (number * factor).round();
    if (1.0..=1e15).contains(&n) { Ok(n as u64) } else { Err(format!("'{text}' is out of range")) }
}

#[cfg(test)]
mod tests;
