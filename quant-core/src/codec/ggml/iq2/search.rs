//! The search of IQ2: for each sub-block of a block the points of the lattice and the scale that fit best.

use std::array::from_fn;

use super::super::lattice::Lattice;
use super::super::math::{EPS, nearest_int};
use super::{GROUPS, LEN};

/// Which signs a group can have.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Signs {
    /// An even number of negatives.
    Even,
    Any,
}

/// A block being encoded: `S` sub-blocks, side by side in lanes, of `G` groups of eight.
pub(super) struct Block<const G: usize, const S: usize> {
    /// For each group the magnitudes (one may be negative, to make its signs even), √w, and the signs, a bit each.
    x: [[f32; 8]; GROUPS],
    root: [[f32; 8]; GROUPS],
    pub(super) signs: [u8; GROUPS],
    /// For each element of a sub-block, over the sub-blocks: x, w and w·x.
    lane_x: [[[f32; S]; 8]; G],
    lane_w: [[[f32; S]; 8]; G],
    lane_wx: [[[f32; S]; 8]; G],
    /// The greatest x of each sub-block.
    pub(super) max: [f32; S],
}

/// The points and the scale chosen for each sub-block. A point whose tuple was not on the grid is marked [`MOVED`].
pub(super) struct Fit<const G: usize, const S: usize> {
    pub(super) scale: [f32; S],
    pub(super) points: [[u16; S]; G],
}

/// Marks the index of a point that the levels had to be moved to.
const MOVED: u16 = 1 << 15;
/// Marks the key of a tuple of which a level was a close call.
const CLOSE: i32 = 1 << 15;

/// What is to be written: points and signs of the groups, scales of the sub-blocks.
pub(super) struct Encoded<const S: usize> {
    pub(super) points: [u16; GROUPS],
    pub(super) signs: [u8; GROUPS],
    pub(super) scale: [f32; S],
}

impl<const G: usize, const S: usize> Block<G, S> {
    #[inline(always)]
    pub(super) fn new(values: &[f32; LEN], w: &[f32; LEN], which: Signs) -> Self {
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
    pub(super) fn encode_by_max(&self, lattice: &Lattice<8>, eps: f32) -> Encoded<S> {
        let mut fit = self.search::<19>(lattice, &self.max, self.max.map(|max| max / 5.0));
        self.refine(lattice, &mut fit, MOVED);
        self.finish(fit, self.max.map(|max| max >= eps))
    }

    /// The best of `N` fits, level 2 standing for about `greatest`. `scale` stays where none is better than nothing.
    #[inline(always)]
    pub(super) fn search<const N: usize>(&self, lattice: &Lattice<8>, greatest: &[f32; S], scale: [f32; S]) -> Fit<G, S> {
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
    pub(super) fn refine(&self, lattice: &Lattice<8>, fit: &mut Fit<G, S>, which: u16) {
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
    pub(super) fn finish(&self, fit: Fit<G, S>, alive: [bool; S]) -> Encoded<S> {
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
    pub(super) fn fit_levels(&self) -> [f32; 8] {
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
