//! `quant plan`: where should the bits go.

pub mod args;
mod costs;
mod planner;
mod recipe;
mod report;
mod shell;
mod solve;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use quant_core::error::Printable;
use quant_core::plan::{Plan, Planned};
use quant_core::{Error, Result};
use quant_formats::Opening;
use quant_formats::audit::part_of;
use quant_formats::input::Identity;
use quant_formats::output::Staged;

use crate::device;
use crate::progress::Progress;
use crate::recipe::unmatched;
use crate::report::{Outcome, json, note};
use args::PlanArgs;
use costs::Costs;
use planner::{Open, Planner};
use recipe::refuse_model_name;
use report::{KeptRow, MixRow, Report, TensorRow};
use solve::Solution;

/// Runs the command.
pub fn run(args: &PlanArgs) -> Result<Outcome> {
    if let Some(path) = &args.recipe {
        refuse_model_name(path)?;
        Staged::check(path, false, 0, args.force, &inputs(args)?)?;
    }
    let backend = args.device.open()?;
    let planner = Planner::new(args)?;
    let open = planner.choices()?;
    planner.refuse_other_matrix(&open)?;
    let fixed = planner.fixed_mixes();
    let progress = Progress::default();
    let wanted = wanted(&planner.base, &open, &fixed);
    let weighed = planner.is_gguf;
    let costs = pool(args)?.install(|| Costs::measure(&planner.checkpoint, &wanted, &planner.beside, weighed, args.full, backend, &progress))?;
    progress.finish();
    planner.checkpoint.check_unchanged()?;
    let mut report = planner.report(&open, &costs, &fixed).inspect_err(|_| planner.left_out(&open).iter().for_each(|text| note(text)))?;
    report.notes.extend(device::remarks(backend));
    if let Some(path) = &args.recipe {
        write(args, path, &report.recipe)?;
    }
    for text in &report.notes {
        note(text);
    }
    let next = args
        .recipe
        .as_ref()
        .map(|path| format!("Wrote {}\nNext: {}\n", Printable(&path.display().to_string()), planner.next(path, report.requantizes)));
    Ok(Outcome::ok(if args.json { json(&report)? } else { report.text() + &next.unwrap_or_default() }))
}

/// The threads that measure.
fn pool(args: &PlanArgs) -> Result<rayon::ThreadPool> {
    let threads = args.threads.map_or(0, usize::from);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|e| Error::request(format!("cannot start threads: {e}")))
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

impl Planner<'_> {
    /// The best choice, and what there is to say of it.
    fn report(&self, open: &[Open], costs: &Costs, fixed: &[(&str, Plan)]) -> Result<Report> {
        let (args, base) = (self.args, &self.base);
        let solved = self.solve(open, costs)?;
        let total_weight: f64 = open.iter().map(|o| o.weight).sum();
        let row = |(o, &choice): (&Open, &usize)| {
            let (t, scheme) = (&base.tensors[o.place], o.schemes[choice]);
            let error = self.error_of(costs, t, scheme).unwrap_or(1.0);
            TensorRow {
                name: t.name.clone(),
                role: part_of(&t.name, t.role).name(),
                shape: t.shape.clone(),
                scheme: scheme.to_string(),
                bytes: solved.plan.tensors[o.place].n_bytes(),
                error,
                share: o.weight * error * error / solved.error.max(f64::MIN_POSITIVE),
            }
        };
        let tensors: Vec<TensorRow> = open.iter().zip(&solved.choice).map(row).collect();
        let kept: Vec<KeptRow> =
            self.not_chosen(open).map(|t| KeptRow { name: t.name.clone(), scheme: t.scheme.to_string(), bytes: t.n_bytes() }).collect();
        let n = base.n_elements();
        let bytes = solved.plan.n_bytes();
        let (bits_per_weight, error) = (bytes as f64 * 8.0 / n.max(1) as f64, (solved.error / total_weight).sqrt());
        let rules = self.rules(open, &solved.choice);
        let recipe = self.recipe(&rules, bits_per_weight, 100.0 * error);
        let (_, file_bytes) = self.written(&rules, recipe.clone(), false)?;
        let gap = match solved.budget {
            Some(_) => solved.error / solved.bound.max(f64::MIN_POSITIVE) - 1.0,
            None => tensors.iter().map(|t| t.bytes).sum::<u64>() as f64 / solved.bound.max(1.0) - 1.0,
        };
        Ok(Report {
            model: args.model.display().to_string(),
            weights: n,
            budget: solved.budget,
            bytes,
            file_bytes,
            bits_per_weight,
            error,
            gap: gap.max(0.0),
            sampled: costs.sampled.0,
            measured_of: costs.sampled.1,
            imatrix: args.imatrix.as_ref().map(|path| path.display().to_string()),
            mixes: fixed.iter().filter_map(|(name, plan)| self.mix_row(name, plan, open, costs, total_weight)).collect(),
            tensors,
            kept,
            notes: self.notes(open, &solved, bytes, file_bytes),
            recipe,
            requantizes: self.requantizes(open, &solved.choice),
        })
    }

    /// What a user should know.
    fn notes(&self, open: &[Open], solved: &Solution, bytes: u64, file_bytes: u64) -> Vec<String> {
        let mut notes = self.checkpoint.notes.clone();
        notes.extend(self.without_importance(open));
        notes.extend(self.left_out(open));
        let left = match (self.args.target_size, solved.budget) {
            (Some(most), _) => most.saturating_sub(file_bytes),
            (None, Some(budget)) => budget.saturating_sub(bytes),
            _ => 0,
        };
        if solved.is_best && left > 0 {
            let left = crate::size::bytes(left);
            notes.push(format!("every tensor has the type with the least error, and {left} of the target are left; --schemes can name larger types"));
        }
        notes.extend(unmatched(&self.unmatched(), &self.checkpoint));
        notes
    }

    /// A fixed mix, with the error that it is expected to have.
    fn mix_row(&self, name: &str, plan: &Plan, open: &[Open], costs: &Costs, total_weight: f64) -> Option<MixRow> {
        let by_source: BTreeMap<usize, &Planned> = plan.tensors.iter().map(|t| (t.source, t)).collect();
        let mut error = 0.0;
        for o in open {
            let t = by_source.get(&self.base.tensors[o.place].source)?;
            let of = if t.copied { 0.0 } else { self.error_of(costs, t, t.scheme)? };
            error += o.weight * of * of;
        }
        let (bytes, n) = (plan.n_bytes(), self.base.n_elements());
        Some(MixRow { mix: name.into(), bytes, bits_per_weight: bytes as f64 * 8.0 / n.max(1) as f64, error: (error / total_weight).sqrt() })
    }
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
