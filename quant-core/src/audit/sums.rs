//! What is summed over a block of [`BLOCK`](super::BLOCK) pairs, on the CPU and on a device.

use super::Moments;

/// Sums over a block: w a weight, ŵ what stands for it, e = ŵ − w, d = w − p, where p is the first w of the block.
///
/// Figures of the weights follow from those of d. That costs three digits at most, as no more than 256 weights are as far from
/// their mean as p is: (p − mean)⁴ ≤ Σ(w − mean)⁴.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Σd, Σd², Σd³, Σd⁴.
    pub d: [f64; 4],
    /// Σe.
    pub e: f64,
    /// Σe².
    pub e2: f64,
    /// Σd·e.
    pub de: f64,
    /// max|e|.
    pub greatest: f64,
    /// The least w.
    pub min: f32,
    /// The greatest w.
    pub max: f32,
}

/// All that is found out about a block.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BlockSums {
    /// The sums.
    pub sums: Sums,
    /// Σh·e² and Σh·w², h the importance; 0 without one.
    pub weighted: [f64; 2],
    /// How many w are 0.
    pub zeros: u32,
    /// Which pair of the block has the greatest error first.
    pub first: u32,
}

/// Σw², Σŵ², Σw·ŵ.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Products {
    pub(super) w2: f64,
    pub(super) q2: f64,
    pub(super) wq: f64,
}

impl Sums {
    /// Whether all numbers were finite. Sums of squares of f32 in f64 overflow for no finite number.
    pub(super) fn are_finite(&self) -> bool {
        (self.d[1] + self.e2).is_finite()
    }

    /// The moments of the weights.
    #[inline(always)]
    pub(super) fn moments(&self, w: &[f32]) -> Moments {
        let Some(&pivot) = w.first() else { return Moments::default() };
        let ([s1, s2, s3, s4], n) = (self.d, w.len() as f64);
        let mean = s1 / n;
        let square = mean * mean;
        Moments {
            n: w.len() as u64,
            mean: f64::from(pivot) + mean,
            m2: (s2 - n * square).max(0.0),
            m3: s3 - 3.0 * mean * s2 + 2.0 * n * square * mean,
            m4: (s4 - 4.0 * mean * s3 + 6.0 * square * s2 - 3.0 * n * square * square).max(0.0),
            min: self.min,
            max: self.max,
        }
    }

    /// The sums of products.
    #[inline(always)]
    pub(super) fn products(&self, w: &[f32], q: &[f32]) -> Products {
        let Some(pivot) = w.first().map(|&w| f64::from(w)) else { return Products::default() };
        let w2 = self.d[1] + 2.0 * pivot * self.d[0] + w.len() as f64 * (pivot * pivot);
        let we = self.de + pivot * self.e;
        let q2 = w2 + 2.0 * we + self.e2;
        let wq = w2 + we;
        // What is left of a difference that nearly vanishes is rounding.
        let least = w2.abs().max(we.abs()) / 1024.0;
        if q2 < least || wq.abs() < least { Products::of(w, q) } else { Products { w2, q2, wq } }
    }
}

impl Products {
    /// By the definition, in four lanes as all sums: where every ŵ is 0, Σw² is Σe² to the last bit.
    #[cold]
    fn of(w: &[f32], q: &[f32]) -> Products {
        let dot = |a: &[f32], b: &[f32]| {
            let mut lanes = [0.0; 4];
            a.iter().zip(b).enumerate().for_each(|(i, (&a, &b))| lanes[i % 4] += f64::from(a) * f64::from(b));
            ((lanes[0] + lanes[1]) + lanes[2]) + lanes[3]
        };
        Products { w2: dot(w, w), q2: dot(q, q), wq: dot(w, q) }
    }
}

/// The sums over all blocks of a piece that begins at a block, all of its numbers finite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceSums {
    /// One for each block.
    pub blocks: Vec<BlockSums>,
    /// How many |ŵ − w|, in f32, lie in each bin: floats with the same bits but for the sign and the last 19. [`DeviceSums::BINS`] of them.
    pub counts: Vec<u32>,
}

impl DeviceSums {
    /// Bins.
    pub const BINS: usize = 1 << 12;
}
