//! What the k-quants share: super-blocks of 256 elements in 8 sub-blocks of 32 or 16 of 16.
//!
//! Sub-blocks are independent until their scales meet, so they lie in the lanes of the searches. With importance weights the
//! scales of several super-blocks are searched together, for the same reason.
//!
//! Q4_K and Q5_K share all but the width of a level: see [`SubBlocks`]. Their 6-bit codes of scales (s) and minima (m) of the
//! sub-blocks 0 to 7 are packed in 12 bytes:
//!
//! ```text
//! byte      bits 7-6      bits 5-0          byte        bits 7-4     bits 3-0
//! j < 4     s[j+4] high   s[j]              8 + j       m[j+4] low   s[j+4] low
//! 4 + j     m[j+4] high   m[j]
//! ```
//!
//! Source: ggml 0.25.3, ggml-quants.c (MIT), `quantize_row_q4_K_ref`, `quantize_row_q4_K_impl`, `quantize_row_q5_K_ref`,
//! `quantize_row_q5_K_impl`, `get_scale_min_k4`.

use super::math::{from_f16, nearest_int, to_f16};
use super::search::{Asymmetric, make_qkx, make_qp};

/// Elements of a super-block.
pub(crate) const QK_K: usize = 256;

/// Lanes of a search: two vectors of 8, which the vectoriser handles better than one.
pub(crate) const LANES: usize = 16;

/// Super-blocks whose scales and minima are searched together.
pub(crate) const BATCH: usize = 4;

/// Super-blocks of Q4_K or Q5_K whose 8 sub-blocks each fill the lanes of a search.
pub(crate) const PAIR: usize = 2;

/// Element `i` of sub-block `j` at `[i][j]`, for whole super-blocks.
#[inline(always)]
pub(crate) fn lanes<const N: usize>(x: &[[f32; QK_K]]) -> [[f32; LANES]; N] {
    let mut out = [[0f32; LANES]; N];
    for (j, x) in x.as_flattened().chunks_exact(N).enumerate().take(LANES) {
        for i in 0..N {
            out[i][j] = x[i];
        }
    }
    out
}

/// Σ over `x[i]` in each lane, from the first to the last.
#[inline(always)]
pub(crate) fn sums<const N: usize>(x: &[[f32; LANES]; N]) -> [f32; LANES] {
    let mut sums = [0f32; LANES];
    for x in x {
        for j in 0..LANES {
            sums[j] += x[j];
        }
    }
    sums
}

/// Σx² of each of the super-blocks `x`, of which there are at most `B`.
#[inline(always)]
pub(crate) fn square_sums<const B: usize>(x: &[[f32; QK_K]]) -> [f32; B] {
    let mut sums = [0f32; B];
    if let Some(x) = x.first_chunk::<B>() {
        // One sum alone would wait for each of its additions.
        for i in 0..QK_K {
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum += x[i] * x[i];
            }
        }
    } else {
        for (sum, x) in sums.iter_mut().zip(x) {
            for x in x {
                *sum += x * x;
            }
        }
    }
    sums
}

/// importance·√(σ² + x²), for the elements of a super-block.
#[inline(always)]
pub(crate) fn importance_weights(x: &[f32; QK_K], importance: &[f32; QK_K], sigma2: f32) -> [f32; QK_K] {
    let mut w = [0f32; QK_K];
    for i in 0..QK_K {
        w[i] = importance[i] * (sigma2 + x[i] * x[i]).sqrt();
    }
    w
}

/// The levels of a super-block for the final scales: x ≈ d·level − m with one `d` and one `m` for each sub-block, `LOW ..= HIGH`.
///
/// A sub-block whose d is 0 keeps the levels of the search, which are `found[i][first + j]`. All are stored less `LOW`.
#[inline(always)]
pub(crate) fn final_levels<const N: usize, const SUB_BLOCKS: usize, const LOW: i32, const HIGH: i32>(
    x: &[f32; QK_K],
    d: &[f32; SUB_BLOCKS],
    m: &[f32; SUB_BLOCKS],
    found: &[[i32; LANES]; N],
    first: usize,
) -> [u8; QK_K] {
    let mut levels = [0u8; QK_K];
    for (j, (levels, x)) in levels.chunks_exact_mut(N).zip(x.chunks_exact(N)).enumerate().take(SUB_BLOCKS) {
        if d[j] == 0.0 {
            for (level, found) in levels.iter_mut().zip(found) {
                *level = found[first + j] as u8;
            }
        } else {
            for i in 0..N {
                levels[i] = (nearest_int((x[i] + m[j]) / d[j]).min(HIGH).max(LOW) - LOW) as u8;
            }
        }
    }
    levels
}

/// The greatest of `x`, or 0.
#[inline(always)]
pub(crate) fn greatest<const N: usize>(x: &[f32; N]) -> f32 {
    let mut greatest = 0f32;
    for &x in x {
        greatest = if x > greatest { x } else { greatest };
    }
    greatest
}

/// The search for the scales and the minima of a batch of super-blocks of `SUB_BLOCKS`, all of whose sub-blocks lie in the lanes of
/// `found`: `d` of each super-block, then `dmin` of each, and the codes in the same order.
#[inline(always)]
pub(crate) fn batch_scales<const SUB_BLOCKS: usize, const N: usize, const SEARCHES: usize>(
    nmax: i32,
    found: &[Asymmetric<N, LANES>; SEARCHES],
    sum_w: &[[f32; LANES]; SEARCHES],
) -> ([f32; 2 * BATCH], [[u8; 2 * BATCH]; SUB_BLOCKS]) {
    const { assert!(BATCH * SUB_BLOCKS == SEARCHES * LANES) };
    let (mut x, mut w) = ([[0f32; 2 * BATCH]; SUB_BLOCKS], [[0f32; 2 * BATCH]; SUB_BLOCKS]);
    for j in 0..SUB_BLOCKS {
        for b in 0..BATCH {
            let at = b * SUB_BLOCKS + j;
            let (search, lane) = (at / LANES, at % LANES);
            (x[j][b], x[j][BATCH + b]) = (found[search].scale[lane], found[search].min[lane]);
            (w[j][b], w[j][BATCH + b]) = (sum_w[search][lane], sum_w[search][lane]);
        }
    }
    make_qp(nmax, &x, &w)
}

/// A super-block of Q4_K or Q5_K before its levels are packed.
#[derive(Clone, Copy)]
pub(crate) struct SubBlocks {
    /// `d` as f16.
    pub(crate) d: u16,
    /// `dmin` as f16.
    pub(crate) dmin: u16,
    pub(crate) scales: [u8; 12],
    pub(crate) levels: [u8; QK_K],
}

impl SubBlocks {
    /// `d`, `dmin` and `scales`, the first 16 bytes of a block.
    #[inline(always)]
    pub(crate) fn head(&self) -> [u8; 16] {
        let mut head = [0u8; 16];
        head[..2].copy_from_slice(&self.d.to_le_bytes());
        head[2..4].copy_from_slice(&self.dmin.to_le_bytes());
        head[4..].copy_from_slice(&self.scales);
        head
    }

    /// All zero: a place to put a result.
    const NONE: Self = Self { d: 0, dmin: 0, scales: [0; 12], levels: [0; QK_K] };

    /// Without importance weights, for at most [`PAIR`] super-blocks: w = √(Σx²/32) + |x|, codes relative to the greatest scale and
    /// the greatest minimum.
    ///
    /// Only the first `x.len()` of what is returned counts.
    #[inline(always)]
    pub(crate) fn plain<const NMAX: i32>(x: &[[f32; QK_K]], rmin: f32, rdelta: f32, nstep: i32) -> [Self; PAIR] {
        let sub_blocks = lanes::<32>(x);
        let mut w = sub_blocks;
        for w in w.as_flattened_mut() {
            *w *= *w;
        }
        let mut mean = sums(&w);
        for mean in &mut mean {
            *mean = (*mean / 32.0).sqrt();
        }
        for i in 0..32 {
            for j in 0..LANES {
                w[i][j] = mean[j] + sub_blocks[i][j].abs();
            }
        }
        let found = make_qkx(NMAX, &sub_blocks, &w, rmin, rdelta, nstep, false);
        let mut blocks = [Self::NONE; PAIR];
        let of_block = found.scale.as_chunks::<8>().0.iter().zip(found.min.as_chunks::<8>().0);
        for (b, ((x, (scale, min)), block)) in x.iter().zip(of_block).zip(&mut blocks).enumerate() {
            let (d, ls) = relative_codes(scale);
            let (dmin, lm) = relative_codes(min);
            *block = Self::finish::<NMAX>(x, d, dmin, pack(&ls, &lm), &found.levels, b);
        }
        blocks
    }

    /// With importance weights, for at most [`BATCH`] super-blocks: codes from a search of their own, at most `limit`.
    ///
    /// Only the first `x.len()` of what is returned counts.
    #[inline(always)]
    pub(crate) fn weighted<const NMAX: i32>(x: &[[f32; QK_K]], importance: &[[f32; QK_K]], limit: u8) -> [Self; BATCH] {
        let sum_x2 = square_sums::<BATCH>(x);
        let mut found = [Asymmetric::<32, LANES>::NONE; BATCH / PAIR];
        let mut sum_w = [[0f32; LANES]; BATCH / PAIR];
        let pairs = x.chunks(PAIR).zip(importance.chunks(PAIR)).zip(sum_x2.chunks(PAIR));
        for (((x, importance), sum_x2), (found, sum_w)) in pairs.zip(found.iter_mut().zip(&mut sum_w)) {
            let mut w = [[0f32; QK_K]; PAIR];
            for (((w, x), importance), sum_x2) in w.iter_mut().zip(x).zip(importance).zip(sum_x2) {
                *w = importance_weights(x, importance, 2.0 * sum_x2 / QK_K as f32);
            }
            let w = lanes(&w);
            *sum_w = sums(&w);
            *found = make_qkx(NMAX, &lanes(x), &w, -0.9, 0.05, 36, false);
        }
        let (scale, codes) = batch_scales::<8, _, _>(63, &found, &sum_w);
        let mut blocks = [Self::NONE; BATCH];
        for (b, x) in x.iter().enumerate().take(BATCH) {
            let (mut ls, mut lm) = ([0u8; 8], [0u8; 8]);
            for j in 0..8 {
                ls[j] = codes[j][b].min(limit);
                lm[j] = codes[j][BATCH + b].min(limit);
            }
            let (d, dmin) = (to_f16(scale[b]), to_f16(scale[BATCH + b]));
            blocks[b] = Self::finish::<NMAX>(x, d, dmin, pack(&ls, &lm), &found[b / PAIR].levels, b % PAIR);
        }
        blocks
    }

    /// The levels for the scales as they are stored; the search had this super-block at place `place` of its pair.
    #[inline(always)]
    fn finish<const NMAX: i32>(x: &[f32; QK_K], d: u16, dmin: u16, scales: [u8; 12], found: &[[i32; LANES]; 32], place: usize) -> Self {
        let (s, m) = scale_and_min(from_f16(d), from_f16(dmin), &scales);
        Self { d, dmin, scales, levels: final_levels::<32, 8, 0, NMAX>(x, &s, &m, found, 8 * place) }
    }
}

/// 63rds of the greatest of `x`: their unit as f16, and for each element how many (a negative number of them gives 63 or less).
#[inline(always)]
fn relative_codes(x: &[f32; 8]) -> (u16, [u8; 8]) {
    let greatest = greatest(x);
    let inverse = if greatest > 0.0 { 63.0 / greatest } else { 0.0 };
    let mut codes = [0u8; 8];
    for j in 0..8 {
        codes[j] = (nearest_int(inverse * x[j]) as u8).min(63);
    }
    (to_f16(greatest / 63.0), codes)
}

/// Packs the codes of scales and minima. Codes above 63, which ggml lets pass, run into the bits of others.
#[inline(always)]
fn pack(ls: &[u8; 8], lm: &[u8; 8]) -> [u8; 12] {
    let mut scales = [0u8; 12];
    for j in 0..4 {
        scales[j] = ls[j] | (ls[j + 4] >> 4) << 6;
        scales[j + 4] = lm[j] | (lm[j + 4] >> 4) << 6;
        scales[j + 8] = (ls[j + 4] & 0xf) | (lm[j + 4] & 0xf) << 4;
    }
    scales
}

/// What packed codes stand for: the scale and the minimum of each sub-block.
#[inline(always)]
pub(crate) fn scale_and_min(d: f32, dmin: f32, scales: &[u8; 12]) -> ([f32; 8], [f32; 8]) {
    let (mut s, mut m) = ([0f32; 8], [0f32; 8]);
    for j in 0..4 {
        s[j] = d * (scales[j] & 63) as f32;
        m[j] = dmin * (scales[j + 4] & 63) as f32;
        s[j + 4] = d * ((scales[j + 8] & 0xf) | (scales[j] >> 6) << 4) as f32;
        m[j + 4] = dmin * ((scales[j + 8] >> 4) | (scales[j + 4] >> 6) << 4) as f32;
    }
    (s, m)
}
