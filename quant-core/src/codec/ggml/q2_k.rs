//! Q2_K: 2-bit levels with a 4-bit scale and minimum for each 16.
//!
//! ```text
//! x ≈ (d·s[j])·q − (dmin·m[j])          j = sub-block of 16, q in 0..=3, s and m in 0..=15
//!
//! byte   0            16          80    82    84
//!        scales[16]   qs[64]      d f16 dmin
//! scales byte j: s[j] in the low nibble, m[j] in the high one
//! qs     byte 32·c + l: elements 128·c + l + {0, 32, 64, 96} in bits 0-1, 2-3, 4-5, 6-7   (c < 2, l < 32)
//! ```
//!
//! Block: 256 elements, 84 bytes, 2.625 bits per weight.
//!
//! Scales: without importance, each sub-block by `make_qkx` with w = |x|, the mean absolute error and 16 trials, codes in 15ths
//! of the greatest scale (minimum). With importance, w = importance·√(Σx²/256 + x²), squared error, 37 trials, and codes by
//! `make_qp` with the sub-blocks' Σw. Levels are then assigned anew for the stored scales.
//! Rounding: to nearest, ties to even. A zero block is all zero bytes. NaN and ±Inf are not expected.
//! Source: ggml 0.25.3, ggml-quants.c (MIT), `quantize_row_q2_K_ref`, `quantize_row_q2_K_impl`, `dequantize_row_q2_K`.

use super::block::{Blocks, Weights};
use super::k_scales::{BATCH, QK_K, batch_scales, final_levels, greatest, importance_weights, lanes, square_sums, sums};
use super::math::{f16_at, from_f16, nearest_int, to_f16};
use super::search::{Asymmetric, make_qkx};

pub(crate) struct Q2K;

/// Bytes of a block.
const BYTES: usize = 84;

impl Blocks for Q2K {
    const LEN: usize = QK_K;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn encode(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
        let x = x.as_chunks::<QK_K>().0;
        let out = out.as_chunks_mut::<BYTES>().0;
        let Some(weights) = weights else {
            for (x, out) in x.iter().zip(out) {
                encode_plain(x, out);
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
            let Some((scales, rest)) = block.split_first_chunk::<16>() else { continue };
            let (s, m) = scale_and_min(f16_at(block, 80), f16_at(block, 82), scales);
            for (j, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let qs = &rest[j / 4 * 32..][..32];
                for l in 0..32 {
                    let of = 2 * j + l / 16;
                    out[l] = s[of] * (qs[l] >> (j % 4 * 2) & 3) as f32 - m[of];
                }
            }
        }
    }

    #[inline(always)]
    fn steps(block: &[u8]) -> Option<[f32; 16]> {
        Some(scale_and_min(f16_at(block, 80), 0.0, block.first_chunk()?).0)
    }
}

#[inline(always)]
fn encode_plain(x: &[f32; QK_K], out: &mut [u8; BYTES]) {
    let sub_blocks = lanes::<16>(std::slice::from_ref(x));
    let mut w = [[0f32; 16]; 16];
    for i in 0..16 {
        for j in 0..16 {
            w[i][j] = sub_blocks[i][j].abs();
        }
    }
    let found = make_qkx(3, &sub_blocks, &w, -0.5, 0.1, 15, true);
    let (d, ls) = relative_codes(&found.scale);
    let (dmin, lm) = relative_codes(&found.min);
    finish(x, d, dmin, &ls, &lm, &found.levels, out);
}

/// At most [`BATCH`] super-blocks.
#[inline(always)]
fn encode_weighted(x: &[[f32; QK_K]], importance: &[[f32; QK_K]], out: &mut [[u8; BYTES]]) {
    let sum_x2 = square_sums::<BATCH>(x);
    let mut found = [Asymmetric::<16, 16>::NONE; BATCH];
    let mut sum_w = [[0f32; 16]; BATCH];
    for (b, (x, importance)) in x.iter().zip(importance).enumerate().take(BATCH) {
        let w = lanes(&[importance_weights(x, importance, sum_x2[b] / QK_K as f32)]);
        sum_w[b] = sums(&w);
        found[b] = make_qkx(3, &lanes(std::slice::from_ref(x)), &w, -0.9, 0.05, 36, false);
    }
    let (scale, codes) = batch_scales::<16, _, _>(15, &found, &sum_w);
    for (b, (x, out)) in x.iter().zip(out).enumerate().take(BATCH) {
        let (mut ls, mut lm) = ([0i32; 16], [0i32; 16]);
        for j in 0..16 {
            ls[j] = codes[j][b] as i32;
            lm[j] = codes[j][BATCH + b] as i32;
        }
        finish(x, to_f16(scale[b]), to_f16(scale[BATCH + b]), &ls, &lm, &found[b].levels, out);
    }
}

/// 15ths of the greatest of `x`: their unit as f16, and for each element how many.
#[inline(always)]
fn relative_codes(x: &[f32; 16]) -> (u16, [i32; 16]) {
    let greatest = greatest(x);
    let mut codes = [0i32; 16];
    if greatest > 0.0 {
        let inverse = 15.0 / greatest;
        for j in 0..16 {
            codes[j] = nearest_int(inverse * x[j]);
        }
        (to_f16(greatest / 15.0), codes)
    } else {
        (0, codes)
    }
}

/// Assigns the levels for the stored scales and packs the block. Codes beyond 0..=15 run into each other's bits, as in ggml.
#[inline(always)]
fn finish(x: &[f32; QK_K], d: u16, dmin: u16, ls: &[i32; 16], lm: &[i32; 16], found: &[[i32; 16]; 16], out: &mut [u8; BYTES]) {
    let mut scales = [0u8; 16];
    for j in 0..16 {
        scales[j] = (ls[j] | lm[j] << 4) as u8;
    }
    let (s, m) = scale_and_min(from_f16(d), from_f16(dmin), &scales);
    let levels = final_levels::<16, 16, 0, 3>(x, &s, &m, found, 0);
    out[..16].copy_from_slice(&scales);
    for (qs, levels) in out[16..80].as_chunks_mut::<32>().0.iter_mut().zip(levels.as_chunks::<128>().0) {
        for l in 0..32 {
            qs[l] = levels[l] | levels[l + 32] << 2 | levels[l + 64] << 4 | levels[l + 96] << 6;
        }
    }
    out[80..82].copy_from_slice(&d.to_le_bytes());
    out[82..].copy_from_slice(&dmin.to_le_bytes());
}

/// The scale and the minimum of each sub-block.
#[inline(always)]
fn scale_and_min(d: f32, dmin: f32, scales: &[u8; 16]) -> ([f32; 16], [f32; 16]) {
    let (mut s, mut m) = ([0f32; 16], [0f32; 16]);
    for j in 0..16 {
        s[j] = d * (scales[j] & 0xf) as f32;
        m[j] = dmin * (scales[j] >> 4) as f32;
    }
    (s, m)
}
