//! Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0: 32 elements that share one scale.
//!
//! | type | formula | bytes of a block of 32 | bits per weight |
//! |---|---|---|---|
//! | Q4_0 | `d·(q − 8)`, q in 0..=15 | `d` f16, `qs[16]`: 18 | 4.5 |
//! | Q4_1 | `d·q + m`, q in 0..=15 | `d` f16, `m` f16, `qs[16]`: 20 | 5 |
//! | Q5_0 | `d·(q − 16)`, q in 0..=31 | `d` f16, `qh[4]`, `qs[16]`: 22 | 5.5 |
//! | Q5_1 | `d·q + m`, q in 0..=31 | `d` f16, `m` f16, `qh[4]`, `qs[16]`: 24 | 6 |
//! | Q8_0 | `d·q`, q in −127..=127 | `d` f16, `qs[32]` i8: 34 | 8.5 |
//!
//! ```text
//! qs[j]  7 6 5 4 │ 3 2 1 0        j in 0..16: the low four bits of q
//!        q[j+16] │ q[j]
//! qh     little-endian u32, bit j: the fifth bit of q[j]
//! ```
//!
//! * Scale, no weights: the element of the greatest magnitude (the first such) becomes level 0 of Q4_0 (`d = v / −8`) and Q5_0
//!   (`d = v / −16`); the range least..greatest spans the levels of Q4_1 (`d = range / 15`, `m` = least) and Q5_1 (`/ 31`); the
//!   greatest magnitude becomes ±127 of Q8_0. Levels come from the f32 scale, before it is rounded to f16.
//! * Scale, with weights `w = importance · √(σ² + x²)`, σ² the mean square of the row: Q4_0 and Q5_0 try 19 scales, Q4_1 and Q5_1
//!   37 scales and minima, and keep the least weighted squared error (see [`super::search`]). Q8_0 ignores weights.
//! * Rounding: ½ is added and the fraction dropped, after the offset (so ties go up), at most the top level; Q8_0 ties away from
//!   zero; searched levels ties to even. Scales to f16 ties to even.
//! * Zero block: `d` is −0 (Q4_0, Q5_0 without weights) or 0, all levels stand for 0. If 1/d overflows, all levels are 0.
//! * Source: ggml 0.25.3, ggml-quants.c (MIT), `quantize_row_q4_0_ref`, `quantize_row_q4_0_impl` and their siblings,
//!   `dequantize_row_q4_0` and its siblings.

use super::block::{Blocks, Weights};
use super::math::{f16_at, put_f16, signed_max};
use super::search::{make_qkx, make_qx};

/// Elements of a block.
const LEN: usize = 32;
/// Blocks that are searched side by side.
const LANES: usize = 16;
/// Element i of block j is at `[i][j]`.
type Lanes<T> = [[T; LANES]; LEN];

/// What a block holds.
struct Content {
    d: f32,
    /// 0 where the type has none.
    m: f32,
    levels: [u8; LEN],
    /// The fifth bits of the levels.
    fifth: u32,
}

impl Content {
    #[inline(always)]
    fn new(d: f32, m: f32, level: impl Fn(usize) -> u8) -> Self {
        let (mut levels, mut fifth) = ([0; LEN], 0);
        for (i, q) in levels.iter_mut().enumerate() {
            *q = level(i);
            fifth |= u32::from(*q >> 4 & 1) << i;
        }
        Self { d, m, levels, fifth }
    }
}

macro_rules! legacy {
    ($(#[$doc:meta])* $name:ident, $bits:literal, $with_min:literal, $bytes:literal) => {
        $(#[$doc])*
        #[allow(non_camel_case_types, reason = "the field's own names")]
        pub(crate) struct $name;

        impl Blocks for $name {
            const LEN: usize = LEN;
            const BYTES: usize = $bytes;

            #[inline(always)]
            fn encode(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
                encode::<$bits, $with_min, $bytes>(x, weights, out);
            }

            #[inline(always)]
            fn decode(bytes: &[u8], out: &mut [f32]) {
                for (block, out) in bytes.as_chunks().0.iter().zip(out.as_chunks_mut().0) {
                    decode_block::<$bits, $with_min, $bytes>(block, out);
                }
            }

            #[inline(always)]
            fn steps(block: &[u8]) -> Option<[f32; 16]> {
                Some([f16_at(block, 0); 16])
            }
        }
    };
}

legacy! {
    /// Four bits, symmetric.
    Q4_0, 4, false, 18
}
legacy! {
    /// Four bits with a minimum.
    Q4_1, 4, true, 20
}
legacy! {
    /// Five bits, symmetric.
    Q5_0, 5, false, 22
}
legacy! {
    /// Five bits with a minimum.
    Q5_1, 5, true, 24
}

/// Eight bits, symmetric.
#[allow(non_camel_case_types, reason = "the field's own names")]
pub(crate) struct Q8_0;

impl Blocks for Q8_0 {
    const LEN: usize = LEN;
    const BYTES: usize = 34;

    #[inline(always)]
    fn encode(x: &[f32], _: Option<Weights<'_>>, out: &mut [u8]) {
        for (x, block) in x.as_chunks::<LEN>().0.iter().zip(out.as_chunks_mut::<34>().0) {
            let d = greatest_magnitude(x) / 127.0;
            let id = inverse(d);
            put_f16(block, 0, d);
            for (q, v) in block[2..].iter_mut().zip(x) {
                *q = round(v * id);
            }
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<34>().0.iter().zip(out.as_chunks_mut::<LEN>().0) {
            let d = f16_at(block, 0);
            for (v, q) in out.iter_mut().zip(&block[2..]) {
                *v = f32::from(*q as i8) * d;
            }
        }
    }

    #[inline(always)]
    fn steps(block: &[u8]) -> Option<[f32; 16]> {
        Some([f16_at(block, 0); 16])
    }
}

/// Encodes blocks of levels of `BITS` bits.
#[inline(always)]
fn encode<const BITS: u32, const WITH_MIN: bool, const BYTES: usize>(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
    let (x, out) = (x.as_chunks::<LEN>().0, out.as_chunks_mut::<BYTES>().0);
    let Some(weights) = weights else {
        for (x, block) in x.iter().zip(out) {
            let content = if WITH_MIN { asymmetric::<BITS>(x) } else { symmetric::<BITS>(x) };
            write::<BITS, WITH_MIN, BYTES>(&content, block);
        }
        return;
    };
    let importance = weights.importance.as_chunks::<LEN>().0.chunks(LANES);
    let inputs = x.chunks(LANES).zip(importance).zip(weights.row_mean_square.chunks(LANES));
    for (((x, importance), mean_square), blocks) in inputs.zip(out.chunks_mut(LANES)) {
        let (x, w) = side_by_side(x, importance, mean_square);
        let (d, m, levels) = search::<BITS, WITH_MIN>(&x, &w);
        for (lane, block) in blocks.iter_mut().enumerate() {
            let content = Content::new(d[lane], m[lane], |i| levels[i][lane] as u8);
            write::<BITS, WITH_MIN, BYTES>(&content, block);
        }
    }
}

/// The element of the greatest magnitude takes level 0.
#[inline(always)]
fn symmetric<const BITS: u32>(x: &[f32; LEN]) -> Content {
    let half = (1 << (BITS - 1)) as f32;
    let (least, greatest) = extremes(x);
    let signed = if greatest > -least { greatest } else { least };
    let d = if greatest == -least { signed_max(x) } else { signed } / -half;
    let id = inverse(d);
    Content::new(d, 0.0, |i| truncate(x[i] * id + (half + 0.5)).min((1 << BITS) - 1))
}

/// The levels span the range of the elements.
#[inline(always)]
fn asymmetric<const BITS: u32>(x: &[f32; LEN]) -> Content {
    let (least, greatest) = extremes(x);
    // 0 and −0 are equally small: the first one counts.
    let m = if least == 0.0 { x.iter().copied().find(|v| *v == 0.0).unwrap_or(least) } else { least };
    let d = (greatest - m) / ((1 << BITS) - 1) as f32;
    let id = inverse(d);
    Content::new(d, m, |i| truncate((x[i] - m) * id + 0.5))
}

/// The elements of up to [`LANES`] blocks and their weights, a lane for each block. Lanes without a block are zeros.
#[inline(always)]
fn side_by_side(x: &[[f32; LEN]], importance: &[[f32; LEN]], mean_square: &[f32]) -> (Lanes<f32>, Lanes<f32>) {
    let (mut values, mut weights, mut mean_squares) = ([[0f32; LANES]; LEN], [[0f32; LANES]; LEN], [0f32; LANES]);
    for (lane, ((x, importance), mean_square)) in x.iter().zip(importance).zip(mean_square).enumerate().take(LANES) {
        mean_squares[lane] = *mean_square;
        for i in 0..LEN {
            values[i][lane] = x[i];
            weights[i][lane] = importance[i];
        }
    }
    for i in 0..LEN {
        for lane in 0..LANES {
            weights[i][lane] *= (mean_squares[lane] + values[i][lane] * values[i][lane]).sqrt();
        }
    }
    (values, weights)
}

/// Scales, minima and levels of the least weighted error.
#[inline(always)]
fn search<const BITS: u32, const WITH_MIN: bool>(x: &Lanes<f32>, w: &Lanes<f32>) -> ([f32; LANES], [f32; LANES], Lanes<i32>) {
    if WITH_MIN {
        let found = make_qkx((1 << BITS) - 1, x, w, -0.9, 0.05, 36, false);
        (found.scale, found.min.map(|m| -m), found.levels)
    } else {
        let (scale, levels) = make_qx(1 << (BITS - 1), x, w);
        (scale, [0.0; LANES], levels)
    }
}

#[inline(always)]
fn write<const BITS: u32, const WITH_MIN: bool, const BYTES: usize>(content: &Content, block: &mut [u8; BYTES]) {
    put_f16(block, 0, content.d);
    if WITH_MIN {
        put_f16(block, 2, content.m);
    }
    let (head, qs) = block.split_at_mut(BYTES - LEN / 2);
    if BITS == 5
        && let Some(qh) = head.last_chunk_mut()
    {
        *qh = content.fifth.to_le_bytes();
    }
    for (j, byte) in qs.iter_mut().enumerate().take(LEN / 2) {
        *byte = content.levels[j] & 15 | content.levels[j + LEN / 2] << 4;
    }
}

#[inline(always)]
fn decode_block<const BITS: u32, const WITH_MIN: bool, const BYTES: usize>(block: &[u8; BYTES], out: &mut [f32; LEN]) {
    let (d, m) = (f16_at(block, 0), if WITH_MIN { f16_at(block, 2) } else { 0.0 });
    let (head, qs) = block.split_at(BYTES - LEN / 2);
    let qh = if BITS == 5 { head.last_chunk().map_or(0, |qh| u32::from_le_bytes(*qh)) } else { 0 };
    let value = |nibble: u8, j: usize| {
        let q = (u32::from(nibble) | (qh >> j & 1) << 4) as i32;
        if WITH_MIN { q as f32 * d + m } else { (q - (1 << (BITS - 1))) as f32 * d }
    };
    for (j, byte) in qs.iter().enumerate().take(LEN / 2) {
        out[j] = value(byte & 15, j);
        out[j + LEN / 2] = value(byte >> 4, j + LEN / 2);
    }
}

/// `1 / d`; 0 for a scale of 0.
#[inline(always)]
pub(super) fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Added to a number of magnitude below 2²², it leaves the nearest integer in the low bits.
const MAGIC: f32 = 12_582_912.0;

/// What a cast of C from f32 to int and on to a byte gives, for 0 ≤ v < 2²², ±∞ and NaN. Unlike `as`, it vectorises.
#[inline(always)]
fn truncate(v: f32) -> u8 {
    floor(v) as u8
}

/// The same of `roundf(v)`, ties away from zero, for |v| < 2²², ±∞ and NaN.
#[inline(always)]
pub(super) fn round(v: f32) -> u8 {
    // Adding the number just below ½ never carries a smaller fraction up.
    let magnitude = floor(v.abs() + 0.499_999_97);
    let sign = (v.to_bits() as i32 >> 31) as u32;
    (magnitude ^ sign).wrapping_sub(sign) as u8
}

/// A number whose low bits are those of ⌊v⌋, 0 ≤ v < 2²²; for ±∞ and NaN the low byte is 0.
#[inline(always)]
fn floor(v: f32) -> u32 {
    let nearest = v + MAGIC;
    nearest.to_bits() - u32::from(nearest - MAGIC > v)
}

/// Eight bytes of 0 or 1 as the bits of a byte, the first (lowest) one lowest.
#[inline(always)]
pub(super) fn pack_bits(bits: u64) -> u8 {
    // The factor moves bit 8i to bit 56 + i; no two products meet.
    (bits.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8
}

/// The greatest magnitude of a block.
#[inline(always)]
pub(super) fn greatest_magnitude<const N: usize>(x: &[f32; N]) -> f32 {
    // Magnitudes compare like their bits, and a reduction of integers is vectorised.
    let bits = x.iter().fold(0, |greatest: i32, v| greatest.max(v.abs().to_bits() as i32));
    f32::from_bits(bits as u32)
}

/// The least and the greatest element, −0 being less than 0.
#[inline(always)]
fn extremes(x: &[f32; LEN]) -> (f32, f32) {
    let (mut least, mut greatest) = (i32::MAX, i32::MIN);
    for v in x {
        let key = ordered(v.to_bits() as i32);
        (least, greatest) = (least.min(key), greatest.max(key));
    }
    (f32::from_bits(ordered(least) as u32), f32::from_bits(ordered(greatest) as u32))
}

/// Maps the bits of floats to integers in the same order, and back.
#[inline(always)]
fn ordered(bits: i32) -> i32 {
    bits ^ (bits >> 31 & i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_are_those_of_c() {
        for (v, down, away) in [(0.0, 0, 0), (0.499_999_97, 0, 0), (0.5, 0, 1), (1.5, 1, 2), (2.499_999_8, 2, 2), (126.5, 126, 127)] {
            assert_eq!((truncate(v), round(v), round(-v) as i8), (down, away, -(away as i8)), "{v}");
        }
        for v in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            assert_eq!((truncate(v), round(v)), (0, 0), "{v}");
        }
    }

    #[test]
    fn the_first_of_equals_counts() {
        let mut x = [0.5; LEN];
        (x[3], x[20]) = (-2.0, 2.0);
        assert_eq!(symmetric::<4>(&x).d, 0.25);
        (x[3], x[20]) = (2.0, -2.0);
        assert_eq!(symmetric::<4>(&x).d, -0.25);
        (x[3], x[20]) = (-0.0, 0.0);
        assert!(asymmetric::<4>(&x).m.is_sign_negative());
        (x[3], x[20]) = (0.0, -0.0);
        assert!(asymmetric::<4>(&x).m.is_sign_positive());
    }
}
