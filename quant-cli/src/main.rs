//! `quant`: converts and quantizes LLM checkpoints.

#![warn(clippy::unwrap_used)]

mod args;
mod audit;
mod convert;
mod device;
mod estimate;
mod gguf;
mod inspect;
mod mix;
mod model;
mod plan;
mod progress;
mod recipe;
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
    let report_panic = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !quant_formats::model::is_guarded() {
            report_panic(panic);
        }
    }));
    // A model may have more shards than a shell allows open files; failing here only lowers that number.
    let _ = rlimit::increase_nofile_limit(1 << 20);
    let outcome = parse().and_then(|asked| match asked {
        Ok(command) => run(&command),
        Err(text) => Ok(text),
    });
    let outcome = outcome.and_then(|outcome| {
        report::print(&outcome.text)?;
        Ok(outcome.exit)
    });
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(Error::Cancelled) => ExitCode::from(128 + progress::signal()),
        Err(error) => {
            if wants_json() {
                report::complain_in_json(&error)
            } else {
                report::complain(&error)
            }
            ExitCode::from(report::FAILED)
        }
    }
}

/// The command line: a command, or a text that was asked for instead.
fn parse() -> Result<std::result::Result<Command, Outcome>> {
    match Args::try_parse() {
        Ok(args) => Ok(Ok(args.command)),
        Err(help) if !help.use_stderr() => Ok(Err(Outcome::ok(help.render().ansi().to_string()))),
        Err(wrong) => Err(Error::request(in_one_line(&wrong.render().to_string()))),
    }
}

/// Whether `--json` is given: asked of the command line itself, which may be the one that is wrong.
fn wants_json() -> bool {
    std::env::args_os().take_while(|arg| arg != "--").any(|arg| arg == "--json")
}

/// What is wrong with a command line, without the usage that the help tells better.
fn in_one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let text: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    format!("{} (--help tells more)", text.join(" ").trim_start_matches("error: "))
}

fn run(command: &Command) -> Result<Outcome> {
    match command {
        Command::Inspect(args) => inspect::run(args),
        Command::Convert(args) => convert::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Devices(args) => device::run(args),
        Command::Estimate(args) => estimate::run(args),
    }
}
