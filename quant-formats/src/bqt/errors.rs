//! The errors that a BQT file tells of each tensor: the sums from which every metric follows.

use quant_core::audit::{ErrorStats, Moments};
use serde::{Deserialize, Serialize};

/// What was measured when a tensor was quantized; see docs/audit.md. w is a weight before, e what it became less w.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ErrorEntry {
    n: u64,
    sum_w2: f64,
    sum_q2: f64,
    sum_wq: f64,
    sum_e: f64,
    sum_e2: f64,
    max_abs: f64,
    max_at: u64,
}

impl ErrorEntry {
    /// An entry whose text is as long as one can be: the errors are known when everything else has its place.
    pub(super) const LONGEST: ErrorEntry = {
        const F: f64 = -2.225_073_858_507_201_4e-308;
        ErrorEntry { n: u64::MAX, sum_w2: F, sum_q2: F, sum_wq: F, sum_e: F, sum_e2: F, max_abs: F, max_at: u64::MAX }
    };

    /// The errors of a tensor; none if there was nothing to compare.
    pub(super) fn of(stats: &ErrorStats) -> Option<ErrorEntry> {
        let ErrorStats { sum_w2, sum_q2, sum_wq, sum_e, sum_e2, max_abs, max_at, .. } = *stats;
        (stats.n() > 0).then_some(ErrorEntry { n: stats.n(), sum_w2, sum_q2, sum_wq, sum_e, sum_e2, max_abs, max_at })
    }

    /// Whether a tensor of so many elements can have these errors.
    pub(super) fn is_possible(&self, n_elements: u64) -> bool {
        let sums = [self.sum_w2, self.sum_q2, self.sum_e2, self.max_abs];
        let bound = (self.sum_w2 * self.sum_q2).sqrt() * (1.0 + 1e-6);
        let places = (1..=n_elements).contains(&self.n) && self.max_at < n_elements;
        places && sums.iter().all(|sum| sum.is_finite() && *sum >= 0.0) && (self.max_abs == 0.0) == (self.sum_e2 == 0.0) && self.sum_wq.abs() <= bound
    }

    /// The errors as they are shown.
    pub(super) fn stats(&self) -> ErrorStats {
        let ErrorEntry { n, sum_w2, sum_q2, sum_wq, sum_e, sum_e2, max_abs, max_at } = *self;
        let weights = Moments { n, ..Moments::default() };
        ErrorStats { weights, sum_w2, sum_q2, sum_wq, sum_e, sum_e2, max_abs, max_at, ..ErrorStats::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_entry_is_longer_than_the_longest() {
        let text = |entry: &ErrorEntry| serde_json::to_string(entry).unwrap().len();
        for value in [f64::MIN, -1.234_567_890_123_456_7e-300, 5e-324, -0.0, f64::MAX, 1.0 / 3.0] {
            let entry = ErrorEntry { sum_w2: value, sum_e: value, max_abs: value, ..ErrorEntry::LONGEST };
            assert!(text(&entry) <= text(&ErrorEntry::LONGEST), "{value}");
        }
    }

    #[test]
    fn impossible_errors_are_told_apart() {
        let good = ErrorEntry { n: 4, sum_w2: 4.0, sum_q2: 4.0, sum_wq: 3.5, sum_e: 0.5, sum_e2: 1.0, max_abs: 1.0, max_at: 3 };
        assert!(good.is_possible(4) && !good.is_possible(3));
        let bad: [fn(&mut ErrorEntry); 6] =
            [|e| e.n = 0, |e| e.sum_e2 = -1.0, |e| e.sum_e2 = 0.0, |e| e.max_abs = 0.0, |e| e.max_at = 4, |e| e.sum_wq = 5.0];
        for spoil in bad {
            let mut entry = good.clone();
            spoil(&mut entry);
            assert!(!entry.is_possible(4), "{entry:?}");
        }
    }

    #[test]
    fn errors_come_back() {
        let stats = ErrorStats { weights: Moments { n: 3, ..Moments::default() }, sum_e2: 0.1, max_at: 2, ..ErrorStats::default() };
        assert_eq!(ErrorEntry::of(&stats).unwrap().stats(), stats);
        assert_eq!(ErrorEntry::of(&ErrorStats::default()), None);
    }
}
