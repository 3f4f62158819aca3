//! MXFP4 and NVFP4: four-bit floats (E2M1) with a scale in one byte.
//!
//! | type | formula | bytes of a block | bits per weight |
//! |---|---|---|---|
//! | MXFP4 | `2^(e − 128)·v` | 32 elements: `e` E8M0, `qs[16]`: 17 | 4.25 |
//! | NVFP4 | `d/2·v`, `d` for 16 elements | 64 elements: `d[4]` UE4M3, `qs[32]`: 36 | 4.5 |
//!
//! v is twice the E2M1 value: 0, 1, 2, 3, 4, 6, 8, 12 for codes 0..8 and their negatives for codes 8..16 (code 8 is 0).
//!
//! ```text
//!               7 6 5 4  │ 3 2 1 0
//! MXFP4 qs[j]   q[j+16]  │ q[j]             j in 0..16
//! NVFP4 qs[j]   q[s+j+8] │ q[s+j]           s = 8·⌊j/8⌋, j in 0..32
//! d[s]          0 eeee mmm: (1 + m/8)·2^(e−7), m·2⁻⁹ for e = 0; 0x7F is 0
//! ```
//!
//! * Scale: MXFP4 `e = ⌊log2f(a)⌋ − 2 + 127` of the greatest magnitude a, where log2f has been rounded to f32 (just below a large
//!   power of two that power is taken); below 2⁻¹²⁵ the exponent wraps in its byte. NVFP4 `a / 6`, rounded to UE4M3 with
//!   ties up; anything that rounds to 256 or above gives 448, anything below 2⁻¹⁰ gives 0.
//! * Rounding: the level with the least |v·d − x| in f32, ties to the smaller magnitude (if x is so large that |v·d − x| is the same
//!   for several levels, the smallest of them).
//! * Zero block: all bytes 0. Code 8 is never written.
//! * Source: ggml 0.25.3, ggml-quants.c and ggml-impl.h (MIT), `quantize_row_mxfp4_ref`, `quantize_row_nvfp4_ref`,
//!   `ggml_fp32_to_ue4m3`, `ggml_ue4m3_to_fp32`, `dequantize_row_mxfp4`, `dequantize_row_nvfp4`.

use super::block::{Blocks, Weights};
use super::legacy::greatest_magnitude;
use super::math::c_int;

/// Twice the magnitudes of E2M1 for codes 1..8; that of code 0 is 0.
const LEVELS: [u8; 7] = [1, 2, 3, 4, 6, 8, 12];

/// The Open Compute microscaling format: scales are powers of two.
pub(crate) struct Mxfp4;

impl Blocks for Mxfp4 {
    const LEN: usize = 32;
    const BYTES: usize = 17;

    #[inline(always)]
    fn encode(x: &[f32], _: Option<Weights<'_>>, out: &mut [u8]) {
        for (x, block) in x.as_chunks::<{ Self::LEN }>().0.iter().zip(out.as_chunks_mut::<{ Self::BYTES }>().0) {
            let greatest = greatest_magnitude(x);
            let e = if greatest > 0.0 { (floor_log2f(greatest) + 125) as u8 } else { 0 };
            block[0] = e;
            write_codes(x, e8m0_half(e), &mut block[1..]);
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<{ Self::BYTES }>().0.iter().zip(out.as_chunks_mut::<{ Self::LEN }>().0) {
            let d = e8m0_half(block[0]);
            let mut codes = [0; Self::LEN];
            read_codes(&block[1..], &mut codes);
            for (v, code) in out.iter_mut().zip(codes) {
                *v = f32::from(value(code)) * d;
            }
        }
    }
}

/// NVIDIA's format: scales are small floats. There is no scale for the tensor as a whole.
pub(crate) struct Nvfp4;

impl Blocks for Nvfp4 {
    const LEN: usize = 64;
    const BYTES: usize = 36;

    #[inline(always)]
    fn encode(x: &[f32], _: Option<Weights<'_>>, out: &mut [u8]) {
        for (x, block) in x.as_chunks::<{ Self::LEN }>().0.iter().zip(out.as_chunks_mut::<{ Self::BYTES }>().0) {
            let (scales, qs) = block.split_at_mut(4);
            for ((x, d), qs) in x.as_chunks::<16>().0.iter().zip(scales).zip(qs.as_chunks_mut::<8>().0) {
                *d = to_ue4m3(greatest_magnitude(x) / 6.0);
                write_codes(x, ue4m3_half(*d), qs);
            }
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<{ Self::BYTES }>().0.iter().zip(out.as_chunks_mut::<{ Self::LEN }>().0) {
            let (scales, qs) = block.split_at(4);
            let mut codes = [0; Self::LEN];
            for (codes, qs) in codes.as_chunks_mut::<16>().0.iter_mut().zip(qs.as_chunks::<8>().0) {
                read_codes(qs, codes);
            }
            for (v, code) in out.iter_mut().zip(codes) {
                *v = f32::from(value(code));
            }
            for (out, d) in out.as_chunks_mut::<16>().0.iter_mut().zip(scales) {
                let d = ue4m3_half(*d);
                for v in out {
                    *v *= d;
                }
            }
        }
    }
}

/// Codes of `N` elements: those of the first half in the low nibbles, those of the second half in the high ones.
#[inline(always)]
fn write_codes<const N: usize>(x: &[f32; N], d: f32, qs: &mut [u8]) {
    let levels = LEVELS.map(|level| f32::from(level) * d);
    let mut codes = [0u8; N];
    for (code, v) in codes.iter_mut().zip(x) {
        *code = nearest(*v, levels);
    }
    for (j, byte) in qs.iter_mut().enumerate().take(N / 2) {
        *byte = codes[j] | codes[j + N / 2] << 4;
    }
}

/// The code of the first of the nearest levels. Levels of the other sign are never nearer than 0.
#[inline(always)]
fn nearest(v: f32, levels: [f32; 7]) -> u8 {
    let magnitude = v.abs();
    let (mut code, mut least) = (0u32, magnitude);
    for (i, level) in levels.into_iter().enumerate() {
        let error = (level - magnitude).abs();
        code = if error < least { i as u32 + 1 } else { code };
        least = if error < least { error } else { least };
    }
    let sign = if v < 0.0 && code > 0 { 8 } else { 0 };
    (code | sign) as u8
}

/// The inverse of [`write_codes`], without the scale.
#[inline(always)]
fn read_codes(qs: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(qs.len());
    for ((low, high), byte) in low.iter_mut().zip(high).zip(qs) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

/// Twice the E2M1 value of a code.
#[inline(always)]
fn value(code: u8) -> i8 {
    let mut magnitude = 0;
    for (i, level) in LEVELS.into_iter().enumerate() {
        magnitude = if code & 7 > i as u8 { level as i8 } else { magnitude };
    }
    if code & 8 == 8 { -magnitude } else { magnitude }
}

/// `floorf(log2f(v))` of a positive finite number, for a log2f whose f32 is the nearest to the logarithm.
#[inline(always)]
fn floor_log2f(v: f32) -> i32 {
    let bits = f64::from(v).to_bits();
    let above = (bits >> 52) as i32 - 1022;
    // v = (1 − lack)·2^above, and log2(1 − lack) ≈ −lack·log2(e) where it is small enough to matter.
    let lack = 1.0 - f64::from_bits(bits & ((1 << 52) - 1) | 1022 << 52);
    let logarithm = f64::from(above) - lack * std::f64::consts::LOG2_E;
    if logarithm as f32 == above as f32 { above } else { above - 1 }
}

/// Half the value of an E8M0 scale: 2^(e − 128).
#[inline(always)]
fn e8m0_half(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { (u32::from(e) - 1) << 23 })
}

/// To UE4M3. From 248 on this gives 448, the greatest value.
#[inline(always)]
fn to_ue4m3(v: f32) -> u8 {
    if v < 0.015_625 {
        // Below 2⁻⁶ the steps are 2⁻⁹; the last of them is not rounded up to 2⁻⁶.
        return c_int(v * 512.0 + 0.5).min(7) as u8;
    }
    let code = ((v.min(448.0).to_bits() + (1 << 19)) >> 20) - (120 << 3);
    if code < 15 << 3 { code as u8 } else { 0x7E }
}

/// Half the value of a UE4M3 scale.
#[inline(always)]
fn ue4m3_half(d: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(d >> 3 & 15), u32::from(d & 7));
    if d == 0x7F {
        0.0
    } else if exponent == 0 {
        mantissa as f32 / 1024.0
    } else {
        f32::from_bits((exponent + 119) << 23 | mantissa << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_rounded_before_their_floor() {
        for exponent in -149..128 {
            let power = 2f64.powi(exponent) as f32;
            for below in 0..100.min(power.to_bits()) {
                let v = f32::from_bits(power.to_bits() - below);
                assert_eq!(floor_log2f(v), (f64::from(v).log2() as f32).floor() as i32, "{v:e}");
            }
        }
    }

    #[test]
    fn scales_of_ue4m3() {
        let ends = [(0.0, 0), (9.7e-4, 0), (9.765_625e-4, 1), (0.0155, 7), (0.015_625, 8), (1.0625, 57), (247.9, 0x77), (248.0, 0x7E), (1e9, 0x7E)];
        for (v, code) in ends {
            assert_eq!(to_ue4m3(v), code, "{v}");
        }
        for code in 0..0x77 {
            assert_eq!(to_ue4m3(2.0 * ue4m3_half(code)), code);
        }
    }
}
