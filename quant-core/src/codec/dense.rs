//! Dense types: one number after the other, little-endian.
//!
//! | type | encoding from f32 | beyond its range |
//! |---|---|---|
//! | `f64` | exact | – |
//! | `f32` | as it is | – |
//! | `f16` `bf16` `f8_e5m2` | to nearest, ties to even; subnormals kept | ±Inf, counted |
//! | `f8_e4m3` | the same; no infinity | ±448, the largest, counted, as PyTorch 2.15 does; so for ±Inf |
//!
//! Numbers between codecs are f32, so f64 weights are rounded to f32 first, as PyTorch does on the way to f16 and bf16.
//! NaN stays NaN (quiet, its payload cut). −0 stays −0.
//!
//! **Layout.** `data`: the tensor's own shape, `bits` bits a weight, no alignment needed.
//!
//! **Source.** IEEE 754-2019; "OCP 8-bit Floating Point Specification", 2023; the conversions of PyTorch 2.15.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::{Codec, Known, Part, Scan, Slab, Tally, Unfit};
use crate::Dtype;
use crate::simd::widest;

/// The codec of a dense type.
pub(super) struct Dense {
    dtype: Dtype,
    parts: [Part; 1],
}

impl Dense {
    pub(super) fn new(dtype: Dtype, shape: &[u64]) -> Dense {
        Dense { dtype, parts: [Part::stream("data", dtype, shape.to_vec(), 1, dtype.bits() / 8)] }
    }
}

impl Codec for Dense {
    fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn granule(&self) -> u64 {
        1
    }

    fn scan(&self, _max_slab: u64) -> Option<Box<dyn Scan + '_>> {
        None
    }

    fn whole(&self, _part: usize, _known: &Known) -> Vec<u8> {
        Vec::new()
    }

    fn encode(&self, _slab: &Slab<'_>, x: &mut [f32], out: &mut [Vec<u8>]) -> Result<Tally, Unfit> {
        let out = &mut out[0];
        out.resize(x.len() * (self.dtype.bits() / 8) as usize, 0);
        let overflows = widest!((dtype: Dtype = self.dtype, x: &[f32] = x, out: &mut [u8] = out) -> u64 { encode(dtype, x, out) });
        Ok(Tally { overflows, ..Tally::default() })
    }

    fn keeps_numbers(&self) -> bool {
        true
    }

    fn decode(&self, _at: u64, parts: &[&[u8]], out: &mut [f32]) {
        widest!((dtype: Dtype = self.dtype, bytes: &[u8] = parts[0], out: &mut [f32] = out) -> () { decode(dtype, bytes, out) });
    }
}

/// Encodes numbers in a dense weight type. Returns how many overflow.
#[inline(always)]
fn encode(dtype: Dtype, x: &[f32], out: &mut [u8]) -> u64 {
    match dtype {
        Dtype::F64 => encode_each(x, out, |v| f64::from(v).to_le_bytes()),
        Dtype::F32 => encode_each(x, out, f32::to_le_bytes),
        Dtype::BF16 => encode_each(x, out, |v| to_bf16(v).to_le_bytes()),
        Dtype::F16 => encode_f16(x, out),
        Dtype::F8E4M3 => encode_each(x, out, |v| [to_f8_e4m3(v)]),
        Dtype::F8E5M2 => encode_each(x, out, |v| [to_f8_e5m2(v)]),
        other => unreachable!("{other} has no dense codec"),
    }
    largest(dtype).map_or(0, |limit| count_overflows(x, limit, dtype == Dtype::F8E4M3))
}

/// Decodes numbers of a dense weight type; `out` beyond the end of `bytes` is left alone.
#[inline(always)]
fn decode(dtype: Dtype, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        Dtype::F64 => decode_each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        Dtype::F32 => decode_each(bytes, out, f32::from_le_bytes),
        Dtype::BF16 => decode_each(bytes, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
        Dtype::F16 => decode_f16(bytes, out),
        Dtype::F8E4M3 => decode_each(bytes, out, |[b]: [u8; 1]| from_f8_e4m3(b)),
        Dtype::F8E5M2 => decode_each(bytes, out, |[b]: [u8; 1]| f16::from_bits(u16::from(b) << 8).to_f32()),
        other => unreachable!("{other} has no dense codec"),
    }
}

#[inline(always)]
fn encode_each<const N: usize>(x: &[f32], out: &mut [u8], bytes: impl Fn(f32) -> [u8; N]) {
    let (items, _) = out.as_chunks_mut::<N>();
    items.iter_mut().zip(x).for_each(|(item, &v)| *item = bytes(v));
}

#[inline(always)]
fn decode_each<const N: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    let (items, _) = bytes.as_chunks::<N>();
    out.iter_mut().zip(items).for_each(|(v, &item)| *v = value(item));
}

/// Elements of a step through half's slice conversions, which use the processor's own instructions.
const STEP: usize = 1024;

#[inline(always)]
fn encode_f16(x: &[f32], out: &mut [u8]) {
    let mut halves = [f16::ZERO; STEP];
    for (x, out) in x.chunks(STEP).zip(out.chunks_mut(STEP * 2)) {
        let halves = &mut halves[..x.len()];
        halves.convert_from_f32_slice(x);
        let (items, _) = out.as_chunks_mut::<2>();
        items.iter_mut().zip(halves).for_each(|(item, h)| *item = h.to_le_bytes());
    }
}

#[inline(always)]
fn decode_f16(bytes: &[u8], out: &mut [f32]) {
    let mut halves = [f16::ZERO; STEP];
    for (bytes, out) in bytes.chunks(STEP * 2).zip(out.chunks_mut(STEP)) {
        let (items, _) = bytes.as_chunks::<2>();
        let n = items.len().min(out.len());
        halves.iter_mut().zip(items).for_each(|(h, &item)| *h = f16::from_le_bytes(item));
        halves[..n].convert_to_f32_slice(&mut out[..n]);
    }
}

/// Rounds to f16 and back, in place.
pub(super) fn round_to_f16(x: &mut [f32]) {
    let mut halves = [f16::ZERO; STEP];
    for x in x.chunks_mut(STEP) {
        let halves = &mut halves[..x.len()];
        halves.convert_from_f32_slice(x);
        halves.convert_to_f32_slice(x);
    }
}

/// The bits of `v` in bf16, to nearest, ties to even.
#[inline(always)]
fn to_bf16(v: f32) -> u16 {
    let bits = v.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let quiet_nan = bits >> 16 | 0x40;
    (if bits & 0x7fff_ffff > 0x7f80_0000 { quiet_nan } else { rounded }) as u16
}

/// The finite magnitude from which on encoding overflows, as f32 bits.
fn largest(dtype: Dtype) -> Option<u32> {
    Some(match dtype {
        Dtype::F16 => 65_520f32.to_bits(),
        Dtype::BF16 => 0x7f7f_8000,
        Dtype::F8E5M2 => 61_440f32.to_bits(),
        Dtype::F8E4M3 => 464f32.to_bits() + 1,
        _ => return None,
    })
}

/// How many numbers are of the magnitude `limit` or more, counting infinities only where they are lost.
#[inline(always)]
fn count_overflows(x: &[f32], limit: u32, loses_infinity: bool) -> u64 {
    let end = 0x7f80_0000 + u32::from(loses_infinity);
    let over = |v: &f32| {
        let magnitude = v.to_bits() & 0x7fff_ffff;
        u32::from(magnitude >= limit) & u32::from(magnitude < end)
    };
    x.chunks(1024).map(|chunk| u64::from(chunk.iter().map(over).sum::<u32>())).sum()
}

/// The bits of `v` in an 8-bit float with `mantissa` bits of mantissa and the given exponent bias, before any special value.
#[inline(always)]
fn to_f8(v: f32, mantissa: u32, bias: i32) -> u8 {
    let magnitude = v.to_bits() & 0x7fff_ffff;
    let exponent = (magnitude >> 23) as i32 - 127 + bias;
    let significand = magnitude & 0x7f_ffff | u32::from(magnitude >> 23 != 0) << 23;
    // A normal result keeps `mantissa` bits below the leading one; a subnormal one fewer, down to none.
    let shift = 23 - mantissa + (1 - exponent).max(0) as u32;
    if shift > 24 {
        return 0;
    }
    let kept = significand >> shift;
    let rest = significand & ((1 << shift) - 1);
    let up = rest > 1 << (shift - 1) || (rest == 1 << (shift - 1) && kept & 1 == 1);
    let base = ((exponent.max(1) - 1) as u32) << mantissa;
    (base + kept + u32::from(up)).min(0x7f) as u8
}

#[inline(always)]
fn to_f8_e4m3(v: f32) -> u8 {
    let sign = (v.to_bits() >> 24 & 0x80) as u8;
    match v.abs() {
        _ if v.is_nan() => sign | 0x7f,
        magnitude if magnitude >= 464.0 => sign | 0x7e,
        _ => sign | to_f8(v, 3, 7),
    }
}

#[inline(always)]
fn to_f8_e5m2(v: f32) -> u8 {
    let sign = (v.to_bits() >> 24 & 0x80) as u8;
    match v.abs() {
        _ if v.is_nan() => sign | 0x7f,
        magnitude if magnitude >= 61_440.0 => sign | 0x7c,
        _ => sign | to_f8(v, 2, 15),
    }
}

#[inline(always)]
fn from_f8_e4m3(b: u8) -> f32 {
    let sign = if b & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (b >> 3 & 15, f32::from(b & 7));
    let magnitude = match (exponent, b & 7) {
        (15, 7) => return f32::NAN.copysign(sign),
        (0, _) => mantissa / 512.0,
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(i32::from(exponent) - 7),
    };
    sign * magnitude
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    fn value(dtype: Dtype, byte: u8) -> f32 {
        let mut out = [0.0];
        decode(dtype, &[byte], &mut out);
        out[0]
    }

    /// Among all finite values of the type the nearest, ties to the even code: the definition, by search.
    fn nearest(dtype: Dtype, v: f32) -> u8 {
        let finite = (0..0x80).filter(|&b| value(dtype, b).is_finite());
        let distance = |b: u8| (f64::from(value(dtype, b)) - f64::from(v.abs())).abs();
        let best = finite.min_by(|&a, &b| distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1)))).unwrap();
        best | if v.is_sign_negative() { 0x80 } else { 0 }
    }

    #[test]
    fn f8_encoding_is_nearest_even() {
        for (dtype, encode, limit) in [(Dtype::F8E4M3, to_f8_e4m3 as fn(f32) -> u8, 464.0), (Dtype::F8E5M2, to_f8_e5m2, 61_440.0)] {
            let values: Vec<f32> = (0..0x7f).map(|b| value(dtype, b)).filter(|v| v.is_finite()).collect();
            let midpoints = values.windows(2).map(|w| (w[0] + w[1]) / 2.0);
            let edges = values.iter().copied().chain(midpoints).flat_map(|v| [v, v.next_up(), v.next_down().max(0.0)]);
            for v in edges.chain([1e-9, 1e-40]).filter(|v| *v < limit) {
                assert_eq!(encode(v), nearest(dtype, v), "{dtype} {v:e}");
                assert_eq!(encode(-v), nearest(dtype, -v), "{dtype} -{v:e}");
            }
        }
        assert_eq!((to_f8_e4m3(463.9), to_f8_e4m3(1e9), to_f8_e4m3(f32::NEG_INFINITY)), (0x7e, 0x7e, 0xfe));
        assert_eq!((to_f8_e5m2(61_439.0), to_f8_e5m2(61_440.0), to_f8_e5m2(f32::NEG_INFINITY)), (0x7b, 0x7c, 0xfc));
    }

    #[test]
    fn bf16_agrees_with_half() {
        for bits in (0..=u32::MAX).step_by(9973).chain([0x7f7f_7fff, 0x7f7f_8000, 0x3f80_8000, 0x3f81_8000, 0x7f80_0001]) {
            let v = f32::from_bits(bits);
            assert_eq!(to_bf16(v), bf16::from_f32(v).to_bits(), "{bits:x}");
        }
    }

    #[test]
    fn overflows_are_counted_where_they_happen() {
        for dtype in [Dtype::F16, Dtype::BF16, Dtype::F8E4M3, Dtype::F8E5M2] {
            let limit = f32::from_bits(largest(dtype).unwrap());
            let mut x = [limit, limit.next_down(), -limit, f32::INFINITY, f32::NAN, 1.0];
            let mut out = [Vec::new()];
            let tally = Dense::new(dtype, &[6]).encode(&Slab::new(&Known::Nothing, 0), &mut x, &mut out).unwrap();
            let saturates = dtype == Dtype::F8E4M3;
            assert_eq!(tally.overflows, if saturates { 3 } else { 2 }, "{dtype}");
            let mut back = [0.0; 6];
            decode(dtype, &out[0], &mut back);
            let largest = if saturates { 448.0 } else { f32::INFINITY };
            assert_eq!((back[0], back[2]), (largest, -largest), "{dtype}");
            assert!(back[1].is_finite() && back[4].is_nan(), "{dtype} {back:?}");
        }
    }
}
