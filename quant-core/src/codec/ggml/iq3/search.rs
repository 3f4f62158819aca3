//! The search of IQ3: for a sub-block the points of the lattice and the scale that fit best.

use super::super::lattice::Lattice;
use super::super::math::nearest_int;
use super::{GROUPS, SUB};

/// Tries whose neighbours are compared side by side.
const LANES: usize = 8;
/// Four coordinates `2 · level + 1`, a byte each.
pub(super) type Point = u32;

/// A lattice with its points packed.
pub(super) struct Grid<'a> {
    lattice: &'a Lattice<4>,
    points: [Point; 512],
}

impl<'a> Grid<'a> {
    #[inline(always)]
    pub(super) fn new(lattice: &'a Lattice<4>) -> Self {
        let mut points = [point(0); 512];
        for (packed, point) in points.iter_mut().zip(lattice.points()) {
            *packed = u32::from_le_bytes(point.map(|q| q as u8));
        }
        Self { lattice, points }
    }

    /// The index of a point of the grid.
    #[inline(always)]
    pub(super) fn index(&self, point: Point) -> u16 {
        self.lattice.index(&levels(point).to_le_bytes()).unwrap_or(0)
    }

    /// The points near to one that is off the grid.
    #[inline(always)]
    fn neighbours(&self, point: Point) -> Option<&'a [u16]> {
        self.lattice.index(&levels(point).to_le_bytes()).err()
    }
}

/// The levels of a point, a byte each.
#[inline(always)]
fn levels(point: Point) -> u32 {
    point >> 1 & 0x0707_0707
}

/// The point with these levels.
#[inline(always)]
fn point(levels: u32) -> Point {
    levels << 1 | 0x0101_0101
}

/// The coordinate `i` of a point.
#[inline(always)]
fn coordinate(point: Point, i: usize) -> f32 {
    (point >> (8 * i) & 0xf) as i32 as f32
}

/// The level nearest to `x` / scale, given the reciprocal of the scale.
#[inline(always)]
fn level(id: f32, x: f32) -> u32 {
    nearest_int(0.5 * (id * x - 1.0)).clamp(0, 7) as u32
}

/// A sub-block being encoded.
pub(super) struct Sub {
    /// The magnitudes; negative where a sign was flipped.
    x: [f32; SUB],
    w: [f32; SUB],
    /// √w.
    root: [f32; SUB],
    pub(super) signs: [u8; 4],
}

/// The best try.
pub(super) struct Found {
    pub(super) scale: f32,
    pub(super) points: [Point; GROUPS],
    /// The groups that were off the grid.
    pub(super) off_grid: u8,
}

impl Sub {
    #[inline(always)]
    pub(super) fn new(x: &[f32; SUB], w: &[f32; SUB]) -> Self {
        let mut signs = [0u8; 4];
        for (signs, x) in signs.iter_mut().zip(x.as_chunks::<8>().0) {
            for (i, &x) in x.iter().enumerate() {
                *signs |= u8::from(x < 0.0) << i;
            }
        }
        Self { x: x.map(f32::abs), w: *w, root: w.map(f32::sqrt), signs }
    }

    /// Flips the least important sign of each eight that have an odd number of them.
    #[inline(always)]
    pub(super) fn make_signs_even(&mut self) {
        for ((signs, x), w) in self.signs.iter_mut().zip(self.x.as_chunks_mut::<8>().0).zip(self.w.as_chunks::<8>().0) {
            if signs.count_ones() % 2 == 0 {
                continue;
            }
            let (mut least, mut at) = (w[0] * x[0] * x[0], 0);
            for i in 1..8 {
                let loss = w[i] * x[i] * x[i];
                if loss < least {
                    (least, at) = (loss, i);
                }
            }
            x[at] = -x[at];
            *signs ^= 1 << at;
        }
    }

    #[inline(always)]
    pub(super) fn max(&self) -> f32 {
        self.x.iter().fold(f32::NEG_INFINITY, |max, &x| if max > x { max } else { x })
    }

    /// The first best of `tries` tries, of which `N` ≥ `tries` are computed. If none is better than nothing, all levels are 0 and
    /// `off_grid` is as given.
    #[inline(always)]
    pub(super) fn search<const N: usize>(&self, grid: &Grid, max: f32, tries: usize, off_grid: u8) -> Found {
        let middle = (tries / 2) as i32;
        let id: [f32; N] = std::array::from_fn(|t| (15.0 + (t as i32 - middle) as f32 * 0.2) / max);
        let scaled = multiples(&id.map(|id| 1.0 / id));
        let (mut qx, mut q2) = ([0f32; N], [0f32; N]);
        let mut costs = [[[0.0; N]; 8]; 4];
        let (mut points, mut off) = ([[0; N]; GROUPS], [0u32; N]);
        let groups = self.x.as_chunks::<4>().0.iter().zip(self.w.as_chunks::<4>().0).zip(self.root.as_chunks::<4>().0);
        for (k, (((x, w), root), points)) in groups.zip(&mut points).enumerate() {
            let rounded = rounded(&id, x);
            *points = rounded;
            set_costs(&mut costs, &scaled, x, root);
            snap(grid, tries, &costs, points);
            for t in 0..N {
                off[t] |= u32::from(points[t] != rounded[t]) << k;
            }
            for i in 0..4 {
                let wx = w[i] * x[i];
                for t in 0..N {
                    let q = coordinate(points[t], i);
                    qx[t] += wx * q;
                    q2[t] += w[i] * q * q;
                }
            }
        }
        let mut found = Found { scale: max / 15.0, points: [point(0); GROUPS], off_grid };
        let mut best = 0.0;
        for t in 0..tries {
            if q2[t] > 0.0 && qx[t] * qx[t] > best * q2[t] {
                let scale = qx[t] / q2[t];
                best = scale * qx[t];
                found = Found { scale, points: points.map(|points| points[t]), off_grid: off[t] as u8 };
            }
        }
        found
    }

    /// Rounds the groups of the mask `which` again and fits the scale to what became of them.
    #[inline(always)]
    pub(super) fn refine(&self, grid: &Grid, found: &mut Found, which: u8) {
        let (id, scaled) = (1.0 / found.scale, multiples(&[found.scale]));
        let mut costs = [[[0.0]; 8]; 4];
        let groups = self.x.as_chunks::<4>().0.iter().zip(self.root.as_chunks::<4>().0);
        for (k, ((x, root), at)) in groups.zip(&mut found.points).enumerate() {
            if which >> k & 1 == 1 {
                let rounded = rounded(&[id], x)[0];
                *at = match grid.neighbours(rounded) {
                    None => rounded,
                    Some(neighbours) => {
                        set_costs(&mut costs, &scaled, x, root);
                        nearest::<1, 1>(grid, neighbours, &costs, 0)[0]
                    }
                };
            }
        }
        let (mut qx, mut q2) = (0f32, 0f32);
        for ((x, w), &point) in self.x.as_chunks::<4>().0.iter().zip(self.w.as_chunks::<4>().0).zip(&found.points) {
            for i in 0..4 {
                let q = coordinate(point, i);
                qx += w[i] * x[i] * q;
                q2 += w[i] * q * q;
            }
        }
        if q2 > 0.0 {
            found.scale = qx / q2;
        }
    }

    /// A negative scale becomes positive, and every sign the other one.
    #[inline(always)]
    pub(super) fn make_scale_positive(&mut self, scale: f32) -> f32 {
        if scale < 0.0 {
            self.signs = self.signs.map(|signs| !signs);
            -scale
        } else {
            scale
        }
    }
}

/// The points that each try rounds a group to, on the grid or off.
#[inline(always)]
fn rounded<const N: usize>(id: &[f32; N], x: &[f32; 4]) -> [Point; N] {
    let mut rounded = [0; N];
    for (i, &x) in x.iter().enumerate() {
        for t in 0..N {
            rounded[t] |= level(id[t], x) << (8 * i);
        }
    }
    rounded.map(point)
}

/// Moves the points that are off the grid to the nearest of their neighbours.
///
/// Tries in a row often round to the same point; they share the walk over its neighbours.
#[inline(always)]
fn snap<const N: usize>(grid: &Grid, tries: usize, costs: &Costs<N>, points: &mut [Point; N]) {
    let rounded = *points;
    let mut starts = 1u64;
    for t in 1..N {
        starts |= u64::from(t < tries && rounded[t] != rounded[t - 1]) << t;
    }
    while starts != 0 {
        let start = starts.trailing_zeros() as usize;
        starts &= starts - 1;
        let end = tries.min(starts.trailing_zeros() as usize);
        let Some(&from) = rounded.get(start) else { return };
        if let Some(neighbours) = grid.neighbours(from) {
            for start in (start..end).step_by(LANES) {
                let first = start.min(N - LANES);
                let nearest = nearest::<N, LANES>(grid, neighbours, costs, first);
                let points = &mut points[first..first + LANES];
                for lane in 0..LANES {
                    let t = (first + lane) as u32;
                    points[lane] = select(t >= start as u32 && t < end as u32, nearest[lane], points[lane]);
                }
            }
        }
    }
}

/// The multiples of each scale that the levels stand for.
#[inline(always)]
fn multiples<const N: usize>(scales: &[f32; N]) -> [[f32; N]; 8] {
    std::array::from_fn(|level| scales.map(|scale| scale * (2 * level + 1) as f32))
}

/// For each coordinate, each level and each try, what that level costs.
type Costs<const N: usize> = [[[f32; N]; 8]; 4];

/// Sets the costs of a group: √w · (scale · q − x)².
#[inline(always)]
fn set_costs<const N: usize>(costs: &mut Costs<N>, scaled: &[[f32; N]; 8], x: &[f32; 4], root: &[f32; 4]) {
    for ((costs, &x), &root) in costs.iter_mut().zip(x).zip(root) {
        for (costs, scaled) in costs.iter_mut().zip(scaled) {
            for t in 0..N {
                let off = scaled[t] - x;
                costs[t] = root * off * off;
            }
        }
    }
}

/// The first cheapest of the neighbours, for each of `L` tries from `start` on.
#[inline(always)]
fn nearest<const N: usize, const L: usize>(grid: &Grid, neighbours: &[u16], costs: &Costs<N>, start: usize) -> [Point; L] {
    let start = start.min(N - L);
    let mut least = [f32::MAX; L];
    let mut nearest = [point(0); L];
    for &index in neighbours {
        let packed = grid.points[usize::from(index) % 512];
        let mut total = [0f32; L];
        for (i, costs) in costs.iter().enumerate() {
            let costs = &costs[(packed >> (8 * i + 1) & 7) as usize][start..start + L];
            for (total, cost) in total.iter_mut().zip(costs) {
                *total += cost;
            }
        }
        for lane in 0..L {
            let nearer = total[lane] < least[lane];
            least[lane] = if nearer { total[lane] } else { least[lane] };
            nearest[lane] = select(nearer, packed, nearest[lane]);
        }
    }
    nearest
}

/// `yes` if `condition`, else `no`, in bits: an `if` would become a branch for each lane.
#[inline(always)]
fn select(condition: bool, yes: u32, no: u32) -> u32 {
    no ^ ((no ^ yes) & u32::from(condition).wrapping_neg())
}
