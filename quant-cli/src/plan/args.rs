//! The command line of `quant plan`.

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs};

use crate::args::Io;
use crate::device::DeviceArgs;
use crate::size::parse as size;

const HELP: &str = "\
Measures what each type costs each tensor, on a sample of rows, and finds the mix with the least
error within the budget. RECIPE is a file for convert --recipe.

Examples:
  quant plan Llama recipe.toml --target-bpw 4.5
  quant plan Llama recipe.toml --target-size 4GB --imatrix imatrix.gguf
  quant convert Llama Llama-planned.gguf --recipe recipe.toml --imatrix imatrix.gguf
  quant plan Llama --target-bpw 4.5 --schemes q3_k,q4_k,q6_k,q8_0
  quant plan Llama recipe.toml --max-error 3% --full
  quant plan Llama recipe.toml --target-bpw 8 --schemes affine4,affine6,affine8    (for BQT)";

/// Types that are tried if nothing else is said: those that llama.cpp computes fast and that need no importance matrix.
pub const DEFAULT: &str = "q2_k,q3_k,iq3_s,iq4_xs,iq4_nl,q4_k,q5_0,q5_1,q5_k,q6_k,q8_0";

/// Arguments of `plan`.
#[derive(ClapArgs)]
#[command(after_help = HELP, group(ArgGroup::new("target").required(true).args(["target_size", "target_bpw", "max_error"])))]
pub struct PlanArgs {
    /// The model, in any format that is read
    pub model: PathBuf,
    /// The recipe to write; without it the plan is only shown
    pub recipe: Option<PathBuf>,
    /// The most bytes of the file, in decimal units; for BQT with the figures of convert --audit
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub target_size: Option<u64>,
    /// The most bits a weight
    #[arg(long, value_name = "BITS", value_parser = bits)]
    pub target_bpw: Option<f64>,
    /// The greatest error; the smallest file within it
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub max_error: Option<f64>,
    /// Types to choose from
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = DEFAULT)]
    pub schemes: Vec<String>,
    /// Importance matrix: weighs errors by column, and types use it
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// Make errors of tensors whose name matches count so many times as much; repeatable
    #[arg(long, value_name = "REGEX=FACTOR")]
    pub weight: Vec<String>,
    /// Keep tensors whose name matches at 16 bits or as they are; repeatable
    #[arg(long, value_name = "REGEX")]
    pub keep: Vec<String>,
    /// Measure every row instead of a sample
    #[arg(long)]
    pub full: bool,
    /// Replace the recipe if it exists
    #[arg(long, requires = "recipe")]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Threads; the processor's by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// How to read files
    #[arg(long, value_enum, default_value_t)]
    pub io: Io,
    #[command(flatten)]
    #[allow(missing_docs, reason = "a comment here would be shown as the help of the command")]
    pub device: DeviceArgs,
}

fn bits(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|v: &f64| (0.5..=64.0).contains(v)).ok_or_else(|| format!("'{text}' is not a number of bits from 0.5 to 64"))
}

/// A share in percent. The sign is needed: 0.05 alone could be meant as a fraction.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim().strip_suffix('%').and_then(|number| number.trim().parse().ok()).filter(|v: &f64| *v > 0.0 && *v <= 100.0);
    number.map(|v| v / 100.0).ok_or_else(|| format!("'{text}' is not a percentage above 0, up to 100, with its sign, such as 3%"))
}
