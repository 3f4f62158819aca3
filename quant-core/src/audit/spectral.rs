//! The spectral norm ‖E‖₂, the greatest singular value: the root of the greatest eigenvalue of EᵀE, by the Lanczos iteration.
//!
//! Power iteration, v ← EᵀE·v, keeps only the last vector; Lanczos finds the best estimate in the space of all vectors so far, for
//! the same passes over E. Errors of rounding have many singular values near the greatest, where the power iteration stands still
//! long before it is there. Vectors are kept orthogonal to all before. It begins with a fixed vector that has a share of everything,
//! and ends when three steps in a row add less than one part in 10⁹, or after 128 steps. The estimate is never above the norm.
//! Golub and Van Loan, "Matrix Computations", section 10.1.

use crate::Result;

/// The most steps, and vectors of as many numbers as columns that are kept.
const STEPS: usize = 128;
/// The relative gain of a step that is none.
const ENOUGH: f64 = 1e-9;
/// Steps without a gain that end the iteration.
const STILL: usize = 3;

/// What one pass over a matrix gives for a vector v: EᵀE·v.
#[derive(Clone, Debug)]
pub(super) struct Product(Vec<f64>);

impl Product {
    pub(super) fn new(columns: usize) -> Product {
        Product(vec![0.0; columns])
    }

    /// Adds a row of E.
    pub(super) fn add_row(&mut self, e: &[f64], v: &[f64]) {
        let along = dot(e, v);
        self.0.iter_mut().zip(e).for_each(|(back, e)| *back += along * e);
    }

    /// Adds what later rows give.
    pub(super) fn merge(&mut self, other: &Product) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a += b);
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Divides a vector by its length, which is returned.
fn normalize(v: &mut [f64]) -> f64 {
    let length = dot(v, v).sqrt();
    if length > 0.0 {
        v.iter_mut().for_each(|v| *v /= length);
    }
    length
}

/// The greatest singular value of a matrix of so many columns; `pass` multiplies a vector with EᵀE.
pub(super) fn norm(columns: usize, mut pass: impl FnMut(&[f64]) -> Result<Product>) -> Result<f64> {
    let mut v: Vec<f64> = (0..columns).map(|i| 1.0 + 0.5 * ((i as f64 + 1.0) * 2.399_963_229_728_653).sin()).collect();
    normalize(&mut v);
    let mut basis = vec![v];
    let (mut diagonal, mut beside): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    let (mut best, mut still) = (0.0, 0);
    while diagonal.len() < STEPS.min(columns) {
        let Some(v) = basis.last() else { break };
        let mut next = pass(v)?.0;
        diagonal.push(dot(&next, v));
        // Twice is enough: what the first time leaves is of the order of rounding.
        for _ in 0..2 {
            for before in &basis {
                let along = dot(&next, before);
                next.iter_mut().zip(before).for_each(|(next, v)| *next -= along * v);
            }
        }
        let found = greatest(&diagonal, &beside);
        still = if found - best <= ENOUGH * found { still + 1 } else { 0 };
        best = f64::max(best, found);
        let length = normalize(&mut next);
        if still == STILL || length <= f64::EPSILON * best {
            break;
        }
        beside.push(length);
        basis.push(next);
    }
    Ok(best.max(0.0).sqrt())
}

/// The greatest eigenvalue of a symmetric tridiagonal matrix, by halving: how many are above a number, the signs of its LDLᵀ tell.
fn greatest(diagonal: &[f64], beside: &[f64]) -> f64 {
    let at = |i: usize| beside.get(i).copied().unwrap_or(0.0).abs();
    let reach = |i: usize| diagonal[i] + if i > 0 { at(i - 1) } else { 0.0 } + if i + 1 < diagonal.len() { at(i) } else { 0.0 };
    let mut low = diagonal.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut high = (0..diagonal.len()).map(reach).fold(low, f64::max);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if middle <= low || middle >= high {
            break;
        }
        if is_above_all(diagonal, beside, middle) { high = middle } else { low = middle }
    }
    low
}

/// Whether a number is above every eigenvalue.
fn is_above_all(diagonal: &[f64], beside: &[f64], x: f64) -> bool {
    let mut pivot = f64::INFINITY;
    for (i, d) in diagonal.iter().enumerate() {
        let before = if i > 0 { beside[i - 1] } else { 0.0 };
        pivot = x - d - before * before / pivot;
        if pivot <= 0.0 {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn norm_of(rows: &[Vec<f64>]) -> f64 {
        let columns = rows[0].len();
        let pass = |v: &[f64]| {
            let mut product = Product::new(columns);
            rows.iter().for_each(|row| product.add_row(row, v));
            Ok(product)
        };
        norm(columns, pass).unwrap()
    }

    #[test]
    fn known_norms_are_found() {
        assert!((norm_of(&[vec![3.0, 0.0], vec![0.0, -5.0]]) - 5.0).abs() < 1e-9);
        // u·vᵀ has the norm ‖u‖·‖v‖.
        let rank_one: Vec<Vec<f64>> = [1.0, -2.0, 2.0].iter().map(|u| [2.0, 0.0, -1.0, 2.0].iter().map(|v| u * v).collect()).collect();
        assert!((norm_of(&rank_one) - 9.0).abs() < 1e-9);
        assert_eq!(norm_of(&[vec![0.0; 4]]), 0.0);
        // [[1, 2], [3, 4]]: the root of the greater root of x² − 30x + 4.
        let expected = (15.0 + 221f64.sqrt()).sqrt();
        assert!((norm_of(&[vec![1.0, 2.0], vec![3.0, 4.0]]) - expected).abs() < 1e-9);
    }

    /// A diagonal whose greatest values differ by 1 in 1000, where the power iteration would need thousands of steps.
    #[test]
    fn a_crowd_of_large_values_is_told_apart() {
        let n = 400;
        let rows: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| if i == j { 1.0 - (i as f64) * 1e-3 } else { 0.0 }).collect()).collect();
        assert!((norm_of(&rows) - 1.0).abs() < 1e-5);
    }
}
