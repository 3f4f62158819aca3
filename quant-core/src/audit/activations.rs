//! [`Activations`]: inputs of a layer, to see what an error does to its outputs.

use crate::{Error, Result};

/// Inputs X of a layer, \[samples, columns\], row-major.
#[derive(Clone, Debug)]
pub struct Activations {
    columns: usize,
    values: Vec<f32>,
}

impl Activations {
    /// The most numbers of one layer's inputs: they are in memory while the layer is measured.
    pub const MOST: u64 = 1 << 23;

    /// Inputs of so many columns.
    ///
    /// # Errors
    /// If the values are not whole samples, or one is not finite.
    pub fn new(columns: usize, values: Vec<f32>) -> Result<Activations> {
        if columns == 0 || !values.len().is_multiple_of(columns) {
            return Err(Error::request(format!("found {} activations, needed a multiple of the {columns} columns", values.len())));
        }
        match values.iter().position(|v| !v.is_finite()) {
            Some(i) => Err(Error::request(format!("activation {i} is {}, needed finite numbers", values[i]))),
            None => Ok(Activations { columns, values }),
        }
    }

    /// The columns of a sample.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// ‖XEᵀ‖² and ‖XWᵀ‖² for whole rows of W and E = Ŵ − W: what these outputs of the layer are, squared and added over samples.
    pub(super) fn outputs(&self, w: &[f32], q: &[f32]) -> [f64; 2] {
        let mut sums = [0.0; 2];
        for (w, q) in w.chunks_exact(self.columns).zip(q.chunks_exact(self.columns)) {
            for x in self.values.chunks_exact(self.columns) {
                let [error, output] = along(x, w, q);
                sums[0] += error * error;
                sums[1] += output * output;
            }
        }
        sums
    }
}

/// x·(ŵ − w) and x·w, in four lanes.
fn along(x: &[f32], w: &[f32], q: &[f32]) -> [f64; 2] {
    crate::simd::widest!((x: &[f32] = x, w: &[f32] = w, q: &[f32] = q) -> [f64; 2] {
        let (mut errors, mut outputs) = ([0f64; 4], [0f64; 4]);
        for ((x, w), q) in x.chunks(4).zip(w.chunks(4)).zip(q.chunks(4)) {
            for (i, ((&x, &w), &q)) in x.iter().zip(w).zip(q).enumerate() {
                let (x, w) = (f64::from(x), f64::from(w));
                errors[i] += x * (f64::from(q) - w);
                outputs[i] += x * w;
            }
        }
        [errors, outputs].map(|lanes| lanes.into_iter().fold(0.0, |sum, lane| sum + lane))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_products() {
        let x = Activations::new(2, vec![1.0, 2.0, -1.0, 0.5]).unwrap();
        // E = [[0.5, 0], [0, 1]], W = [[1, 2], [3, 4]].
        let sums = x.outputs(&[1.0, 2.0, 3.0, 4.0], &[1.5, 2.0, 3.0, 5.0]);
        assert_eq!(sums, [0.25 + 0.25 + 4.0 + 0.25, 25.0 + 0.0 + 121.0 + 1.0]);
        // Seven columns: more than the four lanes. E = [1, 2, …, 7]·2⁻³, W = [7, …, 1], X = [1, −2, 3, −4, 5, −6, 7].
        let x = Activations::new(7, (1..8).map(|i| if i % 2 == 0 { -i as f32 } else { i as f32 }).collect()).unwrap();
        let w: Vec<f32> = (1..8).rev().map(|i| i as f32).collect();
        let q: Vec<f32> = w.iter().zip(1..8).map(|(w, i)| w + i as f32 / 8.0).collect();
        // xE = (1 − 4 + 9 − 16 + 25 − 36 + 49)/8 = 28/8; xW = 7 − 12 + 15 − 16 + 15 − 12 + 7 = 4.
        assert_eq!(x.outputs(&w, &q), [(28.0f64 / 8.0).powi(2), 16.0]);
        assert!(Activations::new(2, vec![1.0; 3]).is_err());
        assert!(Activations::new(1, vec![f32::NAN]).is_err());
    }
}
