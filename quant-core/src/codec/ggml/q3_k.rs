//! Q3_K: signed 3-bit levels with a signed 6-bit scale for each 16.
//!
//! ```text
//! x ≈ (d·(s[j] − 32))·(q − 4)           j = sub-block of 16, q in 0..=7, s in 0..=63
//!
//! byte   0           32         96           108   110
//!        hmask[32]   qs[64]     scales[12]   d f16
//! hmask  bit c of byte l: bit 2 of q of element 32·c + l                                  (c < 8, l < 32)
//! qs     byte 32·c + l: bits 0-1 of q of elements 128·c + l + {0, 32, 64, 96} in bits 0-1, 2-3, 4-5, 6-7   (c < 2, l < 32)
//! scales byte j < 8: low 4 bits of s[j] in the low nibble, of s[j+8] in the high one
//!        byte 8 + j: bits 4-5 of s[j + {0, 4, 8, 12}] in bits 0-1, 2-3, 4-5, 6-7           (j < 4)
//! ```
//!
//! Block: 256 elements, 110 bytes, 3.4375 bits per weight.
//!
//! Scales: without importance, each sub-block by `make_q3`, codes in −32nds of the scale of the greatest magnitude. With
//! importance, each sub-block by `make_qx` with w = importance·√(2Σx²/256 + x²), codes by `make_qx` with the sub-blocks' Σw.
//! Levels are then assigned anew for the stored scales; a sub-block whose scale is 0 keeps those of its search.
//! Rounding: to nearest, ties to even. A zero block has q = 0 everywhere (which stands for −4, with d = 0), and the codes s = 0:
//! all zero bytes. NaN and ±Inf are not expected.
//! Source: ggml 0.25.3, ggml-quants.c (MIT), `quantize_row_q3_K_ref`, `quantize_row_q3_K_impl`, `dequantize_row_q3_K`.

use super::block::{Blocks, Weights};
use super::k_scales::{QK_K, final_levels, importance_weights, lanes, square_sums, sums};
use super::math::{f16_at, from_f16, nearest_int, signed_max, to_f16};
use super::search::{make_q3, make_qx, make_qx_of_scales};

pub(crate) struct Q3K;

/// Bytes of a block.
const BYTES: usize = 110;

/// Super-blocks whose scales fill the lanes of one search.
const BATCH: usize = 8;

impl Blocks for Q3K {
    const LEN: usize = QK_K;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn encode(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
        let x = x.as_chunks::<QK_K>().0;
        let out = out.as_chunks_mut::<BYTES>().0;
        let Some(weights) = weights else {
            for (x, out) in x.iter().zip(out) {
                let (scale, levels) = make_q3(4, &lanes::<16>(std::slice::from_ref(x)));
                let (d, codes) = relative_codes(&scale);
                finish(x, d, &codes, &levels, out);
            }
            return;
        };
        let importance = weights.importance.as_chunks::<QK_K>().0;
        for ((x, importance), out) in x.chunks(BATCH).zip(importance.chunks(BATCH)).zip(out.chunks_mut(BATCH)) {
            encode_weighted(x, importance, out);
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<QK_K>().0) {
            let (Some((hmask, rest)), Some((scales, _))) = (block.split_first_chunk::<32>(), block[96..].split_first_chunk()) else { continue };
            let s = sub_block_scales(f16_at(block, 108), scales);
            for (c, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let qs = &rest[c / 4 * 32..][..32];
                for l in 0..32 {
                    let q = (qs[l] >> (c % 4 * 2) & 3) | (hmask[l] >> c & 1) << 2;
                    out[l] = s[2 * c + l / 16] * (q as i32 - 4) as f32;
                }
            }
        }
    }

    #[inline(always)]
    fn steps(block: &[u8]) -> Option<[f32; 16]> {
        Some(sub_block_scales(f16_at(block, 108), block[96..].first_chunk()?))
    }
}

/// At most [`BATCH`] super-blocks.
#[inline(always)]
fn encode_weighted(x: &[[f32; QK_K]], importance: &[[f32; QK_K]], out: &mut [[u8; BYTES]]) {
    let sum_x2 = square_sums::<BATCH>(x);
    let mut found = [[[0i32; 16]; 16]; BATCH];
    let (mut scales, mut sum_w) = ([[0f32; BATCH]; 16], [[0f32; BATCH]; 16]);
    for (b, (x, importance)) in x.iter().zip(importance).enumerate().take(BATCH) {
        let w = lanes::<16>(&[importance_weights(x, importance, 2.0 * sum_x2[b] / QK_K as f32)]);
        let (scale, levels) = make_qx(4, &lanes(std::slice::from_ref(x)), &w);
        let sums = sums(&w);
        for j in 0..16 {
            (scales[j][b], sum_w[j][b]) = (scale[j], sums[j]);
        }
        found[b] = levels;
    }
    let (d, all_codes) = make_qx_of_scales(32, &scales, &sum_w);
    for (b, (x, out)) in x.iter().zip(out).enumerate().take(BATCH) {
        let mut codes = [0u8; 16];
        for j in 0..16 {
            codes[j] = all_codes[j][b] as u8;
        }
        finish(x, to_f16(d[b]), &codes, &found[b], out);
    }
}

/// −32nds of the scale of the greatest magnitude: their unit as f16, and for each scale how many, plus 32.
#[inline(always)]
fn relative_codes(scale: &[f32; 16]) -> (u16, [u8; 16]) {
    let greatest = signed_max(scale);
    let mut codes = [0u8; 16];
    if greatest == 0.0 {
        return (0, codes);
    }
    let inverse = -32.0 / greatest;
    for j in 0..16 {
        codes[j] = ((nearest_int(inverse * scale[j]) as i8).clamp(-32, 31) + 32) as u8;
    }
    (to_f16(1.0 / inverse), codes)
}

/// Assigns the levels for the stored scales and packs the block.
#[inline(always)]
fn finish(x: &[f32; QK_K], d: u16, codes: &[u8; 16], found: &[[i32; 16]; 16], out: &mut [u8; BYTES]) {
    let scales = pack_codes(codes);
    let levels = final_levels::<16, 16, -4, 3>(x, &sub_block_scales(from_f16(d), &scales), &[0.0; 16], found, 0);
    let mut hmask = [0u8; 32];
    for (l, hmask) in hmask.iter_mut().enumerate() {
        for c in 0..8 {
            *hmask |= levels[32 * c + l] >> 2 << c;
        }
    }
    out[..32].copy_from_slice(&hmask);
    for (qs, levels) in out[32..96].as_chunks_mut::<32>().0.iter_mut().zip(levels.as_chunks::<128>().0) {
        for l in 0..32 {
            qs[l] = levels[l] & 3 | (levels[l + 32] & 3) << 2 | (levels[l + 64] & 3) << 4 | levels[l + 96] << 6;
        }
    }
    out[96..108].copy_from_slice(&scales);
    out[108..].copy_from_slice(&d.to_le_bytes());
}

/// Packs 6-bit codes.
#[inline(always)]
fn pack_codes(codes: &[u8; 16]) -> [u8; 12] {
    let mut scales = [0u8; 12];
    for j in 0..8 {
        scales[j] = codes[j] & 0xf | (codes[j + 8] & 0xf) << 4;
    }
    for j in 0..4 {
        scales[j + 8] = codes[j] >> 4 | codes[j + 4] >> 4 << 2 | codes[j + 8] >> 4 << 4 | codes[j + 12] >> 4 << 6;
    }
    scales
}

/// What packed codes stand for: the scale of each sub-block.
#[inline(always)]
fn sub_block_scales(d: f32, scales: &[u8; 12]) -> [f32; 16] {
    let mut s = [0f32; 16];
    for j in 0..16 {
        let low = scales[j % 8] >> (j / 8 * 4) & 0xf;
        let high = scales[8 + j % 4] >> (j / 4 * 2) & 3;
        s[j] = d * ((low | high << 4) as i32 - 32) as f32;
    }
    s
}
