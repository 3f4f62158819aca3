//! The registers of a warp.

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;

/// A register of all lanes. What is above the width of the register is of no meaning: who reads a row cuts it to the width of the
/// instruction.
pub(crate) type Row = [u64; LANES];

pub(crate) struct Registers {
    pub rows: Vec<Row>,
    /// One bit for each lane.
    pub predicates: Vec<u32>,
}

/// A type that a lane computes with.
pub(crate) trait Lane: Copy {
    fn read(bits: u64) -> Self;
    fn bits(self) -> u64;
}

macro_rules! integer_lanes {
    ($($t:ty)*) => { $(
        impl Lane for $t {
            fn read(bits: u64) -> Self {
                bits as $t
            }

            fn bits(self) -> u64 {
                self as u64
            }
        }
    )* };
}

integer_lanes!(u8 i8 u16 i16 u32 i32 u64 i64);

impl Lane for f32 {
    fn read(bits: u64) -> Self {
        Self::from_bits(bits as u32)
    }

    /// NaN results of PTX are all the same. Moves and loads, which keep payloads, compute with `u32`.
    fn bits(self) -> u64 {
        if self.is_nan() { 0x7fff_ffff } else { self.to_bits().into() }
    }
}

impl Lane for f64 {
    fn read(bits: u64) -> Self {
        Self::from_bits(bits)
    }

    fn bits(self) -> u64 {
        self.to_bits()
    }
}

/// The lanes in a mask.
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        (rest != 0).then(|| {
            let lane = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            lane
        })
    })
}

impl Registers {
    /// Writes `value` of each lane into a row. `value` is also called for lanes outside of the mask where that is faster.
    #[inline(always)]
    fn fill(&mut self, mask: u32, to: usize, value: impl Fn(&Self, usize) -> u64) {
        if mask == u32::MAX {
            let row = std::array::from_fn(|lane| value(self, lane));
            self.rows[to] = row;
        } else {
            for lane in lanes(mask) {
                self.rows[to][lane] = value(self, lane);
            }
        }
    }

    #[inline(always)]
    pub fn map1<A: Lane, D: Lane>(&mut self, mask: u32, to: usize, a: usize, f: impl Fn(A) -> D) {
        if mask == u32::MAX {
            let x = &self.rows[a];
            self.rows[to] = std::array::from_fn(|lane| f(A::read(x[lane])).bits());
        } else {
            self.fill(mask, to, |r, lane| f(A::read(r.rows[a][lane])).bits());
        }
    }

    #[inline(always)]
    pub fn map2<A: Lane, B: Lane, D: Lane>(&mut self, mask: u32, to: usize, [a, b]: [usize; 2], f: impl Fn(A, B) -> D) {
        if mask == u32::MAX {
            let (x, y) = (&self.rows[a], &self.rows[b]);
            self.rows[to] = std::array::from_fn(|lane| f(A::read(x[lane]), B::read(y[lane])).bits());
        } else {
            self.fill(mask, to, |r, lane| f(A::read(r.rows[a][lane]), B::read(r.rows[b][lane])).bits());
        }
    }

    #[inline(always)]
    pub fn map3<A: Lane, B: Lane, C: Lane, D: Lane>(&mut self, mask: u32, to: usize, [a, b, c]: [usize; 3], f: impl Fn(A, B, C) -> D) {
        if mask == u32::MAX {
            let (x, y, z) = (&self.rows[a], &self.rows[b], &self.rows[c]);
            self.rows[to] = std::array::from_fn(|lane| f(A::read(x[lane]), B::read(y[lane]), C::read(z[lane])).bits());
        } else {
            self.fill(mask, to, |r, lane| f(A::read(r.rows[a][lane]), B::read(r.rows[b][lane]), C::read(r.rows[c][lane])).bits());
        }
    }

    /// Compares two rows: the lanes of the mask where `f` holds.
    #[inline(always)]
    pub fn compare<T: Lane>(&self, mask: u32, [a, b]: [usize; 2], f: impl Fn(T, T) -> bool) -> u32 {
        let (x, y) = (&self.rows[a], &self.rows[b]);
        lanes(mask).fold(0, |found, lane| found | u32::from(f(T::read(x[lane]), T::read(y[lane]))) << lane)
    }

    /// Sets a predicate in the lanes of the mask.
    pub fn set_predicate(&mut self, mask: u32, to: usize, value: u32) {
        let predicate = &mut self.predicates[to];
        *predicate = *predicate & !mask | value & mask;
    }
}
