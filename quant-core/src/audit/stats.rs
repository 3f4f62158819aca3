//! [`ErrorStats`]: what is kept of the differences between the weights of a tensor and those that stand for them.
//!
//! w is a weight of the reference, ŵ the candidate's, e = ŵ − w, all in f64. Everything is a sum, a maximum or a count, so
//! pieces are merged into tensors and tensors into layers and models; the size does not grow with what is measured.

use std::ops::Range;

use super::outer::Outer;
use super::{Moments, Sketch};
use crate::codec::Columns;

/// Elements of a block whose error is looked at by itself.
pub const BLOCK: usize = 256;
/// Standard deviations beyond which a weight is an outlier.
const FAR: f64 = 6.0;
/// Worst blocks that are kept.
const KEPT: usize = 4;

/// The errors of some weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorStats {
    /// The weights of the reference: how many, mean, variance, kurtosis, range.
    pub weights: Moments,
    /// Σw².
    pub sum_w2: f64,
    /// Σŵ².
    pub sum_q2: f64,
    /// Σw·ŵ.
    pub sum_wq: f64,
    /// Σe.
    pub sum_e: f64,
    /// Σe².
    pub sum_e2: f64,
    /// max|e|.
    pub max_abs: f64,
    /// The flat index of the first element with that error.
    pub max_at: u64,
    /// The magnitudes of the errors.
    pub sketch: Sketch,
    /// Weights of the reference that are 0.
    pub zeros: u64,
    /// Pairs that were left out because one of them is NaN or infinite.
    pub non_finite: u64,
    /// The flat index of the first of these.
    pub first_non_finite: Option<u64>,
    /// Σh·e² and Σh·w², h the importance of a weight's column.
    pub weighted: Option<[f64; 2]>,
    /// ‖XE‖² and ‖XW‖² for given activations X.
    pub activated: Option<[f64; 2]>,
    /// Σs²/12, s being the step between neighbouring values, and Σe² and the number of the same weights.
    pub predicted: Option<[f64; 3]>,
    /// The blocks of [`BLOCK`] elements with the greatest Σe², worst first.
    pub worst: Vec<WorstBlock>,
    /// Weights farther than 6 standard deviations from the mean of their tensor, once they are counted.
    pub outliers: u64,
    /// What tells outliers, while not all of the tensor was seen.
    pub outer: Vec<Outer>,
    /// Elements of which that did not tell.
    pub uncounted: Vec<Range<u64>>,
    /// Columns with a weight of magnitude 6 or more.
    pub outlier_columns: Columns,
    /// ‖E‖₂, where it was asked for; by the Lanczos iteration.
    pub spectral: Option<f64>,
}

/// A block and its error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorstBlock {
    /// The flat index of its first element.
    pub start: u64,
    /// Its elements: [`BLOCK`], or fewer at the end.
    pub n: u64,
    /// Σe² in it.
    pub sum_e2: f64,
}

/// The sums of a block, which are added in the order of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct BlockStats {
    pub(super) weights: Moments,
    pub(super) w2: f64,
    pub(super) q2: f64,
    pub(super) wq: f64,
    pub(super) e: f64,
    pub(super) e2: f64,
    pub(super) weighted: Option<[f64; 2]>,
    /// Σs²/12.
    pub(super) noise: Option<f64>,
}

/// The errors of a slab: sums by block, and what does not depend on an order.
#[derive(Clone, Debug, Default)]
pub(crate) struct SlabStats {
    pub(super) blocks: Vec<BlockStats>,
    pub(super) others: ErrorStats,
}

impl ErrorStats {
    /// Weights that were compared.
    pub fn n(&self) -> u64 {
        self.weights.n
    }

    /// Whether nothing differs.
    pub fn is_exact(&self) -> bool {
        self.max_abs == 0.0
    }

    /// √(Σe²/n); 0 of nothing.
    pub fn rmse(&self) -> f64 {
        if self.n() == 0 { 0.0 } else { (self.sum_e2 / self.n() as f64).sqrt() }
    }

    /// ‖E‖/‖W‖ = √(Σe²/Σw²). 0 where nothing differs; none where all weights are 0 and an error is not.
    pub fn relative(&self) -> Option<f64> {
        ratio(self.sum_e2, self.sum_w2)
    }

    /// The signal-to-quantization-noise ratio in dB, 10·log10(Σw²/Σe²). None where it is infinite (nothing differs) or not
    /// defined (all weights are 0).
    pub fn sqnr_db(&self) -> Option<f64> {
        (self.sum_e2 > 0.0 && self.sum_w2 > 0.0).then(|| 10.0 * (self.sum_w2 / self.sum_e2).log10())
    }

    /// The bias, Σe/n; 0 of nothing.
    pub fn mean_error(&self) -> f64 {
        if self.n() == 0 { 0.0 } else { self.sum_e / self.n() as f64 }
    }

    /// Σw·ŵ / √(Σw²·Σŵ²). 1 where both are all 0, 0 where only one is.
    pub fn cosine(&self) -> f64 {
        match (self.sum_w2 == 0.0, self.sum_q2 == 0.0) {
            (true, true) => 1.0,
            (false, false) if self.is_exact() => 1.0,
            (false, false) => (self.sum_wq / (self.sum_w2.sqrt() * self.sum_q2.sqrt())).clamp(-1.0, 1.0),
            _ => 0.0,
        }
    }

    /// √(Σs²/12/n) over the weights that have steps: the error of rounding that is spread evenly over them.
    pub fn predicted_rmse(&self) -> Option<f64> {
        self.predicted.filter(|[.., n]| *n > 0.0).map(|[noise, _, n]| (noise / n).sqrt())
    }

    /// Σe² / Σs²/12. None without steps, or where all are 0 and there is no error; infinite if there is one.
    pub fn noise_ratio(&self) -> Option<f64> {
        self.predicted.and_then(|[noise, e2, _]| share(e2, noise))
    }

    /// √(Σh·e² / Σh·w²): the expected relative error of X·W, if h is the mean square of X's columns and these are uncorrelated.
    /// None where both sums are 0, infinite where only that of the weights is.
    pub fn output_error(&self) -> Option<f64> {
        self.weighted.and_then(|[e, w]| share(e, w)).map(f64::sqrt)
    }

    /// ‖XE‖/‖XW‖; none where all outputs are 0 and stay so, infinite where they do not.
    pub fn activation_error(&self) -> Option<f64> {
        self.activated.and_then(|[e, w]| share(e, w)).map(f64::sqrt)
    }

    /// Adds the errors of the next blocks of the same tensor, one after the other: where slabs begin makes no difference.
    pub(super) fn add(&mut self, slab: &SlabStats) {
        slab.blocks.iter().for_each(|block| self.add_block(block));
        self.merge(&slab.others);
    }

    fn add_block(&mut self, block: &BlockStats) {
        self.weights.merge(&block.weights);
        self.sum_w2 += block.w2;
        self.sum_q2 += block.q2;
        self.sum_wq += block.wq;
        self.sum_e += block.e;
        self.sum_e2 += block.e2;
        self.weighted = sum(self.weighted, block.weighted);
        self.predicted = sum(self.predicted, block.noise.map(|noise| [noise, block.e2, block.weights.n as f64]));
    }

    /// Adds the errors of other weights: those of another tensor.
    pub fn merge(&mut self, other: &ErrorStats) {
        if other.max_abs > self.max_abs {
            (self.max_abs, self.max_at) = (other.max_abs, other.max_at);
        }
        self.weights.merge(&other.weights);
        self.sum_w2 += other.sum_w2;
        self.sum_q2 += other.sum_q2;
        self.sum_wq += other.sum_wq;
        self.sum_e += other.sum_e;
        self.sum_e2 += other.sum_e2;
        self.sketch.merge(&other.sketch);
        self.zeros += other.zeros;
        self.non_finite += other.non_finite;
        self.first_non_finite = self.first_non_finite.or(other.first_non_finite);
        self.weighted = sum(self.weighted, other.weighted);
        self.activated = sum(self.activated, other.activated);
        self.predicted = sum(self.predicted, other.predicted);
        self.outliers += other.outliers;
        other.outer.iter().for_each(|slab| slab.clone().add(&mut self.outer));
        self.uncounted.extend_from_slice(&other.uncounted);
        self.outlier_columns.merge(&other.outlier_columns);
        other.worst.iter().for_each(|block| self.consider(*block));
    }

    /// Whether a weight is an outlier, all of its tensor being known.
    pub(super) fn is_outlier(&self) -> impl Fn(f32) -> bool + use<> {
        let (mean, limit) = (self.weights.mean, FAR * self.weights.std());
        move |w| (f64::from(w) - mean).abs() > limit
    }

    /// Counts outliers, all of the tensor being known, and says where that needs another look.
    pub(super) fn count_outliers(&mut self) {
        let is_outlier = self.is_outlier();
        for slab in std::mem::take(&mut self.outer) {
            match (slab.count(&is_outlier), self.uncounted.last_mut()) {
                (Some(n), _) => self.outliers += n,
                (None, Some(last)) if last.end == slab.range.start => last.end = slab.range.end,
                (None, _) => self.uncounted.push(slab.range),
            }
        }
    }

    /// Keeps a block if it is one of the worst so far; of equals the first.
    pub(super) fn consider(&mut self, block: WorstBlock) {
        let place = self.worst.partition_point(|kept| kept.sum_e2 >= block.sum_e2);
        if block.sum_e2 > 0.0 && place < KEPT {
            self.worst.insert(place, block);
            self.worst.truncate(KEPT);
        }
    }
}

fn sum<const N: usize>(a: Option<[f64; N]>, b: Option<[f64; N]>) -> Option<[f64; N]> {
    match (a, b) {
        (Some(a), Some(b)) => Some(std::array::from_fn(|i| a[i] + b[i])),
        (a, b) => a.or(b),
    }
}

/// a/b; none of two zeros.
fn share(a: f64, b: f64) -> Option<f64> {
    (a > 0.0 || b > 0.0).then(|| a / b)
}

/// √(error/weights): 0 without error, none without weights.
fn ratio(error: f64, weights: f64) -> Option<f64> {
    if error == 0.0 { Some(0.0) } else { (weights > 0.0).then(|| (error / weights).sqrt()) }
}
