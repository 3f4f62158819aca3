//! The errors of some rows of a tensor under a scheme: what a sample says about the whole.

use super::ErrorStats;
use super::measure::stats_on;
use crate::backend::Backend;
use crate::convert::{Scratch, Work, decode_on, encode_on};
use crate::plan::{Planned, View};
use crate::source::{Importance, Source, is_unrounded};
use crate::{Result, Scheme};

/// Rows of a tensor in memory, with the importance of their elements.
pub struct Rows {
    shape: [u64; 2],
    /// What is encoded.
    numbers: Vec<f32>,
    /// What it was before it was rounded, if it was.
    reference: Option<Vec<f32>>,
    importance: Option<Vec<f32>>,
}

impl Rows {
    /// The rows of a tensor, seen as a matrix of rows of its last dimension.
    pub fn n_of(shape: &[u64]) -> u64 {
        shape.iter().rev().skip(1).product()
    }

    /// Rows that stand for all `n`: of `most` elements together, evenly spread; at least 16 rows, or all.
    pub fn spread(n: u64, columns: u64, most: u64) -> Vec<u64> {
        let wanted = (most / columns.max(1)).max(16).min(n);
        (0..wanted).map(|i| ((2 * i + 1) as u128 * u128::from(n) / (2 * wanted as u128)) as u64).collect()
    }

    /// Reads rows of tensor `index`. `original` has the numbers before some are rounded to another type: errors are from those.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(
        source: &dyn Source,
        original: Option<&dyn Source>,
        index: usize,
        rows: &[u64],
        importance: Option<&dyn Importance>,
        backend: &dyn Backend,
    ) -> Result<Rows> {
        let tensor = &source.tensors()[index];
        let columns = tensor.shape.last().copied().unwrap_or(1).max(1);
        let numbers = decoded(source, index, rows, backend)?;
        let rounded_from = original.filter(|original| !is_unrounded(source, *original, index));
        let reference = rounded_from.map(|original| decoded(original, index, rows, backend)).transpose()?;
        let mut weights = importance.map(|_| vec![0.0; numbers.len()]);
        if let (Some(importance), Some(weights)) = (importance, &mut weights) {
            let per_expert = tensor.shape.iter().rev().nth(1).copied().unwrap_or(1).max(1);
            for (weights, &row) in weights.chunks_mut(columns as usize).zip(rows) {
                importance.read(row / per_expert * columns, weights)?;
            }
        }
        Ok(Rows { shape: [rows.len() as u64, columns], numbers, reference, importance: weights })
    }

    /// The errors that these rows would have under `scheme`, which looks at their importance if `is_weighted`. Schemes whose
    /// parameters belong to more than a row have others here than in the whole tensor.
    ///
    /// # Errors
    /// If the scheme does not fit rows of this length, or a number cannot be expressed.
    pub fn under(&self, scheme: Scheme, is_weighted: bool, backend: &dyn Backend) -> Result<ErrorStats> {
        let importance = self.importance.as_deref();
        let parts = encode_on(backend, scheme, &self.shape, &self.numbers, importance.filter(|_| is_weighted))?;
        let decoded = decode_on(backend, scheme, &self.shape, &parts)?;
        stats_on(backend, self.reference.as_ref().unwrap_or(&self.numbers), &decoded, importance, self.shape[1])
    }
}

/// The numbers of rows of a tensor.
fn decoded(source: &dyn Source, index: usize, rows: &[u64], backend: &dyn Backend) -> Result<Vec<f32>> {
    let tensor = &source.tensors()[index];
    let planned = Planned::seen(index, tensor, View::Whole);
    let work = Work::new(source, 0, &planned, backend)?;
    let columns = tensor.shape.last().copied().unwrap_or(1).max(1);
    let mut numbers = vec![0.0; rows.len() * columns as usize];
    let mut scratch = Scratch::default();
    for (numbers, &row) in numbers.chunks_mut(columns as usize).zip(rows) {
        work.decode_unaligned(source, row * columns, numbers, &mut scratch.parts)?;
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_spread_evenly() {
        assert_eq!(Rows::spread(4, 8, 8), [0, 1, 2, 3]);
        assert_eq!(Rows::spread(100, 1, 20).len(), 20);
        assert_eq!(Rows::spread(100, 1, 20)[..3], [2, 7, 12]);
        assert_eq!(Rows::spread(1 << 60, 1 << 20, 1).len(), 16);
        assert!(Rows::spread(0, 8, 8).is_empty());
        assert_eq!(Rows::n_of(&[3, 4, 5]), 12);
        assert_eq!(Rows::n_of(&[5]), 1);
    }
}
