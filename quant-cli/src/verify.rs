//! `quant verify`.

use std::path::Path;

use quant_core::sink::Observer;
use quant_core::source::Source;
use quant_core::{Error, Result};
use quant_formats::bqt::{self, Spot};
use quant_formats::input::Input;
use quant_formats::{Checkpoint, Format};
use serde::Serialize;

use crate::args::VerifyArgs;
use crate::progress::Progress;
use crate::report::{self, DAMAGED, Outcome};
use crate::size::bytes;

#[derive(Serialize)]
struct Report {
    path: String,
    format: &'static str,
    intact: bool,
    /// Whether the format has checksums; without them only structure and readability are known.
    checksums: bool,
    tensors: usize,
    bytes: u64,
    damages: Vec<Damage>,
}

#[derive(Serialize)]
struct Damage {
    #[serde(skip_serializing_if = "Option::is_none")]
    tensor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_row: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_row: Option<u64>,
    start: u64,
    end: u64,
    what: String,
}

/// Runs the command.
pub fn run(args: &VerifyArgs) -> Result<Outcome> {
    let progress = Progress::default();
    let report = match bqt_input(args)? {
        Some(input) => of_bqt(&args.path, &input, &progress)?,
        None => of_others(args, &progress)?,
    };
    progress.finish();
    let text = if args.json { report::json(&report)? } else { report.text() };
    Ok(Outcome { text, exit: if report.intact { 0 } else { DAMAGED } })
}

/// The file, if it is BQT by its first bytes, or by its name: damage may have hit those bytes.
fn bqt_input(args: &VerifyArgs) -> Result<Option<Input>> {
    if args.path.is_dir() {
        return Ok(None);
    }
    let input = Input::open(&args.path, args.io.into())?;
    let mut magic = [0; 8];
    let n = input.len().min(8) as usize;
    input.read_at(0, &mut magic[..n])?;
    let named = args.path.extension().is_some_and(|e| e.eq_ignore_ascii_case("bqt"));
    Ok((magic[..4] == bqt::MAGIC[..4] || named).then_some(input))
}

fn of_bqt(path: &Path, input: &Input, observer: &dyn Observer) -> Result<Report> {
    let found = bqt::verify(input, observer)?;
    input.check_unchanged()?;
    let damages: Vec<Damage> = found.damages.iter().map(Damage::new).collect();
    let (tensors, n_bytes) = (found.tensors, found.bytes);
    Ok(Report {
        path: path.display().to_string(),
        format: Format::Bqt.name(),
        intact: damages.is_empty(),
        checksums: true,
        tensors,
        bytes: n_bytes,
        damages,
    })
}

/// Formats without checksums: the headers are sound and every byte can be read.
fn of_others(args: &VerifyArgs, observer: &dyn Observer) -> Result<Report> {
    let opening = quant_formats::Opening { io: args.io.into(), unknown_types: args.unknown_types, ..Default::default() };
    let checkpoint = quant_formats::open(&args.path, opening)?;
    read_all(&checkpoint, observer)?;
    checkpoint.check_unchanged()?;
    let n_bytes = checkpoint.inputs.iter().map(Input::len).sum();
    let (format, tensors) = (checkpoint.format.name(), checkpoint.tensors.len());
    Ok(Report { path: args.path.display().to_string(), format, intact: true, checksums: false, tensors, bytes: n_bytes, damages: Vec::new() })
}

fn read_all(checkpoint: &Checkpoint, observer: &dyn Observer) -> Result<()> {
    const PIECE: u64 = 1 << 20;
    let mut buffer = vec![0; PIECE as usize];
    observer.begin("reading", checkpoint.tensors.iter().map(quant_core::source::Tensor::n_bytes).sum());
    for (i, tensor) in checkpoint.tensors.iter().enumerate() {
        for (part, stored) in tensor.parts.iter().enumerate() {
            for at in (0..stored.n_bytes).step_by(PIECE as usize) {
                if observer.cancelled() {
                    return Err(Error::Cancelled);
                }
                let piece = &mut buffer[..PIECE.min(stored.n_bytes - at) as usize];
                checkpoint.read(i, part, at, piece)?;
                observer.advance(piece.len() as u64);
            }
        }
    }
    Ok(())
}

impl Damage {
    fn new(damage: &bqt::Damage) -> Damage {
        let mut new = Damage {
            tensor: None,
            part: None,
            first_row: None,
            last_row: None,
            start: damage.bytes.start,
            end: damage.bytes.end,
            what: damage.to_string(),
        };
        if let Spot::Part { tensor, part, rows, .. } = &damage.spot {
            new.tensor = Some(tensor.clone());
            new.part = Some(part.clone());
            new.first_row = rows.as_ref().map(|r| r.start);
            new.last_row = rows.as_ref().map(|r| r.end.saturating_sub(1));
        }
        new
    }
}

impl Report {
    fn text(&self) -> String {
        let path = quant_core::error::Printable(&self.path);
        let mut text = String::new();
        for damage in &self.damages {
            text += &format!("{path}: damaged: {}\n", damage.what);
        }
        let (tensors, size, format) = (self.tensors, bytes(self.bytes), self.format);
        text += &match (self.intact, self.checksums) {
            (false, _) if self.damages.len() == 1 => format!("{path}: DAMAGED\n"),
            (false, _) => format!("{path}: DAMAGED in {} places\n", self.damages.len()),
            (true, true) => format!("{path}: intact: {format}, {tensors} tensors, {size}, every checksum holds\n"),
            (true, false) => format!("{path}: sound and readable: {format}, {tensors} tensors, {size}; the format has no checksums\n"),
        };
        text
    }
}
