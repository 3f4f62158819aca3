//! `quant audit`: what did quantization cost.

pub mod args;
pub mod build;
mod csv;
mod gate;
mod html;
pub mod report;
mod stored;
pub mod table;
pub mod tried;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use quant_core::audit::{Audit, ErrorStats};
use quant_core::backend::Backend;
use quant_core::convert::Budget;
use quant_core::error::Printable;
use quant_core::recipe::pattern;
use quant_core::source::{Role, Tensor};
use quant_core::{Error, Result};
use quant_formats::Checkpoint;
use quant_formats::audit::{self, Beside, Pairing, part_of};
use quant_formats::gguf::imatrix::{self, ImportanceMatrix};
use quant_formats::input::Identity;
use quant_formats::output::Staged;
use regex::Regex;

use crate::device;
use crate::progress::Progress;
use crate::report::{FAILED, Outcome, complain, complain_in_json, note};
use args::AuditArgs;
use build::Measured;
use gate::Condition;
use report::{Report, SchemeReport, Skipped};

/// The exit code when a condition of `--fail-if` holds.
const GATED: u8 = 1;
/// The version of the form of `--json`.
const VERSION: u32 = 1;

/// What the ways of measuring share.
pub struct Session<'a> {
    pub args: &'a AuditArgs,
    pub audit: Audit<'static>,
    pub backend: &'static dyn Backend,
    pub budget: Budget,
    pub beside: Beside,
    pub only: Option<Regex>,
    pub progress: Progress,
}

/// Runs the command.
pub fn run(args: &AuditArgs) -> Result<Outcome> {
    let begin = Instant::now();
    let conditions = args.fail_if.iter().map(|text| Condition::parse(text, args)).collect::<Result<Vec<_>>>()?;
    let inputs = inputs(args)?;
    if let Some(path) = &args.html {
        Staged::check(path, false, 0, args.force, &inputs)?;
    }
    let session = Session::new(args)?;
    let mut report = match &args.candidate {
        Some(candidate) => session.pair(candidate)?,
        None if args.tries() => session.tried()?,
        None => stored::report(&session)?,
    };
    session.progress.finish();
    report.notes.extend(device::remarks(session.backend));
    conditions.iter().for_each(|condition| condition.judge(&mut report));
    report.seconds = begin.elapsed().as_secs_f64();
    if let Some(path) = &args.html {
        write_page(path, &html::page(&report), args.force, &inputs)?;
    }
    let text = match (args.json, args.csv) {
        (true, _) => crate::report::json(&report)?,
        (_, true) => csv::text(&report),
        _ => {
            let written = args.html.as_ref().map(|path| format!("\nWrote {}\n", Printable(&path.display().to_string())));
            table::text(&report, args.all) + &written.unwrap_or_default()
        }
    };
    if !args.json {
        report.notes.iter().for_each(|text| note(text));
    }
    if args.csv {
        report.failed.iter().for_each(|failed| note(&table::failed(failed)));
        report.problems.iter().skip(1).for_each(|problem| note(problem));
    }
    Ok(Outcome { text, exit: exit(&report, args) })
}

/// The exit code; what could not be compared is said on stderr.
fn exit(report: &Report, args: &AuditArgs) -> u8 {
    let lacking = report.missing.iter().map(|name| format!("'{name}' is missing in the candidate"));
    let extra = report.extra.iter().map(|name| format!("'{name}' is only in the candidate"));
    let one_sided: Vec<String> = if args.partial { Vec::new() } else { lacking.chain(extra).collect() };
    let problems: Vec<&String> = report.problems.iter().chain(&one_sided).collect();
    let Some(first) = problems.first() else { return if report.failed.is_empty() { 0 } else { GATED } };
    let more = if problems.len() > 1 { format!(", and {} more; the report lists them", problems.len() - 1) } else { String::new() };
    let advice = if report.problems.is_empty() { " (--partial accepts that)" } else { "" };
    let error = Error::request(format!("not everything could be compared: {first}{more}{advice}"));
    if args.json {
        complain_in_json(&error)
    } else {
        complain(&error)
    }
    FAILED
}

/// Every file that is read, which no output may replace.
fn inputs(args: &AuditArgs) -> Result<Vec<Identity>> {
    let mut inputs = Vec::new();
    for model in [Some(&args.reference), args.candidate.as_ref(), args.activations.as_ref()].into_iter().flatten() {
        let opening = quant_formats::Opening { io: args.io.into(), ..Default::default() };
        inputs.extend(quant_formats::open(model, opening)?.identities()?);
    }
    for file in args.imatrix.iter().chain(&args.recipe) {
        inputs.push(Identity::of(file)?);
    }
    Ok(inputs)
}

fn write_page(path: &Path, page: &str, force: bool, inputs: &[Identity]) -> Result<()> {
    let staged = Staged::file(path, page.len() as u64, force, inputs)?;
    staged.write_at(0, 0, page.as_bytes())?;
    staged.commit()
}

/// What a model is called: the name of its file or folder.
fn file_name(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// A report with nothing in it yet.
fn empty(args: &AuditArgs, names: &'static str) -> Report {
    let shown = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    Report {
        version: VERSION,
        quant: env!("CARGO_PKG_VERSION"),
        reference: args.reference.display().to_string(),
        candidate: shown(&args.candidate),
        imatrix: shown(&args.imatrix),
        activations: shown(&args.activations),
        names,
        schemes: Vec::new(),
        skipped: Vec::new(),
        missing: Vec::new(),
        extra: Vec::new(),
        problems: Vec::new(),
        failed: Vec::new(),
        notes: Vec::new(),
        seconds: 0.0,
    }
}

impl<'a> Session<'a> {
    fn new(args: &'a AuditArgs) -> Result<Session<'a>> {
        let only = args.only.as_deref().map(|text| pattern(text).map_err(|e| Error::request(format!("--only: {e}")))).transpose()?;
        let threads = args.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
        let budget = Budget { memory: args.memory, threads, ..Budget::default() };
        let beside = Beside {
            importance: args.imatrix.as_deref().map(|path| ImportanceMatrix::open(path, args.io.into())).transpose()?,
            activations: args.activations.as_deref().map(|path| audit::open_activations(path, args.io.into())).transpose()?,
        };
        let backend = args.device.open()?;
        Ok(Session { args, audit: Audit::new(&budget, args.spectral)?.on(backend), backend, budget, beside, only, progress: Progress::default() })
    }

    /// Whether a tensor is wanted: `--only` matches its name or its role.
    pub fn is_wanted(&self, name: &str, role: Role) -> bool {
        self.only.as_ref().is_none_or(|only| only.is_match(name) || only.is_match(part_of(name, role).name()))
    }

    /// Opens a model.
    ///
    /// # Errors
    /// If it is none.
    pub fn open(&self, path: &Path) -> Result<Checkpoint> {
        let checkpoint = quant_formats::open(path, quant_formats::Opening { io: self.args.io.into(), ..Default::default() })?;
        imatrix::refuse_as_model(&checkpoint)?;
        Ok(checkpoint)
    }

    /// Compares two models.
    fn pair(&self, path: &Path) -> Result<Report> {
        let (reference, candidate) = (self.open(&self.args.reference)?, self.open(path)?);
        let mut pairing = audit::pair(reference, candidate, self.args.imatrix.is_some())?;
        self.narrow(&mut pairing)?;
        let stats = self.audit.run(&pairing.subjects(&self.beside)?, &self.progress)?;
        pairing.reference.check_unchanged()?;
        pairing.candidate.check_unchanged()?;
        let mut report = empty(self.args, pairing.names);
        let mut counted = BTreeSet::new();
        let measured = |(pair, stats): (&audit::Pair, ErrorStats)| {
            let (tensor, other) = (&pairing.reference.tensors[pair.reference], &pairing.candidate.tensors[pair.candidate]);
            // Embeddings that serve as head are stored once.
            let bytes = if counted.insert(pair.candidate) { other.stored_bytes() } else { 0 };
            Measured { name: pairing.name_of(pair).to_owned(), role: pairing.role_of(pair), ..measured(tensor, other.stored_as(), bytes, stats) }
        };
        let measured: Vec<Measured> = pairing.pairs.iter().zip(stats).map(measured).collect();
        self.finish(&mut report, vec![build::scheme(file_name(path), measured)]);
        report.problems.extend(std::mem::take(&mut pairing.problems));
        report.skipped = pairing.skipped.iter().map(|(name, reason)| Skipped { name: name.clone(), reason: reason.clone() }).collect();
        report.missing = pairing.missing.clone();
        report.extra = pairing.extra.clone();
        report.notes.extend(pairing.reference.notes.iter().map(|text| format!("reference: {text}")));
        report.notes.extend(pairing.candidate.notes.iter().map(|text| format!("candidate: {text}")));
        Ok(report)
    }

    /// Leaves out of a pairing what `--only` does not name.
    fn narrow(&self, pairing: &mut Pairing) -> Result<()> {
        let Some(only) = &self.only else { return Ok(()) };
        let is_pair_wanted = |pair: &&audit::Pair| self.is_wanted(pairing.name_of(pair), pairing.role_of(pair));
        let wanted: Vec<audit::Pair> = pairing.pairs.iter().filter(is_pair_wanted).copied().collect();
        pairing.pairs = wanted;
        let Pairing { reference, candidate, pairs, skipped, missing, extra, problems, .. } = pairing;
        let tensors = || reference.tensors.iter().chain(&candidate.tensors);
        let names: BTreeSet<&str> = tensors().filter(|t| self.is_wanted(&t.name, t.role)).map(|t| t.name.as_str()).collect();
        skipped.retain(|(name, _)| names.contains(name.as_str()));
        [missing, extra].into_iter().for_each(|list| list.retain(|name| names.contains(name.as_str())));
        problems.retain(|problem| names.iter().any(|name| problem.contains(&format!("'{name}'"))));
        if pairs.is_empty() && problems.is_empty() {
            return Err(Error::request(format!("--only '{only}' matches no tensor that both have, and no role of one")));
        }
        Ok(())
    }

    /// Puts what was measured into a report, with what it says about numbers that are not finite and about options of no use.
    fn finish(&self, report: &mut Report, schemes: Vec<SchemeReport>) {
        let mut names = BTreeSet::new();
        for scheme in &schemes {
            for row in &scheme.tensors {
                names.insert(row.name.as_str());
                if row.weights.non_finite > 0 {
                    let pairs = if row.weights.non_finite == 1 { "pair" } else { "pairs" };
                    report.problems.push(format!("'{}' has {} {pairs} with a NaN or an infinity", row.name, row.weights.non_finite));
                }
            }
        }
        report
            .notes
            .extend(self.beside.unused(&names).into_iter().map(|name| format!("--activations: '{name}' belongs to no tensor that is compared")));
        for scheme in schemes.iter().filter(|s| self.args.imatrix.is_some() && s.model.output_error.is_none()) {
            let of = if schemes.len() > 1 { format!(" of {}", scheme.scheme) } else { String::new() };
            report.notes.push(format!("--imatrix: it has entries for none of the tensors{of}; its names are those of GGUF"));
        }
        if report.problems.is_empty() {
            let nothing = schemes.iter().filter(|s| s.model.n == 0);
            report.problems.extend(nothing.map(|s| format!("nothing was compared: there is no weight in the tensors of {}", s.scheme)));
        }
        report.schemes = schemes;
    }
}

/// A tensor with its errors.
pub fn measured(tensor: &Tensor, to: String, bytes: u64, stats: ErrorStats) -> Measured {
    let (name, shape, role) = (tensor.name.clone(), tensor.shape.clone(), tensor.role);
    Measured { name, shape, from: tensor.stored_as(), to, role, bytes, stats }
}
