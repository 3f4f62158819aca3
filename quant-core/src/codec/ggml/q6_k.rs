//! Q6_K: signed 6-bit levels with a signed 8-bit scale for each 16.
//!
//! ```text
//! x ≈ (d·scales[j])·(q − 32)            j = sub-block of 16, q in 0..=63, scales in −128..=127
//!
//! byte   0           128        192          208   210
//!        ql[128]     qh[64]     scales[16]   d f16
//! ql     byte 64·c + l: low 4 bits of elements 128·c + l + {0, 64} in the low and the high nibble   (c < 2, l < 64)
//! qh     byte 32·c + l: bits 4-5 of elements 128·c + l + {0, 32, 64, 96} in bits 0-1, 2-3, 4-5, 6-7  (c < 2, l < 32)
//! ```
//!
//! Block: 256 elements, 210 bytes, 6.5625 bits per weight.
//!
//! Scales: each sub-block by `make_qx` with w = x², or the importance as it is; codes in −128ths of the scale of the greatest
//! magnitude, d the unit. Levels are then assigned anew for the stored scales; a sub-block whose scale is 0 keeps those of its
//! search. Rounding: to nearest, ties to even. A block whose scales are all below 1e-15 is all zero bytes. NaN and ±Inf are not
//! expected.
//! Source: ggml 0.25.3, ggml-quants.c (MIT), `quantize_row_q6_K_ref`, `quantize_row_q6_K_impl`, `dequantize_row_q6_K`.

use super::block::{Blocks, Weights};
use super::k_scales::{QK_K, final_levels, lanes};
use super::math::{EPS, f16_at, from_f16, nearest_int, signed_max, to_f16};
use super::search::make_qx;

pub(crate) struct Q6K;

/// Bytes of a block.
const BYTES: usize = 210;

impl Blocks for Q6K {
    const LEN: usize = QK_K;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn encode(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
        let x = x.as_chunks::<QK_K>().0;
        let out = out.as_chunks_mut::<BYTES>().0;
        if let Some(weights) = weights {
            for ((x, importance), out) in x.iter().zip(weights.importance.as_chunks::<QK_K>().0).zip(out) {
                encode_block(x, importance, out);
            }
        } else {
            for (x, out) in x.iter().zip(out) {
                let mut w = *x;
                for w in &mut w {
                    *w *= *w;
                }
                encode_block(x, &w, out);
            }
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<QK_K>().0) {
            let (ql, rest) = block.split_at(128);
            let (qh, rest) = rest.split_at(64);
            let d = f16_at(rest, 16);
            for (c, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let ql = &ql[c / 4 * 64 + c % 2 * 32..][..32];
                let qh = &qh[c / 4 * 32..][..32];
                for l in 0..32 {
                    let q = (ql[l] >> (c / 2 % 2 * 4) & 0xf) | (qh[l] >> (c % 4 * 2) & 3) << 4;
                    out[l] = d * rest[2 * c + l / 16] as i8 as f32 * (q as i32 - 32) as f32;
                }
            }
        }
    }

    #[inline(always)]
    fn steps(block: &[u8]) -> Option<[f32; 16]> {
        let (d, scales) = (f16_at(block, 208), block[192..].first_chunk::<16>()?);
        Some(scales.map(|s| d * s as i8 as f32))
    }
}

#[inline(always)]
fn encode_block(x: &[f32; QK_K], w: &[f32; QK_K], out: &mut [u8; BYTES]) {
    let (scale, found) = make_qx(32, &lanes::<16>(std::slice::from_ref(x)), &lanes(std::slice::from_ref(w)));
    let greatest = signed_max(&scale);
    if greatest.abs() < EPS {
        out.fill(0);
        return;
    }
    let inverse = -128.0 / greatest;
    let d = to_f16(1.0 / inverse);
    let (mut codes, mut s) = ([0u8; 16], [0f32; 16]);
    for j in 0..16 {
        let code = nearest_int(inverse * scale[j]).min(127) as i8;
        codes[j] = code as u8;
        s[j] = from_f16(d) * code as f32;
    }
    pack(d, &codes, &final_levels::<16, 16, -32, 31>(x, &s, &[0.0; 16], &found, 0), out);
}

#[inline(always)]
fn pack(d: u16, codes: &[u8; 16], levels: &[u8; QK_K], out: &mut [u8; BYTES]) {
    let (ql, rest) = out.split_at_mut(128);
    let (qh, rest) = rest.split_at_mut(64);
    for ((ql, qh), levels) in ql.as_chunks_mut::<64>().0.iter_mut().zip(qh.as_chunks_mut::<32>().0).zip(levels.as_chunks::<128>().0) {
        for l in 0..64 {
            ql[l] = levels[l] & 0xf | levels[l + 64] << 4;
        }
        for l in 0..32 {
            qh[l] = levels[l] >> 4 | levels[l + 32] >> 4 << 2 | levels[l + 64] >> 4 << 4 | levels[l + 96] >> 4 << 6;
        }
    }
    rest[..16].copy_from_slice(codes);
    rest[16..].copy_from_slice(&d.to_le_bytes());
}
