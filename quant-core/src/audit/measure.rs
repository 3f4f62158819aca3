//! The errors of one piece of a tensor.
//!
//! Sums run in four lanes, element i in lane i mod 4, over blocks of 256; lanes are added from left to right, blocks in their
//! order, so figures do not depend on where pieces begin, as long as that is at whole blocks.

use super::outer::{Extent, Outer};
use super::sketch::Counting;
use super::stats::{BLOCK, BlockStats, ErrorStats, SlabStats, WorstBlock};
use super::sums::Products;
use super::{BlockSums, DeviceSums, Sums};
use crate::backend::Backend;
use crate::simd::{Doubles, OverDoubles, with_doubles};
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
    finish(&mut stats, piece, counting);
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
    stats.count_outliers();
    Ok(stats)
}

/// What [`measure`] makes of a piece, from sums that a device has made.
fn from_sums(piece: &Piece<'_>, sums: &DeviceSums, counting: &mut Counting) -> SlabStats {
    let mut stats = SlabStats { blocks: Vec::with_capacity(sums.blocks.len()), others: ErrorStats::default() };
    for (i, found) in sums.blocks.iter().enumerate() {
        Block::of(piece, i * BLOCK).add_sums(found, || found.first as usize, &mut stats);
    }
    counting.add_counts(&sums.counts);
    finish(&mut stats, piece, counting);
    stats
}

/// Adds what needs all blocks of a piece: the counts of magnitudes, the weights that may be outliers, the columns of large ones.
fn finish(stats: &mut SlabStats, piece: &Piece<'_>, counting: &mut Counting) {
    stats.others.sketch = counting.take();
    let extent = Extent::of(&stats.blocks);
    stats.others.outer.extend(Outer::of(piece, &stats.blocks, &extent));
    if extent.greatest >= OUTLIER || extent.least <= -OUTLIER {
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
        let at_once = V::BLOCKS * BLOCK;
        let whole = piece.w.len() / at_once * at_once;
        for at in (0..whole).step_by(at_once) {
            let sums = sums::<V>(&piece.w[at..at + at_once], &piece.q[at..at + at_once], counting);
            for (i, sums) in sums.iter().enumerate().take(V::BLOCKS) {
                let block = Block::of(piece, at + i * BLOCK);
                if block.add(*sums, &mut stats, counting) {
                    counting.note(i == 1, block.w, block.q);
                } else {
                    counting.note_nothing(i == 1);
                }
            }
        }
        counting.finish();
        for at in (whole..piece.w.len()).step_by(BLOCK) {
            let block = Block::of(piece, at);
            if block.add(sums_of_one(block.w, block.q), &mut stats, counting) {
                counting.add(block.w, block.q);
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
    /// Σs²/12.
    noise: Option<f64>,
}

impl<'a> Block<'a> {
    /// The block of a piece that begins at its pair `start`.
    #[inline(always)]
    fn of(piece: &Piece<'a>, start: usize) -> Block<'a> {
        let end = (start + BLOCK).min(piece.w.len());
        Block {
            at: piece.at + start as u64,
            w: &piece.w[start..end],
            q: &piece.q[start..end],
            h: piece.importance.map(|h| &h[start..end]),
            noise: piece.noise.map(|noise| noise[start / BLOCK]),
        }
    }

    /// Adds a block, but for the count of magnitudes. Returns whether that is still to be made.
    #[inline(always)]
    fn add(&self, sums: Sums, stats: &mut SlabStats, counting: &mut Counting) -> bool {
        if sums.are_finite() {
            self.add_finite(sums, |i| i, stats, counting)
        } else {
            self.add_finite_part(stats, counting);
            false
        }
    }

    /// [`Block::add`] of a block of finite numbers. Pair `i` of it is at `place(i)` of the block that it was.
    #[inline(always)]
    fn add_finite(&self, sums: Sums, place: impl Fn(usize) -> usize, stats: &mut SlabStats, counting: &mut Counting) -> bool {
        let Block { w, q, h, .. } = *self;
        let zeros = w.iter().fold(0u32, |n, &w| n + u32::from(w == 0.0));
        let found = BlockSums { sums, weighted: h.map(|h| weighted(w, q, h)).unwrap_or_default(), zeros, first: 0 };
        let is_greatest = |(&w, &q): (&f32, &f32)| (f64::from(q) - f64::from(w)).abs() == sums.greatest;
        self.add_sums(&found, || place(w.iter().zip(q).position(is_greatest).unwrap_or_default()), stats);
        if sums.greatest == 0.0 {
            counting.add_zeros(w.len() as u32);
        }
        sums.greatest > 0.0
    }

    /// Adds what was found out about a block of finite numbers; `first` is the place of the first of the greatest errors.
    #[inline(always)]
    fn add_sums(&self, found: &BlockSums, first: impl FnOnce() -> usize, stats: &mut SlabStats) {
        let Block { at, w, q, h, noise } = *self;
        let &BlockSums { sums, weighted, zeros, .. } = found;
        let Products { w2, q2, wq } = sums.products(w, q);
        let (weights, weighted) = (sums.moments(w), h.map(|_| weighted));
        stats.blocks.push(BlockStats { weights, w2, q2, wq, e: sums.e, e2: sums.e2, weighted, noise });
        let others = &mut stats.others;
        others.zeros += u64::from(zeros);
        if sums.greatest > others.max_abs {
            (others.max_abs, others.max_at) = (sums.greatest, at + first() as u64);
        }
        if sums.greatest > 0.0 {
            others.consider(WorstBlock { start: at, n: w.len() as u64, sum_e2: sums.e2 });
        }
    }

    /// Adds the pairs of which both are finite, and counts the others. They have no steps.
    #[cold]
    fn add_finite_part(&self, stats: &mut SlabStats, counting: &mut Counting) {
        let is_finite = |&i: &usize| self.w[i].is_finite() && self.q[i].is_finite();
        let (kept, others): (Vec<usize>, Vec<usize>) = (0..self.w.len()).partition(is_finite);
        let of = |x: &[f32]| kept.iter().map(|&i| x[i]).collect::<Vec<f32>>();
        let (w, q, h) = (of(self.w), of(self.q), self.h.map(of));
        let finite = Block { at: self.at, w: &w, q: &q, h: h.as_deref(), noise: None };
        if finite.add_finite(sums_of_one(&w, &q), |i| kept[i], stats, counting) {
            counting.add(&w, &q);
        }
        stats.others.non_finite += others.len() as u64;
        let first = others.first().map(|&i| self.at + i as u64);
        stats.others.first_non_finite = stats.others.first_non_finite.or(first);
    }
}

/// Sums over as many whole blocks as the vectors hold; the rest of the array repeats the first. Meanwhile what is noted is counted.
#[inline(always)]
fn sums<V: Doubles>(w: &[f32], q: &[f32], counting: &mut Counting) -> [Sums; 2] {
    let (w, q) = (w.as_chunks::<LANES>().0, q.as_chunks::<LANES>().0);
    let n = w.len() / V::BLOCKS;
    let pivot = V::of_blocks([w[0][0], w[(V::BLOCKS - 1) * n][0]].map(f64::from));
    let mut lanes = none(pivot);
    for i in 0..n {
        lanes = add(lanes, pivot, V::widen(w, i), V::widen(q, i));
        (0..V::BLOCKS).for_each(|k| counting.step(V::BLOCKS * i + k));
    }
    let mut of_blocks = [[[0.0; LANES]; 10]; 2];
    for (i, lanes) in lanes.into_iter().enumerate() {
        [of_blocks[0][i], of_blocks[1][i]] = lanes.to_arrays();
    }
    [in_all(&of_blocks[0]), in_all(&of_blocks[1])]
}

/// Sums over one block, which may be shorter than others.
fn sums_of_one(w: &[f32], q: &[f32]) -> Sums {
    let Some(pivot) = w.first().map(|&w| f64::from(w)) else { return Sums::default() };
    let ((whole_w, rest_w), (whole_q, rest_q)) = (w.as_chunks::<LANES>(), q.as_chunks::<LANES>());
    let pivot = [pivot; LANES];
    let mut lanes = none(pivot);
    for (w, q) in whole_w.iter().zip(whole_q) {
        lanes = add(lanes, pivot, w.map(f64::from), q.map(f64::from));
    }
    if !rest_w.is_empty() {
        // Pairs of two pivots change none of these sums.
        lanes = add(lanes, pivot, padded(rest_w, pivot[0]), padded(rest_q, pivot[0]));
    }
    in_all(&lanes)
}

/// The sums of nothing, to be added to by [`add`].
#[inline(always)]
fn none<V: Doubles>(pivot: V) -> [V; 10] {
    let zero = V::of_blocks([0.0; 2]);
    [zero, zero, zero, zero, zero, zero, zero, zero, pivot, pivot]
}

/// Adds Σd, Σd², Σd³, Σd⁴, Σe, Σe², Σd·e, max e², the least and the greatest w.
#[inline(always)]
fn add<V: Doubles>([s1, s2, s3, s4, e1, e2, de, far, min, max]: [V; 10], pivot: V, w: V, q: V) -> [V; 10] {
    let (d, e) = (w.sub(pivot), q.sub(w));
    let (dd, ee) = (d.mul(d), e.mul(e));
    let [s1, s2, s3, s4] = [s1.add(d), s2.add(dd), dd.mul_add(d, s3), dd.mul_add(dd, s4)];
    [s1, s2, s3, s4, e1.add(e), e2.add(ee), d.mul_add(e, de), far.max(ee), min.min(w), max.max(w)]
}

/// The sums of all lanes.
#[inline(always)]
fn in_all([s1, s2, s3, s4, e1, e2, de, far, min, max]: &[[f64; LANES]; 10]) -> Sums {
    let total = |[a, b, c, d]: &[f64; LANES]| ((a + b) + c) + d;
    let greatest = |&[a, b, c, d]: &[f64; LANES]| a.max(b).max(c.max(d));
    let least = |&[a, b, c, d]: &[f64; LANES]| a.min(b).min(c.min(d));
    Sums {
        d: [total(s1), total(s2), total(s3), total(s4)],
        e: total(e1),
        e2: total(e2),
        de: total(de),
        // The root of a rounded square is the number again, unless the square is too small or too large.
        greatest: greatest(far).sqrt(),
        min: least(min) as f32,
        max: greatest(max) as f32,
    }
}

#[inline(always)]
fn padded(x: &[f32], pivot: f64) -> [f64; LANES] {
    std::array::from_fn(|i| x.get(i).map_or(pivot, |&x| x.into()))
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
    [errors, weights].map(|lanes| lanes.into_iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(piece: &Piece<'_>) -> ErrorStats {
        let mut stats = ErrorStats::default();
        stats.add(&measure(piece, &mut Counting::new()));
        stats.count_outliers();
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

    /// Whatever the vectors of a processor: without any, one block at a time.
    #[test]
    fn the_processor_changes_no_bit() {
        for n in [0, 3, 255, 256, 700, 1024, 2000] {
            let (mut w, q) = numbers(n);
            w.iter_mut().skip(300).step_by(400).for_each(|w| *w = f32::NAN);
            let piece = Piece { at: 0, columns: 7, w: &w, q: &q, importance: Some(&q), noise: None };
            let of = |run: &dyn Fn(Measuring<'_, '_>) -> SlabStats| {
                let mut counting = Counting::new();
                let found = run(Measuring { piece: &piece, counting: &mut counting });
                (found.blocks, found.others, counting.take())
            };
            let plain = of(&|measuring| measuring.run::<[f64; LANES]>());
            assert_eq!(plain.0.len(), n.div_ceil(BLOCK));
            assert!(of(&|measuring| with_doubles(measuring)) == plain, "{n}");
        }
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
        joined.count_outliers();
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

    /// The sums are those of distances from the first weight of a block, whatever that is.
    #[test]
    fn first_weights_that_are_far_away_cost_no_digits() {
        let (w, _) = numbers(4 * BLOCK);
        for (far, shift) in [(40.0, 0.0), (-3e6, 0.0), (0.3, 1e3), (1e-9, -0.5)] {
            let mut w: Vec<f32> = w.iter().map(|w| w + shift).collect();
            w.iter_mut().step_by(BLOCK).for_each(|w| *w = far);
            let q: Vec<f32> = w.iter().map(|w| (w * 16.0).round() / 16.0).collect();
            let found = stats(&w, &q);
            let (w, q): (Vec<f64>, Vec<f64>) = (w.iter().map(|&v| v.into()).collect(), q.iter().map(|&v| v.into()).collect());
            let mean = w.iter().sum::<f64>() / w.len() as f64;
            let power = |p: i32| w.iter().map(|w| (w - mean).powi(p)).sum::<f64>();
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            for (a, b) in [
                (found.weights.mean, mean),
                (found.weights.m2, power(2)),
                (found.weights.m4, power(4)),
                (found.sum_w2, dot(&w, &w)),
                (found.sum_q2, dot(&q, &q)),
                (found.sum_wq, dot(&w, &q)),
            ] {
                assert!((a - b).abs() <= 2e-12 * b.abs(), "{far} {shift}: {a} {b}");
            }
        }
    }

    #[test]
    fn what_vanishes_is_exactly_nothing() {
        let (w, _) = numbers(1003);
        let gone = stats(&w, &[0.0; 1003]);
        assert_eq!((gone.sum_q2, gone.sum_wq, gone.cosine()), (0.0, 0.0, 0.0));
        assert_eq!((gone.relative(), gone.sqnr_db()), (Some(1.0), Some(0.0)));
        let tiny: Vec<f32> = w.iter().map(|w| w * 1e-20).collect();
        assert!((stats(&w, &tiny).cosine() - 1.0).abs() < 1e-6);
        // Large where the weights are small: only the small products are left of Σw·ŵ.
        let w: Vec<f32> = (0..512).map(|i| if i % 2 == 0 { 1.5 } else { 1e-10 }).collect();
        let q: Vec<f32> = (0..512).map(|i| if i % 2 == 0 { 0.0 } else { 1.5 }).collect();
        let (found, exact) = (stats(&w, &q).sum_wq, 256.0 * f64::from(1e-10f32) * 1.5);
        assert!((found - exact).abs() < 1e-12 * exact, "{found} {exact}");
        let same = stats(&[0.1; 1003], &[0.1; 1003]);
        assert_eq!((same.weights.m2, same.weights.kurtosis(), same.cosine()), (0.0, None, 1.0));
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
