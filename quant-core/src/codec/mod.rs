//! [`Codec`]: **how** — the bytes of one tensor under one scheme.
//!
//! A codec is made for a [`Scheme`] and a shape. It names the **parts** of an encoded tensor (codes, scales, codebook, …)
//! and says which bytes of each part belong to which elements, so that a tensor can be encoded and decoded in slabs, in
//! any order, from any thread, without ever being in memory as a whole.
//!
//! Invariants: bytes never depend on the slabs; numbers go in and out as f32; nothing that a file contains makes
//! `decode` panic, as long as the parts have the lengths that [`Codec::parts`] promises.

pub mod dense;
pub mod dynamic8;
pub mod four_bit;
mod ggml;
mod groups;
pub mod int8;
pub mod linear;
pub mod nested;
mod packing;

pub(crate) use ggml::tables as ggml_tables;

use std::ops::Range;

use crate::{Dtype, Error, Result, Scheme};

/// A tensor's worth of arithmetic. Made by [`Scheme::codec`].
pub trait Codec: Send + Sync {
    /// The parts of the encoded tensor, in order.
    fn parts(&self) -> &[Part];

    /// Slabs to encode start at multiples of so many elements, unless [`Codec::scan`] lets them start anywhere.
    fn granule(&self) -> u64;

    /// Elements that must be together in a slab even where a scan lets slabs start within granules.
    fn least_slab(&self) -> u64 {
        8
    }

    /// A first pass over the tensor, if encoding in slabs of at most `max_slab` elements needs one.
    fn scan(&self, max_slab: u64) -> Option<Box<dyn Scan + '_>>;

    /// The bytes of part `part`, which must be a [`Fill::Whole`].
    fn whole(&self, part: usize, known: &Known) -> Vec<u8>;

    /// Encodes the elements of a slab. May scribble on `x`, unless [`Codec::keeps_numbers`].
    ///
    /// `out` has one buffer a part; each streamed part's buffer is replaced by the bytes of
    /// [`Part::encoded`]`(slab.at..slab.at + x.len())`.
    fn encode(&self, slab: &Slab<'_>, x: &mut [f32], out: &mut [Vec<u8>]) -> std::result::Result<Tally, Unfit>;

    /// Whether encoding leaves the numbers as they are.
    fn keeps_numbers(&self) -> bool {
        false
    }

    /// Decodes the elements from `at` on, a multiple of 8.
    ///
    /// `parts` has one slice a part: the bytes of [`Part::decoded`]`(at..at + out.len())`, or the whole part.
    fn decode(&self, at: u64, parts: &[&[u8]], out: &mut [f32]);

    /// Σs²/12 over each `every` elements of `range`, s being the step between neighbouring values of an element: the squared error
    /// of rounding that is spread evenly over the steps. None if values are not evenly spaced. `parts` as for decoding.
    fn noise(&self, _range: Range<u64>, _every: u64, _parts: &[&[u8]]) -> Option<Vec<f64>> {
        None
    }
}

/// Cuts a range into pieces of `every`; the last may be shorter.
pub(crate) fn cut(range: Range<u64>, every: u64) -> impl Iterator<Item = Range<u64>> + Send {
    let starts = range.clone().step_by(every as usize);
    starts.map(move |start| start..(start + every).min(range.end))
}

/// What an encoder is told about a slab beside its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Slab<'a> {
    /// What a first pass found out about the tensor.
    pub known: &'a Known,
    /// The index of the slab's first element in the tensor.
    pub at: u64,
    /// The importance of each element, if there is an importance matrix.
    pub importance: Option<&'a [f32]>,
}

impl<'a> Slab<'a> {
    /// A slab without importance.
    pub fn new(known: &'a Known, at: u64) -> Slab<'a> {
        Slab { known, at, importance: None }
    }
}

/// A named piece of an encoded tensor, such as its codes or its scales.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The name, unique in the tensor.
    pub name: &'static str,
    /// The type of its items.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Which of its bytes belong to which elements.
    pub fill: Fill,
}

/// Which bytes of a part belong to which elements of the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Item `i`, of `bytes` bytes, belongs to the elements from `i * per` to `(i + 1) * per`.
    Stream {
        /// Elements an item.
        per: u64,
        /// Bytes an item.
        bytes: u64,
        /// Bytes of the whole part, which end a last, short item early.
        n_bytes: u64,
    },
    /// The part belongs to the tensor as a whole, and is small.
    Whole {
        /// Bytes of the whole part.
        n_bytes: u64,
    },
}

impl Part {
    fn stream(name: &'static str, dtype: Dtype, shape: Vec<u64>, per: u64, bytes: u64) -> Part {
        let n_bytes = part_bytes(dtype, &shape);
        Part { name, dtype, shape, fill: Fill::Stream { per, bytes, n_bytes } }
    }

    fn whole(name: &'static str, dtype: Dtype, shape: Vec<u64>) -> Part {
        let n_bytes = part_bytes(dtype, &shape);
        Part { name, dtype, shape, fill: Fill::Whole { n_bytes } }
    }

    /// The bytes of the whole part.
    pub fn n_bytes(&self) -> u64 {
        match self.fill {
            Fill::Stream { n_bytes, .. } | Fill::Whole { n_bytes } => n_bytes,
        }
    }

    /// The bytes that encoding the elements of `range` yields: the items that **begin** in it. Empty for a whole part.
    pub fn encoded(&self, range: Range<u64>) -> Range<u64> {
        match self.fill {
            Fill::Stream { per, bytes, n_bytes } => {
                let byte = |element: u64| (element.div_ceil(per) * bytes).min(n_bytes);
                byte(range.start)..byte(range.end)
            }
            Fill::Whole { .. } => 0..0,
        }
    }

    /// The bytes that decoding the elements of `range` takes: the items that **touch** it.
    pub fn decoded(&self, range: Range<u64>) -> Range<u64> {
        match self.fill {
            Fill::Stream { per, bytes, n_bytes } => (range.start / per * bytes).min(n_bytes)..(range.end.div_ceil(per) * bytes).min(n_bytes),
            Fill::Whole { n_bytes } => 0..n_bytes,
        }
    }
}

/// The size of a part whose shape was derived from a shape that fits 64 bits in every dense type.
fn part_bytes(dtype: Dtype, shape: &[u64]) -> u64 {
    crate::dtype::n_elements(shape).and_then(|n| dtype.n_bytes(n)).expect("parts are no larger than the tensor in f64")
}

/// What a first pass found out about a tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Known {
    /// There was no need for a pass.
    #[default]
    Nothing,
    /// The mean of the scales, for double quantization.
    Offset(f32),
    /// The statistics of every group: one pair each, least and greatest, or 0 and the greatest magnitude.
    Groups(Vec<[f32; 2]>),
    /// The mean square of every row.
    Rows(Vec<f32>),
}

/// A first pass over a tensor: slabs are measured in any order and folded in theirs.
pub trait Scan: Send + Sync {
    /// Measures the elements from `at` on. May scribble on `x`.
    fn measure(&self, at: u64, x: &mut [f32]) -> std::result::Result<Measured, Unfit>;
    /// Adds the next measurement.
    fn fold(&mut self, measured: Measured);
    /// What is known now; none if it cannot be expressed, such as a mean that overflows f32.
    fn finish(self: Box<Self>) -> Option<Known>;
}

/// The statistics of the groups that one slab touches, the first of which is group `first`.
#[derive(Debug, Default)]
pub struct Measured {
    first: u64,
    groups: Vec<[f32; 2]>,
    /// The numbers themselves, where only their sequence tells.
    numbers: Vec<f32>,
}

/// An element that a scheme cannot hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unfit {
    /// The flat index in the tensor.
    pub index: u64,
    /// Its value.
    pub value: f32,
}

/// What encoding did beyond rounding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Finite numbers that became infinite (or NaN, in types without infinity).
    pub overflows: u64,
    /// Columns with a magnitude of 6 or more, where the scheme asks for them.
    pub outlier_columns: Columns,
}

impl Tally {
    /// Adds what another slab did.
    pub fn merge(&mut self, other: Tally) {
        self.overflows += other.overflows;
        self.outlier_columns.merge(&other.outlier_columns);
    }
}

/// A set of columns, one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns(Vec<u64>);

impl Columns {
    /// Columns from this one on are not told apart: they count as one.
    pub const LIMIT: u64 = 1 << 20;

    /// How many columns are in the set.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|word| u64::from(word.count_ones())).sum()
    }

    pub(crate) fn insert(&mut self, column: u64) {
        let column = column.min(Columns::LIMIT);
        let word = (column / 64) as usize;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (column % 64);
    }

    pub(crate) fn merge(&mut self, other: &Columns) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a |= b);
    }
}

impl FromIterator<u64> for Columns {
    fn from_iter<I: IntoIterator<Item = u64>>(columns: I) -> Columns {
        let mut set = Columns::default();
        columns.into_iter().for_each(|column| set.insert(column));
        set
    }
}

impl Scheme {
    /// The codec of this scheme for a tensor of `shape` (row-major, last dimension contiguous).
    ///
    /// # Errors
    /// If the scheme is a type that is data, not weights, the shape does not fit it, or overflows 64 bits.
    pub fn codec(self, shape: &[u64]) -> Result<Box<dyn Codec>> {
        self.codec_of(shape, false)
    }

    /// The codec for slabs that come with the importance of their elements, if `is_weighted`.
    ///
    /// # Errors
    /// As [`Scheme::codec`].
    pub fn codec_of(self, shape: &[u64], is_weighted: bool) -> Result<Box<dyn Codec>> {
        let n = crate::dtype::n_elements(shape)
            .filter(|&n| Dtype::F64.n_bytes(n).is_some())
            .ok_or_else(|| Error::request(format!("shape {shape:?} has more elements than 64-bit sizes allow")))?;
        // This is *the* registry of codecs.
        Ok(match self {
            Scheme::Dense(dtype) if dtype.is_weight() => Box::new(dense::Dense::new(dtype, shape)),
            Scheme::Dense(dtype) => return Err(Error::request(format!("{dtype} holds data, not weights: it is only ever copied"))),
            Scheme::Affine { bits, group, exact_zero } => Box::new(linear::affine(bits, exact_zero, group.len(shape), n)),
            Scheme::Absmax { bits, group } => Box::new(linear::absmax(bits, group.len(shape), n)),
            Scheme::Int8 => Box::new(int8::codec(shape, n)),
            Scheme::Int8Block { block, profile } => Box::new(dynamic8::codec(block, profile, shape, n)),
            Scheme::FourBit { book, block, nested: false, profile } => Box::new(four_bit::codec(book, block, profile, n)),
            Scheme::FourBit { book, block, nested: true, profile } => Box::new(nested::Nested::new(book, block, profile, n)),
            Scheme::Ggml(ty) => ggml::codec(ty, shape, is_weighted)?,
            Scheme::Opaque(_) => return Err(Error::request(format!("tensors of type {self} can be copied, but not encoded or decoded"))),
        })
    }
}

/// The multiple at which slabs of groups of `group` elements start: whole groups and whole bytes of any packing.
pub(crate) fn slab_granule(group: u64) -> u64 {
    let odd_part = group >> group.trailing_zeros().min(3);
    odd_part.saturating_mul(8)
}

/// The first element of `x` that is not finite; `at` is the index of `x[0]` in the tensor.
#[inline(always)]
fn refuse_non_finite(at: u64, x: &[f32]) -> std::result::Result<(), Unfit> {
    refuse_from(f32::INFINITY, at, x)
}

/// The first element of `x` that is NaN or of magnitude `limit` or more.
#[inline(always)]
fn refuse_from(limit: f32, at: u64, x: &[f32]) -> std::result::Result<(), Unfit> {
    let limit = limit.to_bits();
    let unfit = |v: f32| v.to_bits() & 0x7fff_ffff >= limit;
    for (chunk, values) in x.chunks(1024).enumerate() {
        if values.iter().fold(false, |bad, &v| bad | unfit(v)) {
            let i = values.iter().position(|&v| unfit(v)).unwrap_or_default();
            return Err(Unfit { index: at + (chunk * 1024 + i) as u64, value: values[i] });
        }
    }
    Ok(())
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The float at index `i` of little-endian bytes; 0 beyond their end.
fn f32_at(bytes: &[u8], i: usize) -> f32 {
    bytes.get(i * 4..i * 4 + 4).map_or(0.0, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}
