//! [`Lattice`]: which points of a codebook a tuple of levels can become.
//!
//! The encoders round each coordinate of a tuple to a level by itself. If the tuple of levels is a point of the grid, that is the
//! answer; if not, the answer is one of the tuple's *neighbours*, the points in the nearest few shells around it. Distances here
//! are Σ(Δlevel)², each shell is all the points at one distance, and neighbours are listed by (distance, index), as ggml does.
//! Only tuples that the encoders can form are kept: 3⁸ of three levels, 8⁴ of eight.
//!
//! A coordinate of a point is the odd number `2·level + 1`, for every type: 1, 3, 5 with three levels (IQ1's encoder maps these to
//! its own values, around −1, 0, 1), 1, 3, … 15 with eight.
//!
//! Source: ggml 0.25.3, ggml-quants.c (MIT), `iq2xs_init_impl`, `iq3xs_init_impl`, `iq2_find_best_neighbour`,
//! `iq3_find_best_neighbour`. Each table is built on first use, in some 5 to 50 ms.

use std::sync::LazyLock;

use super::grids::{GRID_1BIT_2048, GRID_2BIT_256, GRID_2BIT_512, GRID_2BIT_1024, GRID_3BIT_256, GRID_3BIT_512};

/// The grid of IQ2_XXS.
pub(crate) static IQ2_XXS: LazyLock<Lattice<8>> = LazyLock::new(|| Lattice::new(&GRID_2BIT_256, 2).with_contenders());
/// The grid of IQ2_XS.
pub(crate) static IQ2_XS: LazyLock<Lattice<8>> = LazyLock::new(|| Lattice::new(&GRID_2BIT_512, 2).with_contenders());
/// The grid of IQ2_S.
pub(crate) static IQ2_S: LazyLock<Lattice<8>> = LazyLock::new(|| Lattice::new(&GRID_2BIT_1024, 1));
/// The grid of IQ1_S and IQ1_M.
pub(crate) static IQ1: LazyLock<Lattice<8>> = LazyLock::new(|| Lattice::new(&GRID_1BIT_2048, 3));
/// The grid of IQ3_XXS.
pub(crate) static IQ3_XXS: LazyLock<Lattice<4>> = LazyLock::new(|| Lattice::new(&GRID_3BIT_256, 2));
/// The grid of IQ3_S.
pub(crate) static IQ3_S: LazyLock<Lattice<4>> = LazyLock::new(|| Lattice::new(&GRID_3BIT_512, 3));

/// Neighbours that are compared at once.
const LANES: usize = 8;

/// As many neighbours, coordinate by coordinate.
type Batch<const K: usize> = [[i8; LANES]; K];

/// A codebook of tuples of `K` levels, and what every other tuple is near to.
pub(crate) struct Lattice<const K: usize> {
    points: Vec<[i8; K]>,
    /// For each key.
    places: Vec<Place>,
    /// The neighbours of the tuples, each list filled up to whole batches with its first; then, if wanted, the contenders.
    lists: Vec<[u16; LANES]>,
    /// The coordinates of `lists`.
    batches: Vec<Batch<K>>,
}

/// Where a tuple lies.
#[derive(Clone, Copy, Default)]
struct Place {
    /// On the grid: the index of the point. Off the grid: the first list.
    start: u32,
    /// How many neighbours; 0 on the grid.
    len: u16,
    /// How many lists of contenders there are, from which on.
    contenders: u16,
    contenders_start: u32,
}

impl<const K: usize> Lattice<K> {
    /// How many levels a coordinate has.
    const LEVELS: usize = if K == 8 { 3 } else { 8 };

    /// The points in the order of their indices; coordinates are `2·level + 1`.
    #[inline(always)]
    pub(crate) fn points(&self) -> &[[i8; K]] {
        &self.points
    }

    /// The number of a tuple of levels: its digits in base 3 (or 8), the first the lowest.
    #[inline(always)]
    pub(crate) fn key(levels: &[u8; K]) -> usize {
        levels.iter().rev().fold(0, |key, &level| key * Self::LEVELS + usize::from(level))
    }

    /// The index of the point with these levels, or, off the grid, the neighbours in ggml's order (never none).
    #[inline(always)]
    pub(crate) fn index(&self, levels: &[u8; K]) -> Result<u16, &[u16]> {
        let place = self.place(Self::key(levels));
        if place.len == 0 {
            return Ok(place.start as u16);
        }
        Err(self.lists.get(place.start as usize..).and_then(|lists| lists.as_flattened().get(..usize::from(place.len))).unwrap_or(&[]))
    }

    /// The point of the tuple `key`, and whether the tuple is on the grid itself. If not, it is the first of its neighbours `q` with
    /// the least Σ w·(scale·q − x)².
    ///
    /// `is_clear` promises that the tuple has for each coordinate the level whose `scale·q` is nearest to x, and none was a close
    /// call. Then a neighbour that is farther than another in some coordinates, in the same direction, and nearer in none cannot win,
    /// and only the others, the contenders, are looked at.
    #[inline(always)]
    pub(crate) fn snap(&self, key: usize, is_clear: bool, x: &[f32; K], w: &[f32; K], scale: f32) -> (u16, bool) {
        let place = self.place(key);
        if place.len == 0 {
            return (place.start as u16, true);
        }
        let (start, count) = if is_clear && place.contenders > 0 {
            (place.contenders_start as usize, usize::from(place.contenders))
        } else {
            (place.start as usize, usize::from(place.len).div_ceil(LANES))
        };
        let (_, position) = nearest(self.batches.get(start..start + count).unwrap_or(&[]), x, w, scale);
        (self.lists.as_flattened().get(start * LANES + position).copied().unwrap_or(0), false)
    }

    #[inline(always)]
    fn place(&self, key: usize) -> Place {
        self.places.get(key).copied().unwrap_or_default()
    }
}

/// The least Σ w·(scale·q − x)² of the batches, as bits, and the position of the first neighbour that has it.
///
/// These numbers are not negative, so their bits are in the same order.
#[inline(always)]
fn nearest<const K: usize>(batches: &[Batch<K>], x: &[f32; K], w: &[f32; K], scale: f32) -> (u32, usize) {
    const ROOM: usize = 8;
    let (mut least, mut position) = (u32::MAX, 0);
    for (number, batches) in batches.chunks(ROOM).enumerate() {
        let mut distances = [[0u32; LANES]; ROOM];
        for (distances, batch) in distances.iter_mut().zip(batches) {
            *distances = batch_distances(batch, x, w, scale);
        }
        let distances = &distances[..batches.len()];
        let here = distances.as_flattened().iter().copied().fold(u32::MAX, u32::min);
        if here < least {
            (least, position) = (here, ROOM * LANES * number + first_equal(distances, here));
        }
    }
    (least, position)
}

#[inline(always)]
fn batch_distances<const K: usize>(batch: &Batch<K>, x: &[f32; K], w: &[f32; K], scale: f32) -> [u32; LANES] {
    let mut distances = [0f32; LANES];
    for ((coordinates, &x), &w) in batch.iter().zip(x).zip(w) {
        for (distance, &q) in distances.iter_mut().zip(coordinates) {
            let off = scale * f32::from(q) - x;
            *distance += w * off * off;
        }
    }
    distances.map(f32::to_bits)
}

#[inline(always)]
fn first_equal(values: &[[u32; LANES]], wanted: u32) -> usize {
    for (number, values) in values.iter().enumerate() {
        let equal = (0..LANES).fold(0u32, |bits, lane| bits | u32::from(values[lane] == wanted) << lane);
        if equal != 0 {
            return number * LANES + equal.trailing_zeros() as usize;
        }
    }
    0
}

/// A batch of indices, filled up with the first.
#[inline(always)]
fn filled(list: &[u16]) -> [u16; LANES] {
    std::array::from_fn(|lane| list.get(lane).or(list.first()).copied().unwrap_or(0))
}

/// Building.
impl<const K: usize> Lattice<K> {
    /// The lattice of packed points; the neighbours of a tuple are the points in its `shells` nearest shells.
    fn new(grid: &[u16], shells: usize) -> Self {
        let bits = if Self::LEVELS == 8 { 3 } else { 2 };
        let levels: Vec<[u8; K]> = grid.iter().map(|code| std::array::from_fn(|i| (code >> (bits * i)) as u8 & ((1 << bits) - 1))).collect();
        let points = levels.iter().map(|levels| levels.map(|level| 2 * level as i8 + 1)).collect();
        let mut lattice = Self { points, places: Vec::new(), lists: Vec::new(), batches: Vec::new() };
        let mut on_grid = vec![None; Self::LEVELS.pow(K as u32)];
        for (index, levels) in levels.iter().enumerate() {
            on_grid[Self::key(levels)] = Some(index as u32);
        }
        let (low, high) = (half_distances(&levels, 0, Self::LEVELS), half_distances(&levels, K / 2, Self::LEVELS));
        let (mut distances, mut list) = (vec![0u8; levels.len()], Vec::new());
        for (key, on_grid) in on_grid.iter().enumerate() {
            if let &Some(start) = on_grid {
                lattice.places.push(Place { start, ..Place::default() });
                continue;
            }
            for ((d, low), high) in distances.iter_mut().zip(&low[key % low.len()]).zip(&high[key / low.len()]) {
                *d = low + high;
            }
            nearest_shells(&distances, shells, &mut list);
            lattice.places.push(Place { start: lattice.lists.len() as u32, len: list.len() as u16, ..Place::default() });
            lattice.lists.extend(list.chunks(LANES).map(filled));
        }
        lattice.batches = lattice.lists.iter().map(|list| lattice.batch(list)).collect();
        lattice
    }

    /// Adds the lists of contenders. (In a single shell all neighbours are.)
    fn with_contenders(mut self) -> Self {
        let mut places = std::mem::take(&mut self.places);
        let (mut contenders, mut ways) = (Vec::new(), Vec::new());
        for (key, place) in places.iter_mut().enumerate().filter(|(_, place)| place.len > 0) {
            let tuple = std::array::from_fn(|i| 2 * (key / Self::LEVELS.pow(i as u32) % Self::LEVELS) as i8 + 1);
            contenders.clear();
            ways.clear();
            for &index in self.lists[place.start as usize..].as_flattened().iter().take(usize::from(place.len)) {
                // What keeps a neighbour out is nearer, so it comes before it, and is a contender or kept out by one.
                let way = way::<K>(&tuple, &self.point(index));
                if ways.iter().all(|other| other & !way != 0) {
                    ways.push(way);
                    contenders.push(index);
                }
            }
            (place.contenders_start, place.contenders) = (self.lists.len() as u32, contenders.len().div_ceil(LANES) as u16);
            self.lists.extend(contenders.chunks(LANES).map(filled));
        }
        self.batches = self.lists.iter().map(|list| self.batch(list)).collect();
        self.places = places;
        self
    }

    #[inline(always)]
    fn point(&self, index: u16) -> [i8; K] {
        self.points.get(usize::from(index)).copied().unwrap_or([1; K])
    }

    #[inline(always)]
    fn batch(&self, list: &[u16; LANES]) -> Batch<K> {
        let points = list.map(|index| self.point(index));
        std::array::from_fn(|i| points.map(|point| point[i]))
    }
}

/// The steps from one tuple to another, a bit for each step in each direction of each coordinate.
fn way<const K: usize>(from: &[i8; K], to: &[i8; K]) -> u64 {
    let most = Lattice::<K>::LEVELS - 1;
    from.iter().zip(to).fold(0, |way, (from, to)| {
        let steps = (1 << (from.abs_diff(*to) / 2)) - 1;
        way << (2 * most) | if from < to { steps << most } else { steps }
    })
}

/// For each half tuple, by its key, the distances of all points from it in the coordinates from `at` on.
fn half_distances<const K: usize>(points: &[[u8; K]], at: usize, levels: usize) -> Vec<Vec<u8>> {
    let digit = |key: usize, i: usize| (key / levels.pow(i as u32) % levels) as u8;
    let distance = |key: usize, point: &[u8; K]| (0..K / 2).map(|i| digit(key, i).abs_diff(point[at + i]).pow(2)).sum();
    (0..levels.pow(K as u32 / 2)).map(|key| points.iter().map(|point| distance(key, point)).collect()).collect()
}

/// Lists the points in the nearest `shells` shells, by (distance, index).
fn nearest_shells(distances: &[u8], shells: usize, list: &mut Vec<u16>) {
    list.clear();
    let mut at_least = 0;
    for _ in 0..shells {
        let shell = distances.iter().map(|&d| if d < at_least { u8::MAX } else { d }).fold(u8::MAX, u8::min);
        if shell == u8::MAX {
            return;
        }
        for (start, distances) in (0..).step_by(16).zip(distances.chunks(16)) {
            // Few sixteens have any.
            if distances.iter().fold(false, |any, &d| any | (d == shell)) {
                list.extend((start..).zip(distances).filter(|&(_, &d)| d == shell).map(|(index, _)| index));
            }
        }
        at_least = shell + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers 0 to 1.
    fn noise(state: &mut u32) -> f32 {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 8) as f32 / (1 << 24) as f32
    }

    #[test]
    fn no_neighbour_beats_the_contenders() {
        let mut state = 1;
        for lattice in [&*IQ2_XXS, &*IQ2_XS] {
            for _ in 0..20_000 {
                let x: [f32; 8] = std::array::from_fn(|_| 6.5 * noise(&mut state) - 0.5);
                let w = x.map(|_| noise(&mut state).powi(3));
                let exact = x.map(|x| 0.5 * (x - 1.0));
                let key = Lattice::key(&exact.map(|v| v.round().clamp(0.0, 2.0) as u8));
                if exact.iter().all(|v| (v - v.round()).abs() < 0.4999) {
                    assert_eq!(lattice.snap(key, true, &x, &w, 1.0), lattice.snap(key, false, &x, &w, 1.0), "{x:?} {w:?}");
                }
            }
        }
    }
}
