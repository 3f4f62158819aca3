//! IQ2_XXS, IQ2_XS, IQ2_S: eight weights at a time as a point of a lattice, with signs.
//!
//! ```text
//! x = d · (½ + l) · ¼ · m(q) · sign      q: a level 0, 1, 2 of the point's coordinate; m = 8, 25, 43
//! ```
//!
//! A block of 256 is 32 groups of eight, each a point of the type's grid ([`grids`](super::grids)) and eight signs. 32 or 16
//! elements (a sub-block) share `l`, four bits. Bytes, in order:
//!
//! ```text
//!          bytes  bpw     d        then
//! IQ2_XXS  66     2.0625  f16 [2]  qs [64]: per sub-block of 32 four bytes (points), then a u32: four times 7 signs, l in bits 28–31
//! IQ2_XS   74     2.3125  f16 [2]  qs [64]: u16 per group: point in bits 0–8, 7 signs above; scales [8]: l of two sub-blocks of 16
//! IQ2_S    82     2.5625  f16 [2]  qs [64]: a byte per group (low bits of the point), a byte per group (8 signs);
//!                                  qh [8]: two high bits per group; scales [8]: l of two sub-blocks of 16
//! ```
//!
//! Signs: bit `i` set means that element `i` is negative. Where only seven are stored the number of negatives is even; if it is odd,
//! the element with the least w·x² changes its sign.
//!
//! **Scale.** Weights w = importance · √(σ² + x²), σ² the mean square of the block (IQ2_S: twice that; without importance
//! w = ¼σ² + x²). For 13 or 19 scales around a first guess (IQ2_XXS: a weighted fit to levels 0–4; else max/5), |x| is rounded to
//! levels, each group goes to its tuple's point or to the neighbour with the least Σ √w·(scale·q − |x|)², and the fit with the greatest
//! (Σ w·x·q)² / Σ w·q² wins, q = 1, 3, 5. One more round with the fitted scale follows (IQ2_XXS: of all groups; else of those off the
//! grid). Then d = max/31 and l = ½(scale/d − 1), with the unrounded d; IQ2_S stores d · 0.9875.
//!
//! **Rounding**: to nearest, ties to even, then clamped. **Zero**: a sub-block without a greatest value above 1e-15 (IQ2_S: 1e-8)
//! has point 0, no signs and scale 0; a block of such is all zero bytes. **Finite input only.**
//! IQ2_XXS and IQ2_XS are made for an importance matrix; without one all elements matter alike (ggml refuses).
//!
//! Source: ggml 0.25.3, ggml-quants.c (MIT), `quantize_row_iq2_xxs_impl`, `quantize_row_iq2_xs_impl`, `quantize_row_iq2_s_impl`,
//! `make_qp_quants`, `dequantize_row_iq2_xxs`, `dequantize_row_iq2_xs`, `dequantize_row_iq2_s`.

mod search;

use std::array::from_fn;

use self::search::{Block, Encoded, Signs};
use super::block::{Blocks, Weights};
use super::grids::{GRID_2BIT_256, GRID_2BIT_512, GRID_2BIT_1024};
use super::lattice;
use super::math::{EPS, f16_at, nearest_int, put_f16};

/// Elements of a block.
const LEN: usize = 256;
/// Groups of eight in a block.
const GROUPS: usize = LEN / 8;
/// Blocks whose sums run side by side.
const TOGETHER: usize = 8;
/// The importance of elements of which nothing is known.
const ALIKE: [f32; LEN] = [1.0; LEN];
/// Below this a sub-block of IQ2_S is zero (`GROUP_MAX_EPS_IQ2_S`).
const EPS_IQ2_S: f32 = 1e-8;

/// IQ2_XXS, 2.0625 bits per weight.
pub(crate) struct Iq2Xxs;
/// IQ2_XS, 2.3125 bits per weight.
pub(crate) struct Iq2Xs;
/// IQ2_S, 2.5625 bits per weight.
pub(crate) struct Iq2S;

impl Blocks for Iq2Xxs {
    const LEN: usize = LEN;
    const BYTES: usize = 66;

    #[inline(always)]
    fn encode(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
        encode_blocks::<Self>(x, weights, out);
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.chunks_exact(Self::BYTES).zip(out.chunks_exact_mut(LEN)) {
            let d = f16_at(block, 0);
            for (qs, out) in block[2..].as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<32>().0) {
                let rest = u32::from_le_bytes([qs[4], qs[5], qs[6], qs[7]]);
                let d = d * (0.5 + (rest >> 28) as f32) * 0.25;
                for (g, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                    put_group(d, GRID_2BIT_256[usize::from(qs[g])], even_signs((rest >> (7 * g)) as u8), out);
                }
            }
        }
    }
}

impl Blocks for Iq2Xs {
    const LEN: usize = LEN;
    const BYTES: usize = 74;

    #[inline(always)]
    fn encode(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
        encode_blocks::<Self>(x, weights, out);
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.chunks_exact(Self::BYTES).zip(out.chunks_exact_mut(LEN)) {
            let (qs, scales) = block[2..].split_at(64);
            for (g, (qs, out)) in qs.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<8>().0).enumerate() {
                let q = u16::from_le_bytes(*qs);
                put_group(group_scale(block, scales, g), GRID_2BIT_512[usize::from(q & 511)], even_signs((q >> 9) as u8), out);
            }
        }
    }
}

impl Blocks for Iq2S {
    const LEN: usize = LEN;
    const BYTES: usize = 82;

    #[inline(always)]
    fn encode(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
        encode_blocks::<Self>(x, weights, out);
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.chunks_exact(Self::BYTES).zip(out.chunks_exact_mut(LEN)) {
            let (qs, rest) = block[2..].split_at(GROUPS);
            let (signs, rest) = rest.split_at(GROUPS);
            let (qh, scales) = rest.split_at(8);
            for (g, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                let high = qh[g / 4] >> (2 * (g % 4)) & 3;
                let point = usize::from(u16::from_le_bytes([qs[g], high]));
                put_group(group_scale(block, scales, g), GRID_2BIT_1024[point], signs[g], out);
            }
        }
    }
}

/// The encoder of one block.
trait Encode: Blocks {
    /// Encodes `x`, of which `sum` is Σx².
    fn encode_block(x: &[f32; LEN], importance: Option<&[f32; LEN]>, sum: f32, out: &mut [u8]);
}

impl Encode for Iq2Xxs {
    #[inline(always)]
    fn encode_block(x: &[f32; LEN], importance: Option<&[f32; LEN]>, sum: f32, out: &mut [u8]) {
        let lattice = &*lattice::IQ2_XXS;
        let block = Block::<4, 8>::new(x, &weigh(x, importance.unwrap_or(&ALIKE), sum / LEN as f32), Signs::Even);
        let guess = block.fit_levels();
        let greatest = guess.map(|scale| scale * 3.0);
        let alive = from_fn(|s| !(block.max[s] < EPS || greatest[s] <= 0.0));
        let mut fit = block.search::<13>(lattice, &greatest, guess);
        block.refine(lattice, &mut fit, 0);
        write_xxs(&block.finish(fit, alive), out);
    }
}

impl Encode for Iq2Xs {
    #[inline(always)]
    fn encode_block(x: &[f32; LEN], importance: Option<&[f32; LEN]>, sum: f32, out: &mut [u8]) {
        let block = Block::<2, 16>::new(x, &weigh(x, importance.unwrap_or(&ALIKE), sum / LEN as f32), Signs::Even);
        write_xs(&block.encode_by_max(&lattice::IQ2_XS, EPS), out);
    }
}

impl Encode for Iq2S {
    #[inline(always)]
    fn encode_block(x: &[f32; LEN], importance: Option<&[f32; LEN]>, sum: f32, out: &mut [u8]) {
        let sigma2 = 2.0 * sum / LEN as f32;
        let w = match importance {
            Some(importance) => weigh(x, importance, sigma2),
            None => x.map(|x| 0.25 * sigma2 + x * x),
        };
        write_s(&Block::<2, 16>::new(x, &w, Signs::Any).encode_by_max(&lattice::IQ2_S, EPS_IQ2_S), out);
    }
}

#[inline(always)]
fn encode_blocks<T: Encode>(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
    let importance = weights.map(|w| w.importance.as_chunks::<LEN>().0);
    for (first, (blocks, out)) in x.as_chunks::<LEN>().0.chunks(TOGETHER).zip(out.chunks_mut(TOGETHER * T::BYTES)).enumerate() {
        let sums = sums_of_squares(blocks);
        for (i, (x, out)) in blocks.iter().zip(out.chunks_exact_mut(T::BYTES)).enumerate() {
            T::encode_block(x, importance.and_then(|w| w.get(first * TOGETHER + i)), sums[i], out);
        }
    }
}

/// Σx² of each of up to eight blocks.
#[inline(always)]
fn sums_of_squares(blocks: &[[f32; LEN]]) -> [f32; TOGETHER] {
    let blocks: [&[f32; LEN]; TOGETHER] = from_fn(|b| blocks.get(b).unwrap_or(&ALIKE));
    let mut sums = [0f32; TOGETHER];
    for i in 0..LEN {
        for (sum, block) in sums.iter_mut().zip(&blocks) {
            *sum += block[i] * block[i];
        }
    }
    sums
}

#[inline(always)]
fn weigh(x: &[f32; LEN], importance: &[f32; LEN], sigma2: f32) -> [f32; LEN] {
    from_fn(|i| importance[i] * (sigma2 + x[i] * x[i]).sqrt())
}

/// d and the four-bit scales; none if all scales are 0.
#[inline(always)]
fn block_scales<const S: usize>(scale: &[f32; S]) -> Option<(f32, [u8; S])> {
    let max = scale.iter().fold(0f32, |max, &scale| if max > scale { max } else { scale });
    let d = max / 31.0;
    let id = 1.0 / d;
    (max != 0.0).then(|| (d, scale.map(|scale| nearest_int(0.5 * (id * scale - 1.0)).clamp(0, 15) as u8)))
}

#[inline(always)]
fn write_xxs(block: &Encoded<8>, out: &mut [u8]) {
    let Some((d, l)) = block_scales(&block.scale) else { return out.fill(0) };
    put_f16(out, 0, d);
    for (s, qs) in out[2..].as_chunks_mut::<8>().0.iter_mut().enumerate() {
        let signs = (0..4).fold(u32::from(l[s]) << 28, |bits, g| bits | u32::from(block.signs[4 * s + g] & 127) << (7 * g));
        let points: [u8; 4] = from_fn(|g| block.points[4 * s + g] as u8);
        *qs = (u64::from(signs) << 32 | u64::from(u32::from_le_bytes(points))).to_le_bytes();
    }
}

#[inline(always)]
fn write_xs(block: &Encoded<16>, out: &mut [u8]) {
    let Some((d, l)) = block_scales(&block.scale) else { return out.fill(0) };
    put_f16(out, 0, d);
    let (qs, scales) = out[2..].split_at_mut(64);
    for (g, qs) in qs.as_chunks_mut::<2>().0.iter_mut().enumerate() {
        *qs = (block.points[g] | u16::from(block.signs[g] & 127) << 9).to_le_bytes();
    }
    put_scales(&l, scales);
}

#[inline(always)]
fn write_s(block: &Encoded<16>, out: &mut [u8]) {
    let (d, l) = block_scales(&block.scale).unwrap_or_default();
    put_f16(out, 0, d * 0.9875);
    let (qs, rest) = out[2..].split_at_mut(64);
    let (qh, scales) = rest.split_at_mut(8);
    for g in 0..GROUPS {
        qs[g] = block.points[g] as u8;
        qs[GROUPS + g] = block.signs[g];
    }
    for (qh, points) in qh.iter_mut().zip(block.points.as_chunks::<4>().0) {
        *qh = (0..4).fold(0, |bits, g| bits | ((points[g] >> 8) as u8) << (2 * g));
    }
    put_scales(&l, scales);
}

#[inline(always)]
fn put_scales(l: &[u8; 16], scales: &mut [u8]) {
    for (scales, l) in scales.iter_mut().zip(l.as_chunks::<2>().0) {
        *scales = l[0] | l[1] << 4;
    }
}

/// The scale of group `g` where two sub-blocks of two groups share a byte.
#[inline(always)]
fn group_scale(block: &[u8], scales: &[u8], g: usize) -> f32 {
    let l = scales[g / 4] >> (g / 2 % 2 * 4) & 15;
    f16_at(block, 0) * (0.5 + f32::from(l)) * 0.25
}

/// Seven signs and the eighth that makes them even.
#[inline(always)]
fn even_signs(seven: u8) -> u8 {
    let seven = seven & 127;
    seven | (seven.count_ones() as u8 & 1) << 7
}

/// Decodes a group: the packed point `code` times `d`, with its signs.
#[inline(always)]
fn put_group(d: f32, code: u16, signs: u8, out: &mut [f32; 8]) {
    for (i, out) in out.iter_mut().enumerate() {
        let level = code >> (2 * i) & 3;
        let magnitude = if level == 0 {
            8.0
        } else if level == 1 {
            25.0
        } else {
            43.0
        };
        let sign = if signs >> i & 1 == 1 { -1.0 } else { 1.0 };
        *out = d * magnitude * sign;
    }
}
