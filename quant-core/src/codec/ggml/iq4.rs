//! `iq4_nl` and `iq4_xs`: 4-bit codes into 16 fixed, unevenly spaced values.
//!
//! - **Formula**: `iq4_nl` x = d · v\[q\]; `iq4_xs` x = (d · (ls − 32)) · v\[q\], with v = [`VALUES`].
//! - **Layout**: in `qs`, byte j of 16 holds element j in its low half and element j + 16 in its high half.
//!
//!   ```text
//!   iq4_nl   d f16 | qs[16]
//!   iq4_xs   d f16 | scales_h u16 | scales_l[4] | qs[8][16]     ls of sub-block i = 4 bits of scales_l[i / 2] + 2 bits of scales_h << 4
//!   ```
//! - **Sizes**: `iq4_nl` 32 elements in 18 bytes, 4.5 bits per weight; `iq4_xs` 8 × 32 elements in 136 bytes, 4.25.
//! - **Scale**: every 32 elements, the best of 16 starting points: the first of the greatest magnitude is mapped to 127, then to
//!   −134 … −120; for the codes that this gives, the least-squares scale Σwqx / Σwq² is the candidate, Σwqx · scale its score, and a
//!   later one must be strictly better. w is x², or importance · √(σ² + x²) with σ² twice the mean square of the block.
//!   `iq4_xs` then has d = −(scale of the greatest magnitude) / 32 and rounds each scale / d to −32 … 31.
//! - **Rounding**: codes are those of the nearest value to x / scale, halves upwards, recomputed from the scale before it was
//!   rounded to f16 (in `iq4_xs`: from the unrounded d times the rounded code of the scale); scale codes halves to even.
//! - **Zero block**: codes 8 (magnitudes below 1e-15 count as zero); d = 0 in `iq4_nl`, −0 with scale codes 32 in `iq4_xs`.
//! - **Source**: ggml 0.25.3, ggml-quants.c (MIT), `quantize_row_iq4_nl_impl`, `best_index_int8`, `dequantize_row_iq4_nl`,
//!   `dequantize_row_iq4_xs`. Its search by halving is a count of exact decision boundaries here, with the same result for
//!   every number.

use super::block::{Blocks, Weights};
use super::math::{EPS, f16_at, nearest_int, put_f16, signed_max};

/// Elements that share a scale.
const SUB: usize = 32;
/// Sub-blocks that are searched side by side.
const LANES: usize = 8;
/// Elements of a super-block.
const SUPER: usize = SUB * LANES;

/// The values of the 16 codes (`kvalues_iq4nl`).
pub(crate) const VALUES: [f32; 16] = [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];
/// From `BOUNDS[i]` on, code i + 1 is nearer than code i. The midpoints are exact, and so are the distances to them.
pub(crate) const BOUNDS: [f32; 15] = bounds();
/// The boundary around zero.
const CENTRE: usize = 7;
/// What the greatest magnitude is mapped to, besides +127. The first is the farthest from zero.
const TARGETS: [[f32; 3]; 5] =
    [[-134.0, -133.0, -132.0], [-131.0, -130.0, -129.0], [-128.0, -127.0, -126.0], [-125.0, -124.0, -123.0], [-122.0, -121.0, -120.0]];

/// One number for each of 8 sub-blocks.
type Lanes = [f32; LANES];
/// 8 sub-blocks side by side: row j has element j of each.
type Tile = [Lanes; SUB];

/// Blocks of 32 with a scale each.
pub(crate) struct Iq4Nl;

/// Super-blocks of 256 with 6-bit scales for every 32.
pub(crate) struct Iq4Xs;

impl Blocks for Iq4Nl {
    const LEN: usize = SUB;
    const BYTES: usize = 18;

    #[inline(always)]
    fn encode(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
        for (i, (x, out)) in x.chunks(SUPER).zip(out.chunks_mut(LANES * Self::BYTES)).enumerate() {
            let rows = tile(x);
            let importance = weights.map(|w| &w.importance[i * SUPER..][..x.len()]);
            let scales = best_scales(&rows, &weigh(&rows, importance, |rows| sum_squares(rows).map(|sum| sum * (2.0 / SUB as f32))));
            let blocks = x.as_chunks::<SUB>().0.iter().zip(out.as_chunks_mut::<18>().0);
            for ((x, block), scale) in blocks.zip(scales) {
                put_f16(block, 0, scale);
                put_codes(x, reciprocal(scale), &mut block[2..]);
            }
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<SUB>().0) {
            decode_sub(f16_at(block, 0), &block[2..], out);
        }
    }
}

impl Blocks for Iq4Xs {
    const LEN: usize = SUPER;
    const BYTES: usize = 136;

    #[inline(always)]
    fn encode(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
        for (i, (x, out)) in x.chunks(LANES * SUPER).zip(out.chunks_mut(LANES * Self::BYTES)).enumerate() {
            let importance = weights.map(|w| &w.importance[i * LANES * SUPER..][..x.len()]);
            let sums = importance.map_or([0.0; LANES], |_| super_sum_squares(x));
            let blocks = x.as_chunks::<SUPER>().0.iter().zip(out.as_chunks_mut::<136>().0);
            for (i, ((x, block), sum)) in blocks.zip(sums).enumerate() {
                let rows = tile(x);
                let importance = importance.map(|w| &w[i * SUPER..][..SUPER]);
                let scales = best_scales(&rows, &weigh(&rows, importance, |_| [sum * (2.0 / SUPER as f32); LANES]));
                put_super(x, &scales, block);
            }
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<136>().0.iter().zip(out.as_chunks_mut::<SUPER>().0) {
            let d = f16_at(block, 0);
            let scales_h = u16::from_le_bytes([block[2], block[3]]);
            for (i, (qs, out)) in block[8..].chunks(SUB / 2).zip(out.as_chunks_mut::<SUB>().0).enumerate() {
                let low = block[4 + (i / 2) % 4] >> (4 * (i % 2)) & 0xf;
                let high = scales_h >> (2 * i) & 3;
                let ls = i32::from(low) | i32::from(high) << 4;
                decode_sub(d * (ls - 32) as f32, qs, out);
            }
        }
    }
}

/// Up to 8 sub-blocks, turned so that each has a lane. Missing ones are zero.
#[inline(always)]
fn tile(x: &[f32]) -> Tile {
    let mut rows = [[0.0; LANES]; SUB];
    for (lane, sub) in x.as_chunks::<SUB>().0.iter().take(LANES).enumerate() {
        for (row, &v) in rows.iter_mut().zip(sub) {
            row[lane] = v;
        }
    }
    rows
}

/// How much each element matters. `sigma2` is only asked for if there is an importance.
#[inline(always)]
fn weigh(rows: &Tile, importance: Option<&[f32]>, sigma2: impl Fn(&Tile) -> Lanes) -> Tile {
    let mut w = *rows;
    match importance {
        None => w.as_flattened_mut().iter_mut().for_each(|v| *v *= *v),
        Some(importance) => {
            let sigma2 = sigma2(rows);
            for (w, qw) in w.iter_mut().zip(&tile(importance)) {
                for lane in 0..LANES {
                    w[lane] = qw[lane] * (sigma2[lane] + w[lane] * w[lane]).sqrt();
                }
            }
        }
    }
    w
}

/// Σx² of each sub-block.
#[inline(always)]
fn sum_squares(rows: &Tile) -> Lanes {
    let mut sums = [0.0; LANES];
    for row in rows {
        for lane in 0..LANES {
            sums[lane] += row[lane] * row[lane];
        }
    }
    sums
}

/// Σx² of each of up to 8 super-blocks, a few elements of each in turn so that the sums do not wait for each other.
#[inline(always)]
fn super_sum_squares(x: &[f32]) -> Lanes {
    let mut sums = [0f32; LANES];
    for part in 0..SUPER / 8 {
        for (sum, x) in sums.iter_mut().zip(x.as_chunks::<SUPER>().0) {
            for v in &x[part * 8..][..8] {
                *sum += v * v;
            }
        }
    }
    sums
}

/// The element of the greatest magnitude of each sub-block, the first of several.
#[inline(always)]
fn signed_maxes(rows: &Tile) -> Lanes {
    let (mut greatest, mut signed) = ([0f32; LANES], [0f32; LANES]);
    for row in rows {
        for lane in 0..LANES {
            let greater = row[lane].abs() > greatest[lane];
            greatest[lane] = if greater { row[lane].abs() } else { greatest[lane] };
            signed[lane] = if greater { row[lane] } else { signed[lane] };
        }
    }
    signed
}

/// The least-squares sums of one try in each lane.
#[derive(Clone, Copy)]
struct Fit {
    /// Σwqx.
    qx: Lanes,
    /// Σwq².
    q2: Lanes,
}

const NO_FIT: Fit = Fit { qx: [0.0; LANES], q2: [0.0; LANES] };

/// The scale of each sub-block.
#[inline(always)]
fn best_scales(x: &Tile, w: &Tile) -> Lanes {
    let max = signed_maxes(x);
    let first = first_fit(x, w, &max);
    let mut scale = [0.0; LANES];
    let mut score = [0.0; LANES];
    for lane in 0..LANES {
        scale[lane] = if first.q2[lane] > 0.0 { first.qx[lane] / first.q2[lane] } else { 0.0 };
        score[lane] = scale[lane] * first.qx[lane];
    }
    let choices = Choices::new(x, w, &max);
    for targets in TARGETS {
        for fit in choices.fits(x, &targets.map(|target| max.map(|max| target / max))) {
            for lane in 0..LANES {
                let (qx, q2) = (fit.qx[lane], fit.q2[lane]);
                let better = (q2 > 0.0) & (qx * qx > score[lane] * q2);
                let candidate = qx / q2;
                scale[lane] = if better { candidate } else { scale[lane] };
                score[lane] = if better { candidate * qx } else { score[lane] };
            }
        }
    }
    for lane in 0..LANES {
        scale[lane] = if max[lane].abs() < EPS { 0.0 } else { scale[lane] };
    }
    scale
}

/// The fit with the greatest magnitude at +127.
#[inline(always)]
fn first_fit(x: &Tile, w: &Tile, max: &Lanes) -> Fit {
    let id = max.map(|max| 1.0 / (max / 127.0));
    let mut fit = NO_FIT;
    for (x, w) in x.iter().zip(w) {
        for lane in 0..LANES {
            let q = nearest_value(id[lane] * x[lane]);
            let wq = w[lane] * q;
            fit.qx[lane] += wq * x[lane];
            fit.q2[lane] += wq * q;
        }
    }
    fit
}

/// What each element can become in the tries, and what that adds to the fit.
///
/// From the first target to the last, an element comes closer to zero by a ninth, which is less than the distance between any two
/// boundaries that it may pass. So it passes one at most: the first between where it starts and zero.
struct Choices {
    bound: Tile,
    qx: Choice,
    q2: Choice,
}

/// The summand of each element.
struct Choice {
    /// From the boundary on.
    above: Tile,
    /// What turns the bits of `above` into those below the boundary. (To select between two loads would become branches.)
    flip: [[u32; LANES]; SUB],
}

impl Choice {
    const NONE: Self = Self { above: [[0.0; LANES]; SUB], flip: [[0; LANES]; SUB] };

    #[inline(always)]
    fn set(&mut self, j: usize, lane: usize, [below, above]: [f32; 2]) {
        self.above[j][lane] = above;
        self.flip[j][lane] = below.to_bits() ^ above.to_bits();
    }

    #[inline(always)]
    fn get(&self, j: usize, lane: usize, below: bool) -> f32 {
        f32::from_bits(self.above[j][lane].to_bits() ^ (self.flip[j][lane] & u32::from(below).wrapping_neg()))
    }
}

impl Choices {
    #[inline(always)]
    fn new(x: &Tile, w: &Tile, max: &Lanes) -> Self {
        let id = max.map(|max| TARGETS[0][0] / max);
        let mut choices = Self { bound: *x, qx: Choice::NONE, q2: Choice::NONE };
        for (j, (x, w)) in x.iter().zip(w).enumerate() {
            for lane in 0..LANES {
                let (x, w) = (x[lane], w[lane]);
                let q = choices_from(id[lane] * x);
                choices.bound[j][lane] = (q[0] + q[1]) * 0.5;
                choices.qx.set(j, lane, q.map(|q| w * q * x));
                choices.q2.set(j, lane, q.map(|q| w * q * q));
            }
        }
        choices
    }

    /// The fits of `N` tries, given the reciprocals of their scales.
    #[inline(always)]
    fn fits<const N: usize>(&self, x: &Tile, id: &[Lanes; N]) -> [Fit; N] {
        let mut fits = [NO_FIT; N];
        for (j, x) in x.iter().enumerate() {
            for (fit, id) in fits.iter_mut().zip(id) {
                for lane in 0..LANES {
                    let below = id[lane] * x[lane] < self.bound[j][lane];
                    fit.qx[lane] += self.qx.get(j, lane, below);
                    fit.q2[lane] += self.q2.get(j, lane, below);
                }
            }
        }
        fits
    }
}

/// The values on the two sides of the first boundary between `v` and zero, or of a boundary beyond zero if there is none.
#[inline(always)]
fn choices_from(v: f32) -> [f32; 2] {
    let mut q = [VALUES[0], VALUES[1]];
    for (i, &bound) in BOUNDS.iter().enumerate() {
        if i != CENTRE && v >= bound {
            let below = if i < CENTRE { i + 1 } else { i };
            q = [VALUES[below], VALUES[below + 1]];
        }
    }
    q
}

/// The value nearest to `v`.
#[inline(always)]
fn nearest_value(v: f32) -> f32 {
    let mut q = VALUES[0];
    for (&bound, &value) in BOUNDS.iter().zip(&VALUES[1..]) {
        q = if v < bound { q } else { value };
    }
    q
}

/// The code of the value nearest to `v`; 15 for NaN.
#[inline(always)]
fn nearest_code(v: f32) -> i32 {
    let mut code = 15;
    for bound in BOUNDS {
        code -= i32::from(v < bound);
    }
    code
}

/// 1 / `scale`, or 0 for a zero scale.
#[inline(always)]
fn reciprocal(scale: f32) -> f32 {
    if scale != 0.0 { 1.0 / scale } else { 0.0 }
}

/// Writes the 16 bytes of codes of a sub-block.
#[inline(always)]
fn put_codes(x: &[f32; SUB], id: f32, qs: &mut [u8]) {
    let mut codes = [0i32; SUB];
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = nearest_code(id * x);
    }
    let (low, high) = codes.split_at(SUB / 2);
    for ((q, low), high) in qs.iter_mut().zip(low).zip(high) {
        *q = (low | high << 4) as u8;
    }
}

/// Writes an `iq4_xs` block, given the scales of its sub-blocks.
#[inline(always)]
fn put_super(x: &[f32; SUPER], scales: &Lanes, block: &mut [u8; 136]) {
    let d = -signed_max(scales) / 32.0;
    let id = reciprocal(d);
    let (mut scales_h, mut scales_l) = (0u16, 0u32);
    let (header, qs) = block.split_at_mut(8);
    for (i, ((x, scale), qs)) in x.as_chunks::<SUB>().0.iter().zip(scales).zip(qs.chunks_mut(SUB / 2)).enumerate() {
        let l = nearest_int(id * scale).clamp(-32, 31);
        put_codes(x, reciprocal(d * l as f32), qs);
        let ls = (l + 32) as u32;
        scales_l |= (ls & 0xf) << (4 * i);
        scales_h |= (ls as u16 >> 4) << (2 * i);
    }
    put_f16(header, 0, d);
    header[2..4].copy_from_slice(&scales_h.to_le_bytes());
    header[4..8].copy_from_slice(&scales_l.to_le_bytes());
}

/// Decodes the 16 bytes of codes of a sub-block.
#[inline(always)]
fn decode_sub(d: f32, qs: &[u8], out: &mut [f32; SUB]) {
    let (low, high) = out.split_at_mut(SUB / 2);
    for ((&q, low), high) in qs.iter().zip(low).zip(high) {
        *low = d * VALUES[usize::from(q & 0xf)];
        *high = d * VALUES[usize::from(q >> 4)];
    }
}

const fn bounds() -> [f32; 15] {
    let mut bounds = [0.0; 15];
    let mut i = 0;
    while i < bounds.len() {
        bounds[i] = (VALUES[i] + VALUES[i + 1]) / 2.0;
        i += 1;
    }
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ggml's search.
    fn by_halving(v: f32) -> usize {
        if v <= VALUES[0] {
            return 0;
        }
        if v >= VALUES[15] {
            return 15;
        }
        let (mut low, mut high) = (0, 15);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if v < VALUES[middle] {
                high = middle;
            } else {
                low = middle;
            }
        }
        if v - VALUES[high - 1] < VALUES[high] - v { high - 1 } else { high }
    }

    #[test]
    fn nearest_is_that_of_the_search_by_halving() {
        let edges = BOUNDS.into_iter().chain(VALUES);
        let near_edges = edges.flat_map(|edge| (0..4000).map(move |i| f32::from_bits(edge.to_bits() - 2000 + i)));
        let everywhere = (0..=u32::MAX).step_by(65_521).map(f32::from_bits);
        for v in near_edges.chain(everywhere) {
            let code = by_halving(v);
            assert_eq!((nearest_code(v), nearest_value(v)), (code as i32, VALUES[code]), "{v}");
        }
    }

    #[test]
    fn no_try_leaves_the_two_choices() {
        for max in [1.0f32, -1.0, 0.3, -7e-9, 3e38, -1.1e-15] {
            for i in -1000..=1000 {
                let x = max * (i as f32 / 1000.0);
                let [below, above] = choices_from(TARGETS[0][0] / max * x);
                for target in TARGETS.as_flattened() {
                    let v = target / max * x;
                    let chosen = if v < (below + above) * 0.5 { below } else { above };
                    assert_eq!(chosen, nearest_value(v), "{x} of {max}, target {target}");
                }
            }
        }
    }
}
