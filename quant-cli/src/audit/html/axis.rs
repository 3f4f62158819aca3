//! Axes of the drawings: from numbers to places, and where the marks are.

/// An axis between two places of a drawing.
pub struct Axis {
    /// The number at `start`.
    pub low: f64,
    /// The number at `end`.
    pub high: f64,
    pub start: f64,
    pub end: f64,
}

impl Axis {
    /// The place of a number.
    pub fn at(&self, x: f64) -> f64 {
        let width = (self.high - self.low).max(f64::MIN_POSITIVE);
        self.start + (x - self.low) / width * (self.end - self.start)
    }

    /// Whether a number is on the axis.
    pub fn holds(&self, x: f64) -> bool {
        (self.low..=self.high).contains(&x)
    }

    /// Round numbers for marks, at most ten.
    pub fn steps(&self) -> Vec<f64> {
        let rough = ((self.high - self.low) / 8.0).max(1e-6 * self.high.abs()).max(1e-100);
        let decade = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * decade).find(|s| *s >= rough).unwrap_or(rough);
        let first = (self.low / step).ceil() as i64;
        (first..first + 10).map(|i| i as f64 * step).filter(|x| self.holds(*x)).collect()
    }

    /// Marks of an axis of logarithms, as numbers before the logarithm: powers of ten; 1, 2, 5 and 10 times these; or, where the numbers
    /// are near each other, steps of the same length.
    pub fn decades(&self) -> Vec<f64> {
        if self.high - self.low < 0.7 {
            return Axis { low: 10f64.powf(self.low), high: 10f64.powf(self.high), ..*self }.steps();
        }
        let powers = self.low.floor() as i32..=self.high.ceil() as i32;
        let every = ((self.high - self.low) / 8.0).ceil().max(1.0) as i32;
        let within: &[f64] = if self.high - self.low < 2.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let marks = powers.filter(|p| p % every == 0).flat_map(|p| within.iter().map(move |m| m * 10f64.powi(p)));
        marks.filter(|x| self.holds(x.log10())).collect()
    }
}

/// The least and the greatest of numbers, if there are any.
pub fn range(numbers: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    numbers.filter(|x| x.is_finite()).fold(None, |range, x| {
        let (low, high) = range.unwrap_or((x, x));
        Some((x.min(low), x.max(high)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round() {
        let axis = |low, high| Axis { low, high, start: 0.0, end: 100.0 };
        assert_eq!(axis(3.8, 8.9).steps(), [4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(axis(-3.1, -1.9).decades(), [1e-3, 2e-3, 5e-3, 1e-2]);
        assert_eq!(axis(-6.0, 0.0).decades().len(), 7);
        let near = axis(-1.3, -1.1).decades();
        assert_eq!(near.iter().map(|x| format!("{x:.3}")).collect::<Vec<_>>(), ["0.055", "0.060", "0.065", "0.070", "0.075"]);
        assert!(axis(-9.02, -9.0).decades().len() > 2);
        assert_eq!(axis(1.0, 1.0).at(1.0), 0.0);
        assert_eq!(range([2.0, f64::NAN, 1.0].into_iter()), Some((1.0, 2.0)));
    }
}
