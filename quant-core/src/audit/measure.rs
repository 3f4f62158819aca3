//! The errors of one piece of a tensor.
//!
//! Sums run in four lanes, element i in lane i mod 4, over blocks of 256; lanes are added from left to right, blocks in their
//! order, so figures do not depend on where pieces begin, as long as that is at whole blocks.

use super::Moments;
use super::sketch::Counting;
use super::stats::{BLOCK, BlockStats, ErrorStats, SlabStats, WorstBlock};
use super::{BlockSums, DeviceSums};
use crate::backend::Backend;
use crate::simd::{Doubles, OverDoubles, widest, with_doubles};
use crate::{Error, Result};

const LANES: usize = 4;
/// Weights of this magnitude make their column one of LLM.int8()'s outlier columns.
const OUTLIER: f32 = 6.0;

/// Weights of a tensor and what stands for them.
pub(super) struct Piece<'a> {
    /// The flat index of the first.
    pub(super) at: u64,
    /// The columns of the tensor.
    pub(super) columns: u64,
    /// The reference's.
    pub(super) w: &'a [f32],
    /// The candidate's.
    pub(super) q: &'a [f32],
    /// The importance of each, if it is known.
    pub(super) importance: Option<&'a [f32]>,
    /// Σs²/12 over each block, if the candidate has steps.
    pub(super) noise: Option<&'a [f64]>,
}

/// Measures a piece.
pub(super) fn measure(piece: &Piece<'_>, counting: &mut Counting) -> SlabStats {
    let mut stats = with_doubles(Measuring { piece, counting });
    stats.others.sketch = counting.take();
    mark_outliers(&mut stats, piece);
    stats
}

/// Measures a piece on a device, if that can.
pub(super) fn measure_on(backend: &dyn Backend, piece: &Piece<'_>, counting: &mut Counting) -> Result<SlabStats> {
    let sums = backend.measure(piece.w, piece.q, piece.importance).map_err(Error::request)?;
    Ok(match sums {
        Some(sums) => from_sums(piece, &sums, counting),
        None => measure(piece, counting),
    })
}

/// The errors of weights that are in memory, of a tensor with `columns` columns, measured by a backend.
///
/// # Errors
/// If the device fails.
pub fn stats_on(backend: &dyn Backend, w: &[f32], q: &[f32], importance: Option<&[f32]>, columns: u64) -> Result<ErrorStats> {
    let piece = Piece { at: 0, columns, w, q, importance, noise: None };
    let mut stats = ErrorStats::default();
    stats.add(&measure_on(backend, &piece, &mut Counting::new())?);
    Ok(stats)
}

/// What [`measure`] makes of a piece, from sums that a device has made.
fn from_sums(piece: &Piece<'_>, sums: &DeviceSums, counting: &mut Counting) -> SlabStats {
    let mut stats = SlabStats { blocks: Vec::with_capacity(sums.blocks.len()), others: ErrorStats::default() };
    let others = &mut stats.others;
    for (i, (sums, w)) in sums.blocks.iter().zip(piece.w.chunks(BLOCK)).enumerate() {
        let &BlockSums { mean, m: [m2, m3, m4], w2, q2, wq, e, e2, greatest, weighted, min, max, zeros, first } = sums;
        let (start, n) = (piece.at + (i * BLOCK) as u64, w.len() as u64);
        let weighted = piece.importance.map(|_| weighted);
        let noise = piece.noise.map(|noise| noise[i]);
        stats.blocks.push(BlockStats { weights: Moments { n, mean, m2, m3, m4, min, max }, w2, q2, wq, e, e2, weighted, noise });
        others.zeros += u64::from(zeros);
        if greatest > others.max_abs {
            (others.max_abs, others.max_at) = (greatest, start + u64::from(first));
        }
        if greatest > 0.0 {
            others.consider(WorstBlock { start, n, sum_e2: e2 });
        }
    }
    counting.add_counts(&sums.counts);
    others.sketch = counting.take();
    mark_outliers(&mut stats, piece);
    stats
}

/// Marks the columns of large weights.
fn mark_outliers(stats: &mut SlabStats, piece: &Piece<'_>) {
    if stats.blocks.iter().any(|block| block.weights.max >= OUTLIER || block.weights.min <= -OUTLIER) {
        let is_outlier = |(_, w): &(usize, &f32)| w.abs() >= OUTLIER && w.is_finite();
        let outliers = piece.w.iter().enumerate().filter(is_outlier);
        outliers.for_each(|(i, _)| stats.others.outlier_columns.insert((piece.at + i as u64) % piece.columns));
    }
}

/// A piece to be measured.
struct Measuring<'a, 'p> {
    piece: &'a Piece<'p>,
    counting: &'a mut Counting,
}

impl OverDoubles for Measuring<'_, '_> {
    type Done = SlabStats;

    #[inline(always)]
    fn run<V: Doubles>(self) -> SlabStats {
        let Measuring { piece, counting } = self;
        let mut stats = SlabStats { blocks: Vec::with_capacity(piece.w.len().div_ceil(BLOCK)), others: ErrorStats::default() };
        for (i, (w, q)) in piece.w.chunks(BLOCK).zip(piece.q.chunks(BLOCK)).enumerate() {
            let block = Block { at: piece.at + (i * BLOCK) as u64, w, q, h: piece.importance.map(|h| &h[i * BLOCK..][..w.len()]) };
            let sums = sums::<V>(w, q);
            // A sum of squares of f32 in f64 overflows for no finite number.
            if (sums.w2 + sums.q2).is_finite() {
                block.add(&sums, piece.noise.map(|noise| noise[i]), |i| i, &mut stats, counting);
            } else {
                block.add_finite_part::<V>(&mut stats, counting);
            }
        }
        stats
    }
}

/// At most [`BLOCK`] pairs, with their importance.
struct Block<'a> {
    at: u64,
    w: &'a [f32],
    q: &'a [f32],
    h: Option<&'a [f32]>,
}

impl Block<'_> {
    /// Adds a block with the given sums. Pair `i` of it is at `place(i)` of the block that it was.
    #[inline(always)]
    fn add(&self, sums: &Sums, noise: Option<f64>, place: impl Fn(usize) -> usize, stats: &mut SlabStats, counting: &mut Counting) {
        let Block { at, w, q, h } = *self;
        let &Sums { mean, m: [m2, m3, m4], w2, q2, wq, e, e2, greatest } = sums;
        let (min, max) = range(w);
        let weights = Moments { n: w.len() as u64, mean, m2, m3, m4, min, max };
        stats.blocks.push(BlockStats { weights, w2, q2, wq, e, e2, weighted: h.map(|h| weighted(w, q, h)), noise });
        let others = &mut stats.others;
        others.zeros += u64::from(w.iter().fold(0u32, |n, &w| n + u32::from(w == 0.0)));
        if greatest == 0.0 {
            return counting.add_zeros(w.len() as u32);
        }
        if greatest > others.max_abs {
            let first = w.iter().zip(q).position(|(&w, &q)| (f64::from(q) - f64::from(w)).abs() == greatest);
            (others.max_abs, others.max_at) = (greatest, at + place(first.unwrap_or_default()) as u64);
        }
        counting.add(w, q);
        others.consider(WorstBlock { start: at, n: w.len() as u64, sum_e2: e2 });
    }

    /// Adds the pairs of which both are finite, and counts the others. They have no steps.
    #[cold]
    fn add_finite_part<V: Doubles>(&self, stats: &mut SlabStats, counting: &mut Counting) {
        let is_finite = |&i: &usize| self.w[i].is_finite() && self.q[i].is_finite();
        let (kept, others): (Vec<usize>, Vec<usize>) = (0..self.w.len()).partition(is_finite);
        let of = |x: &[f32]| kept.iter().map(|&i| x[i]).collect::<Vec<f32>>();
        let (w, q, h) = (of(self.w), of(self.q), self.h.map(of));
        let finite = Block { at: self.at, w: &w, q: &q, h: h.as_deref() };
        finite.add(&sums::<V>(&w, &q), None, |i| kept[i], stats, counting);
        stats.others.non_finite += others.len() as u64;
        let first = others.first().map(|&i| self.at + i as u64);
        stats.others.first_non_finite = stats.others.first_non_finite.or(first);
    }
}

/// Sums over a block.
struct Sums {
    mean: f64,
    m: [f64; 3],
    w2: f64,
    q2: f64,
    wq: f64,
    e: f64,
    e2: f64,
    greatest: f64,
}

#[inline(always)]
fn sums<V: Doubles>(w: &[f32], q: &[f32]) -> Sums {
    let mut lanes = [V::splat(0.0); 7];
    let ((whole_w, rest_w), (whole_q, rest_q)) = (w.as_chunks::<LANES>(), q.as_chunks::<LANES>());
    for (w, q) in whole_w.iter().zip(whole_q) {
        lanes = add(lanes, V::widen(w), V::widen(q));
    }
    if !rest_w.is_empty() {
        // Zeros change none of these sums.
        lanes = add(lanes, V::widen(&padded(rest_w)), V::widen(&padded(rest_q)));
    }
    let [sum, w2, q2, wq, e, e2, greatest] = lanes;
    let mean = if w.is_empty() { 0.0 } else { total(sum) / w.len() as f64 };
    let ([m2, m3, m4], around) = (moments::<V>(whole_w, mean), rest_w.iter().map(|&w| f64::from(w) - mean));
    let m = around.fold([m2, m3, m4], |[m2, m3, m4], d| [m2 + d * d, m3 + d * d * d, m4 + d * d * (d * d)]);
    Sums {
        mean,
        m,
        w2: total(w2),
        q2: total(q2),
        wq: total(wq),
        e: total(e),
        e2: total(e2),
        greatest: greatest.to_array().into_iter().fold(0.0, f64::max),
    }
}

/// Adds Σw, Σw², Σŵ², Σw·ŵ, Σe, Σe² and max|e|.
#[inline(always)]
fn add<V: Doubles>([sum, w2, q2, wq, e1, e2, greatest]: [V; 7], w: V, q: V) -> [V; 7] {
    let e = q.sub(w);
    [sum.add(w), w2.add(w.mul(w)), q2.add(q.mul(q)), wq.add(w.mul(q)), e1.add(e), e2.add(e.mul(e)), greatest.max(e.abs())]
}

/// Σd², Σd³, Σd⁴, d = w − mean.
#[inline(always)]
fn moments<V: Doubles>(w: &[[f32; LANES]], mean: f64) -> [f64; 3] {
    let (zero, mean) = (V::splat(0.0), V::splat(mean));
    let (mut m2, mut m3, mut m4) = (zero, zero, zero);
    for w in w {
        let d = V::widen(w).sub(mean);
        let d2 = d.mul(d);
        (m2, m3, m4) = (m2.add(d2), m3.add(d2.mul(d)), m4.add(d2.mul(d2)));
    }
    [m2, m3, m4].map(total)
}

#[inline(always)]
fn padded(x: &[f32]) -> [f32; LANES] {
    std::array::from_fn(|i| x.get(i).copied().unwrap_or(0.0))
}

/// The least and the greatest.
#[inline(always)]
fn range(w: &[f32]) -> (f32, f32) {
    let (mut least, mut greatest) = ([f32::INFINITY; 8], [f32::NEG_INFINITY; 8]);
    let (whole, rest) = w.as_chunks::<8>();
    whole.iter().for_each(|w| (0..8).for_each(|i| least[i] = if w[i] < least[i] { w[i] } else { least[i] }));
    whole.iter().for_each(|w| (0..8).for_each(|i| greatest[i] = if w[i] > greatest[i] { w[i] } else { greatest[i] }));
    let all = |lanes: [f32; 8]| lanes.into_iter().chain(rest.iter().copied());
    (all(least).fold(f32::INFINITY, f32::min), all(greatest).fold(f32::NEG_INFINITY, f32::max))
}

#[inline(always)]
fn total(lanes: impl Doubles) -> f64 {
    lanes.to_array().into_iter().fold(0.0, |sum, lane| sum + lane)
}

/// Σh·e² and Σh·w².
#[inline(always)]
fn weighted(w: &[f32], q: &[f32], h: &[f32]) -> [f64; 2] {
    let (mut errors, mut weights) = ([0f64; LANES], [0f64; LANES]);
    for ((w, q), h) in w.chunks(LANES).zip(q.chunks(LANES)).zip(h.chunks(LANES)) {
        for (i, ((&w, &q), &h)) in w.iter().zip(q).zip(h).enumerate() {
            let (w, e, h) = (f64::from(w), f64::from(q) - f64::from(w), f64::from(h));
            errors[i] += h * (e * e);
            weights[i] += h * (w * w);
        }
    }
    [errors, weights].map(total)
}

/// How many of `w` are farther than `limit` from `mean`.
pub(super) fn beyond(w: &[f32], mean: f64, limit: f64) -> u64 {
    widest!((w: &[f32] = w, mean: f64 = mean, limit: f64 = limit) -> u64 {
        w.iter().fold(0u32, |n, &w| n + u32::from((f64::from(w) - mean).abs() > limit)).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(piece: &Piece<'_>) -> ErrorStats {
        let mut stats = ErrorStats::default();
        stats.add(&measure(piece, &mut Counting::new()));
        stats
    }

    fn stats(w: &[f32], q: &[f32]) -> ErrorStats {
        of(&Piece { at: 0, columns: 7, w, q, importance: None, noise: None })
    }

    fn numbers(n: usize) -> (Vec<f32>, Vec<f32>) {
        let w: Vec<f32> = (0..n).map(|i| ((i * 7919 % 1009) as f32 - 504.0) * 1e-3).collect();
        let q = w.iter().map(|w| (w * 8.0).round() / 8.0).collect();
        (w, q)
    }

    #[test]
    fn every_metric_is_its_formula() {
        let (w, q) = numbers(1003);
        let found = stats(&w, &q);
        let (w, q): (Vec<f64>, Vec<f64>) = (w.iter().map(|&v| v.into()).collect(), q.iter().map(|&v| v.into()).collect());
        let e: Vec<f64> = w.iter().zip(&q).map(|(w, q)| q - w).collect();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let norm = |a: &[f64]| dot(a, a).sqrt();
        let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-12 * b.abs(), "{a} {b}");
        close(found.rmse(), norm(&e) / 1003f64.sqrt());
        close(found.relative().unwrap(), norm(&e) / norm(&w));
        close(found.sqnr_db().unwrap(), -20.0 * (norm(&e) / norm(&w)).log10());
        close(found.cosine(), dot(&w, &q) / norm(&w) / norm(&q));
        assert!((found.mean_error() - e.iter().sum::<f64>() / 1003.0).abs() < 1e-15);
        let max = e.iter().map(|e| e.abs()).fold(0.0, f64::max);
        assert_eq!(found.max_abs, max);
        assert_eq!(Some(found.max_at as usize), e.iter().position(|e| e.abs() == max));
        let mean = w.iter().sum::<f64>() / 1003.0;
        close(found.weights.std(), (w.iter().map(|w| (w - mean).powi(2)).sum::<f64>() / 1003.0).sqrt());
        assert_eq!(found.zeros, w.iter().filter(|w| **w == 0.0).count() as u64);
        assert_eq!(found.sketch.n(), 1003);
    }

    #[test]
    fn the_worst_blocks_are_the_worst() {
        let w = vec![1.0f32; 10 * BLOCK];
        let mut q = w.clone();
        for (i, block) in [(3, 0.5), (7, 2.0), (0, 0.25), (9, 2.0), (5, 1.0)] {
            q[i * BLOCK + 17] += block;
        }
        let found: Vec<u64> = stats(&w, &q).worst.iter().map(|b| b.start / BLOCK as u64).collect();
        assert_eq!(found, [7, 9, 5, 3]);
    }

    #[test]
    fn pieces_merge_to_the_whole() {
        let (w, q) = numbers(4096);
        let whole = stats(&w, &q);
        let mut joined = ErrorStats::default();
        for at in (0..4096).step_by(1024) {
            let piece = Piece { at: at as u64, columns: 7, w: &w[at..at + 1024], q: &q[at..at + 1024], importance: None, noise: None };
            joined.add(&measure(&piece, &mut Counting::new()));
        }
        assert_eq!(joined, whole);
    }

    #[test]
    fn what_is_not_finite_is_counted_and_left_out() {
        let w = [1.0, f32::NAN, 2.0, 3.0];
        let q = [1.5, 1.0, f32::INFINITY, 2.0];
        let found = stats(&w, &q);
        assert_eq!((found.n(), found.non_finite, found.first_non_finite), (2, 2, Some(1)));
        assert_eq!((found.max_abs, found.max_at, found.sum_e2), (1.0, 3, 1.25));
    }

    #[test]
    fn zeros_are_defined() {
        let zero = [0.0f32; 9];
        let same = stats(&zero, &zero);
        assert_eq!((same.relative(), same.sqnr_db(), same.cosine(), same.is_exact()), (Some(0.0), None, 1.0, true));
        let other = stats(&zero, &[1.0; 9]);
        assert_eq!((other.relative(), other.sqnr_db(), other.cosine(), other.is_exact()), (None, None, 0.0, false));
        let nothing = stats(&[], &[]);
        assert_eq!((nothing.rmse(), nothing.mean_error(), nothing.cosine()), (0.0, 0.0, 1.0));
    }

    #[test]
    fn importance_weighs_errors() {
        let found = of(&Piece { at: 0, columns: 2, w: &[1.0, 2.0], q: &[1.5, 1.0], importance: Some(&[2.0, 3.0]), noise: Some(&[0.5]) });
        assert_eq!(found.weighted, Some([2.0 * 0.25 + 3.0, 2.0 + 12.0]));
        assert_eq!(found.predicted, Some([0.5, 1.25, 2.0]));
    }

    #[test]
    fn large_weights_mark_their_columns() {
        let mut w = [0.0f32; 21];
        (w[3], w[10], w[20]) = (6.0, -7.0, 5.9);
        assert_eq!(stats(&w, &w).outlier_columns.count(), 1);
        let mut q = w;
        q[0] = f32::NAN;
        assert_eq!(stats(&w, &q).outlier_columns.count(), 1);
    }
}
