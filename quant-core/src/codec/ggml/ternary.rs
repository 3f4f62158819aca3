//! TQ1_0 and TQ2_0: 256 elements of −1, 0 or 1 and a scale.
//!
//! | type | formula | bytes of a block of 256 | bits per weight |
//! |---|---|---|---|
//! | TQ1_0 | `d·(t − 1)`, t a ternary digit | `qs[48]`, `qh[4]`, `d` f16: 54 | 1.6875 |
//! | TQ2_0 | `d·(q − 1)`, q in 0..=2 | `qs[64]`, `d` f16: 66 | 2.0625 |
//!
//! ```text
//! TQ1_0  qs[m], m in  0..32   elements       m + 32n, n in 0..5
//!        qs[m], m in 32..48   elements 160 + (m − 32) + 16n, n in 0..5
//!        qh[m], m in  0..4    elements 240 + m + 4n, n in 0..4, and a digit 0
//!        A byte is the fraction 0.t₀t₁t₂t₃t₄ of base 3 in 256ths, rounded up: ⌈256/243 · Σ tₙ·3⁴⁻ⁿ⌉.
//! TQ2_0  qs[32h + m], h in 0..2, m in 0..32
//!          7 6 │ 5 4 │ 3 2 │ 1 0    elements 128h + m + 32n, n in 0..4, n = 0 lowest
//! ```
//!
//! * Scale: the greatest magnitude. Weights are ignored.
//! * Rounding: x/d to the nearest integer, ties away from zero. Scales to f16 ties to even.
//! * Zero block: `d` = 0 and every element 0 (digit 1); also if 1/d overflows.
//! * Source: ggml 0.25.3, ggml-quants.c (MIT), `quantize_row_tq1_0_ref`, `quantize_row_tq2_0_ref`, `dequantize_row_tq1_0`,
//!   `dequantize_row_tq2_0`.

use super::block::{Blocks, Weights};
use super::legacy::{greatest_magnitude, inverse, round};
use super::math::{f16_at, put_f16};

/// Elements of a block.
const LEN: usize = 256;

/// Five ternary digits a byte.
#[allow(non_camel_case_types, reason = "the field's own names")]
pub(crate) struct TQ1_0;

impl Blocks for TQ1_0 {
    const LEN: usize = LEN;
    const BYTES: usize = 54;

    #[inline(always)]
    fn encode(x: &[f32], _: Option<Weights<'_>>, out: &mut [u8]) {
        for (x, block) in x.as_chunks::<LEN>().0.iter().zip(out.as_chunks_mut::<54>().0) {
            let (d, digits) = quantize(x);
            pack_digits::<32, 5>(&digits[..160], &mut block[..32]);
            pack_digits::<16, 5>(&digits[160..240], &mut block[32..48]);
            pack_digits::<4, 4>(&digits[240..], &mut block[48..52]);
            put_f16(block, 52, d);
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<54>().0.iter().zip(out.as_chunks_mut::<LEN>().0) {
            let d = f16_at(block, 52);
            unpack_digits::<32>(&block[..32], d, &mut out[..160]);
            unpack_digits::<16>(&block[32..48], d, &mut out[160..240]);
            unpack_digits::<4>(&block[48..52], d, &mut out[240..]);
        }
    }
}

/// Two bits an element.
#[allow(non_camel_case_types, reason = "the field's own names")]
pub(crate) struct TQ2_0;

impl Blocks for TQ2_0 {
    const LEN: usize = LEN;
    const BYTES: usize = 66;

    #[inline(always)]
    fn encode(x: &[f32], _: Option<Weights<'_>>, out: &mut [u8]) {
        for (x, block) in x.as_chunks::<LEN>().0.iter().zip(out.as_chunks_mut::<66>().0) {
            let (d, digits) = quantize(x);
            for (half, qs) in digits.as_chunks::<128>().0.iter().zip(block.as_chunks_mut::<32>().0) {
                for (m, byte) in qs.iter_mut().enumerate() {
                    *byte = half[m] | half[m + 32] << 2 | half[m + 64] << 4 | half[m + 96] << 6;
                }
            }
            put_f16(block, 64, d);
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<66>().0.iter().zip(out.as_chunks_mut::<LEN>().0) {
            let d = f16_at(block, 64);
            for (qs, out) in block.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<128>().0) {
                for (n, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                    for (v, byte) in out.iter_mut().zip(qs) {
                        *v = (i32::from(byte >> (2 * n) & 3) - 1) as f32 * d;
                    }
                }
            }
        }
    }
}

/// The scale, and the digits 0, 1, 2.
#[inline(always)]
fn quantize(x: &[f32; LEN]) -> (f32, [u8; LEN]) {
    let d = greatest_magnitude(x);
    let id = inverse(d);
    let mut digits = [0u8; LEN];
    for (digit, v) in digits.iter_mut().zip(x) {
        *digit = round(v * id).wrapping_add(1);
    }
    (d, digits)
}

/// Packs `N` digits into each byte; digit `n` of byte `m` is `digits[m + n * STRIDE]`.
#[inline(always)]
fn pack_digits<const STRIDE: usize, const N: usize>(digits: &[u8], bytes: &mut [u8]) {
    let (digits, _) = digits.as_chunks::<STRIDE>();
    for (m, byte) in bytes.iter_mut().enumerate().take(STRIDE) {
        let mut number = 0u16;
        for digits in digits {
            number = number * 3 + u16::from(digits[m]);
        }
        number *= const { 3u16.pow(5 - N as u32) };
        *byte = (number * 256).div_ceil(243) as u8;
    }
}

/// The inverse of [`pack_digits`], times `d`.
#[inline(always)]
fn unpack_digits<const STRIDE: usize>(bytes: &[u8], d: f32, out: &mut [f32]) {
    let mut power = 1u8;
    for out in out.as_chunks_mut::<STRIDE>().0 {
        for (v, byte) in out.iter_mut().zip(bytes) {
            // The fraction that is left after the digits before; times 3, its integer part is the digit.
            let fraction = byte.wrapping_mul(power);
            *v = (((i32::from(fraction) * 3) >> 8) - 1) as f32 * d;
        }
        power = power.wrapping_mul(3);
    }
}
