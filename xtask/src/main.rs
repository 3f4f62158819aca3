//! `cargo xtask`: the project's chores.

#![warn(clippy::unwrap_used)]

mod bench;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// The project's chores.
#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Task {
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
