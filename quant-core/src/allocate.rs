//! Where should the bits go? Given what each tensor would cost under each scheme, the choice with the least error in a budget of bytes,
//! or with the fewest bytes under a limit of error. Pure numbers: what a scheme is does not matter here.
//!
//! ```text
//! minimise Σ error(t, c_t)  subject to  Σ bytes(t, c_t) ≤ budget,  one choice c_t for each tensor t
//! bound  =  max over λ ≥ 0 of  Σ min over c of (error(t, c) + λ·bytes(t, c))  −  λ·budget
//! ```
//!
//! This is the multiple-choice knapsack problem. Its linear relaxation, whose value is the bound of the Lagrangian dual, is solved by
//! a walk: every tensor begins with its smallest choice; then the edges of the lower convex hulls of (bytes, error) are taken in the
//! order of their slopes, most error saved by a byte first, until one does not fit. What is left is spent on later edges that fit, and
//! on exchanges: the best step of one tensor, or pair of steps of two (one gives bytes back), between choices that no other choice of
//! the tensor beats in both numbers, on the hull or not. With the roles of bytes and error exchanged, the same walk gives the fewest
//! bytes.
//!
//! The result need not be the best there is, but is never worse than the bound by more than the step at which the walk stopped. A larger
//! budget never raises the bound; the error reached may rise, by less than its distance from the bound.
//!
//! Ties go to the lower index. Totals are summed as a balanced tree, so they depend on the choice alone, not on the way to it: the error
//! of one allocation may be the limit of another.
//!
//! Source: Y. Shoham and A. Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE Trans. ASSP 36(9), 1988;
//! E. A. Riskin, "Optimal bit allocation via the generalized BFOS algorithm", IEEE Trans. Information Theory 37(2), 1991;
//! P. Sinha and A. A. Zoltners, "The multiple-choice knapsack problem", Operations Research 27(3), 1979.

mod walk;

#[cfg(test)]
mod tests;

use crate::{Error, Result};
use walk::{Point, Solved, solve};

/// What a tensor would cost under one scheme.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its size.
    pub bytes: u64,
    /// What it would lose; any finite number that may be summed over tensors.
    pub error: f64,
}

/// A choice for every tensor. `Bound` is of what was minimised: error in [`within_bytes`], bytes in [`within_error`].
#[derive(Clone, Debug, PartialEq)]
pub struct Allocation<Bound = f64> {
    /// For each tensor the index of its candidate.
    pub choice: Vec<usize>,
    /// The bytes of all.
    pub bytes: u64,
    /// The error of all.
    pub error: f64,
    /// What no choice can go below, but for rounding; never more than what was reached.
    pub bound: Bound,
}

/// The most bytes that the largest candidates may sum to: up to here f64 counts exactly.
const MOST_BYTES: u64 = 1 << 53;

/// The least total error with at most `budget` bytes, as near as the walk comes to it.
///
/// # Errors
/// If even the smallest candidates need more, a tensor has no candidate, or the numbers cannot be summed.
pub fn within_bytes(tensors: &[Vec<Candidate>], budget: u64) -> Result<Allocation> {
    check(tensors)?;
    let needed: u64 = tensors.iter().filter_map(|t| t.iter().map(|c| c.bytes).min()).sum();
    if needed > budget {
        return Err(Error::request(format!("the smallest choice needs {needed} bytes, the budget is {budget}")));
    }
    let points = points(tensors, |c| Point { cost: c.bytes as f64, value: c.error });
    let Solved { choice, cost, value, bound } = solve(&points, budget.min(MOST_BYTES) as f64);
    Ok(Allocation { choice, bytes: cost as u64, error: value, bound })
}

/// The fewest bytes with a total error of at most `limit`, as near as the walk comes to it. The bound is rounded down to whole bytes.
///
/// # Errors
/// If even the best candidates lose more, the limit is NaN, a tensor has no candidate, or the numbers cannot be summed.
pub fn within_error(tensors: &[Vec<Candidate>], limit: f64) -> Result<Allocation<u64>> {
    check(tensors)?;
    let points = points(tensors, |c| Point { cost: c.error, value: c.bytes as f64 });
    let least = walk::least(&points);
    if limit.is_nan() || least > limit {
        return Err(Error::request(format!("the best choice has an error of {least}, the limit is {limit}")));
    }
    let Solved { choice, cost, value, bound } = solve(&points, limit);
    Ok(Allocation { choice, bytes: value as u64, error: cost, bound: bound.max(0.0) as u64 })
}

/// Refuses what cannot be compared or summed.
fn check(tensors: &[Vec<Candidate>]) -> Result<()> {
    let (mut bytes, mut error) = (0u64, 0.0);
    for (i, candidates) in tensors.iter().enumerate() {
        let Some(largest) = candidates.iter().map(|c| c.bytes).max() else {
            return Err(Error::request(format!("tensor {i} has no candidate")));
        };
        if let Some((j, bad)) = candidates.iter().enumerate().find(|(_, c)| !c.error.is_finite()) {
            return Err(Error::request(format!("tensor {i}, candidate {j}: the error is {}, needed a finite number", bad.error)));
        }
        bytes = bytes.saturating_add(largest);
        error += candidates.iter().map(|c| c.error.abs()).fold(0.0, f64::max);
    }
    if bytes > MOST_BYTES {
        return Err(Error::request(format!("the largest candidates have {bytes} bytes, at most {MOST_BYTES} are counted")));
    }
    // Twice, because differences of two errors are taken.
    if f64::is_finite(2.0 * error) { Ok(()) } else { Err(Error::request("the errors are too large to be summed")) }
}

fn points(tensors: &[Vec<Candidate>], point: impl Fn(&Candidate) -> Point) -> Vec<Vec<Point>> {
    tensors.iter().map(|candidates| candidates.iter().map(&point).collect()).collect()
}
