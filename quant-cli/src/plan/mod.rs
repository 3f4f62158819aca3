//! `quant plan`: where should the bits go.

pub mod args;
mod costs;
mod report;
mod shell;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use quant_core::allocate::{self, Candidate};
use quant_core::error::Printable;
use quant_core::mix::Ftype;
use quant_core::plan::{Plan, Planned};
use quant_core::recipe::{Recipe, pattern};
use quant_core::{Error, Result, Scheme, ggml};
use quant_formats::audit::{self, Beside, layer_of, part_of, sensitivities};
use quant_formats::convert::{self, Request, Target};
use quant_formats::foreign::Form;
use quant_formats::gguf::Mix;
use quant_formats::gguf::imatrix::ImportanceMatrix;
use quant_formats::input::Identity;
use quant_formats::model::{self, ToGguf};
use quant_formats::output::Staged;
use quant_formats::{Checkpoint, Opening};
use regex::Regex;

use crate::audit::tried::mix;
use crate::device;
use crate::progress::Progress;
use crate::recipe::unmatched;
use crate::report::{Outcome, and_more, json, note};
use args::PlanArgs;
use costs::Costs;
use report::{KeptRow, MixRow, Report, TensorRow};

/// The mix that a recipe for GGUF begins with; it gives types to what the recipe does not name.
const BASE: &str = "q4_k_m";
/// The mixes that a plan is compared with.
const FIXED: [&str; 13] = ["q2_k", "iq3_xs", "q3_k_s", "iq3_m", "q3_k_m", "q3_k_l", "iq4_xs", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k", "q8_0"];

/// What a plan is made of.
struct Planner<'a> {
    args: &'a PlanArgs,
    /// Whether the recipe is for GGUF.
    is_gguf: bool,
    /// What is not to be quantized.
    keep: Vec<Regex>,
    beside: Beside,
    checkpoint: Checkpoint,
    /// What every tensor becomes before anything is chosen.
    base: Plan,
}

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
    let weights = args.weight.iter().map(|text| factor(text)).collect::<Result<Vec<_>>>()?;
    if let Some(path) = &args.recipe {
        Staged::check(path, false, 0, args.force, &inputs(args)?)?;
    }
    let backend = args.device.open()?;
    let planner = Planner::new(args, &schemes)?;
    let open = planner.choices(&schemes, &weights)?;
    planner.refuse_other_matrix(&open)?;
    let fixed = planner.fixed_mixes();
    let progress = Progress::default();
    let wanted = wanted(&planner.base, &open, &fixed);
    let costs = pool(args)?.install(|| Costs::measure(&planner.checkpoint, &wanted, &planner.beside, args.full, backend, &progress))?;
    progress.finish();
    planner.checkpoint.check_unchanged()?;
    let mut report = planner.report(&open, &costs, &fixed)?;
    report.notes.extend(without_a_match(&planner.base, weights.iter().map(|(pattern, _)| pattern).chain(&planner.keep)));
    report.notes.extend(device::remarks(backend));
    if let Some(path) = &args.recipe {
        write(args, path, &report.recipe(planner.is_gguf.then_some(BASE)))?;
    }
    for text in &report.notes {
        note(text);
    }
    let next =
        args.recipe.as_ref().map(|path| format!("Wrote {}. Next: {}\n", Printable(&path.display().to_string()), planner.next(path, &open, &report)));
    Ok(Outcome::ok(if args.json { json(&report)? } else { report.text() + &next.unwrap_or_default() }))
}

/// The patterns that match no tensor: most likely they were meant to.
fn without_a_match<'a>(base: &Plan, patterns: impl Iterator<Item = &'a Regex>) -> Option<String> {
    let is_unmatched = |pattern: &&Regex| !base.tensors.iter().any(|t| pattern.is_match(&t.name));
    unmatched(&patterns.filter(is_unmatched).map(Regex::as_str).collect::<Vec<_>>())
}

/// The threads that measure.
fn pool(args: &PlanArgs) -> Result<rayon::ThreadPool> {
    let threads = args.threads.map_or(0, usize::from);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| Error::request(format!("cannot start threads: {e}")))
}

fn scheme(text: &str) -> Result<Scheme> {
    text.parse().map_err(|e: quant_core::scheme::BadScheme| Error::request(format!("--schemes: {e}")))
}

/// A pattern and how many times errors count. Extreme factors would leave no digits of the others.
fn factor(text: &str) -> Result<(Regex, f64)> {
    let bad = || Error::request(format!("--weight '{text}': needs REGEX=FACTOR, a factor from 1e-6 to 1e6"));
    let (name, factor) = text.rsplit_once('=').ok_or_else(bad)?;
    let factor: f64 = factor.parse().ok().filter(|v: &f64| (1e-6..=1e6).contains(v)).ok_or_else(bad)?;
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

/// What a conversion to a mix, or without one to a scheme, would be asked.
fn request(mix: Option<Mix>, scheme: Option<Scheme>, keep: &[Regex]) -> Request {
    let recipe = Recipe { default: scheme, keep: keep.to_vec(), ..Recipe::default() };
    Request { allow_requantize: true, mix, recipe, ..Request::new(Target::Bqt) }
}

impl Planner<'_> {
    fn new<'a>(args: &'a PlanArgs, schemes: &[Scheme]) -> Result<Planner<'a>> {
        let is_gguf = schemes.iter().all(|s| ggml::id_of(*s).is_some());
        let keep = args.keep.iter().map(|text| pattern(text)).collect::<Result<Vec<_>>>()?;
        let importance = args.imatrix.as_deref().map(|path| ImportanceMatrix::open(path, args.io.into())).transpose()?;
        let checkpoint = open(args, is_gguf)?;
        let mut planner = Planner { args, is_gguf, keep, beside: Beside { importance, activations: None }, checkpoint, base: Plan::default() };
        planner.base = match is_gguf {
            true => planner.mix(BASE)?,
            false => planner.planned(&request(None, Some(schemes[0]), &planner.keep))?,
        };
        Ok(planner)
    }

    fn planned(&self, request: &Request) -> Result<Plan> {
        convert::plan(&self.checkpoint, request).map_err(|e| e.of(&self.args.model))
    }

    /// What a conversion to a mix would be asked.
    fn mix_request(&self, name: &str) -> Result<Request> {
        let ftype: Ftype = name.parse().map_err(|_| Error::request(format!("there is no mix '{name}'")))?;
        let path = self.args.imatrix.as_ref().map(|path| path.to_string_lossy().into_owned());
        Ok(request(Some(mix(ftype, false, self.beside.importance.clone().zip(path))), None, &self.keep))
    }

    fn mix(&self, name: &str) -> Result<Plan> {
        self.planned(&self.mix_request(name)?)
    }

    /// The fixed mixes that this model can have.
    fn fixed_mixes(&self) -> Vec<(&'static str, Plan)> {
        let names = FIXED.iter().filter(|_| self.is_gguf);
        names.filter_map(|name| Some((*name, self.mix(name).ok()?))).collect()
    }

    /// The tensors whose type is to be chosen: those that the base quantizes.
    fn choices(&self, schemes: &[Scheme], weights: &[(Regex, f64)]) -> Result<Vec<Open>> {
        let importance = self.beside.importance.as_ref();
        let layers: BTreeSet<u64> = self.base.tensors.iter().filter_map(|t| layer_of(&t.name)).collect();
        let parts: Vec<_> = self.base.tensors.iter().map(|t| (part_of(&t.name, t.role), t.n_elements())).collect();
        let mut open = Vec::new();
        for ((place, t), mut weight) in self.base.tensors.iter().enumerate().zip(sensitivities(&parts, layers.len() as u64)) {
            if t.copied || t.n_elements() == 0 {
                continue;
            }
            let is_weighted = importance.is_some_and(|matrix| matrix.n_values(&t.name).is_some());
            let fits = |s: &&Scheme| s.codec(&t.shape).is_ok() && (is_weighted || !matches!(s, Scheme::Ggml(ty) if ty.needs_importance()));
            let fitting: Vec<Scheme> = schemes.iter().filter(fits).copied().collect();
            if fitting.is_empty() && !t.scheme.is_quantized() {
                continue;
            }
            if fitting.is_empty() {
                let text = schemes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                let problem = match schemes.iter().any(|s| s.codec(&t.shape).is_ok()) {
                    true if importance.is_some() => {
                        format!("{text} needs importance, and the matrix has no entry of it; add a type that needs none, such as q4_k")
                    }
                    true => format!("{text} needs an importance matrix (--imatrix)"),
                    false => format!("its shape {:?} fits none of {text}", t.shape),
                };
                return Err(Error::tensor(&self.args.model, &t.name, problem));
            }
            weight *= weights.iter().filter(|(pattern, _)| pattern.is_match(&t.name)).map(|(_, factor)| factor).product::<f64>();
            open.push(Open { place, weight, schemes: fitting });
        }
        if open.is_empty() {
            return Err(Error::file(
                &self.args.model,
                "has no tensor whose type could be chosen: all are kept, or have the types of q4_k_m already (plan the model in f16 or bf16)",
            ));
        }
        Ok(open)
    }

    /// Refuses an importance matrix that knows none of these tensors.
    fn refuse_other_matrix(&self, open: &[Open]) -> Result<()> {
        let (Some(matrix), Some(path)) = (&self.beside.importance, &self.args.imatrix) else { return Ok(()) };
        let first = &self.base.tensors[open[0].place].name;
        match open.iter().any(|o| matrix.n_values(&self.base.tensors[o.place].name).is_some()) {
            true => Ok(()),
            false => Err(Error::file(path, format!("has entries for none of these tensors, such as '{first}'; its names are those of GGUF"))),
        }
    }

    /// The command that follows the plan.
    fn next(&self, recipe: &Path, open: &[Open], report: &Report) -> String {
        // What convert refuses without being asked: a mix for what is quantized, anything for what ggml quantized.
        let is_again = |(o, row): (&Open, &TensorRow)| {
            let from = self.base.tensors[o.place].from;
            let is_quantized = if self.is_gguf { from.is_quantized() } else { matches!(from, Scheme::Ggml(_)) };
            is_quantized && from.to_string() != row.scheme
        };
        let ending = if self.is_gguf { "gguf" } else { "bqt" };
        let mut words = vec!["quant convert".to_owned(), shell::word(&self.args.model), format!("OUTPUT.{ending} --recipe"), shell::word(recipe)];
        words.extend(self.args.imatrix.iter().map(|path| format!("--imatrix {}", shell::word(path))));
        words.extend(open.iter().zip(&report.tensors).any(is_again).then(|| "--allow-requantize".to_owned()));
        words.join(" ")
    }
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
    /// The bytes of the GGUF file; none for BQT.
    file_bytes: Option<u64>,
}

fn bytes_of(t: &Planned, scheme: Scheme) -> Result<u64> {
    Ok(scheme.codec(&t.shape)?.parts().iter().map(quant_core::codec::Part::n_bytes).sum())
}

impl Planner<'_> {
    fn solve(&self, open: &[Open], costs: &Costs) -> Result<Solution> {
        let candidate = |o: &Open, scheme: &Scheme| {
            let t = &self.base.tensors[o.place];
            let error = costs.of(t.source, *scheme).unwrap_or(1.0);
            Ok(Candidate { bytes: bytes_of(t, *scheme)?, error: o.weight * error * error })
        };
        let candidates = open.iter().map(|o| o.schemes.iter().map(|s| candidate(o, s)).collect()).collect::<Result<Vec<Vec<Candidate>>>>()?;
        let total_weight: f64 = open.iter().map(|o| o.weight).sum();
        if let Some(limit) = self.args.max_error {
            let found = allocate::within_error(&candidates, limit * limit * total_weight);
            let found =
                found.map_err(|_| Error::request(format!("--max-error: no choice of these types has an error of {} % or less", 100.0 * limit)))?;
            let file_bytes = self.file_bytes(open, &found.choice)?;
            return Ok(Solution { choice: found.choice, error: found.error, bound: found.bound as f64, budget: None, file_bytes });
        }
        let others = self.not_chosen(open).map(Planned::n_bytes).sum::<u64>();
        let beside = self.args.target_size.map(|_| self.beside_tensors()).transpose()?;
        let total = match (self.args.target_size, self.args.target_bpw) {
            (Some(size), _) => size.saturating_sub(beside.unwrap_or_default()),
            (_, Some(bits)) => (bits / 8.0 * self.base.n_elements() as f64) as u64,
            _ => 0,
        };
        let too_small = || {
            let least: u64 = candidates.iter().filter_map(|c| c.iter().map(|c| c.bytes).min()).sum::<u64>() + others;
            let bits = least as f64 * 8.0 / self.base.n_elements().max(1) as f64;
            Error::request(match beside {
                Some(beside) => format!("the target is too small: with these types the file has at least {} bytes", least + beside),
                None => format!("the target is too small: these types, with what is not quantized, need {bits:.2} bits a weight at least"),
            })
        };
        let mut total = total;
        loop {
            let budget = total.saturating_sub(others);
            let found = allocate::within_bytes(&candidates, budget).map_err(|e| if let Error::Request(_) = e { too_small() } else { e })?;
            let file_bytes = self.file_bytes(open, &found.choice)?;
            // What lies between tensors depends on their sizes: if that is more than was thought, the tensors get less.
            let over = file_bytes.zip(self.args.target_size).map_or(0, |(found, size)| found.saturating_sub(size));
            if over == 0 {
                return Ok(Solution { choice: found.choice, error: found.error, bound: found.bound, budget: Some(total), file_bytes });
            }
            total = total.saturating_sub(over);
        }
    }

    /// The bytes of the GGUF file that a choice gives; none for BQT.
    fn file_bytes(&self, open: &[Open], choice: &[usize]) -> Result<Option<u64>> {
        if !self.is_gguf {
            return Ok(None);
        }
        let mut request = Request { target: Target::Gguf, ..self.mix_request(BASE)? };
        if let Some(mix) = &mut request.mix {
            let rule = |(name, scheme): (&str, Scheme)| Ok((pattern(&exactly(name))?, scheme));
            mix.options.rules = self.rules(open, choice).map(rule).collect::<Result<_>>()?;
        }
        Ok(Some(convert::size(&self.checkpoint, &self.planned(&request)?, &request)?))
    }

    /// What the recipe says of tensors: the choice; and of what has a type of ggml already that it keeps it, as the mix counts tensors
    /// that no rule names, and could give them another one.
    fn rules<'a>(&'a self, open: &'a [Open], choice: &'a [usize]) -> impl Iterator<Item = (&'a str, Scheme)> {
        let chosen = open.iter().zip(choice).map(|(o, &choice)| (self.base.tensors[o.place].name.as_str(), o.schemes[choice]));
        let is_kept = |t: &&Planned| self.is_gguf && matches!(t.scheme, Scheme::Ggml(_));
        chosen.chain(self.not_chosen(open).filter(is_kept).map(|t| (t.name.as_str(), t.scheme)))
    }

    /// The tensors whose type is not chosen.
    fn not_chosen<'a>(&'a self, open: &[Open]) -> impl Iterator<Item = &'a Planned> {
        let chosen: BTreeSet<usize> = open.iter().map(|o| o.place).collect();
        self.base.tensors.iter().enumerate().filter(move |(place, _)| !chosen.contains(place)).map(|(_, t)| t)
    }

    /// Bytes of the file that are no tensors, about: what lies between tensors depends on their types.
    fn beside_tensors(&self) -> Result<u64> {
        let request = match self.is_gguf {
            true => Request { target: Target::Gguf, ..self.mix_request(BASE)? },
            false => request(None, Some(Scheme::Int8), &self.keep),
        };
        // What the index of a BQT file says of a tensor, and the zeros between its parts, depend on the scheme: room for the longest.
        let room = if self.is_gguf { 0 } else { 2048 * self.base.tensors.len() as u64 };
        Ok(convert::size(&self.checkpoint, &self.base, &request)?.saturating_sub(self.base.n_bytes()) + room)
    }

    /// The best choice, and what there is to say of it.
    fn report(&self, open: &[Open], costs: &Costs, fixed: &[(&str, Plan)]) -> Result<Report> {
        let (args, base) = (self.args, &self.base);
        let solved = self.solve(open, costs)?;
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
        let kept: Vec<KeptRow> =
            self.not_chosen(open).map(|t| KeptRow { name: t.name.clone(), scheme: t.scheme.to_string(), bytes: t.n_bytes() }).collect();
        let n = base.n_elements();
        let bytes = tensors.iter().map(|t| t.bytes).chain(kept.iter().map(|t| t.bytes)).sum::<u64>();
        let mixes = fixed.iter().filter_map(|(name, plan)| mix_row(name, plan, base, open, costs, total_weight, n)).collect();
        let mut notes = self.checkpoint.notes.clone();
        notes.extend(self.without_importance(open));
        let gap = match solved.budget {
            Some(_) => solved.error / solved.bound.max(f64::MIN_POSITIVE) - 1.0,
            None => tensors.iter().map(|t| t.bytes).sum::<u64>() as f64 / solved.bound.max(1.0) - 1.0,
        };
        Ok(Report {
            model: args.model.display().to_string(),
            weights: n,
            budget: solved.budget,
            bytes,
            file_bytes: solved.file_bytes,
            bits_per_weight: bytes as f64 * 8.0 / n.max(1) as f64,
            error: (solved.error / total_weight).sqrt(),
            gap: gap.max(0.0),
            sampled: costs.sampled.0,
            measured_of: costs.sampled.1,
            imatrix: args.imatrix.as_ref().map(|path| path.display().to_string()),
            mixes,
            tensors,
            kept,
            keep_patterns: args.keep.clone(),
            rules: self.rules(open, &solved.choice).map(|(name, scheme)| (exactly(name), scheme.to_string())).collect(),
            notes,
        })
    }

    /// Says which tensors have no importance.
    fn without_importance(&self, open: &[Open]) -> Option<String> {
        let Some(matrix) = &self.beside.importance else { return Some("without --imatrix every column counts the same".into()) };
        let names = open.iter().map(|o| self.base.tensors[o.place].name.as_str());
        let mut lacking = names.filter(|name| matrix.n_values(name).is_none());
        let first = lacking.next()?;
        let more = and_more(lacking.count());
        Some(format!("{first}{more}: the importance matrix has no entry; every column counts the same there"))
    }
}

/// A pattern that matches this name only.
fn exactly(name: &str) -> String {
    format!("^{}$", regex::escape(name))
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

fn write(args: &PlanArgs, path: &Path, text: &str) -> Result<()> {
    let staged = Staged::file(path, text.len() as u64, args.force, &inputs(args)?)?;
    staged.write_at(0, 0, text.as_bytes())?;
    staged.commit()
}
