//! `quant`: converts and quantizes LLM checkpoints.

#![warn(clippy::unwrap_used)]

mod args;
mod convert;
mod inspect;
mod progress;
mod report;
mod size;
mod verify;

use std::process::ExitCode;

use clap::Parser;
use quant_core::{Error, Result};

use crate::args::{Args, Command};
use crate::report::Outcome;

fn main() -> ExitCode {
    progress::watch_signals();
    // A model may have more shards than a shell allows open files; failing here only lowers that number.
    let _ = rlimit::increase_nofile_limit(1 << 20);
    let outcome = run(&Args::parse().command).and_then(|outcome| {
        report::print(&outcome.text)?;
        Ok(outcome.exit)
    });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(Error::Cancelled) => ExitCode::from(128 + progress::signal()),
        Err(error) => {
            report::complain(&error);
            ExitCode::from(report::FAILED)
        }
    }
}

fn run(command: &Command) -> Result<Outcome> {
    match command {
        Command::Inspect(args) => inspect::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Verify(args) => verify::run(args),
    }
}
