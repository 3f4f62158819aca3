//! [`Outer`]: the weights of a slab that may be outliers of their tensor. Which are, is known when all of it was seen, and then the
//! weights need not be read again.

use std::ops::Range;

use super::measure::Piece;
use super::stats::{BLOCK, BlockStats};

/// Standard deviations of a slab beyond which its weights are kept.
const KEPT_FROM: f64 = 4.0;
/// The most weights that are kept of a slab.
const MOST: usize = 256;
/// Elements up to which slabs that follow each other are joined, so that small ones take no more memory.
const JOINED: u64 = 1 << 16;

/// The outer weights of a slab.
#[derive(Clone, Debug, PartialEq)]
pub struct Outer {
    /// The elements of the slab.
    pub(super) range: Range<u64>,
    /// All weights between these two are not kept.
    inner: [f32; 2],
    /// The others.
    values: Vec<f32>,
}

/// How many weights blocks have, their sum, the least and the greatest.
pub(super) struct Extent {
    pub(super) n: u64,
    pub(super) sum: f64,
    pub(super) least: f32,
    pub(super) greatest: f32,
}

impl Extent {
    pub(super) fn of(blocks: &[BlockStats]) -> Extent {
        let mut extent = Extent { n: 0, sum: 0.0, least: f32::INFINITY, greatest: f32::NEG_INFINITY };
        for BlockStats { weights, .. } in blocks {
            extent.n += weights.n;
            extent.sum += weights.n as f64 * weights.mean;
            extent.least = extent.least.min(weights.min);
            extent.greatest = extent.greatest.max(weights.max);
        }
        extent
    }
}

impl Outer {
    /// Those of a piece, all of whose blocks were measured. None if it is empty.
    pub(super) fn of(piece: &Piece<'_>, blocks: &[BlockStats], extent: &Extent) -> Option<Outer> {
        let &Extent { n, least, greatest, .. } = extent;
        let mean = extent.sum / n as f64;
        let weights = || blocks.iter().map(|block| &block.weights);
        let square = weights().map(|of| of.m2 + of.n as f64 * (of.mean - mean) * (of.mean - mean)).sum::<f64>() / n as f64;
        let far = KEPT_FROM * square.sqrt();
        let inner = [least.max((mean - far) as f32), greatest.min((mean + far) as f32)];
        let is_kept = |w: f32| w < inner[0] || w > inner[1];
        let range = piece.at..piece.at + piece.w.len() as u64;
        let has_some = |(block, _): &(&BlockStats, &[f32])| is_kept(block.weights.min) || is_kept(block.weights.max);
        let some = blocks.iter().zip(piece.w.chunks(BLOCK)).filter(has_some);
        let values: Vec<f32> = some.flat_map(|(_, w)| w.iter().copied().filter(|&w| is_kept(w))).take(MOST + 1).collect();
        let can_be_kept = n == piece.w.len() as u64 && values.len() <= MOST;
        (n > 0).then(|| if can_be_kept { Outer { range, inner, values } } else { Outer { range, inner: [least, greatest], values: Vec::new() } })
    }

    /// Adds a slab to the last ones.
    pub(super) fn add(self, slabs: &mut Vec<Outer>) {
        match slabs.last_mut() {
            Some(last) if last.range.end == self.range.start && self.range.end - last.range.start <= JOINED => last.join(self),
            _ => slabs.push(self),
        }
    }

    fn join(&mut self, next: Outer) {
        self.range.end = next.range.end;
        self.values.extend(next.values);
        let [least, greatest] = [self.inner[0].min(next.inner[0]), self.inner[1].max(next.inner[1])];
        self.values.retain(|&w| w < least || w > greatest);
        self.inner = [least, greatest];
        if self.values.len() > MOST {
            self.inner = self.values.iter().fold(self.inner, |[least, greatest], &w| [least.min(w), greatest.max(w)]);
            self.values = Vec::new();
        }
    }

    /// How many weights are outliers; none if the kept ones do not tell.
    pub(super) fn count(&self, is_outlier: impl Fn(f32) -> bool) -> Option<u64> {
        let all_are_kept = !self.inner.iter().any(|&w| is_outlier(w));
        all_are_kept.then(|| self.values.iter().filter(|&&w| is_outlier(w)).count() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::measure::measure;
    use super::super::sketch::Counting;
    use super::*;

    fn of(w: &[f32]) -> Outer {
        let piece = Piece { at: 0, columns: 8, w, q: w, importance: None, noise: None };
        let found = measure(&piece, &mut Counting::new());
        Outer::of(&piece, &found.blocks, &Extent::of(&found.blocks)).unwrap()
    }

    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i * 7919 % 1009) as f32 * 1e-3 - 0.5).collect()
    }

    #[test]
    fn outliers_are_counted_without_the_weights() {
        let mut w = numbers(5000);
        (w[3], w[700], w[701], w[4999]) = (9.0, -8.0, 1.5, -1.6);
        let outer = of(&w);
        for limit in [1.45, 1.55, 7.0, 8.5, 10.0] {
            let wanted = w.iter().filter(|w| w.abs() > limit).count() as u64;
            assert_eq!(outer.count(|w| w.abs() > limit), Some(wanted), "{limit}");
        }
        assert_eq!(outer.count(|w| w.abs() > 0.4), None);
        assert!(outer.values.len() < 10);
    }

    #[test]
    fn joined_slabs_tell_the_same() {
        let mut w = numbers(4096);
        (w[3], w[700], w[2000], w[4000]) = (9.0, -8.0, 7.0, 30.0);
        let mut slabs = Vec::new();
        for (i, part) in w.chunks(256).enumerate() {
            let at = 256 * i as u64;
            let outer = of(part);
            Outer { range: at..at + 256, ..outer }.add(&mut slabs);
        }
        assert_eq!(slabs.len(), 1);
        for limit in [8.5, 10.0, 40.0] {
            assert_eq!(slabs[0].count(|w| w.abs() > limit), Some(w.iter().filter(|w| w.abs() > limit).count() as u64), "{limit}");
        }
        assert_eq!((slabs[0].range.clone(), slabs[0].count(|w| w.abs() > 0.4)), (0..4096, None));
        // More than are kept, of slabs that keep all of theirs.
        let mut w = numbers(1 << 16);
        w.iter_mut().step_by(200).for_each(|w| *w = 9.0);
        let mut slabs = Vec::new();
        for (i, part) in w.chunks(256).enumerate() {
            let at = 256 * i as u64;
            Outer { range: at..at + 256, ..of(part) }.add(&mut slabs);
        }
        assert_eq!((slabs.len(), slabs[0].count(|w| w > 8.0), slabs[0].count(|w| w > 9.5)), (1, None, Some(0)));
        assert!(slabs[0].values.is_empty());
    }

    #[test]
    fn what_is_not_kept_is_said() {
        // Without weights far away everything is between the least and the greatest.
        let near = of(&numbers(1000));
        assert_eq!((near.count(|w| w.abs() > 0.6), near.count(|w| w.abs() > 0.4)), (Some(0), None));
        // Too many, and a number that is none.
        let mut w = vec![0.0; 20_000];
        w.iter_mut().step_by(60).for_each(|w| *w = 1.0);
        assert_eq!(of(&w).count(|w| w > 0.9), None);
        let mut w = numbers(5000);
        (w[3], w[900]) = (9.0, f32::NAN);
        assert_eq!((of(&w).count(|w| w.abs() > 8.0), of(&w).count(|w| w.abs() > 10.0)), (None, Some(0)));
    }
}
