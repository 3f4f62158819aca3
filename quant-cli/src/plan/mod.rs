//! `quant plan`: where should the bits go.

pub mod args;
mod costs;
mod report;

use std::collections::{BTreeMap, BTreeSet};

use quant_core::allocate::{self, Candidate};
use quant_core::mix::Ftype;
use quant_core::plan::{Plan, Planned};
use quant_core::recipe::{Recipe, pattern};
use quant_core::{Error, Result, Scheme, ggml};
use quant_formats::audit::{self, Beside, layer_of, part_of, sensitivities};
use quant_formats::convert::{self, Request, Target};
use quant_formats::foreign::Form;
use quant_formats::gguf::imatrix::ImportanceMatrix;
use quant_formats::input::Identity;
use quant_formats::model::{self, ToGguf};
use quant_formats::output::Staged;
use quant_formats::{Checkpoint, Opening};
use regex::Regex;

use crate::audit::tried::mix;
use crate::device;
use crate::progress::Progress;
use crate::report::{Outcome, json, note};
use args::PlanArgs;
use costs::Costs;
use report::{MixRow, Report, TensorRow};

/// The mix that a recipe for GGUF begins with; it gives types to what the recipe does not name.
const BASE: &str = "q4_k_m";
/// The mixes that a plan is compared with.
const FIXED: [&str; 13] = ["q2_k", "iq3_xs", "q3_k_s", "iq3_m", "q3_k_m", "q3_k_l", "iq4_xs", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k", "q8_0"];

/// A tensor whose type is to be chosen.
struct Open {
    /// Its place in the plan.
    place: usize,
    /// How much a squared relative error counts.
    weight: f64,
    /// What it may become.
    schemes: Vec<Scheme>,
}

/// Runs the command.
pub fn run(args: &PlanArgs) -> Result<Outcome> {
    let schemes = args.schemes.iter().map(|text| scheme(text)).collect::<Result<Vec<_>>>()?;
    let is_gguf = schemes.iter().all(|s| ggml::id_of(*s).is_some());
    let weights = args.weight.iter().map(|text| factor(text)).collect::<Result<Vec<_>>>()?;
    let kept = args.keep.iter().map(|text| pattern(text)).collect::<Result<Vec<_>>>()?;
    let beside =
        Beside { importance: args.imatrix.as_deref().map(|path| ImportanceMatrix::open(path, args.io.into())).transpose()?, activations: None };
    if let Some(path) = &args.recipe {
        Staged::check(path, false, 0, args.force, &inputs(args)?)?;
    }
    let checkpoint = open(args, is_gguf)?;
    let backend = args.device.open()?;
    let base = plan(&checkpoint, if is_gguf { Wanted::Mix(BASE, &beside) } else { Wanted::Scheme(schemes[0]) })?;
    let open = choices(&checkpoint, &base, &schemes, &weights, &kept, beside.importance.is_some())?;
    let fixed = if is_gguf { fixed_mixes(&checkpoint, &beside) } else { Vec::new() };
    let progress = Progress::default();
    let wanted = wanted(&base, &open, &fixed);
    let costs = pool(args)?.install(|| Costs::measure(&checkpoint, &wanted, &beside, args.full, backend, &progress))?;
    progress.finish();
    checkpoint.check_unchanged()?;
    let solved = solve(args, &checkpoint, &base, &open, &costs, is_gguf)?;
    let mut report = described(args, &checkpoint, &base, &open, &costs, &fixed, solved)?;
    report.notes.extend(without_a_match(&base, weights.iter().map(|(pattern, _)| pattern).chain(&kept)));
    report.notes.extend(device::remarks(backend));
    if let Some(path) = &args.recipe {
        write(args, path, &report.recipe(is_gguf.then_some(BASE)))?;
    }
    for text in &report.notes {
        note(text);
    }
    let next =
        args.recipe.as_ref().map(|path| format!("Wrote {0}. Next: quant convert {1} OUTPUT --recipe {0}\n", path.display(), args.model.display()));
    Ok(Outcome::ok(if args.json { json(&report)? } else { report.text() + &next.unwrap_or_default() }))
}

/// The patterns that match no tensor: most likely they were meant to.
fn without_a_match<'a>(base: &Plan, patterns: impl Iterator<Item = &'a Regex>) -> Vec<String> {
    let is_unmatched = |pattern: &&Regex| !base.tensors.iter().any(|t| pattern.is_match(&t.name));
    patterns.filter(is_unmatched).map(|pattern| crate::convert::unmatched(pattern.as_str())).collect()
}

/// The threads that measure.
fn pool(args: &PlanArgs) -> Result<rayon::ThreadPool> {
    let threads = args.threads.map_or(0, usize::from);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| Error::request(format!("cannot start threads: {e}")))
}

fn scheme(text: &str) -> Result<Scheme> {
    text.parse().map_err(|e: quant_core::scheme::BadScheme| Error::request(format!("--schemes: {e}")))
}

/// A pattern and how many times errors count.
fn factor(text: &str) -> Result<(Regex, f64)> {
    let bad = || Error::request(format!("--weight '{text}': needs REGEX=FACTOR, the factor above 0"));
    let (name, factor) = text.rsplit_once('=').ok_or_else(bad)?;
    let factor: f64 = factor.parse().ok().filter(|v: &f64| v.is_finite() && *v > 0.0).ok_or_else(bad)?;
    Ok((pattern(name).map_err(|e| Error::request(format!("--weight: {e}")))?, factor))
}

/// The model, as GGUF if that is what becomes of it.
fn open(args: &PlanArgs, is_gguf: bool) -> Result<Checkpoint> {
    let checkpoint = quant_formats::open(&args.model, Opening { io: args.io.into(), ..Default::default() })?;
    if is_gguf && checkpoint.kv.is_empty() && model::is_mappable(&checkpoint) {
        let wanted = ToGguf { is_rounded: true, ..ToGguf::default() };
        return Ok(model::to_gguf(audit::by_numbers(checkpoint, Form::Gguf)?, &wanted)?.checkpoint);
    }
    audit::by_numbers(checkpoint, Form::Dense)
}

/// What every tensor is to become before anything is chosen.
enum Wanted<'a> {
    Mix(&'a str, &'a Beside),
    Scheme(Scheme),
}

fn request(wanted: &Wanted<'_>) -> Result<Request> {
    let request = Request { allow_requantize: true, ..Request::new(Target::Bqt) };
    Ok(match wanted {
        Wanted::Scheme(scheme) => Request { recipe: Recipe { default: Some(*scheme), ..Recipe::default() }, ..request },
        Wanted::Mix(name, beside) => {
            let ftype: Ftype = name.parse().map_err(|_| Error::request(format!("there is no mix '{name}'")))?;
            Request { mix: Some(mix(ftype, false, beside.importance.clone().map(|matrix| (matrix, String::new())))), ..request }
        }
    })
}

fn plan(checkpoint: &Checkpoint, wanted: Wanted<'_>) -> Result<Plan> {
    convert::plan(checkpoint, &request(&wanted)?).map_err(|e| e.of(&checkpoint.path))
}

/// The fixed mixes that this model can have.
fn fixed_mixes(checkpoint: &Checkpoint, beside: &Beside) -> Vec<(&'static str, Plan)> {
    FIXED.iter().filter_map(|name| Some((*name, plan(checkpoint, Wanted::Mix(name, beside)).ok()?))).collect()
}

/// The tensors whose type is to be chosen: those that the base quantizes.
fn choices(
    checkpoint: &Checkpoint,
    base: &Plan,
    schemes: &[Scheme],
    weights: &[(Regex, f64)],
    kept: &[Regex],
    is_weighted: bool,
) -> Result<Vec<Open>> {
    let layers: BTreeSet<u64> = base.tensors.iter().filter_map(|t| layer_of(&t.name)).collect();
    let parts: Vec<_> = base.tensors.iter().map(|t| (part_of(&t.name, t.role), t.n_elements())).collect();
    let mut open = Vec::new();
    for ((place, t), mut weight) in base.tensors.iter().enumerate().zip(sensitivities(&parts, layers.len() as u64)) {
        if t.copied || t.n_elements() == 0 || kept.iter().any(|k| k.is_match(&t.name)) {
            continue;
        }
        let fits = |s: &&Scheme| s.codec(&t.shape).is_ok() && (is_weighted || !matches!(s, Scheme::Ggml(ty) if ty.needs_importance()));
        let fitting: Vec<Scheme> = schemes.iter().filter(fits).copied().collect();
        if fitting.is_empty() && !t.scheme.is_quantized() {
            continue;
        }
        if fitting.is_empty() {
            let text = schemes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let problem = match schemes.iter().any(|s| s.codec(&t.shape).is_ok()) {
                true => format!("{text} needs an importance matrix (--imatrix)"),
                false => format!("its shape {:?} fits none of {text}", t.shape),
            };
            return Err(Error::tensor(&checkpoint.path, &t.name, problem));
        }
        weight *= weights.iter().filter(|(pattern, _)| pattern.is_match(&t.name)).map(|(_, factor)| factor).product::<f64>();
        open.push(Open { place, weight, schemes: fitting });
    }
    if open.is_empty() {
        return Err(Error::file(
            &checkpoint.path,
            "has no tensor whose type could be chosen: all are kept, or have the types of q4_k_m already (plan the model in f16 or bf16)",
        ));
    }
    Ok(open)
}

/// Which schemes of which tensors are to be measured.
fn wanted(base: &Plan, open: &[Open], fixed: &[(&str, Plan)]) -> BTreeMap<usize, BTreeSet<String>> {
    let mut wanted: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for o in open {
        let source = base.tensors[o.place].source;
        let schemes = wanted.entry(source).or_default();
        schemes.extend(o.schemes.iter().map(ToString::to_string));
        let of_mixes = fixed.iter().filter_map(|(_, plan)| plan.tensors.iter().find(|t| t.source == source && !t.copied));
        schemes.extend(of_mixes.map(|t| t.scheme.to_string()));
    }
    wanted
}

/// What was found.
struct Solution {
    choice: Vec<usize>,
    /// The total error, and what no choice goes below (in bytes, if the error is the limit).
    error: f64,
    bound: f64,
    /// The most bytes of tensors, if that is the limit.
    budget: Option<u64>,
}

fn bytes_of(t: &Planned, scheme: Scheme) -> Result<u64> {
    Ok(scheme.codec(&t.shape)?.parts().iter().map(quant_core::codec::Part::n_bytes).sum())
}

fn solve(args: &PlanArgs, checkpoint: &Checkpoint, base: &Plan, open: &[Open], costs: &Costs, is_gguf: bool) -> Result<Solution> {
    let candidate = |o: &Open, scheme: &Scheme| {
        let t = &base.tensors[o.place];
        let error = costs.of(t.source, *scheme).unwrap_or(1.0);
        Ok(Candidate { bytes: bytes_of(t, *scheme)?, error: o.weight * error * error })
    };
    let candidates = open.iter().map(|o| o.schemes.iter().map(|s| candidate(o, s)).collect()).collect::<Result<Vec<Vec<Candidate>>>>()?;
    let total_weight: f64 = open.iter().map(|o| o.weight).sum();
    if let Some(limit) = args.max_error {
        let found = allocate::within_error(&candidates, limit * limit * total_weight);
        let found =
            found.map_err(|_| Error::request(format!("--max-error: no choice of these types has an error of {} % or less", 100.0 * limit)))?;
        return Ok(Solution { choice: found.choice, error: found.error, bound: found.bound as f64, budget: None });
    }
    let others = other_bytes(args, checkpoint, base, open)?;
    let beside = args.target_size.map(|_| beside(args, checkpoint, base, is_gguf)).transpose()?;
    let total = match (args.target_size, args.target_bpw) {
        (Some(size), _) => size.saturating_sub(beside.unwrap_or_default()),
        (_, Some(bits)) => (bits / 8.0 * base.n_elements() as f64) as u64,
        _ => 0,
    };
    let budget = total.saturating_sub(others);
    let found = allocate::within_bytes(&candidates, budget).map_err(|e| {
        let least: u64 = candidates.iter().filter_map(|c| c.iter().map(|c| c.bytes).min()).sum::<u64>() + others;
        let bits = least as f64 * 8.0 / base.n_elements().max(1) as f64;
        match e {
            Error::Request(_) => Error::request(match beside {
                Some(beside) => format!("the target is too small: with these types the file has at least {} bytes", least + beside),
                None => format!("the target is too small: these types need {bits:.2} bits a weight at least, with what is kept at 16 bits"),
            }),
            other => other,
        }
    })?;
    Ok(Solution { choice: found.choice, error: found.error, bound: found.bound, budget: Some(total) })
}

/// Bytes of the tensors whose type is not chosen: as the base has them, or as they are stored where they are to be kept.
fn other_bytes(args: &PlanArgs, checkpoint: &Checkpoint, base: &Plan, open: &[Open]) -> Result<u64> {
    let kept = args.keep.iter().map(|text| pattern(text)).collect::<Result<Vec<_>>>()?;
    let chosen: BTreeSet<usize> = open.iter().map(|o| o.place).collect();
    let bytes = |t: &Planned| match kept.iter().any(|k| k.is_match(&checkpoint.tensors[t.source].name)) {
        true => checkpoint.tensors[t.source].n_bytes(),
        false => t.n_bytes(),
    };
    Ok(base.tensors.iter().enumerate().filter(|(i, _)| !chosen.contains(i)).map(|(_, t)| bytes(t)).sum())
}

/// Bytes of the file that are no tensors.
fn beside(args: &PlanArgs, checkpoint: &Checkpoint, base: &Plan, is_gguf: bool) -> Result<u64> {
    let importance = args.imatrix.as_deref().map(|path| ImportanceMatrix::open(path, args.io.into())).transpose()?;
    let beside = Beside { importance, activations: None };
    let mut request = request(&if is_gguf { Wanted::Mix(BASE, &beside) } else { Wanted::Scheme(Scheme::Int8) })?;
    request.target = if is_gguf { Target::Gguf } else { Target::Bqt };
    // What the index of a BQT file says of a tensor, and the zeros between its parts, depend on the scheme: room for the longest.
    let room = if is_gguf { 0 } else { 2048 * base.tensors.len() as u64 };
    if let (Some(mix), Some(path)) = (&mut request.mix, &args.imatrix) {
        mix.importance.iter_mut().for_each(|(_, text)| *text = path.to_string_lossy().into_owned());
    }
    Ok(convert::size(checkpoint, base, &request)?.saturating_sub(base.n_bytes()) + room)
}

#[allow(clippy::too_many_arguments, reason = "everything that a report tells of")]
fn described(
    args: &PlanArgs,
    checkpoint: &Checkpoint,
    base: &Plan,
    open: &[Open],
    costs: &Costs,
    fixed: &[(&str, Plan)],
    solved: Solution,
) -> Result<Report> {
    let total_weight: f64 = open.iter().map(|o| o.weight).sum();
    let mut tensors = Vec::new();
    for (o, &choice) in open.iter().zip(&solved.choice) {
        let (t, scheme) = (&base.tensors[o.place], o.schemes[choice]);
        let error = costs.of(t.source, scheme).unwrap_or(1.0);
        tensors.push(TensorRow {
            name: t.name.clone(),
            role: part_of(&t.name, t.role).name(),
            shape: t.shape.clone(),
            scheme: scheme.to_string(),
            bytes: bytes_of(t, scheme)?,
            error,
            share: o.weight * error * error / solved.error.max(f64::MIN_POSITIVE),
        });
    }
    let chosen: BTreeSet<usize> = open.iter().map(|o| o.place).collect();
    let others = other_bytes(args, checkpoint, base, open)?;
    let n = base.n_elements();
    let bytes = tensors.iter().map(|t| t.bytes).sum::<u64>() + others;
    let mixes = fixed.iter().filter_map(|(name, plan)| mix_row(name, plan, base, open, costs, total_weight, n)).collect();
    let mut notes = checkpoint.notes.clone();
    if args.imatrix.is_none() {
        notes.push("without --imatrix every column counts the same".into());
    }
    let gap = match solved.budget {
        Some(_) => solved.error / solved.bound.max(f64::MIN_POSITIVE) - 1.0,
        None => tensors.iter().map(|t| t.bytes).sum::<u64>() as f64 / solved.bound.max(1.0) - 1.0,
    };
    Ok(Report {
        model: args.model.display().to_string(),
        weights: n,
        budget: solved.budget,
        bytes,
        bits_per_weight: bytes as f64 * 8.0 / n.max(1) as f64,
        error: (solved.error / total_weight).sqrt(),
        gap: gap.max(0.0),
        sampled: costs.sampled.0,
        measured_of: costs.sampled.1,
        imatrix: args.imatrix.as_ref().map(|path| path.display().to_string()),
        mixes,
        tensors,
        kept: base.tensors.iter().enumerate().filter(|(i, _)| !chosen.contains(i)).map(|(_, t)| t.name.clone()).collect(),
        keep_patterns: args.keep.clone(),
        notes,
    })
}

/// A fixed mix, with the error that it is expected to have.
fn mix_row(name: &str, plan: &Plan, base: &Plan, open: &[Open], costs: &Costs, total_weight: f64, n: u64) -> Option<MixRow> {
    let by_source: BTreeMap<usize, &Planned> = plan.tensors.iter().map(|t| (t.source, t)).collect();
    let mut error = 0.0;
    for o in open {
        let source = base.tensors[o.place].source;
        let t = by_source.get(&source)?;
        let of = if t.copied { 0.0 } else { costs.of(source, t.scheme)? };
        error += o.weight * of * of;
    }
    let bytes = plan.n_bytes();
    Some(MixRow { mix: name.into(), bytes, bits_per_weight: bytes as f64 * 8.0 / n.max(1) as f64, error: (error / total_weight).sqrt() })
}

/// Every file that is read, which no output may replace.
fn inputs(args: &PlanArgs) -> Result<Vec<Identity>> {
    let mut inputs = quant_formats::open(&args.model, Opening { io: args.io.into(), ..Default::default() })?.identities()?;
    inputs.extend(args.imatrix.as_deref().map(Identity::of).transpose()?);
    Ok(inputs)
}

fn write(args: &PlanArgs, path: &std::path::Path, text: &str) -> Result<()> {
    let staged = Staged::file(path, text.len() as u64, args.force, &inputs(args)?)?;
    staged.write_at(0, 0, text.as_bytes())?;
    staged.commit()
}
