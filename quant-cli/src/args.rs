//! The command line.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use quant_core::{Error, Result};
use quant_formats::input::Input;

use crate::audit::args::AuditArgs;
use crate::device::{DeviceArgs, DevicesArgs};
use crate::estimate::EstimateArgs;
use crate::plan::args::PlanArgs;
use crate::size::parse as size;

const EXAMPLES: &str = "\
Examples:
  quant inspect Llama-3.2-1B
  quant convert Llama-3.2-1B Llama-3.2-1B-nf4 --type nf4-dq
  quant convert Llama-3.2-1B archive.bqt
  quant convert Llama-3.2-1B Llama-q4.gguf --type q4_k_m
  quant convert Llama-q4.gguf Llama-again --to hf
  quant verify archive.bqt

Exit codes: 0 done, 1 damage found or a condition holds, 2 refused or failed, 128 + signal when interrupted.";

/// Converts and quantizes LLM checkpoints, in bounded memory, with the bytes of the reference tools.
#[derive(Parser)]
#[command(name = "quant", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Show what a model is: format, parameters, memory, tensors, metadata
    Inspect(InspectArgs),
    /// Convert a model to another type or format
    Convert(Box<ConvertArgs>),
    /// Check a model: every checksum of a BQT file; structure and readability of the others
    Verify(VerifyArgs),
    /// Measure what quantization cost: two models, or schemes tried on one; by tensor, layer and role
    Audit(Box<AuditArgs>),
    /// Find the mix of types with the least error within a size, and write it as a recipe
    Plan(Box<PlanArgs>),
    /// Show the GPUs that --device cuda can use
    Devices(DevicesArgs),
    /// Estimate the memory that a model needs under each scheme, from its tensors, its config.json or its size
    Estimate(EstimateArgs),
}

/// Arguments of `inspect`.
#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  quant inspect Llama-3.2-1B\n  quant inspect model.gguf --all\n  quant inspect archive.bqt --json | jq .parameters"
)]
pub struct InspectArgs {
    /// A folder with safetensors files, a safetensors file or index, a GGUF file or shard, or a BQT file
    pub path: PathBuf,
    /// List every tensor and all metadata instead of grouping layers
    #[arg(long)]
    pub all: bool,
    /// Open GGUF files with tensors of unknown types
    #[arg(long)]
    pub unknown_types: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// How to read files
    #[arg(long, value_enum, default_value_t)]
    pub io: Io,
}

/// Arguments of `verify`.
#[derive(ClapArgs)]
#[command(
    after_help = "Examples:\n  quant verify archive.bqt\n  quant verify Llama-3.2-1B --json\n\nExit codes: 0 intact, 1 damaged, 2 not a model that can be read."
)]
pub struct VerifyArgs {
    /// A model of any format that is read
    pub path: PathBuf,
    /// Open GGUF files with tensors of unknown types
    #[arg(long)]
    pub unknown_types: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// How to read files
    #[arg(long, value_enum, default_value_t)]
    pub io: Io,
}

const CONVERT_HELP: &str = "\
Schemes:
  f64 f32 f16 bf16 f8_e4m3 f8_e5m2  dense, every floating tensor
  nf4 nf4-dq fp4 fp4-dq             bitsandbytes 4-bit, -dq with double quantization
  int8                              LLM.int8(), row-wise
  int8-block                        bitsandbytes' dynamic 8-bit, block-wise (BQT only)
  affine4 affine4-zero absmax8      linear, 2 to 8 bits (BQT only)
  nf4:128 affine4:32 absmax8:row    another block, a row, or :tensor; nf4@cpu for the CPU's bytes
  These quantize linear layers; embeddings, heads and norms are kept unless --tensor-type
  names them.

Mixes of llama-quantize, by name or number (GGUF and BQT):
  q4_0 q4_1 q5_0 q5_1 q8_0 q1_0 q2_0 mxfp4_moe tq1_0 tq2_0
  q2_k q2_k_s q3_k_s q3_k_m q3_k_l q4_k_s q4_k_m q5_k_s q5_k_m q6_k
  iq1_s iq1_m iq2_xxs iq2_xs iq2_s iq2_m iq3_xxs iq3_xs iq3_s iq3_m iq4_nl iq4_xs
  f32 f16 bf16 copy
  A mix gives every tensor the type that llama-quantize gives it, and the same bytes.
  --tensor-type takes single types too: q4_k, iq2_xs, mxfp4, nvfp4, …

Examples:
  quant convert Llama Llama-nf4 --type nf4-dq
  quant convert Llama Llama.bqt --type affine4:32 --tensor-type 'down_proj=affine8'
  quant convert Llama-nf4 Llama-bf16 --type bf16
  quant convert Llama.bqt Llama-again
  quant convert Llama Llama-q4.gguf --type q4_k_m
  quant convert Llama-q4.gguf Llama-again --to hf
  quant convert Llama-f16.gguf Llama-q4.gguf --type q4_k_m --imatrix imatrix.gguf
  quant convert Llama-q4.gguf shards --to gguf --max-shard-size 2GB
  quant convert shards Llama-q4.gguf
  quant convert Llama.gguf named.gguf --set general.name=str:Llama --remove general.url
  quant convert Llama out --type nf4 --keep 'layers\\.0\\.' --dry-run";

/// Arguments of `convert`.
#[derive(ClapArgs)]
#[command(after_help = CONVERT_HELP)]
pub struct ConvertArgs {
    /// The model: a folder, a safetensors file or index, a GGUF file or shard, or a BQT file
    pub input: PathBuf,
    /// The result: NAME.safetensors, NAME.gguf, NAME.bqt, or a folder
    pub output: PathBuf,
    /// The form of the result, if its name does not tell
    #[arg(long, value_enum)]
    pub to: Option<Form>,
    /// The scheme or mix; without it tensors keep theirs, or get --outtype on the way to GGUF
    #[arg(long = "type", value_name = "SCHEME|MIX")]
    pub scheme: Option<String>,
    /// Another scheme for tensors whose name matches; repeatable, the first match wins
    #[arg(long, value_name = "REGEX=SCHEME")]
    pub tensor_type: Vec<String>,
    /// Keep tensors whose name matches as they are; repeatable, before all other rules
    #[arg(long, value_name = "REGEX")]
    pub keep: Vec<String>,
    /// Take the rules from a TOML file; see docs/schemes.md
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scheme", "tensor_type"])]
    pub recipe: Option<PathBuf>,
    /// Whose bytes, where bitsandbytes' backends differ; cuda unless a scheme says @cpu
    #[arg(long, value_enum)]
    pub bnb_profile: Option<BnbProfile>,
    /// What to do with a tensor that holds NaN or infinities and should be quantized
    #[arg(long, value_enum, default_value_t)]
    pub non_finite: NonFinite,
    /// Measure what quantization costs each tensor, while it is written; a BQT file keeps it. `quant audit MODEL --type` tells it without writing
    #[arg(long, conflicts_with = "dry_run")]
    pub audit: bool,
    /// Show the whole plan and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Bytes of tensor data in one file of a folder, in decimal units
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_shard_size: Option<u64>,
    /// Threads; the processor's by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Most memory that the slabs of all threads may take
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "256MiB")]
    pub memory: u64,
    /// Elements that a thread handles at once; the bytes do not depend on it
    #[arg(long, hide = true, value_name = "N", value_parser = clap::value_parser!(u64).range(8..=1 << 24))]
    pub slab: Option<u64>,
    /// How to read files
    #[arg(long, value_enum, default_value_t)]
    pub io: Io,
    /// Replace the output if it exists
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a comment here would be shown as the help of the command")]
    pub model: ModelArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a comment here would be shown as the help of the command")]
    pub gguf: GgufArgs,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a comment here would be shown as the help of the command")]
    pub device: DeviceArgs,
}

/// Options of the way between Hugging Face and GGUF, under the names of convert_hf_to_gguf.py.
#[derive(ClapArgs)]
#[command(next_help_heading = "Hugging Face to GGUF and back")]
pub struct ModelArgs {
    /// The type of the GGUF model before any mix: auto takes that of the first matrix, f16 or bf16
    #[arg(long, value_name = "auto|f32|f16|bf16|q8_0|tq1_0|tq2_0")]
    pub outtype: Option<String>,
    /// The name of the model in its metadata
    #[arg(long, value_name = "NAME")]
    pub model_name: Option<String>,
    /// Take metadata from a JSON file, before that of the model
    #[arg(long, value_name = "FILE")]
    pub metadata: Option<PathBuf>,
    /// Write metadata and vocabulary, no tensors
    #[arg(long)]
    pub vocab_only: bool,
    /// The name of the pre-tokenizer, where it is not known
    #[arg(long, value_name = "NAME")]
    pub pre: Option<String>,
    /// Keep names and layouts of tensors; what results is no model that llama.cpp or transformers loads
    #[arg(long)]
    pub generic: bool,
}

/// Options that GGUF has, under the names of llama-quantize where that has them.
#[derive(ClapArgs)]
#[command(next_help_heading = "GGUF and mixes")]
pub struct GgufArgs {
    /// The type of the mix for every tensor
    #[arg(long)]
    pub pure: bool,
    /// Importance matrix, as GGUF or .dat
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// Use only the entries of the importance matrix whose name contains this; repeatable
    #[arg(long, value_name = "NAME", conflicts_with = "exclude_weights", requires = "imatrix")]
    pub include_weights: Vec<String>,
    /// Do not use the entries of the importance matrix whose name contains this; repeatable
    #[arg(long, value_name = "NAME", requires = "imatrix")]
    pub exclude_weights: Vec<String>,
    /// The type of output.weight
    #[arg(long, value_name = "TYPE")]
    pub output_tensor_type: Option<String>,
    /// The type of the token embeddings
    #[arg(long, value_name = "TYPE")]
    pub token_embedding_type: Option<String>,
    /// Take lines of REGEX=TYPE, as for --tensor-type, from a file
    #[arg(long, value_name = "FILE")]
    pub tensor_type_file: Option<PathBuf>,
    /// Keep output.weight as it is
    #[arg(long)]
    pub leave_output_tensor: bool,
    /// Leave these layers out and number the others anew
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    pub prune_layers: Vec<u64>,
    /// Set metadata as llama-quantize does, TYPE being int, float, bool or str; repeatable
    #[arg(long, value_name = "KEY=TYPE:VALUE")]
    pub override_kv: Vec<String>,
    /// Keep each tensor in the shard where it is
    #[arg(long)]
    pub keep_split: bool,
    /// Quantize again what is quantized already
    #[arg(long)]
    pub allow_requantize: bool,
    /// Refuse where a row does not fit the type of the mix, instead of taking another
    #[arg(long)]
    pub no_fallback: bool,
    /// Tensors in one shard
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_shard_tensors: Option<u64>,
    /// Copy tensors of unknown types as they are, each up to the next tensor
    #[arg(long)]
    pub unknown_types: bool,
    /// Set metadata, TYPE being u8 … i64, f32, f64, bool or str; repeatable
    #[arg(long, value_name = "KEY=TYPE:VALUE")]
    pub set: Vec<String>,
    /// Remove metadata; repeatable
    #[arg(long, value_name = "KEY")]
    pub remove: Vec<String>,
}

/// The form of an output.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A folder in the layout of Hugging Face
    Hf,
    /// One safetensors file
    Safetensors,
    /// The block-quantized format of this tool
    Bqt,
    /// A GGUF file, or a folder of shards if the options ask for several
    Gguf,
}

/// How files are read.
#[derive(Clone, Copy, Default, ValueEnum)]
pub enum Io {
    /// Whatever is faster here, which is to read
    #[default]
    Auto,
    /// Map files into memory and copy from there
    Mmap,
    /// Read files piece by piece
    Read,
}

impl From<Io> for quant_formats::Io {
    fn from(io: Io) -> quant_formats::Io {
        match io {
            Io::Auto => quant_formats::Io::Auto,
            Io::Mmap => quant_formats::Io::Mmap,
            Io::Read => quant_formats::Io::Read,
        }
    }
}

/// Whose bytes.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BnbProfile {
    /// The CUDA kernels
    Cuda,
    /// The CPU backend of 0.50
    Cpu,
}

/// What to do with numbers that no quantizing scheme holds.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum NonFinite {
    /// Refuse the conversion, naming tensor and element
    #[default]
    Refuse,
    /// Keep such tensors as they are; needs one more pass over the weights
    Keep,
}

/// The text of a file that an option names: a regular file of a reasonable size. `what` it should be, for errors: "a recipe".
///
/// # Errors
/// If it is too large or no text.
pub fn option_file(path: &Path, what: &str) -> Result<String> {
    const MOST: u64 = 1 << 24;
    let input = Input::open(path, quant_formats::Io::Read)?;
    if input.len() > MOST {
        return Err(Error::file(path, format!("not {what}: found {} bytes, at most {MOST} are read", input.len())));
    }
    let mut bytes = vec![0; input.len() as usize];
    input.read_at(0, &mut bytes)?;
    String::from_utf8(bytes).map_err(|_| Error::file(path, format!("not {what}: it is not UTF-8")))
}
