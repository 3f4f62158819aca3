//! The spectral norm ‖E‖₂, the greatest singular value, by power iteration on EᵀE.
//!
//! v ← EᵀE·v / ‖EᵀE·v‖, ‖E·v‖ → ‖E‖₂ from below. It begins with a fixed vector that has a share of everything, and ends when a
//! step adds less than one part in 10⁶, or after 200 steps. What is missing then is of the order of that part times the number
//! of steps: errors of rounding have many singular values near the greatest, and the estimate is close long before the vector
//! is. Golub and Van Loan, "Matrix Computations", section 7.3.1.

use crate::Result;

/// The most steps.
const STEPS: usize = 200;
/// The relative gain of a step that ends the iteration.
const ENOUGH: f64 = 1e-6;

/// What one pass over a matrix gives for a vector v.
#[derive(Clone, Debug, Default)]
pub(super) struct Product {
    /// ‖E·v‖².
    pub(super) norm2: f64,
    /// EᵀE·v.
    pub(super) back: Vec<f64>,
}

impl Product {
    pub(super) fn new(columns: usize) -> Product {
        Product { norm2: 0.0, back: vec![0.0; columns] }
    }

    /// Adds a row of E.
    pub(super) fn add_row(&mut self, e: &[f64], v: &[f64]) {
        let along = e.iter().zip(v).map(|(e, v)| e * v).sum::<f64>();
        self.norm2 += along * along;
        self.back.iter_mut().zip(e).for_each(|(back, e)| *back += along * e);
    }

    /// Adds what later rows give.
    pub(super) fn merge(&mut self, other: &Product) {
        self.norm2 += other.norm2;
        self.back.iter_mut().zip(&other.back).for_each(|(a, b)| *a += b);
    }
}

/// The greatest singular value of a matrix of so many columns; `pass` multiplies a vector with it.
pub(super) fn norm(columns: usize, mut pass: impl FnMut(&[f64]) -> Result<Product>) -> Result<f64> {
    let mut v: Vec<f64> = (0..columns).map(|i| 1.0 + 0.5 * ((i as f64 + 1.0) * 2.399_963_229_728_653).sin()).collect();
    let mut best = 0.0;
    for _ in 0..STEPS {
        let length = v.iter().map(|v| v * v).sum::<f64>().sqrt();
        if length == 0.0 {
            break;
        }
        v.iter_mut().for_each(|v| *v /= length);
        let product = pass(&v)?;
        let found = product.norm2.sqrt();
        let gain = found - best;
        best = f64::max(best, found);
        if gain <= ENOUGH * best {
            break;
        }
        v = product.back;
    }
    Ok(best)
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
        assert!((norm_of(&[vec![3.0, 0.0], vec![0.0, -5.0]]) - 5.0).abs() < 1e-5);
        // u·vᵀ has the norm ‖u‖·‖v‖.
        let rank_one: Vec<Vec<f64>> = [1.0, -2.0, 2.0].iter().map(|u| [2.0, 0.0, -1.0, 2.0].iter().map(|v| u * v).collect()).collect();
        assert!((norm_of(&rank_one) - 9.0).abs() < 1e-9);
        assert_eq!(norm_of(&[vec![0.0; 4]]), 0.0);
    }

    #[test]
    fn a_rotation_between_two_values_is_found() {
        // [[1, 2], [3, 4]]: the root of the greater root of x² − 30x + 4.
        let expected = (15.0 + 221f64.sqrt()).sqrt();
        assert!((norm_of(&[vec![1.0, 2.0], vec![3.0, 4.0]]) - expected).abs() < 1e-9);
    }
}
