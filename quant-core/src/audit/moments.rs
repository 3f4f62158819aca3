//! [`Moments`]: mean, variance and kurtosis of numbers that come in pieces.
//!
//! Sums of powers of the distance from the mean, joined by Pébay, "Formulas for Robust, One-Pass Parallel Computation of
//! Covariances and Arbitrary-Order Statistical Moments", SAND2008-6212. A large mean costs no digits, as it would in sums of
//! powers of the numbers themselves.

/// Moments of some numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// How many numbers.
    pub n: u64,
    /// Σx/n.
    pub mean: f64,
    /// Σ(x − mean)².
    pub m2: f64,
    /// Σ(x − mean)³.
    pub m3: f64,
    /// Σ(x − mean)⁴.
    pub m4: f64,
    /// The least; +∞ of none.
    pub min: f32,
    /// The greatest; −∞ of none.
    pub max: f32,
}

impl Default for Moments {
    fn default() -> Moments {
        Moments { n: 0, mean: 0.0, m2: 0.0, m3: 0.0, m4: 0.0, min: f32::INFINITY, max: f32::NEG_INFINITY }
    }
}

impl Moments {
    /// Adds the moments of other numbers.
    pub fn merge(&mut self, other: &Moments) {
        if other.n == 0 {
            return;
        }
        if self.n == 0 {
            *self = *other;
            return;
        }
        let (a, b) = (self.n as f64, other.n as f64);
        let n = a + b;
        let delta = other.mean - self.mean;
        let per = 1.0 / n;
        let (d2, share) = (delta * delta, a * b * per);
        let m4 = self.m4
            + other.m4
            + d2 * d2 * share * (a * a - a * b + b * b) * (per * per)
            + 6.0 * d2 * (a * a * other.m2 + b * b * self.m2) * (per * per)
            + 4.0 * delta * (a * other.m3 - b * self.m3) * per;
        let m3 = self.m3 + other.m3 + delta * d2 * share * (a - b) * per + 3.0 * delta * (a * other.m2 - b * self.m2) * per;
        *self = Moments {
            n: self.n + other.n,
            mean: self.mean + delta * b * per,
            m2: self.m2 + other.m2 + d2 * share,
            m3,
            m4,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        };
    }

    /// The standard deviation √(m₂/n); 0 of none.
    pub fn std(&self) -> f64 {
        if self.n == 0 { 0.0 } else { (self.m2 / self.n as f64).sqrt() }
    }

    /// n·m₄/m₂²: 3 for a normal distribution. None where all numbers are equal.
    pub fn kurtosis(&self) -> Option<f64> {
        (self.m2 > 0.0).then(|| self.n as f64 * self.m4 / (self.m2 * self.m2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition, in one piece.
    fn of(x: &[f64]) -> Moments {
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let power = |p: i32| x.iter().map(|v| (v - mean).powi(p)).sum::<f64>();
        let (min, max) = x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(lo, hi), &v| (lo.min(v as f32), hi.max(v as f32)));
        Moments { n: x.len() as u64, mean, m2: power(2), m3: power(3), m4: power(4), min, max }
    }

    #[test]
    fn pieces_have_the_moments_of_the_whole() {
        let x: Vec<f64> = (0..5000).map(|i| 1000.0 + f64::from(i * 7919 % 5003) * 1e-3 + if i % 997 == 0 { 40.0 } else { 0.0 }).collect();
        let mut joined = Moments::default();
        let mut from = 0;
        for length in [1, 2, 500, 1497, 3000] {
            joined.merge(&of(&x[from..from + length]));
            from += length;
        }
        let whole = of(&x);
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * b.abs();
        assert!(close(joined.mean, whole.mean) && close(joined.m2, whole.m2) && close(joined.m4, whole.m4), "{joined:?} {whole:?}");
        assert!((joined.m3 - whole.m3).abs() <= 1e-9 * whole.m3.abs());
        assert_eq!((joined.n, joined.min, joined.max), (5000, whole.min, whole.max));
    }

    #[test]
    fn equal_numbers_have_no_kurtosis() {
        assert_eq!(of(&[2.0; 9]).kurtosis(), None);
        assert_eq!(Moments::default().std(), 0.0);
    }
}
