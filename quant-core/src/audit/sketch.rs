//! [`Sketch`]: how many numbers have which magnitude, in bins that grow with it.
//!
//! A bin is an f32 without its sign and its last 19 bits: 16 bins an octave, from the least subnormal to infinity. The middle of
//! a bin is at most 1/32 of the magnitude away from anything in it; from the least normal number on, below which bins are 2⁻¹³⁰
//! wide. Counts are exact, so sketches of pieces add up to that of the whole, in any order. Bins by the leading bits of a float are the
//! log-linear histogram of HdrHistogram and DDSketch (Masson, Rim, Lee, "DDSketch", 2019).

use std::ops::Range;

use super::stats::BLOCK;

/// Bits of an f32 that do not choose the bin.
const SHIFT: u32 = 19;
/// Bins for every finite magnitude.
const BINS: usize = (f32::INFINITY.to_bits() >> SHIFT) as usize;

/// What the bits of a number that choose its bin can say.
const BITS: u16 = 1 << (31 - SHIFT);

/// Counts of magnitudes. Takes room for the bins between the least and the greatest only, beside that of 0, which many errors are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    /// What is in the bin of 0.
    zeros: u64,
    /// The bin of `counts[0]`.
    first: usize,
    counts: Vec<u64>,
}

/// Counts of a bin while they are made, in as many places, because a processor waits where it counts in the place where it has
/// just counted.
const PLACES: usize = 4;
/// A place whose bin is that of some NaN, which no difference of finite numbers is.
const NOWHERE: u16 = BITS * PLACES as u16 - 1;

/// Counts while they are made.
///
/// Counting keeps other parts of a processor busy than arithmetic does, and long. So what is to be counted of whole blocks is
/// noted, and [`Counting::step`] counts it while the sums of the next blocks are made.
pub(crate) struct Counting {
    /// One for every place that 16 bits can name, so that none needs a check. Only those of bins are ever touched.
    counts: Box<[u32; 1 << 16]>,
    /// Where the numbers of two blocks are still to be counted.
    noted: [u16; 2 * BLOCK],
}

/// Where the magnitude of q − w is counted, number `i` of a block.
#[inline(always)]
fn place(w: f32, q: f32, i: usize) -> u16 {
    let bin = ((q - w).to_bits() & 0x7fff_ffff) >> SHIFT;
    (bin * PLACES as u32 + i as u32 % PLACES as u32) as u16
}

impl Counting {
    /// Steps that count one noted block.
    pub(super) const STEPS: usize = BLOCK / PLACES;

    pub(super) fn new() -> Counting {
        let counts: Vec<u32> = vec![0; 1 << 16];
        let counts = counts.into_boxed_slice().try_into().unwrap_or_else(|_| unreachable!("the length is that of the array"));
        Counting { counts, noted: [NOWHERE; 2 * BLOCK] }
    }

    /// Counts the magnitudes of q − w.
    pub(super) fn add(&mut self, w: &[f32], q: &[f32]) {
        w.iter().zip(q).enumerate().for_each(|(i, (&w, &q))| self.count(place(w, q, i)));
    }

    /// Notes the magnitudes of q − w of a whole block, the first or the second.
    #[inline(always)]
    pub(super) fn note(&mut self, second: bool, w: &[f32], q: &[f32]) {
        let noted = &mut self.noted[usize::from(second) * BLOCK..][..BLOCK];
        for (i, (noted, (&w, &q))) in noted.iter_mut().zip(w.iter().zip(q)).enumerate() {
            *noted = place(w, q, i);
        }
    }

    /// Notes nothing for a block.
    pub(super) fn note_nothing(&mut self, second: bool) {
        self.noted[usize::from(second) * BLOCK..][..BLOCK].fill(NOWHERE);
    }

    /// Counts some of what is noted; all of the first block in the first [`Counting::STEPS`] steps, then all of the second.
    #[inline(always)]
    pub(super) fn step(&mut self, step: usize) {
        (0..PLACES).for_each(|i| self.count(self.noted[PLACES * step + i]));
    }

    #[inline(always)]
    fn count(&mut self, place: u16) {
        self.counts[usize::from(place)] += 1;
    }

    /// Counts all that is noted.
    pub(super) fn finish(&mut self) {
        (0..2 * Self::STEPS).for_each(|step| self.step(step));
        self.noted.fill(NOWHERE);
    }

    /// Adds counts of bins that were made elsewhere.
    pub(super) fn add_counts(&mut self, counts: &[u32]) {
        self.bins().iter_mut().zip(counts).for_each(|(bin, count)| bin[0] += count);
    }

    /// Counts `n` times 0.
    pub(super) fn add_zeros(&mut self, n: u32) {
        self.counts[0] += n;
    }

    fn bins(&mut self) -> &mut [[u32; PLACES]] {
        &mut self.counts.as_chunks_mut().0[..BITS.into()]
    }

    /// What was counted; nothing is, afterwards. What is too large for f32 goes with the largest.
    pub(super) fn take(&mut self) -> Sketch {
        const NONE: [u32; PLACES] = [0; PLACES];
        let n_of = |bin: &[u32; PLACES]| bin.iter().map(|&n| u64::from(n)).sum::<u64>();
        let bins = self.bins();
        let too_large: u32 = bins[BINS].iter().sum();
        bins[BINS..].fill(NONE);
        bins[BINS - 1][0] += too_large;
        let zeros = n_of(&std::mem::take(&mut bins[0]));
        let used = used(bins);
        let sketch = Sketch { zeros, first: used.start, counts: bins[used.clone()].iter().map(n_of).collect() };
        bins[used].fill(NONE);
        sketch
    }
}

/// From the first to the last bin that holds anything; nothing, at 0, if none does.
fn used(bins: &[[u32; PLACES]]) -> Range<usize> {
    // Most bins are empty: many are looked at together.
    const TOGETHER: usize = 64;
    let holds = |bins: &[[u32; PLACES]]| bins.as_flattened().iter().fold(0, |any, n| any | n) != 0;
    let Some(first) = bins.chunks(TOGETHER).position(holds) else { return 0..0 };
    let last = bins.chunks(TOGETHER).rposition(holds).unwrap_or(first);
    let (start, end) = (first * TOGETHER, bins.len().min((last + 1) * TOGETHER));
    let near = |bins: &[[u32; PLACES]]| bins.iter().position(|bin| holds(&[*bin])).unwrap_or_default();
    let after = |bins: &[[u32; PLACES]]| bins.iter().rev().position(|bin| holds(&[*bin])).unwrap_or_default();
    start + near(&bins[start..end])..end - after(&bins[start..end])
}

impl Sketch {
    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Sketch) {
        self.zeros += other.zeros;
        if other.counts.is_empty() {
            return;
        }
        if self.counts.is_empty() {
            (self.first, self.counts) = (other.first, other.counts.clone());
            return;
        }
        let first = self.first.min(other.first);
        let end = (self.first + self.counts.len()).max(other.first + other.counts.len());
        self.counts.splice(0..0, std::iter::repeat_n(0, self.first - first));
        self.counts.resize(end - first, 0);
        self.first = first;
        let there = &mut self.counts[other.first - first..];
        there.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
    }

    /// How many numbers were counted.
    pub fn n(&self) -> u64 {
        self.zeros + self.counts.iter().sum::<u64>()
    }

    /// The magnitude that a share `q`, from 0 to 1, of the numbers does not exceed: the middle of the bin that holds number
    /// ⌈q·n⌉ in order of magnitude. 0 if there are none, or where the bin is that of 0.
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = ((self.n() as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (from, to, count) in self.bins() {
            seen += count;
            if seen >= rank {
                return if from == 0.0 { 0.0 } else { f64::midpoint(from, to) };
            }
        }
        0.0
    }

    /// That of 0 if it holds anything, and the bins between the least and the greatest: from which magnitude, below which, how many.
    pub fn bins(&self) -> impl Iterator<Item = (f64, f64, u64)> {
        let edge = |bin: usize| f64::from(f32::from_bits((bin as u32) << SHIFT).min(f32::MAX));
        let zero = (self.zeros > 0).then(|| (0.0, edge(1), self.zeros));
        zero.into_iter().chain(self.counts.iter().enumerate().map(move |(i, &count)| (edge(self.first + i), edge(self.first + i + 1), count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f32]) -> Sketch {
        let mut counting = Counting::new();
        values.iter().for_each(|&v| counting.add(&[0.0], &[v]));
        counting.take()
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_numbers_to_a_thirty_second() {
        let values: Vec<f32> = (0..10_000).map(|i| ((i * 7919 % 10_000) as f32 - 5000.0) * 1.7e-4).collect();
        let mut sorted: Vec<f32> = values.iter().map(|v| v.abs()).collect();
        sorted.sort_by(f32::total_cmp);
        for q in [0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let exact = f64::from(sorted[(q * 10_000.0f64).ceil() as usize - 1]);
            let found = of(&values).quantile(q);
            assert!((found - exact).abs() <= exact / 32.0, "{q}: {found} {exact}");
        }
    }

    #[test]
    fn pieces_add_up_in_any_order() {
        let values: Vec<f32> = (0..999).map(|i| (i as f32 - 400.0).powi(3) * 1e-9).collect();
        let whole = of(&values);
        let (mut forth, mut back) = (Sketch::default(), Sketch::default());
        values.chunks(100).for_each(|piece| forth.merge(&of(piece)));
        values.chunks(37).rev().for_each(|piece| back.merge(&of(piece)));
        assert_eq!((&forth, &back), (&whole, &whole));
        assert_eq!(whole.n(), 999);
    }

    #[test]
    fn the_ends_of_the_range_have_their_bins() {
        let sketch = of(&[0.0, -0.0, f32::from_bits(1), f32::MAX, f32::MIN, f32::INFINITY]);
        assert_eq!(sketch.n(), 6);
        assert_eq!(sketch.quantile(0.5), 0.0);
        assert!(sketch.quantile(1.0) >= f64::from(f32::MAX) * 31.0 / 32.0 && sketch.quantile(1.0) <= f64::from(f32::MAX));
        assert_eq!(Sketch::default().quantile(0.5), 0.0);
    }

    #[test]
    fn counting_starts_anew_after_it_was_taken() {
        let mut counting = Counting::new();
        counting.add(&[0.0], &[1.0]);
        counting.add_zeros(2);
        assert_eq!(counting.take().n(), 3);
        assert_eq!(counting.take(), Sketch::default());
    }

    #[test]
    fn what_is_noted_is_counted_once() {
        let w: Vec<f32> = (0..2 * BLOCK).map(|i| (i as f32 - 300.0).powi(3) * 1e-6).collect();
        let q = vec![0.25; 2 * BLOCK];
        let (mut noting, mut counting) = (Counting::new(), Counting::new());
        for second in [false, true] {
            let block = usize::from(second) * BLOCK..(usize::from(second) + 1) * BLOCK;
            noting.note(second, &w[block.clone()], &q[block.clone()]);
            counting.add(&w[block.clone()], &q[block]);
        }
        noting.finish();
        let wanted = counting.take();
        assert_eq!((noting.take(), wanted.n()), (wanted, 2 * BLOCK as u64));
        // By steps, half of it noted anew.
        noting.note(false, &w[..BLOCK], &q[..BLOCK]);
        noting.note_nothing(true);
        (0..2 * Counting::STEPS).for_each(|step| noting.step(step));
        counting.add(&w[..BLOCK], &q[..BLOCK]);
        assert_eq!(noting.take(), counting.take());
    }
}
