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

use std::array::from_fn;

use super::block::{Blocks, Weights};
use super::grids::{GRID_2BIT_256, GRID_2BIT_512, GRID_2BIT_1024};
use super::lattice::{self, Lattice};
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

/// Which signs a group can have.
#[derive(Clone, Copy, PartialEq)]
enum Signs {
    /// An even number of negatives.
    Even,
    Any,
}

/// A block being encoded: `S` sub-blocks, side by side in lanes, of `G` groups of eight.
struct Block<const G: usize, const S: usize> {
    /// For each group the magnitudes (one may be negative, to make its signs even), √w, and the signs, a bit each.
    x: [[f32; 8]; GROUPS],
    root: [[f32; 8]; GROUPS],
    signs: [u8; GROUPS],
    /// For each element of a sub-block, over the sub-blocks: x, w and w·x.
    lane_x: [[[f32; S]; 8]; G],
    lane_w: [[[f32; S]; 8]; G],
    lane_wx: [[[f32; S]; 8]; G],
    /// The greatest x of each sub-block.
    max: [f32; S],
}

/// The points and the scale chosen for each sub-block. A point whose tuple was not on the grid is marked [`MOVED`].
struct Fit<const G: usize, const S: usize> {
    scale: [f32; S],
    points: [[u16; S]; G],
}

/// Marks the index of a point that the levels had to be moved to.
const MOVED: u16 = 1 << 15;
/// Marks the key of a tuple of which a level was a close call.
const CLOSE: i32 = 1 << 15;

/// What is to be written: points and signs of the groups, scales of the sub-blocks.
struct Encoded<const S: usize> {
    points: [u16; GROUPS],
    signs: [u8; GROUPS],
    scale: [f32; S],
}

impl<const G: usize, const S: usize> Block<G, S> {
    #[inline(always)]
    fn new(values: &[f32; LEN], w: &[f32; LEN], which: Signs) -> Self {
        let values = grouped(values);
        let w = grouped(w);
        let mut x = values.map(|x| x.map(|v| if v >= 0.0 { v } else { -v }));
        let mut signs = values.map(|x| (0..8).fold(0, |bits, i| bits | u8::from(x[i] < 0.0) << i));
        for g in 0..GROUPS {
            if which == Signs::Even && signs[g].count_ones() % 2 == 1 {
                let cheapest = cheapest(&from_fn(|i| w[g][i] * values[g][i] * values[g][i]));
                signs[g] ^= 1 << cheapest;
                x[g] = from_fn(|i| if i == cheapest { -x[g][i] } else { x[g][i] });
            }
        }
        let (lane_x, lane_w) = (lanes::<G, S>(&x), lanes::<G, S>(&w));
        let lane_wx = from_fn(|g| from_fn(|i| from_fn(|s| lane_w[g][i][s] * lane_x[g][i][s])));
        let mut max = lane_x[0][0];
        for x in lane_x.as_flattened() {
            max = from_fn(|s| if max[s] > x[s] { max[s] } else { x[s] });
        }
        Self { x, root: w.map(|w| w.map(f32::sqrt)), signs, lane_x, lane_w, lane_wx, max }
    }

    /// The encoding of IQ2_XS and IQ2_S: guesses around max/5.
    #[inline(always)]
    fn encode_by_max(&self, lattice: &Lattice<8>, eps: f32) -> Encoded<S> {
        let mut fit = self.search::<19>(lattice, &self.max, self.max.map(|max| max / 5.0));
        self.refine(lattice, &mut fit, MOVED);
        self.finish(fit, self.max.map(|max| max >= eps))
    }

    /// The best of `N` fits, level 2 standing for about `greatest`. `scale` stays where none is better than nothing.
    #[inline(always)]
    fn search<const N: usize>(&self, lattice: &Lattice<8>, greatest: &[f32; S], scale: [f32; S]) -> Fit<G, S> {
        let ids: [[f32; S]; N] = from_fn(|n| greatest.map(|greatest| (5.0 + (n as f32 - (N / 2) as f32) * 0.1) / greatest));
        let mut points = [[[0; S]; G]; N];
        for (points, id) in points.iter_mut().zip(&ids) {
            *points = self.keys(id);
        }
        for s in 0..S {
            for g in 0..G {
                // Successive fits mostly ask for the same tuple.
                for (points, id) in points.iter_mut().zip(&ids) {
                    points[g][s] = self.snap(lattice, s * G + g, points[g][s], 1.0 / id[s]);
                }
            }
        }
        let mut best = Fit { scale, points: [[0; S]; G] };
        let mut score = [0f32; S];
        for points in &points {
            let (qx, q2) = self.products(lattice, points);
            let better: [bool; S] = from_fn(|s| q2[s] > 0.0 && qx[s] * qx[s] > score[s] * q2[s]);
            for s in 0..S {
                let fitted = qx[s] / q2[s];
                best.scale[s] = if better[s] { fitted } else { best.scale[s] };
                score[s] = if better[s] { fitted * qx[s] } else { score[s] };
            }
            for (best, points) in best.points.iter_mut().zip(points) {
                *best = from_fn(|s| if better[s] { points[s] } else { best[s] });
            }
        }
        best
    }

    /// Chooses anew, with the fitted scale, the points that have all the marks in `which`.
    #[inline(always)]
    fn refine(&self, lattice: &Lattice<8>, fit: &mut Fit<G, S>, which: u16) {
        let keys = self.keys(&fit.scale.map(|scale| 1.0 / scale));
        let mut again = [false; S];
        for s in 0..S {
            for (g, (points, keys)) in fit.points.iter_mut().zip(&keys).enumerate() {
                if points[s] & which == which && fit.scale[s] > 0.0 {
                    points[s] = self.snap(lattice, s * G + g, keys[s], fit.scale[s]);
                    again[s] = true;
                }
            }
        }
        let (qx, q2) = self.products(lattice, &fit.points);
        fit.scale = from_fn(|s| if again[s] && q2[s] > 0.0 { qx[s] / q2[s] } else { fit.scale[s] });
    }

    /// The keys of the tuples of levels nearest to x·id.
    #[inline(always)]
    fn keys(&self, id: &[f32; S]) -> [[u16; S]; G] {
        let mut all = [[0; S]; G];
        for (all, x) in all.iter_mut().zip(&self.lane_x) {
            let (mut keys, mut marks) = ([0i32; S], [0i32; S]);
            for x in x.iter().rev() {
                for s in 0..S {
                    let exact = 0.5 * (id[s] * x[s] - 1.0);
                    let level = nearest_int(exact);
                    marks[s] |= if (exact - level as f32).abs() < 0.4999 { 0 } else { CLOSE };
                    keys[s] = 3 * keys[s] + level.clamp(0, 2);
                }
            }
            *all = from_fn(|s| (keys[s] | marks[s]) as u16);
        }
        all
    }

    /// The point for a key.
    #[inline(always)]
    fn snap(&self, lattice: &Lattice<8>, group: usize, key: u16, scale: f32) -> u16 {
        let is_clear = key & CLOSE as u16 == 0;
        let (point, on_grid) = lattice.snap(usize::from(key & !(CLOSE as u16)), is_clear, &self.x[group], &self.root[group], scale);
        if on_grid { point } else { point | MOVED }
    }

    /// Σ w·x·q and Σ w·q² of each sub-block.
    #[inline(always)]
    fn products(&self, lattice: &Lattice<8>, points: &[[u16; S]; G]) -> ([f32; S], [f32; S]) {
        let (mut qx, mut q2) = ([0f32; S], [0f32; S]);
        for g in 0..G {
            let points = points[g].map(|point| lattice.points().get(usize::from(point & !MOVED)).copied().unwrap_or([1; 8]));
            for (i, (w, wx)) in self.lane_w[g].iter().zip(&self.lane_wx[g]).enumerate() {
                for s in 0..S {
                    let q = f32::from(points[s][i]);
                    qx[s] += wx[s] * q;
                    q2[s] += w[s] * q * q;
                }
            }
        }
        (qx, q2)
    }

    /// Makes all scales positive, and clears the sub-blocks that are not `alive`.
    #[inline(always)]
    fn finish(&self, fit: Fit<G, S>, alive: [bool; S]) -> Encoded<S> {
        let (scale, points) = (&fit.scale, &fit.points);
        Encoded {
            points: from_fn(|g| if alive[g / G] { points[g % G][g / G] & !MOVED } else { 0 }),
            signs: from_fn(|g| match (alive[g / G], scale[g / G] < 0.0) {
                (true, false) => self.signs[g],
                (true, true) => !self.signs[g],
                (false, _) => 0,
            }),
            scale: from_fn(|s| if alive[s] { scale[s].abs() } else { 0.0 }),
        }
    }
}

impl Block<4, 8> {
    /// For each sub-block the scale with which levels 0 to 4 come nearest to x (`make_qp_quants`).
    #[inline(always)]
    fn fit_levels(&self) -> [f32; 8] {
        let (x, w, wx) = (self.lane_x.as_flattened(), self.lane_w.as_flattened(), self.lane_wx.as_flattened());
        let max = self.max.map(|max| if max > 0.0 { max } else { 0.0 });
        let iscale = best_iscale(x, w, &max);
        let mut levels = [[0i32; 8]; 32];
        let (mut lx, mut l2) = ([0f32; 8], [0f32; 8]);
        for i in 0..32 {
            for s in 0..8 {
                let l = nearest_int(iscale[s] * x[i][s]).min(4);
                levels[i][s] = l & 255;
                lx[s] += wx[i][s] * l as f32;
                l2[s] += w[i][s] * l as f32 * l as f32;
            }
        }
        for _ in 0..5 {
            let mut changed = [0u32; 8];
            for i in 0..32 {
                improve(&x[i], &w[i], &wx[i], &mut levels[i], [&mut lx, &mut l2], &mut changed);
            }
            // A lane that has not changed will not change.
            if changed == [0; 8] {
                break;
            }
        }
        from_fn(|s| if l2[s] > 0.0 && max[s] >= EPS { lx[s] / l2[s] } else { 0.0 })
    }
}

/// Of nine inverse scales around 4/max, the one with the least Σ w·(x − scale·level)².
#[inline(always)]
fn best_iscale(x: &[[f32; 8]], w: &[[f32; 8]], max: &[f32; 8]) -> [f32; 8] {
    let mut iscale = max.map(|max| 4.0 / max);
    // The first levels are bytes: what is below 0 wraps.
    let mut least = level_error(x, w, &iscale, |l| l & 255);
    for step in [-4i8, -3, -2, -1, 1, 2, 3, 4] {
        let tried = max.map(|max| (0.1 * f32::from(step) + 4.0) / max);
        let error = level_error(x, w, &tried, |l| l.min(4));
        for s in 0..8 {
            let less = error[s] < least[s];
            least[s] = if less { error[s] } else { least[s] };
            iscale[s] = if less { tried[s] } else { iscale[s] };
        }
    }
    iscale
}

#[inline(always)]
fn level_error(x: &[[f32; 8]], w: &[[f32; 8]], iscale: &[f32; 8], limit: impl Fn(i32) -> i32) -> [f32; 8] {
    let scale = iscale.map(|iscale| 1.0 / iscale);
    let mut error = [0f32; 8];
    for (x, w) in x.iter().zip(w) {
        for s in 0..8 {
            let off = x[s] - scale[s] * limit(nearest_int(iscale[s] * x[s])) as f32;
            error[s] += w[s] * off * off;
        }
    }
    error
}

/// Moves one element of each lane to the level that the others ask for, where the fit gains. Marks the lanes where it did.
#[inline(always)]
fn improve(x: &[f32; 8], w: &[f32; 8], wx: &[f32; 8], levels: &mut [i32; 8], [lx, l2]: [&mut [f32; 8]; 2], changed: &mut [u32; 8]) {
    let (mut rest_lx, mut rest_l2, mut new) = ([0f32; 8], [0f32; 8], [0i32; 8]);
    for s in 0..8 {
        let l = levels[s] as f32;
        rest_lx[s] = lx[s] - wx[s] * l;
        rest_l2[s] = l2[s] - w[s] * l * l;
        new[s] = nearest_int(x[s] * rest_l2[s] / rest_lx[s]).min(4);
    }
    let (mut moves, mut new_lx, mut new_l2) = ([0u32; 8], [0f32; 8], [0f32; 8]);
    for s in 0..8 {
        let l = new[s] as f32;
        new_lx[s] = rest_lx[s] + wx[s] * l;
        new_l2[s] = rest_l2[s] + w[s] * l * l;
        let gains = new_lx[s] * new_lx[s] * l2[s] > lx[s] * lx[s] * new_l2[s];
        moves[s] = u32::from((rest_lx[s] > 0.0) & (rest_l2[s] > 0.0) & (new[s] != levels[s]) & gains);
    }
    for s in 0..8 {
        levels[s] = if moves[s] != 0 { new[s] & 255 } else { levels[s] };
        lx[s] = if moves[s] != 0 { new_lx[s] } else { lx[s] };
        l2[s] = if moves[s] != 0 { new_l2[s] } else { l2[s] };
        changed[s] |= moves[s];
    }
}

#[inline(always)]
fn grouped(values: &[f32; LEN]) -> [[f32; 8]; GROUPS] {
    from_fn(|g| from_fn(|i| values[8 * g + i]))
}

/// The groups' values with the sub-blocks side by side.
#[inline(always)]
fn lanes<const G: usize, const S: usize>(groups: &[[f32; 8]; GROUPS]) -> [[[f32; S]; 8]; G] {
    from_fn(|g| from_fn(|i| from_fn(|s| groups[s * G + g][i])))
}

/// The first of the least.
#[inline(always)]
fn cheapest(costs: &[f32; 8]) -> usize {
    let mut least = 0;
    for i in 1..8 {
        if costs[i] < costs[least] {
            least = i;
        }
    }
    least
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
