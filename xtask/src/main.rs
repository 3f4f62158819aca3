//! `cargo xtask`: the project's chores.

#![warn(clippy::unwrap_used)]

mod bench;
mod gguf;
mod kernels;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// The project's chores.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
    /// Run all tests: those of the workspace, and the second opinion on GGUF files
    Test,
    /// Compile the CUDA kernels to the PTX that the crate carries
    Kernels(kernels::Options),
    /// Measure whole conversions of a GGUF file against llama-quantize, and compare their bytes
    BenchGguf(gguf::Options),
    /// Measure encoding against memory's own speed and, if a Python with them is given, against the reference libraries
    Bench {
        /// A Python that has bitsandbytes, for the ratio in the same run
        #[arg(long)]
        python: Option<PathBuf>,
        /// Threads, for both sides
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Millions of weights
        #[arg(long, default_value_t = 64)]
        million: usize,
    },
}

fn main() -> ExitCode {
    let done = match Task::parse() {
        Task::Test => test(),
        Task::Kernels(options) => kernels::run(&options).map_err(|error| error as _),
        Task::BenchGguf(options) => gguf::run(&options),
        Task::Bench { python, threads, million } => bench::run(python.as_deref(), threads, million),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// All tests. The second opinion is no member of the workspace, so that its dependencies stay out of the program.
fn test() -> Result<(), Box<dyn std::error::Error>> {
    cargo(&["test", "--workspace"])?;
    cargo(&["test", "--manifest-path", "tests/second-opinion/Cargo.toml", "--target-dir", "target/second-opinion"])
}

fn cargo(args: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = std::process::Command::new(env!("CARGO")).args(args).current_dir(root).status()?;
    if status.success() { Ok(()) } else { Err(format!("cargo {} failed", args.join(" ")).into()) }
}
