//! Q1_0 and Q2_0: one or two bits per element and a scale.
//!
//! | type | formula | bytes of a block | bits per weight |
//! |---|---|---|---|
//! | Q1_0 | `q ? d : −d` | 128 elements: `d` f16, `qs[16]`: 18 | 1.125 |
//! | Q2_0 | `d·(q − 1)`, q in 0..=3 | 64 elements: `d` f16, `qs[16]`: 18 | 2.25 |
//!
//! ```text
//! Q1_0  qs[j]   7      6      5      4      3      2      1      0        j in 0..16
//!             8j+7   8j+6   8j+5   8j+4   8j+3   8j+2   8j+1    8j
//! Q2_0  qs[j]   7  6   │  5  4   │  3  2   │  1  0                        j in 0..16
//!               4j+3   │  4j+2   │  4j+1   │   4j
//! ```
//!
//! * Scale: the mean magnitude (Q1_0; a sum from left to right, then divided by 128), the greatest magnitude (Q2_0). Weights are
//!   ignored.
//! * Rounding: Q1_0 keeps whether an element is ≥ 0, so −0 counts as positive. Q2_0 rounds x/d to the nearest integer, ties away
//!   from zero; as |x| ≤ d, level 3 is never used. Scales to f16 ties to even.
//! * Zero block: `d` = 0 and bits 1 (Q1_0), levels 1 (Q2_0). If 1/d overflows, Q2_0 has levels 0.
//! * Source: ggml 0.25.3, ggml-quants.c (MIT), `quantize_row_q1_0_ref`, `quantize_row_q2_0_ref`, `dequantize_row_q1_0`,
//!   `dequantize_row_q2_0`.

use super::block::{Blocks, Weights};
use super::legacy::{greatest_magnitude, inverse, pack_bits};
use super::math::{f16_at, put_f16};

/// Bytes of a block of either type.
const BYTES: usize = 18;
/// Blocks of Q1_0 that are summed at once.
const LANES: usize = 8;

/// One bit: the sign.
#[allow(non_camel_case_types, reason = "the field's own names")]
pub(crate) struct Q1_0;

impl Blocks for Q1_0 {
    const LEN: usize = 128;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn encode(x: &[f32], _: Option<Weights<'_>>, out: &mut [u8]) {
        let (x, out) = (x.as_chunks::<{ Self::LEN }>().0, out.as_chunks_mut::<BYTES>().0);
        let ((together, rest), (out_together, out_rest)) = (x.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
        for (x, blocks) in together.iter().zip(out_together) {
            write_signs(x, blocks);
        }
        for (x, block) in rest.iter().zip(out_rest) {
            write_signs(&[*x], std::array::from_mut(block));
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<{ Self::LEN }>().0) {
            let d = f16_at(block, 0);
            for (byte, out) in block[2..].iter().zip(out.as_chunks_mut::<8>().0) {
                for (j, v) in out.iter_mut().enumerate() {
                    *v = if byte >> j & 1 == 1 { d } else { -d };
                }
            }
        }
    }
}

/// Encodes `B` blocks of Q1_0, whose sums run side by side.
#[inline(always)]
fn write_signs<const B: usize>(x: &[[f32; Q1_0::LEN]; B], blocks: &mut [[u8; BYTES]; B]) {
    let mut sums = [0f32; B];
    for i in 0..Q1_0::LEN {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += x[i].abs();
        }
    }
    for ((x, sum), block) in x.iter().zip(sums).zip(blocks) {
        put_f16(block, 0, sum / Q1_0::LEN as f32);
        let mut signs = [0u8; Q1_0::LEN];
        for (sign, v) in signs.iter_mut().zip(x) {
            *sign = u8::from(*v >= 0.0);
        }
        for (byte, signs) in block[2..].iter_mut().zip(signs.as_chunks().0) {
            *byte = pack_bits(u64::from_le_bytes(*signs));
        }
    }
}

/// Two bits: −1, 0, 1 (and 2, which the encoder does not produce).
#[allow(non_camel_case_types, reason = "the field's own names")]
pub(crate) struct Q2_0;

impl Blocks for Q2_0 {
    const LEN: usize = 64;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn encode(x: &[f32], _: Option<Weights<'_>>, out: &mut [u8]) {
        for (x, block) in x.as_chunks::<{ Self::LEN }>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
            let d = greatest_magnitude(x);
            let id = inverse(d);
            put_f16(block, 0, d);
            let mut levels = [0u8; Self::LEN];
            if id.is_finite() {
                for (q, v) in levels.iter_mut().zip(x) {
                    *q = u8::from(v * id > -0.5) + u8::from(v * id >= 0.5);
                }
            }
            for (byte, q) in block[2..].iter_mut().zip(levels.as_chunks::<4>().0) {
                let q = u32::from_le_bytes(*q);
                *byte = (q | q >> 6 | q >> 12 | q >> 18) as u8;
            }
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<{ Self::LEN }>().0) {
            let d = f16_at(block, 0);
            for (byte, out) in block[2..].iter().zip(out.as_chunks_mut::<4>().0) {
                for (j, v) in out.iter_mut().enumerate() {
                    *v = (i32::from(byte >> (2 * j) & 3) - 1) as f32 * d;
                }
            }
        }
    }
}
