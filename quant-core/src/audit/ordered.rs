//! [`Ordered`]: figures of pieces that come in any order, merged in theirs.

use std::collections::BTreeMap;
use std::ops::Range;

use super::ErrorStats;
use super::stats::SlabStats;

/// The errors of a tensor whose pieces are measured by several threads. What it says does not depend on who was first.
#[derive(Debug)]
pub struct Ordered {
    /// The element that the next piece to be merged begins with.
    next: u64,
    /// The elements of the tensor.
    end: u64,
    total: ErrorStats,
    /// Pieces that came too early, by their first element.
    waiting: BTreeMap<u64, (u64, SlabStats)>,
}

impl Ordered {
    /// Those of a tensor of so many elements.
    pub(crate) fn new(n_elements: u64) -> Ordered {
        Ordered { next: 0, end: n_elements, total: ErrorStats::default(), waiting: BTreeMap::new() }
    }

    /// Adds the errors of the elements of `range`.
    pub(crate) fn add(&mut self, range: Range<u64>, stats: SlabStats) {
        self.waiting.insert(range.start, (range.end, stats));
        while let Some((end, stats)) = self.waiting.remove(&self.next) {
            self.total.add(&stats);
            self.next = end;
            if self.next == self.end {
                self.total.count_outliers();
            }
        }
    }

    /// The errors of all elements; nothing is left.
    pub fn take(&mut self) -> ErrorStats {
        std::mem::take(&mut self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stats::BlockStats;
    use super::*;

    #[test]
    fn pieces_are_merged_in_their_order() {
        let stats = |e: f64| {
            let others = ErrorStats { max_abs: 1.0, max_at: e as u64, ..ErrorStats::default() };
            SlabStats { blocks: vec![BlockStats { e, ..BlockStats::default() }], others }
        };
        let mut forth = Ordered::new(4);
        let mut back = Ordered::new(4);
        // From the left: 1e16 + 1 is 1e16, and 1 is left. Any other order gives another sum.
        let pieces = [1e16, 1.0, -1e16, 1.0];
        for i in 0..4 {
            forth.add(i..i + 1, stats(pieces[i as usize]));
            back.add(3 - i..4 - i, stats(pieces[3 - i as usize]));
        }
        let (forth, back) = (forth.take(), back.take());
        assert_eq!(forth, back);
        assert_eq!((forth.sum_e, forth.max_at), (1.0, 1e16 as u64));
    }
}
