//! The choice: candidates of each tensor, a budget, and what the file of the choice is.

use quant_core::allocate::{self, Candidate};
use quant_core::plan::{Plan, Planned};
use quant_core::{Error, Result, Scheme, ggml};

use super::costs::Costs;
use super::planner::{Open, Planner};
use crate::report::and_more;

/// Bytes of a tensor in the index of a BQT file that only the numbers tell: digits that double quantization writes.
const DIGITS: u64 = 32;
/// More than any bits a weight or percentage of error: a recipe that names it has at least as many bytes as the one that is written.
const LONGEST: f64 = 99_999.0;

/// What was found.
pub struct Solution {
    pub choice: Vec<usize>,
    /// The total error, and what no choice goes below (in bytes, if the error is the limit).
    pub error: f64,
    pub bound: f64,
    /// The most bytes of tensors, if that is the limit.
    pub budget: Option<u64>,
    /// What a conversion makes of the tensors.
    pub plan: Plan,
    /// Whether every tensor has the type that costs it least.
    pub is_best: bool,
}

impl Planner<'_> {
    /// The best choice for what was asked.
    ///
    /// # Errors
    /// If no choice is small or good enough, with what the best one is.
    pub fn solve(&self, open: &[Open], costs: &Costs) -> Result<Solution> {
        let candidates = open.iter().map(|o| self.candidates(o, costs)).collect::<Result<Vec<_>>>()?;
        match self.args.max_error {
            Some(limit) => self.within_error(open, &candidates, limit),
            None => self.within_target(open, &candidates),
        }
    }

    fn candidates(&self, o: &Open, costs: &Costs) -> Result<Vec<Candidate>> {
        let t = &self.base.tensors[o.place];
        let candidate = |scheme: &Scheme| {
            let error = self.error_of(costs, t, *scheme).unwrap_or(1.0);
            Ok(Candidate { bytes: bytes_of(t, *scheme)?, error: o.weight * error * error })
        };
        o.schemes.iter().map(candidate).collect()
    }

    /// The smallest choice within an error.
    fn within_error(&self, open: &[Open], candidates: &[Vec<Candidate>], limit: f64) -> Result<Solution> {
        let total_weight: f64 = open.iter().map(|o| o.weight).sum();
        let unreachable = |_| {
            let least: f64 = candidates.iter().map(|of| of.iter().map(|c| c.error).fold(f64::INFINITY, f64::min)).sum();
            let least = 100.0 * (least / total_weight).sqrt();
            let needed = (100.0 * limit * 1e9).round() / 1e9;
            let advice = "name larger types in --schemes, or allow more";
            Error::request(format!("--max-error: found {least:.4} % as the least error of these types, needed {needed} % or less; {advice}"))
        };
        let found = allocate::within_error(candidates, limit * limit * total_weight).map_err(unreachable)?;
        let (plan, _) = self.file(open, &found.choice)?;
        let is_best = is_best(candidates, &found.choice);
        Ok(Solution { choice: found.choice, error: found.error, bound: found.bound as f64, budget: None, plan, is_best })
    }

    /// The choice with the least error within the target.
    fn within_target(&self, open: &[Open], candidates: &[Vec<Candidate>]) -> Result<Solution> {
        let others = self.not_chosen(open).map(Planned::n_bytes).sum::<u64>();
        let smallest: Vec<usize> = candidates.iter().map(|of| smallest(of)).collect();
        let least = others + candidates.iter().zip(&smallest).map(|(of, &i)| of[i].bytes).sum::<u64>();
        // What a file has beside tensors depends on the choice: that of the smallest one is what the search begins with.
        let (mut total, needed) = match self.args.target_size {
            Some(most) => {
                let (_, size) = self.file(open, &smallest)?;
                ((most + least).saturating_sub(size), size)
            }
            None => ((self.args.target_bpw.unwrap_or_default() / 8.0 * self.base.n_elements() as f64) as u64, least),
        };
        if total < least {
            return Err(self.too_small(open, needed));
        }
        loop {
            let found = allocate::within_bytes(candidates, total - others)?;
            let (plan, size) = self.file(open, &found.choice)?;
            let over = self.args.target_size.map_or(0, |most| size.saturating_sub(most));
            if over == 0 {
                let is_best = is_best(candidates, &found.choice);
                return Ok(Solution { choice: found.choice, error: found.error, bound: found.bound, budget: Some(total), plan, is_best });
            }
            // It ends: with `least` the smallest choice is found again, whose file fits.
            total = total.saturating_sub(over).max(least);
        }
    }

    /// What a conversion makes of a choice, and the most bytes that its file has, with `--audit` or without.
    fn file(&self, open: &[Open], choice: &[usize]) -> Result<(Plan, u64)> {
        let rules = self.rules(open, choice);
        let (plan, size) = self.written(&rules, self.recipe(&rules, LONGEST, LONGEST), true)?;
        let is_nested = |t: &&Planned| !t.copied && matches!(t.scheme, Scheme::FourBit { nested: true, .. });
        let digits = DIGITS * plan.tensors.iter().filter(is_nested).count() as u64;
        Ok((plan, size + digits))
    }

    /// `needed` are the bytes of the smallest choice: of its file, if that is what the target is of, else of its tensors.
    fn too_small(&self, open: &[Open], needed: u64) -> Error {
        let kept: Vec<&Planned> = self.not_chosen(open).collect();
        let others = kept.iter().map(|t| t.n_bytes()).sum::<u64>();
        let unit = if self.args.target_size.is_some() { "bytes" } else { "bits a weight" };
        let shown = |bytes: u64| match self.args.target_size {
            Some(_) => bytes.to_string(),
            None => format!("{:.2}", bytes as f64 * 8.0 / self.base.n_elements().max(1) as f64),
        };
        let of_others = kept
            .iter()
            .max_by_key(|t| t.n_bytes())
            .map_or(String::new(), |t| format!(", {} of them for what is not chosen ({}{})", shown(others), t.name, and_more(kept.len() - 1)));
        let is_mixed = !self.is_gguf && self.schemes.iter().any(|s| ggml::id_of(*s).is_some() && s.is_quantized());
        let advice = if is_mixed {
            "with types of ggml alone the plan is for GGUF, which quantizes more"
        } else {
            "name smaller types in --schemes, or more room"
        };
        Error::request(format!("the target is too small: these types need at least {} {unit}{of_others}; {advice}", shown(needed)))
    }
}

fn bytes_of(t: &Planned, scheme: Scheme) -> Result<u64> {
    Ok(scheme.codec(&t.shape)?.parts().iter().map(quant_core::codec::Part::n_bytes).sum())
}

/// The candidate with the fewest bytes; of several the first of those with the least error.
fn smallest(of: &[Candidate]) -> usize {
    let by = |a: &usize, b: &usize| of[*a].bytes.cmp(&of[*b].bytes).then(of[*a].error.total_cmp(&of[*b].error));
    (0..of.len()).min_by(by).unwrap_or(0)
}

/// Whether every tensor has the candidate with the least error.
fn is_best(candidates: &[Vec<Candidate>], choice: &[usize]) -> bool {
    candidates.iter().zip(choice).all(|(of, &choice)| of.iter().all(|c| c.error >= of[choice].error))
}
