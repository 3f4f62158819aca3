//! What IQ1_S and IQ1_M share: sub-blocks of numbers become three levels each, eight by eight on a lattice.
//!
//! **Levels.** A number is −1, 0 or 1, plus a shift of ⅛ up or down that its sub-block (or half of it) has in common, times a scale.
//!
//! **Split.** In ascending order the numbers of a sub-block fall into three runs, so two boundaries `i1 ≤ i2` are all there is to
//! choose, and all pairs are tried, in that order, with all shifts: the least weighted square error with its own best scale wins,
//! which is the greatest (Σwqx)² / Σwq², the first of equals. Equal numbers keep their order. Should the best scale be negative, all
//! levels and shifts are negated. Eight sub-blocks are tried side by side.
//!
//! **Lattice.** Eight levels off the lattice become the neighbour of least weighted square error, the first of equals. The error that
//! each level would make of each number is found once; eight neighbours at a time then add up theirs.
//!
//! **Source.** ggml 0.25.3, `ggml-quants.c` (MIT): `quantize_row_iq1_s_impl`, `quantize_row_iq1_m_impl`, `iq1_find_best_neighbour2`.
//! Where no error is finite, or a scale is not, ggml aborts or reads past its arrays; such bytes mean nothing here either.

use std::sync::LazyLock;

use super::lattice;
use super::math::nearest_int;

/// Elements of a block.
pub(super) const BLOCK: usize = 256;

/// Blocks of which the variances are found together.
pub(super) const AT_ONCE: usize = 4;

/// Sub-blocks side by side, and neighbours.
pub(super) const LANES: usize = 8;

/// A number for each sub-block.
pub(super) type Lane = [f32; LANES];

/// Octets of a sub-block, at most.
const OCTETS: usize = 4;

/// Decodes eight numbers.
#[inline(always)]
pub(super) fn decode_point(point: u16, scale: f32, is_down: bool, out: &mut [f32]) {
    let shift = if is_down { -0.125 } else { 0.125 };
    let odd = lattice::IQ1.points().get(usize::from(point)).copied().unwrap_or_default();
    for (y, v) in out.iter_mut().zip(odd) {
        *y = scale * (f32::from((v - 3) >> 1) + shift);
    }
}

/// 2Σx²/256 for each of up to four blocks.
#[inline(always)]
pub(super) fn variances(x: &[f32]) -> [f32; AT_ONCE] {
    let mut sums = [0f32; AT_ONCE];
    if let Some(blocks) = x.as_chunks::<BLOCK>().0.as_array::<AT_ONCE>() {
        // Side by side: one sum would wait for itself all the time.
        for j in 0..BLOCK {
            for (sum, block) in sums.iter_mut().zip(blocks) {
                *sum += block[j] * block[j];
            }
        }
    } else {
        for (sum, block) in sums.iter_mut().zip(x.chunks_exact(BLOCK)) {
            for v in block {
                *sum += v * v;
            }
        }
    }
    sums.map(|sum| 2.0 * sum / BLOCK as f32)
}

/// How much the elements of a block matter.
#[inline(always)]
pub(super) fn weigh(x: &[f32], importance: &[f32], variance: f32) -> [f32; BLOCK] {
    let mut weight = [0f32; BLOCK];
    for ((weight, x), importance) in weight.iter_mut().zip(x).zip(importance) {
        *weight = importance * (variance + x * x).sqrt();
    }
    weight
}

/// Eight sub-blocks of `N` numbers: one after the other in the slices, side by side in the arrays.
pub(super) struct Group<'a, const N: usize> {
    flat_x: &'a [f32],
    flat_weight: &'a [f32],
    pub(super) x: [Lane; N],
    pub(super) weight: [Lane; N],
    /// Where the number comes in ascending order.
    rank: [[i32; LANES]; N],
}

impl<'a, const N: usize> Group<'a, N> {
    #[inline(always)]
    pub(super) fn new(flat_x: &'a [f32], flat_weight: &'a [f32]) -> Self {
        let x = transpose(flat_x);
        Group { flat_x, flat_weight, rank: ranks(&x), x, weight: transpose(flat_weight) }
    }

    /// Where the number at `j` of sub-block `l` comes in ascending order.
    #[inline(always)]
    pub(super) fn place(&self, j: usize, l: usize) -> usize {
        self.rank[j][l] as usize % N
    }

    /// Which sub-blocks have a number of magnitude `eps` or more.
    #[inline(always)]
    fn reaches(&self, eps: f32) -> [bool; LANES] {
        let mut greatest = [0f32; LANES];
        for x in &self.x {
            for l in 0..LANES {
                greatest[l] = if x[l].abs() > greatest[l] { x[l].abs() } else { greatest[l] };
            }
        }
        greatest.map(|v| v >= eps)
    }

    /// Puts the best split on the lattice. Sub-blocks that have none, and those of numbers below `eps`, stay empty: all bits 0.
    #[inline(always)]
    pub(super) fn snap(&self, best: &Best, eps: f32) -> Snapped {
        let split = best.split(&self.rank);
        let is_alive = self.reaches(eps);
        let mut snapped = Snapped::default();
        let mut is_off = [false; LANES];
        for l in 0..LANES {
            if !(is_alive[l] && split.is_found[l]) {
                continue;
            }
            snapped.scales[l] = split.scale[l];
            snapped.shifts[l] = split.shifts[l];
            for o in 0..N / 8 {
                let at = l * N + 8 * o;
                let (x, weight) = (&self.flat_x[at..][..8], &self.flat_weight[at..][..8]);
                let octet = Octet { x, weight, scale: split.scale[l], shift: snapped.shift(N / 8, o, l) };
                let (point, code, is_on) = LATTICE.snap(split.keys[o][l], &octet);
                snapped.points[l][o] = point;
                snapped.codes[o][l] = code;
                is_off[l] |= !is_on;
            }
        }
        let (qx, q2) = self.fit(&snapped.values());
        for l in 0..LANES {
            let is_better = is_off[l] & (qx[l] > 0.0) & (q2[l] > 0.0);
            snapped.scales[l] = if is_better { qx[l] / q2[l] } else { snapped.scales[l] };
        }
        snapped
    }

    /// Σwqx and Σwq² for the values `q`.
    #[inline(always)]
    fn fit(&self, q: &[Lane; N]) -> (Lane, Lane) {
        let (mut qx, mut q2) = ([0f32; LANES], [0f32; LANES]);
        for ((x, weight), q) in self.x.iter().zip(&self.weight).zip(q) {
            for l in 0..LANES {
                qx[l] += weight[l] * q[l] * x[l];
                q2[l] += weight[l] * q[l] * q[l];
            }
        }
        (qx, q2)
    }
}

#[inline(always)]
fn transpose<const N: usize>(v: &[f32]) -> [Lane; N] {
    let mut lanes = [[0f32; LANES]; N];
    for (l, v) in v.chunks_exact(N).take(LANES).enumerate() {
        for j in 0..N {
            lanes[j][l] = v[j];
        }
    }
    lanes
}

/// Where the numbers come in a stable sort: of two, the later one comes first only if it is less.
#[inline(always)]
fn ranks<const N: usize>(x: &[Lane; N]) -> [[i32; LANES]; N] {
    // Counted in f32, whose sums the compiler leaves in their lanes.
    let mut counts = [[0f32; LANES]; N];
    for k in 0..N {
        let mut count = [k as f32; LANES];
        for j in 0..k {
            for l in 0..LANES {
                let is_less = if x[k][l] < x[j][l] { 1.0 } else { 0.0 };
                count[l] -= is_less;
                counts[j][l] += is_less;
            }
        }
        counts[k] = count;
    }
    let mut ranks = [[0i32; LANES]; N];
    for (ranks, counts) in ranks.iter_mut().zip(&counts) {
        for l in 0..LANES {
            ranks[l] = nearest_int(counts[l]);
        }
    }
    ranks
}

/// Running sums: at `j`, of what comes before `j`.
#[inline(always)]
pub(super) fn accumulate(sums: &mut [Lane]) {
    let mut sum = [0f32; LANES];
    for next in sums {
        for l in 0..LANES {
            let before = sum[l];
            sum[l] += next[l];
            next[l] = before;
        }
    }
}

/// The best split so far.
pub(super) struct Best {
    score: Lane,
    scale: Lane,
    /// Which candidate, see [`candidate`]; −1 for none.
    at: [i32; LANES],
}

/// The number of a candidate: its boundaries, and whether the first half (2) and the second (1) are shifted down.
#[inline(always)]
pub(super) fn candidate(i1: usize, i2: usize, shifts: usize) -> i32 {
    (i1 << 8 | i2 << 2 | shifts) as i32
}

impl Best {
    #[inline(always)]
    pub(super) fn none() -> Self {
        Best { score: [-f32::MAX; LANES], scale: [0.0; LANES], at: [-1; LANES] }
    }

    /// Takes a candidate with these Σwqx and Σwq² where it is better.
    #[inline(always)]
    pub(super) fn offer(&mut self, qx: &Lane, q2: &Lane, at: i32) {
        for l in 0..LANES {
            let is_better = (q2[l] > 0.0) & (qx[l] * qx[l] > self.score[l] * q2[l]);
            let scale = qx[l] / q2[l];
            self.score[l] = if is_better { scale * qx[l] } else { self.score[l] };
            self.scale[l] = if is_better { scale } else { self.scale[l] };
            self.at[l] = if is_better { at } else { self.at[l] };
        }
    }

    /// The split, with a scale of at least 0.
    #[inline(always)]
    fn split<const N: usize>(&self, rank: &[[i32; LANES]; N]) -> Split {
        let (mut low, mut high) = ([0i32; LANES], [0i32; LANES]);
        let mut split = Split { is_found: [false; LANES], scale: self.scale, shifts: [0; LANES], keys: [[0; LANES]; OCTETS] };
        let mut flip = [false; LANES];
        for l in 0..LANES {
            (low[l], high[l]) = (self.at[l] >> 8, self.at[l] >> 2 & 63);
            flip[l] = self.scale[l] < 0.0;
            split.is_found[l] = self.at[l] >= 0;
            split.scale[l] = if flip[l] { -self.scale[l] } else { self.scale[l] };
            split.shifts[l] = if flip[l] { !self.at[l] } else { self.at[l] } & 3;
        }
        for (keys, rank) in split.keys.iter_mut().zip(rank.chunks_exact(8)) {
            for rank in rank.iter().rev() {
                for l in 0..LANES {
                    let level = i32::from(rank[l] >= low[l]) + i32::from(rank[l] >= high[l]);
                    keys[l] = keys[l] * 3 + if flip[l] { 2 - level } else { level };
                }
            }
        }
        split
    }
}

/// Sub-blocks in three levels.
struct Split {
    is_found: [bool; LANES],
    scale: Lane,
    /// Of a candidate.
    shifts: [i32; LANES],
    /// The levels of each octet, in base 3.
    keys: [[i32; LANES]; OCTETS],
}

/// Sub-blocks on the lattice.
#[derive(Default)]
pub(super) struct Snapped {
    pub(super) scales: Lane,
    /// Of a candidate.
    pub(super) shifts: [i32; LANES],
    pub(super) points: [[u16; OCTETS]; LANES],
    /// The levels of each octet, see [`Lattice::codes`].
    codes: [[u16; LANES]; OCTETS],
}

impl Snapped {
    /// The shift of octet `o` of `n` of sub-block `l`.
    #[inline(always)]
    fn shift(&self, n: usize, o: usize, l: usize) -> f32 {
        let bit = if 2 * o < n { 2 } else { 1 };
        if self.shifts[l] & bit == 0 { 0.125 } else { -0.125 }
    }

    /// What the levels stand for, without the scales.
    #[inline(always)]
    pub(super) fn values<const N: usize>(&self) -> [Lane; N] {
        let mut values = [[0f32; LANES]; N];
        for (o, values) in values.chunks_exact_mut(8).enumerate() {
            for (j, values) in values.iter_mut().enumerate() {
                for (l, value) in values.iter_mut().enumerate() {
                    let level = i32::from(self.codes[o][l]) >> (2 * j) & 3;
                    *value = (level - 1) as f32 + self.shift(N / 8, o, l);
                }
            }
        }
        values
    }

    #[inline(always)]
    pub(super) fn greatest_scale(&self, greatest: f32) -> f32 {
        self.scales.iter().fold(greatest, |greatest, &scale| if greatest > scale { greatest } else { scale })
    }
}

/// Eight numbers that look for a lattice point.
struct Octet<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    scale: f32,
    shift: f32,
}

impl Octet<'_> {
    /// The position of the first of the neighbours with the least error.
    #[inline(always)]
    fn nearest(&self, neighbours: &[[u16; LANES]]) -> usize {
        let errors = self.errors();
        let mut least = [f32::MAX; LANES];
        let mut at = [0f32; LANES];
        let mut batch = 0.0;
        for codes in neighbours {
            let mut codes = codes.map(u32::from);
            let mut sum = [0f32; LANES];
            for &[zero, one, two] in &errors {
                for l in 0..LANES {
                    // Each bit of a level in its turn as a sign: vectors choose by that.
                    let low = if ((codes[l] << 31) as i32) < 0 { one } else { zero };
                    sum[l] += if ((codes[l] << 30) as i32) < 0 { two } else { low };
                    codes[l] >>= 2;
                }
            }
            for l in 0..LANES {
                let is_less = sum[l] < least[l];
                least[l] = if is_less { sum[l] } else { least[l] };
                at[l] = if is_less { batch } else { at[l] };
            }
            batch += LANES as f32;
        }
        first_least(&least, &at)
    }

    /// What each level would cost each number.
    #[inline(always)]
    fn errors(&self) -> [[f32; 3]; 8] {
        let mut errors = [[0f32; 3]; 8];
        for ((errors, x), weight) in errors.iter_mut().zip(self.x).zip(self.weight) {
            for (error, level) in errors.iter_mut().zip([-1.0, 0.0, 1.0]) {
                let diff = self.scale * (level + self.shift) - x;
                *error = weight * diff * diff;
            }
        }
        errors
    }
}

/// The position of the least, the first of equals, of lanes whose batches start at `at`.
#[inline(always)]
fn first_least(least: &Lane, at: &Lane) -> usize {
    let mut all = f32::MAX;
    for &least in least {
        all = if least < all { least } else { all };
    }
    let mut first = f32::MAX;
    for l in 0..LANES {
        let position = if least[l] == all { at[l] + l as f32 } else { f32::MAX };
        first = if position < first { position } else { first };
    }
    first as usize
}

/// The lattice by the levels of octets.
struct Lattice {
    /// For each key, a point and [`Self::ON`], or where its neighbours start in `batches`, times 256, and how many batches they are.
    places: Vec<u32>,
    /// The codes of neighbours; the last batch is filled up with the first.
    batches: Vec<[u16; LANES]>,
    /// The levels of the points, two bits each, the first the lowest.
    codes: Vec<u16>,
}

static LATTICE: LazyLock<Lattice> = LazyLock::new(Lattice::new);

impl Lattice {
    const ON: u32 = 1 << 31;

    fn new() -> Self {
        let code = |point: &[i8; 8]| point.iter().rev().fold(0, |code, &v| code << 2 | (v >> 1) as u16);
        let mut lattice = Lattice { places: Vec::new(), batches: Vec::new(), codes: lattice::IQ1.points().iter().map(code).collect() };
        for key in 0..3u32.pow(8) {
            let place = match lattice::IQ1.index(&std::array::from_fn(|j| (key / 3u32.pow(j as u32) % 3) as u8)) {
                Ok(point) => u32::from(point) | Self::ON,
                Err(near) => lattice.push(near),
            };
            lattice.places.push(place);
        }
        lattice
    }

    fn push(&mut self, neighbours: &[u16]) -> u32 {
        let place = self.batches.len() << 8 | neighbours.len().div_ceil(LANES);
        let code = |point: Option<&u16>| point.and_then(|&point| self.codes.get(usize::from(point))).copied();
        let first = code(neighbours.first()).unwrap_or_default();
        for batch in neighbours.chunks(LANES) {
            self.batches.push(std::array::from_fn(|l| code(batch.get(l)).unwrap_or(first)));
        }
        place as u32
    }

    /// The point for the levels `key`, its code, and whether it is just these levels.
    #[inline(always)]
    fn snap(&self, key: i32, octet: &Octet<'_>) -> (u16, u16, bool) {
        let place = self.place(key as usize);
        if place & Self::ON != 0 {
            let point = place as u16;
            return (point, self.codes.get(usize::from(point)).copied().unwrap_or_default(), true);
        }
        let neighbours = self.batches.get((place >> 8) as usize..).and_then(|from| from.get(..(place & 255) as usize)).unwrap_or_default();
        let nearest = octet.nearest(neighbours);
        let code = neighbours.as_flattened().get(nearest).copied().unwrap_or_default();
        (self.place(key_of(code)) as u16, code, false)
    }

    #[inline(always)]
    fn place(&self, key: usize) -> u32 {
        self.places.get(key).copied().unwrap_or(Self::ON)
    }
}

/// The levels of a code in base 3.
#[inline(always)]
fn key_of(code: u16) -> usize {
    (0..8).rev().fold(0, |key, j| key * 3 + usize::from(code >> (2 * j) & 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_keep_their_order() {
        let x: [Lane; 16] = std::array::from_fn(|j| std::array::from_fn(|l| [0.0, 1.0, -0.0, -1.0, 0.0][(3 * j + j * l) % 5]));
        let ranks = ranks(&x);
        for l in 0..LANES {
            let mut order: Vec<usize> = (0..16).collect();
            order.sort_by(|&a, &b| x[a][l].partial_cmp(&x[b][l]).expect("a number"));
            assert!(order.iter().enumerate().all(|(rank, &j)| ranks[j][l] as usize == rank), "{order:?}");
        }
    }
}
