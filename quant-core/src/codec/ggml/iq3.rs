//! `iq3_xxs` and `iq3_s`: groups of four magnitudes from a codebook, and signs.
//!
//! - **Formula**: `iq3_xxs` x = ±(d · (½ + s) · ½) · g, `iq3_s` x = ±(d · (1 + 2s)) · g, with s a 4-bit scale for every 32 elements and
//!   g from a point of four coordinates with levels 0 … 7: 4, 12, 20, 28, 36, 44, 52, 62 in `iq3_xxs`; 1, 3, 5 … 15 in `iq3_s`.
//! - **Layout**:
//!
//!   ```text
//!   iq3_xxs   d f16 | qs[64] | 8 × u32: bits 7k … 7k + 6 signs of elements 8k … 8k + 6 (the eighth makes their number even), 28 … 31 s
//!   iq3_s     d f16 | qs[64] | qh[8] | signs[32] | scales[4]    point of group k of sub-block i: qs[8i + k] + 256 · (bit k of qh[i])
//!   ```
//! - **Sizes**: 256 elements; `iq3_xxs` 256 points, 98 bytes, 3.0625 bits per weight; `iq3_s` 512 points, 110 bytes, 3.4375.
//! - **Scale**: every 32 elements, the best of 31 (`iq3_s`: 19) tries that map the greatest magnitude to 15 ± 0.2 steps: the magnitudes
//!   are rounded to levels, groups off the grid go to the nearest of their neighbours in the metric √w, and Σwqx / Σwq² is the
//!   candidate; a later one must be strictly better. Then the groups that were off the grid (`iq3_s`: all, if any was) are rounded
//!   again with the scale found, which is fitted once more. w is x², or importance · √(σ² + x²) with σ² twice the mean square
//!   of the block. d = greatest scale / 31, stored times 1.0125 (`iq3_s`: 1.033).
//! - **Signs**: `iq3_xxs` flips the element of least w·x² of eight if the number of negative ones is odd.
//! - **Rounding**: levels and scale codes halves to even; of equally near neighbours the first.
//! - **Zero block**: all bytes zero. A sub-block without magnitude (`iq3_xxs`: below 1e-8) has zero bytes; in `iq3_s` its `qs` and
//!   `signs` are then those of the next sub-block, as ggml does not step over it.
//! - **Overflow**: where x² or w overflows (|x| above about 1e18), ggml may find no neighbour at all and aborts; levels 0 are taken here.
//! - **Source**: ggml 0.25.3, ggml-quants.c (MIT), `quantize_row_iq3_xxs_impl`, `quantize_row_iq3_s_impl`,
//!   `iq3_find_best_neighbour`, `dequantize_row_iq3_xxs`, `dequantize_row_iq3_s`.

mod search;

use self::search::{Grid, Sub};
use super::block::{Blocks, Weights};
use super::grids::{GRID_3BIT_256, GRID_3BIT_512};
use super::lattice::{IQ3_S, IQ3_XXS};
use super::math::{f16_at, nearest_int, put_f16};

/// Elements of a block.
const SUPER: usize = 256;
/// Elements that share a scale.
const SUB: usize = 32;
/// Groups of four of a sub-block.
const GROUPS: usize = SUB / 4;
/// Below this greatest magnitude a sub-block of `iq3_xxs` is zero (`GROUP_MAX_EPS_IQ3_XXS`).
const XXS_EPS: f32 = 1e-8;
/// What the levels of `iq3_xxs` stand for.
const XXS_VALUES: [f32; 8] = [4.0, 12.0, 20.0, 28.0, 36.0, 44.0, 52.0, 62.0];
/// What the levels of `iq3_s` stand for.
const S_VALUES: [f32; 8] = [1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0];

/// 256 points, scales and 7 of 8 signs together.
pub(crate) struct Iq3Xxs;

/// 512 points, every sign stored.
pub(crate) struct Iq3S;

impl Blocks for Iq3Xxs {
    const LEN: usize = SUPER;
    const BYTES: usize = 98;

    #[inline(always)]
    fn encode(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
        let grid = Grid::new(&IQ3_XXS);
        for (i, (x, block)) in x.as_chunks::<SUPER>().0.iter().zip(out.as_chunks_mut::<98>().0).enumerate() {
            let w = weigh(x, weights.map(|weights| weights.block(i, SUPER)));
            encode_xxs(&grid, x, &w, block);
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<98>().0.iter().zip(out.as_chunks_mut::<SUPER>().0) {
            let d = f16_at(block, 0);
            let (qs, scales_and_signs) = block[2..].split_at(64);
            let subs = qs.as_chunks::<GROUPS>().0.iter().zip(scales_and_signs.as_chunks::<4>().0);
            for ((qs, &word), out) in subs.zip(out.as_chunks_mut::<SUB>().0) {
                let word = u32::from_le_bytes(word);
                let scale = d * (0.5 + (word >> 28) as f32) * 0.5;
                let codes = qs.map(|q| GRID_3BIT_256[usize::from(q)]);
                decode_sub(scale, &codes, [0, 7, 14, 21].map(|at| with_even_sign((word >> at) as u8)), &XXS_VALUES, out);
            }
        }
    }
}

impl Blocks for Iq3S {
    const LEN: usize = SUPER;
    const BYTES: usize = 110;

    #[inline(always)]
    fn encode(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
        let grid = Grid::new(&IQ3_S);
        for (i, (x, block)) in x.as_chunks::<SUPER>().0.iter().zip(out.as_chunks_mut::<110>().0).enumerate() {
            let w = weigh(x, weights.map(|weights| weights.block(i, SUPER)));
            encode_s(&grid, x, &w, block);
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<110>().0.iter().zip(out.as_chunks_mut::<SUPER>().0) {
            let d = f16_at(block, 0);
            let qs = block[2..66].as_chunks::<GROUPS>().0.iter().zip(&block[66..74]);
            let signs = block[74..106].as_chunks::<4>().0.iter();
            for (i, (((qs, &qh), &signs), out)) in qs.zip(signs).zip(out.as_chunks_mut::<SUB>().0).enumerate() {
                let s = block[106 + (i / 2) % 4] >> (4 * (i % 2)) & 0xf;
                let codes = std::array::from_fn(|k| GRID_3BIT_512[usize::from(qs[k]) | usize::from(qh >> k & 1) << 8]);
                decode_sub(d * f32::from(1 + 2 * s), &codes, signs, &S_VALUES, out);
            }
        }
    }
}

/// How much each element of a block matters.
#[inline(always)]
fn weigh(x: &[f32; SUPER], importance: Option<&[f32]>) -> [f32; SUPER] {
    let mut w = *x;
    match importance {
        None => w.iter_mut().for_each(|w| *w *= *w),
        Some(importance) => {
            let mut sum = 0f32;
            for v in x {
                sum += v * v;
            }
            let sigma2 = 2.0 * sum / SUPER as f32;
            for (w, qw) in w.iter_mut().zip(importance) {
                *w = qw * (sigma2 + *w * *w).sqrt();
            }
        }
    }
    w
}

#[inline(always)]
fn encode_xxs(grid: &Grid, x: &[f32; SUPER], w: &[f32; SUPER], block: &mut [u8; 98]) {
    block.fill(0);
    let (header, body) = block.split_at_mut(2);
    let (qs, words) = body.split_at_mut(64);
    let (mut scales, mut words_of) = ([0f32; 8], [0u32; 8]);
    let subs = x.as_chunks::<SUB>().0.iter().zip(w.as_chunks::<SUB>().0).zip(qs.as_chunks_mut::<GROUPS>().0);
    for (((x, w), qs), (scale, word)) in subs.zip(scales.iter_mut().zip(&mut words_of)) {
        let mut sub = Sub::new(x, w);
        sub.make_signs_even();
        let max = sub.max();
        if max < XXS_EPS {
            continue;
        }
        let mut found = sub.search::<32>(grid, max, 31, 0);
        if found.off_grid != 0 && found.scale > 0.0 {
            let again = found.off_grid;
            sub.refine(grid, &mut found, again);
        }
        *scale = sub.make_scale_positive(found.scale);
        for (q, point) in qs.iter_mut().zip(found.points) {
            *q = grid.index(point) as u8;
        }
        *word = sub.signs.iter().rev().fold(0, |word, &signs| word << 7 | u32::from(signs & 0x7f));
    }
    let Some((d, codes)) = scale_codes(&scales) else { return block.fill(0) };
    put_f16(header, 0, d * 1.0125);
    for ((bytes, word), code) in words.as_chunks_mut::<4>().0.iter_mut().zip(words_of).zip(codes) {
        *bytes = (word | u32::from(code) << 28).to_le_bytes();
    }
}

#[inline(always)]
fn encode_s(grid: &Grid, x: &[f32; SUPER], w: &[f32; SUPER], block: &mut [u8; 110]) {
    block.fill(0);
    let (header, body) = block.split_at_mut(2);
    let (qs, rest) = body.split_at_mut(64);
    let (qh, rest) = rest.split_at_mut(8);
    let (signs, packed_scales) = rest.split_at_mut(32);
    let mut places = qs.as_chunks_mut::<GROUPS>().0.iter_mut().zip(signs.as_chunks_mut::<4>().0);
    let mut scales = [0f32; 8];
    let subs = x.as_chunks::<SUB>().0.iter().zip(w.as_chunks::<SUB>().0);
    for (((x, w), qh), scale) in subs.zip(qh).zip(&mut scales) {
        let mut sub = Sub::new(x, w);
        let max = sub.max();
        if max == 0.0 {
            continue;
        }
        let mut found = sub.search::<24>(grid, max, 19, u8::MAX);
        if found.off_grid != 0 && found.scale > 0.0 {
            sub.refine(grid, &mut found, u8::MAX);
        }
        *scale = sub.make_scale_positive(found.scale);
        let Some((qs, signs)) = places.next() else { return };
        *signs = sub.signs;
        for (k, (q, point)) in qs.iter_mut().zip(found.points).enumerate() {
            let index = grid.index(point);
            *q = index as u8;
            *qh |= ((index >> 8) as u8) << k;
        }
    }
    let Some((d, codes)) = scale_codes(&scales) else { return };
    put_f16(header, 0, d * 1.033);
    for (byte, [low, high]) in packed_scales.iter_mut().zip(codes.as_chunks::<2>().0) {
        *byte = low | high << 4;
    }
}

/// The scale of a block and the codes of its sub-blocks' scales, unless they are all zero.
#[inline(always)]
fn scale_codes(scales: &[f32; 8]) -> Option<(f32, [u8; 8])> {
    let greatest = scales.iter().fold(0f32, |max, &scale| if max > scale { max } else { scale });
    if greatest == 0.0 {
        return None;
    }
    let d = greatest / 31.0;
    let id = 1.0 / d;
    Some((d, scales.map(|scale| nearest_int(0.5 * (id * scale - 1.0)).clamp(0, 15) as u8)))
}

/// Seven signs with the eighth, which makes their number even.
#[inline(always)]
fn with_even_sign(signs: u8) -> u8 {
    let seven = signs & 0x7f;
    seven | ((seven.count_ones() & 1) as u8) << 7
}

/// Decodes a sub-block from its packed points, three bits a level.
#[inline(always)]
fn decode_sub(scale: f32, codes: &[u16; GROUPS], signs: [u8; 4], values: &[f32; 8], out: &mut [f32; SUB]) {
    for (k, (out, code)) in out.as_chunks_mut::<4>().0.iter_mut().zip(codes).enumerate() {
        let signs = signs[k / 2 % 4] >> (4 * (k % 2));
        for (i, out) in out.iter_mut().enumerate() {
            let value = scale * values[usize::from(code >> (3 * i) & 7)];
            *out = if signs >> i & 1 == 1 { -value } else { value };
        }
    }
}
