//! Linear quantization: `affine<b>` and `absmax<b>`, b from 2 to 8.
//!
//! | | affine | affine-zero | absmax |
//! |---|---|---|---|
//! | scale | s = (max − min) / (2^b − 1) | the same, with min ≤ 0 ≤ max | s = max\|w\| / (2^(b−1) − 1) |
//! | offset | m = min | m = −(z·s), z = round(−min/s) | none |
//! | code | q = round((w − m) / s), 0 … 2^b − 1 | the same | q = round(w / s), ±(2^(b−1) − 1), two's complement in b bits |
//! | decoded | ŵ = s·q + m | the same; 0 is exact | ŵ = s·q |
//!
//! **Layout.** `codes`: a bit stream, code i in the bits from i·b on, lowest bit of byte 0 first, ⌈n·b/8⌉ bytes.
//! `scales`: F32, one a group; `mins` (affine): F32, m, one a group.
//!
//! **Groups.** `:16` … `:4096` consecutive elements, row-major, running over row ends (default 64; a last group may be short);
//! `:row`, one row each; `:tensor`, one in all. Bits a weight: b + 32/group (absmax), b + 64/group (affine).
//!
//! **Arithmetic.** IEEE f32, one operation at a time, true divisions; `round` is to nearest, ties to even.
//!
//! **Edges.** A group of equal numbers has s = 0: affine codes are 0 and decode to min exactly. A minimum of −0 counts as 0. An all-zero group decodes
//! to zeros. NaN, ±Inf, and a range that overflows f32 are refused.
//!
//! **Error.** Inside the range |w − ŵ| ≤ s/2; for weights spread evenly over a step its variance is s²/12.
//!
//! **Source.** The textbook scheme, e.g. Jacob et al., "Quantization and Training of Neural Networks for Efficient
//! Integer-Arithmetic-Only Inference", 2018, equation 1, with a float offset in place of the integer zero point.

use super::groups::{Groups, Kernel, absmax as greatest, byte_shape, join, range};
use super::packing::Packing;
use super::{Tally, Unfit, refuse_non_finite};
use crate::Dtype;

pub(super) fn affine(bits: u8, exact_zero: bool, group: u64, n: u64) -> Groups<Affine> {
    let packing = Packing::LowFirst { bits: bits.into() };
    let codes = ("codes", Dtype::U8, byte_shape(packing, n));
    Groups::new(Affine { levels: f32::from((1u16 << bits) - 1), exact_zero }, packing, n, group, codes, &["scales", "mins"], vec![])
}

pub(super) fn absmax(bits: u8, group: u64, n: u64) -> Groups<Absmax> {
    let packing = Packing::LowFirst { bits: bits.into() };
    let codes = ("codes", Dtype::U8, byte_shape(packing, n));
    Groups::new(Absmax { bits, levels: f32::from((1u16 << (bits - 1)) - 1) }, packing, n, group, codes, &["scales"], vec![])
}

/// 1.5·2^23: adding it to a float of magnitude below 2^22 rounds it to an integer, ties to even, in the low mantissa bits.
pub(super) const ROUND: f32 = 12_582_912.0;

/// `q` between two bounds, in the form that maps to two instructions; it is not NaN.
#[inline(always)]
fn within(q: f32, least: f32, most: f32) -> f32 {
    let q = if q > least { q } else { least };
    if q < most { q } else { most }
}

/// Zero without a sign. Which of two zeros is the least depends on the order in which they are compared, which slabs and vectors change.
#[inline(always)]
fn without_sign(v: f32) -> f32 {
    if v == 0.0 { 0.0 } else { v }
}

/// Asymmetric: parameters are the scale and the offset.
pub(super) struct Affine {
    levels: f32,
    exact_zero: bool,
}

impl Kernel for Affine {
    const PARAMS: usize = 2;

    #[inline(always)]
    fn prepare(&self, at: u64, x: &mut [f32], _tally: &mut Tally) -> Result<(), Unfit> {
        refuse_non_finite(at, x)
    }

    #[inline(always)]
    fn measure(&self, x: &[f32]) -> [f32; 2] {
        range(x)
    }

    #[inline(always)]
    fn params(&self, stats: [f32; 2], _full: bool) -> Result<[f32; 2], f32> {
        let [min, max] = if self.exact_zero { join(stats, [0.0, 0.0]) } else { stats }.map(without_sign);
        let scale = (max - min) / self.levels;
        if !scale.is_finite() {
            return Err(max - min);
        }
        if self.exact_zero && scale > 0.0 {
            let zero = (-min / scale).round_ties_even().min(self.levels);
            return Ok([scale, -(zero * scale)]);
        }
        Ok([scale, min])
    }

    #[inline(always)]
    fn quantize(&self, [scale, min]: [f32; 2], _full: bool, x: &[f32], codes: &mut [u8]) {
        if scale == 0.0 {
            return codes.fill(0);
        }
        for (code, &w) in codes.iter_mut().zip(x) {
            let q = within((w - min) / scale, 0.0, self.levels);
            *code = (q + ROUND).to_bits() as u8;
        }
    }

    #[inline(always)]
    fn dequantize(&self, [scale, min]: [f32; 2], _tables: &[&[u8]], codes: &[u8], out: &mut [f32]) {
        for (w, &code) in out.iter_mut().zip(codes) {
            *w = scale * f32::from(code) + min;
        }
    }

    fn step(&self, [scale, _]: [f32; 2]) -> Option<f32> {
        Some(scale)
    }
}

/// Symmetric: the parameter is the scale.
pub(super) struct Absmax {
    bits: u8,
    levels: f32,
}

impl Kernel for Absmax {
    const PARAMS: usize = 1;

    #[inline(always)]
    fn prepare(&self, at: u64, x: &mut [f32], _tally: &mut Tally) -> Result<(), Unfit> {
        refuse_non_finite(at, x)
    }

    #[inline(always)]
    fn measure(&self, x: &[f32]) -> [f32; 2] {
        greatest(x)
    }

    #[inline(always)]
    fn params(&self, stats: [f32; 2], _full: bool) -> Result<[f32; 2], f32> {
        Ok([stats[1] / self.levels, 0.0])
    }

    #[inline(always)]
    fn quantize(&self, [scale, _]: [f32; 2], _full: bool, x: &[f32], codes: &mut [u8]) {
        if scale == 0.0 {
            return codes.fill(0);
        }
        let mask = ((1u16 << self.bits) - 1) as u8;
        for (code, &w) in codes.iter_mut().zip(x) {
            let q = within(w / scale, -self.levels, self.levels);
            *code = (q + ROUND).to_bits() as u8 & mask;
        }
    }

    #[inline(always)]
    fn dequantize(&self, [scale, _]: [f32; 2], _tables: &[&[u8]], codes: &[u8], out: &mut [f32]) {
        let shift = 8 - self.bits;
        for (w, &code) in out.iter_mut().zip(codes) {
            *w = scale * f32::from((code << shift) as i8 >> shift);
        }
    }

    fn step(&self, [scale, _]: [f32; 2]) -> Option<f32> {
        Some(scale)
    }
}
