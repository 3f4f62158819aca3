//! Q4_K: 4-bit levels with a 6-bit scale and minimum for each 32.
//!
//! ```text
//! x ≈ (d·s[j])·q − (dmin·m[j])          j = sub-block of 32, q in 0..=15, s and m in 0..=63
//!
//! byte   0     2      4               16                                    144
//!        d f16 dmin   scales[12]      qs[128]
//! qs     byte 32·c + l: element 64·c + l in the low nibble, 64·c + 32 + l in the high one   (c < 4, l < 32)
//! ```
//!
//! Block: 256 elements, 144 bytes, 4.5 bits per weight; `scales` as in [`super::k_scales`].
//!
//! Scales: without importance, each sub-block by `make_qkx` with w = √(Σx²/32) + |x| and 21 trials, codes in 63rds of the
//! greatest scale (minimum). With importance, w = importance·√(2Σx²/256 + x²), 37 trials, and codes by `make_qp` with the
//! sub-blocks' Σw. Levels are then assigned anew for the stored scales.
//! Rounding: to nearest, ties to even. A zero block is all zero bytes. NaN and ±Inf are not expected.
//! Source: ggml 0.25.3, ggml-quants.c (MIT), `quantize_row_q4_K_ref`, `quantize_row_q4_K_impl`, `dequantize_row_q4_K`.

use super::block::{Blocks, Weights};
use super::k_scales::{BATCH, PAIR, QK_K, SubBlocks, scale_and_min};
use super::math::f16_at;

pub(crate) struct Q4K;

/// Bytes of a block.
const BYTES: usize = 144;

impl Blocks for Q4K {
    const LEN: usize = QK_K;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn encode(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
        let x = x.as_chunks::<QK_K>().0;
        let out = out.as_chunks_mut::<BYTES>().0;
        let Some(weights) = weights else {
            for (x, out) in x.chunks(PAIR).zip(out.chunks_mut(PAIR)) {
                for (block, out) in SubBlocks::plain::<15>(x, -1.0, 0.1, 20).iter().zip(out) {
                    pack(block, out);
                }
            }
            return;
        };
        let importance = weights.importance.as_chunks::<QK_K>().0;
        for ((x, importance), out) in x.chunks(BATCH).zip(importance.chunks(BATCH)).zip(out.chunks_mut(BATCH)) {
            // ggml leaves the codes of this type unlimited.
            for (block, out) in SubBlocks::weighted::<15>(x, importance, u8::MAX).iter().zip(out) {
                pack(block, out);
            }
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<QK_K>().0) {
            let (head, qs) = block.split_at(16);
            let Some(scales) = head.last_chunk() else { continue };
            let (s, m) = scale_and_min(f16_at(head, 0), f16_at(head, 2), scales);
            for (c, (out, qs)) in out.as_chunks_mut::<64>().0.iter_mut().zip(qs.as_chunks::<32>().0).enumerate().take(4) {
                for l in 0..32 {
                    out[l] = s[2 * c] * (qs[l] & 0xf) as f32 - m[2 * c];
                    out[32 + l] = s[2 * c + 1] * (qs[l] >> 4) as f32 - m[2 * c + 1];
                }
            }
        }
    }

    #[inline(always)]
    fn steps(block: &[u8]) -> Option<[f32; 16]> {
        let (s, _) = scale_and_min(f16_at(block, 0), 0.0, block[4..].first_chunk()?);
        Some(std::array::from_fn(|i| s[i / 2]))
    }
}

#[inline(always)]
fn pack(block: &SubBlocks, out: &mut [u8; BYTES]) {
    out[..16].copy_from_slice(&block.head());
    for (qs, levels) in out[16..].as_chunks_mut::<32>().0.iter_mut().zip(block.levels.as_chunks::<64>().0) {
        for l in 0..32 {
            qs[l] = levels[l] | levels[32 + l] << 4;
        }
    }
}
