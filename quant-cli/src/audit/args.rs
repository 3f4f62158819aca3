//! The command line of `quant audit`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::args::Io;
use crate::device::DeviceArgs;
use crate::size::parse as size;

const HELP: &str = "\
Without CANDIDATE, --type and --recipe say what to try; nothing is written. Of a BQT file that was
written with --audit nothing is needed: it tells the errors that it has.

Conditions of --fail-if:
  sqnr_db<20                any tensor; the metric is a key of --json's metrics or weights
  ffn_down:rmse>=0.01       tensors whose name or role matches the regular expression before the colon
  model:relative_error>10%  the model as a whole; shares of 1 can be in percent
  One that holds is named with its tensors, and the exit code is 1.

Examples:
  quant audit Llama Llama-q4.gguf
  quant audit Llama --type q4_k_m,nf4-dq,int8
  quant audit Llama --type q4_k_m --recipe plan.toml
  quant audit Llama Llama-nf4 --html report.html
  quant audit Llama Llama-q4.gguf --imatrix imatrix.gguf --fail-if 'model:output_error>0.05'
  quant audit Llama --type q4_k_m --json | jq '.schemes[0].model.sqnr_db'

Exit codes: 0 measured, 1 a condition of --fail-if holds, 2 refused, or not everything could be
compared.";

/// Arguments of `audit`.
#[derive(ClapArgs)]
#[command(after_help = HELP)]
pub struct AuditArgs {
    /// The model that is taken for true, in any format that is read
    pub reference: PathBuf,
    /// The model that is compared with it, in any format; names and layouts of Hugging Face and GGUF are undone
    pub candidate: Option<PathBuf>,
    /// Schemes and mixes to try on the reference, as for convert --type
    #[arg(long = "type", value_name = "LIST", value_delimiter = ',', conflicts_with = "candidate")]
    pub types: Vec<String>,
    /// Recipe to try on the reference, as for convert --recipe; repeatable
    #[arg(long, value_name = "FILE", conflicts_with = "candidate")]
    pub recipe: Vec<PathBuf>,
    /// The type of the mix for every tensor
    #[arg(long, requires = "types")]
    pub pure: bool,
    /// Importance matrix: weighs errors by column, and mixes use it
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// Inputs of layers: safetensors with a tensor [samples, columns] named like each weight
    #[arg(long, value_name = "FILE")]
    pub activations: Option<PathBuf>,
    /// Also find the spectral norm of the error of each matrix; reads the model many times
    #[arg(long)]
    pub spectral: bool,
    /// Only tensors whose name or role matches
    #[arg(long, value_name = "REGEX")]
    pub only: Option<String>,
    /// Do not fail because a tensor is missing on one side
    #[arg(long)]
    pub partial: bool,
    /// Exit with 1 if a condition holds, such as 'sqnr_db<20'; repeatable
    #[arg(long, value_name = "CONDITION")]
    pub fail_if: Vec<String>,
    /// List every layer and every tensor
    #[arg(long)]
    pub all: bool,
    /// Print JSON; docs/audit.schema.json describes it
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Print a line of CSV for each tensor
    #[arg(long)]
    pub csv: bool,
    /// Write a page that any browser shows
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Replace the page if it exists
    #[arg(long, requires = "html")]
    pub force: bool,
    /// Threads; the processor's by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Most memory that the slabs of all threads may take
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "256MiB")]
    pub memory: u64,
    /// How to read files
    #[arg(long, value_enum, default_value_t)]
    pub io: Io,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a comment here would be shown as the help of the command")]
    pub device: DeviceArgs,
}

impl AuditArgs {
    /// Whether schemes are tried.
    pub fn tries(&self) -> bool {
        !self.types.is_empty() || !self.recipe.is_empty()
    }
}
