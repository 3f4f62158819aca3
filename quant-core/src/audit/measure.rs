//! The errors of one piece of a tensor.
//!
//! Sums run in four lanes, element i in lane i mod 4, over blocks of 256; lanes are added from left to right, blocks in their
//! order, so figures do not depend on where pieces begin, as long as that is at whole blocks.

use super::Moments;
use super::sketch::Counting;
use super::stats::{BLOCK, BlockStats, ErrorStats, SlabStats, WorstBlock};
use crate::codec::Columns;
use crate::simd::widest;

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
    let is_finite = widest!((w: &[f32] = piece.w, q: &[f32] = piece.q) -> bool {
        w.iter().zip(q).fold(true, |all, (w, q)| all & w.is_finite() & q.is_finite())
    });
    if !is_finite {
        return measure_finite_part(piece, counting);
    }
    let mut stats = widest!((piece: &Piece<'_> = piece, counting: &mut Counting = counting) -> SlabStats { measure_here(piece, counting) });
    stats.others.sketch = counting.take();
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

/// Measures the pairs of a piece in which both are finite, and counts the others. It has no steps.
fn measure_finite_part(piece: &Piece<'_>, counting: &mut Counting) -> SlabStats {
    let kept: Vec<usize> = (0..piece.w.len()).filter(|&i| piece.w[i].is_finite() && piece.q[i].is_finite()).collect();
    let of = |x: &[f32]| kept.iter().map(|&i| x[i]).collect::<Vec<f32>>();
    let (w, q, importance) = (of(piece.w), of(piece.q), piece.importance.map(of));
    let finite = Piece { at: 0, columns: 1, w: &w, q: &q, importance: importance.as_deref(), noise: None };
    let mut stats = measure(&finite, counting);
    stats.others.outlier_columns = Columns::default();
    mark_outliers(&mut stats, piece);
    let place = |i: u64| piece.at + kept.get(i as usize).copied().unwrap_or_default() as u64;
    let others = &mut stats.others;
    others.max_at = place(others.max_at);
    others.worst.iter_mut().for_each(|block| block.start = place(block.start));
    let first = (0..piece.w.len()).find(|i| kept.binary_search(i).is_err());
    others.first_non_finite = first.map(|i| piece.at + i as u64);
    others.non_finite = (piece.w.len() - kept.len()) as u64;
    stats
}

/// Sums over a block, a lane each.
#[derive(Clone, Copy, Default)]
struct Sums {
    e: [f64; LANES],
    e2: [f64; LANES],
    w2: [f64; LANES],
    q2: [f64; LANES],
    wq: [f64; LANES],
    d2: [f64; LANES],
    d3: [f64; LANES],
    d4: [f64; LANES],
    max: [f64; LANES],
}

impl Sums {
    /// Adds an element to each lane. In small loops over whole lanes, which the compiler makes vectors of.
    #[inline(always)]
    fn add(&mut self, w: [f32; LANES], q: [f32; LANES], mean: f64) {
        let (w, q) = (w.map(f64::from), q.map(f64::from));
        let e: [f64; LANES] = std::array::from_fn(|i| q[i] - w[i]);
        let d: [f64; LANES] = std::array::from_fn(|i| w[i] - mean);
        let d2: [f64; LANES] = std::array::from_fn(|i| d[i] * d[i]);
        (0..LANES).for_each(|i| self.e[i] += e[i]);
        (0..LANES).for_each(|i| self.e2[i] += e[i] * e[i]);
        (0..LANES).for_each(|i| self.w2[i] += w[i] * w[i]);
        (0..LANES).for_each(|i| self.q2[i] += q[i] * q[i]);
        (0..LANES).for_each(|i| self.wq[i] += w[i] * q[i]);
        (0..LANES).for_each(|i| self.d2[i] += d2[i]);
        (0..LANES).for_each(|i| self.d3[i] += d2[i] * d[i]);
        (0..LANES).for_each(|i| self.d4[i] += d2[i] * d2[i]);
        (0..LANES).for_each(|i| self.max[i] = if e[i].abs() > self.max[i] { e[i].abs() } else { self.max[i] });
    }

    /// Puts the lanes from `n` on back to what they were: no element was there.
    fn keep(&mut self, n: usize, before: &Sums) {
        for (now, before) in self.lanes().into_iter().zip(before.clone().lanes()) {
            now[n..].copy_from_slice(&before[n..]);
        }
    }

    fn lanes(&mut self) -> [&mut [f64; LANES]; 9] {
        let Sums { e, e2, w2, q2, wq, d2, d3, d4, max } = self;
        [e, e2, w2, q2, wq, d2, d3, d4, max]
    }
}

#[inline(always)]
fn measure_here(piece: &Piece<'_>, counting: &mut Counting) -> SlabStats {
    let mut stats = SlabStats { blocks: Vec::with_capacity(piece.w.len().div_ceil(BLOCK)), others: ErrorStats::default() };
    for (i, (w, q)) in piece.w.chunks(BLOCK).zip(piece.q.chunks(BLOCK)).enumerate() {
        let mean = mean(w);
        let sums = block(w, q, mean);
        let total = |lanes: [f64; LANES]| lanes.into_iter().fold(0.0, |sum, lane| sum + lane);
        let (min, max) = range(w);
        let weights = Moments { n: w.len() as u64, mean, m2: total(sums.d2), m3: total(sums.d3), m4: total(sums.d4), min, max };
        let weighted = piece.importance.map(|h| weighted(w, q, &h[i * BLOCK..][..w.len()]));
        let (e2, noise) = (total(sums.e2), piece.noise.map(|noise| noise[i]));
        stats.blocks.push(BlockStats { weights, w2: total(sums.w2), q2: total(sums.q2), wq: total(sums.wq), e: total(sums.e), e2, weighted, noise });
        stats.others.zeros += u64::from(w.iter().fold(0u32, |n, &w| n + u32::from(w == 0.0)));
        let greatest = sums.max.into_iter().fold(0.0, f64::max);
        let start = piece.at + (i * BLOCK) as u64;
        if greatest > 0.0 {
            differing(&mut stats.others, counting, (w, q), WorstBlock { start, n: w.len() as u64, sum_e2: e2 }, greatest);
        } else {
            counting.add_zeros(w.len() as u32);
        }
    }
    stats
}

/// Looks closer at a block in which something differs, by `greatest` at most.
#[inline(always)]
fn differing(stats: &mut ErrorStats, counting: &mut Counting, (w, q): (&[f32], &[f32]), block: WorstBlock, greatest: f64) {
    if greatest > stats.max_abs {
        let first = w.iter().zip(q).position(|(&w, &q)| (f64::from(q) - f64::from(w)).abs() == greatest);
        (stats.max_abs, stats.max_at) = (greatest, block.start + first.unwrap_or_default() as u64);
    }
    w.iter().zip(q).for_each(|(w, q)| counting.add(q - w));
    stats.consider(block);
}

#[inline(always)]
fn block(w: &[f32], q: &[f32], mean: f64) -> Sums {
    let mut sums = Sums::default();
    let (w4, w_rest) = w.as_chunks::<LANES>();
    let (q4, q_rest) = q.as_chunks::<LANES>();
    for (&w, &q) in w4.iter().zip(q4) {
        sums.add(w, q, mean);
    }
    if !w_rest.is_empty() {
        let before = sums;
        let mut padded = ([0.0; LANES], [0.0; LANES]);
        padded.0[..w_rest.len()].copy_from_slice(w_rest);
        padded.1[..w_rest.len()].copy_from_slice(q_rest);
        sums.add(padded.0, padded.1, mean);
        sums.keep(w_rest.len(), &before);
    }
    sums
}

#[inline(always)]
fn mean(w: &[f32]) -> f64 {
    let mut lanes = [0f64; LANES];
    let (whole, rest) = w.as_chunks::<LANES>();
    for w in whole {
        (0..LANES).for_each(|i| lanes[i] += f64::from(w[i]));
    }
    rest.iter().zip(&mut lanes).for_each(|(&w, lane)| *lane += f64::from(w));
    let sum = lanes.into_iter().fold(0.0, |sum, lane| sum + lane);
    if w.is_empty() { 0.0 } else { sum / w.len() as f64 }
}

/// The least and the greatest.
#[inline(always)]
fn range(w: &[f32]) -> (f32, f32) {
    let (mut lo, mut hi) = ([f32::INFINITY; 8], [f32::NEG_INFINITY; 8]);
    let (whole, rest) = w.as_chunks::<8>();
    for w in whole {
        (0..8).for_each(|i| lo[i] = if w[i] < lo[i] { w[i] } else { lo[i] });
        (0..8).for_each(|i| hi[i] = if w[i] > hi[i] { w[i] } else { hi[i] });
    }
    let (lo, hi) = (rest.iter().chain(&lo).copied().fold(f32::INFINITY, f32::min), rest.iter().chain(&hi).copied().fold(f32::NEG_INFINITY, f32::max));
    (lo, hi)
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
    [errors, weights].map(|lanes| lanes.into_iter().fold(0.0, |sum, lane| sum + lane))
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
