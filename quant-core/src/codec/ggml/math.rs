//! Primitives that the ggml quantizers share, with the results of C on x86-64.

use half::f16;

/// Scales below this are taken for zero (`GROUP_MAX_EPS`).
pub(crate) const EPS: f32 = 1e-15;

/// Rounds to the nearest integer, ties to even, for |v| ≤ 4194303; beyond that it returns what ggml's `nearest_int` does.
#[inline(always)]
pub(crate) fn nearest_int(v: f32) -> i32 {
    ((v + 12_582_912.0).to_bits() & 0x7f_ffff) as i32 - 0x40_0000
}

/// A cast of C: truncates; what does not fit, and NaN, gives `i32::MIN`.
#[inline(always)]
pub(crate) fn c_int(v: f32) -> i32 {
    if (-2_147_483_648.0..2_147_483_648.0).contains(&v) { v as i32 } else { i32::MIN }
}

/// The bits of `v` as f16, to nearest, ties to even.
#[inline(always)]
pub(crate) fn to_f16(v: f32) -> u16 {
    f16::from_f32(v).to_bits()
}

/// The value of f16 bits.
#[inline(always)]
pub(crate) fn from_f16(bits: u16) -> f32 {
    f16::from_bits(bits).to_f32()
}

/// The f16 at byte `at` of a block.
#[inline(always)]
pub(crate) fn f16_at(block: &[u8], at: usize) -> f32 {
    from_f16(u16::from_le_bytes([block[at], block[at + 1]]))
}

/// Writes `v` as f16 at byte `at` of a block.
#[inline(always)]
pub(crate) fn put_f16(block: &mut [u8], at: usize, v: f32) {
    block[at..at + 2].copy_from_slice(&to_f16(v).to_le_bytes());
}

/// The first element of the greatest magnitude, with its sign; 0 if there is none above 0.
#[inline(always)]
pub(crate) fn signed_max(x: &[f32]) -> f32 {
    let (mut greatest, mut signed) = (0f32, 0f32);
    for &v in x {
        if v.abs() > greatest {
            (greatest, signed) = (v.abs(), v);
        }
    }
    signed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_c() {
        for (v, even) in [(0.5, 0), (1.5, 2), (-0.5, 0), (2.499_999_8, 2), (-2.5, -2), (0.499_999_97, 0)] {
            assert_eq!(nearest_int(v), even, "{v}");
        }
        assert_eq!([c_int(f32::NAN), c_int(3e9), c_int(-2.9), c_int(-2_147_483_648.0)], [i32::MIN, i32::MIN, -2, i32::MIN]);
    }
}
