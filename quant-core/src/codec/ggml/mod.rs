//! ggml's block types: [`Blocks`] has the arithmetic of a type, one file a family; here a tensor is made of it.
//!
//! **Layout.** One part, `blocks`: `[.., row bytes]`, the blocks of a row one after the other. Rows are whole blocks.
//!
//! **Refused.** NaN and infinities, and blocks whose scale overflows f16, as llama-quantize refuses them.
//!
//! **Source.** ggml 0.25.3 (MIT): `ggml-quants.c`, `ggml_quantize_chunk`, `ggml_validate_row_data`.

mod block;
mod fp4;
mod grids;
mod iq1;
mod iq1_m;
mod iq1_s;
mod iq2;
mod iq3;
mod iq4;
mod k_scales;
mod lattice;
mod legacy;
mod low_bit;
mod math;
mod q2_k;
mod q3_k;
mod q4_k;
mod q5_k;
mod q6_k;
mod search;
mod steps;
mod ternary;

/// The tables that kernels outside this crate need, too.
pub(crate) mod tables {
    use super::grids::{GRID_1BIT_2048, GRID_2BIT_256, GRID_2BIT_512, GRID_2BIT_1024, GRID_3BIT_256, GRID_3BIT_512};
    pub(crate) use super::iq4::{BOUNDS as IQ4_BOUNDS, VALUES as IQ4_VALUES};

    const TWO: &str = "Eight coordinates of a level of 2 bits, lowest first.";
    const THREE: &str = "Four coordinates of a level of 3 bits, lowest first.";

    /// The lattices: name, layout, points.
    pub(crate) const GRIDS: [(&str, &str, &[u16]); 6] = [
        ("GRID_2BIT_256", TWO, &GRID_2BIT_256),
        ("GRID_2BIT_512", TWO, &GRID_2BIT_512),
        ("GRID_2BIT_1024", TWO, &GRID_2BIT_1024),
        ("GRID_1BIT_2048", TWO, &GRID_1BIT_2048),
        ("GRID_3BIT_256", THREE, &GRID_3BIT_256),
        ("GRID_3BIT_512", THREE, &GRID_3BIT_512),
    ];
}

use std::marker::PhantomData;
use std::ops::Range;

use block::{Blocks, Weights};

use super::{Codec, Known, Measured, Part, Scan, Slab, Tally, Unfit, refuse_non_finite};
use crate::ggml::Type;
use crate::simd::widest;
use crate::{Dtype, Error, Result};

/// The codec of a ggml type for rows of the last dimension of `shape`.
///
/// With `is_weighted`, slabs come with the importance of their elements.
pub(super) fn codec(ty: Type, shape: &[u64], is_weighted: bool) -> Result<Box<dyn Codec>> {
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(ty.block_len()) {
        let needed = ty.block_len();
        return Err(Error::request(format!("{ty} needs rows of a multiple of {needed} elements, found shape {shape:?}")));
    }
    macro_rules! of {
        ($($ty:ident = $blocks:ty),* $(,)?) => {
            match ty { $(Type::$ty => Ok(Box::new(Ggml::<$blocks>::new(ty, shape, is_weighted)) as Box<dyn Codec>),)* }
        };
    }
    of! {
        Q4_0 = legacy::Q4_0,
        Q4_1 = legacy::Q4_1,
        Q5_0 = legacy::Q5_0,
        Q5_1 = legacy::Q5_1,
        Q8_0 = legacy::Q8_0,
        Q2_K = q2_k::Q2K,
        Q3_K = q3_k::Q3K,
        Q4_K = q4_k::Q4K,
        Q5_K = q5_k::Q5K,
        Q6_K = q6_k::Q6K,
        IQ2_XXS = iq2::Iq2Xxs,
        IQ2_XS = iq2::Iq2Xs,
        IQ3_XXS = iq3::Iq3Xxs,
        IQ1_S = iq1_s::Iq1S,
        IQ4_NL = iq4::Iq4Nl,
        IQ3_S = iq3::Iq3S,
        IQ2_S = iq2::Iq2S,
        IQ4_XS = iq4::Iq4Xs,
        IQ1_M = iq1_m::Iq1M,
        TQ1_0 = ternary::TQ1_0,
        TQ2_0 = ternary::TQ2_0,
        MXFP4 = fp4::Mxfp4,
        NVFP4 = fp4::Nvfp4,
        Q1_0 = low_bit::Q1_0,
        Q2_0 = low_bit::Q2_0,
    }
}

/// A tensor of blocks.
struct Ggml<B> {
    ty: Type,
    part: [Part; 1],
    /// Elements of a row.
    row: u64,
    n_rows: u64,
    is_weighted: bool,
    blocks: PhantomData<fn() -> B>,
}

impl<B: Blocks> Ggml<B> {
    fn new(ty: Type, shape: &[u64], is_weighted: bool) -> Self {
        assert_eq!((B::LEN as u64, B::BYTES as u64), (ty.block_len(), ty.block_bytes()), "{ty}");
        let row = shape.last().copied().unwrap_or(1);
        let mut stored = shape.to_vec();
        if let Some(last) = stored.last_mut() {
            *last = row / ty.block_len() * ty.block_bytes();
        }
        let part = [Part::stream("blocks", Dtype::U8, stored, ty.block_len(), ty.block_bytes())];
        let n_rows = shape.iter().product::<u64>().checked_div(row).unwrap_or(0);
        Ggml { ty, part, row, n_rows, is_weighted, blocks: PhantomData }
    }

    /// Whether encoding looks at the mean square of whole rows.
    fn needs_rows(&self) -> bool {
        self.is_weighted && matches!(self.ty, Type::Q4_0 | Type::Q4_1 | Type::Q5_0 | Type::Q5_1)
    }

    /// For each block of a slab the mean square of its row; empty where nobody asks for it.
    fn row_mean_squares(&self, slab: &Slab<'_>, x: &[f32]) -> Vec<f32> {
        if !self.needs_rows() {
            return Vec::new();
        }
        let row_of = |block: usize| (slab.at + (block * B::LEN) as u64) / self.row;
        let blocks = 0..x.len() / B::LEN;
        if let Known::Rows(means) = slab.known {
            return blocks.map(|block| means.get(row_of(block) as usize).copied().unwrap_or_default()).collect();
        }
        let means: Vec<f32> = x.chunks(self.row as usize).map(|row| sum_squares(0.0, row) / self.row as f32).collect();
        blocks.map(|block| means[(row_of(block) - slab.at / self.row) as usize]).collect()
    }

    /// The first block of an encoded slab whose scales are not finite, blamed on its greatest number.
    fn refuse_overflow(&self, at: u64, x: &[f32], out: &[u8]) -> std::result::Result<(), Unfit> {
        let Some(bad) = out.chunks_exact(B::BYTES).position(|block| !self.ty.is_valid(block)) else { return Ok(()) };
        let block = x.iter().enumerate().skip(bad * B::LEN).take(B::LEN);
        let (i, &value) = block.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).unwrap_or((0, &0.0));
        Err(Unfit { index: at + i as u64, value })
    }
}

/// The sum of squares, one after the other.
fn sum_squares(sum: f32, x: &[f32]) -> f32 {
    x.iter().fold(sum, |sum, v| sum + v * v)
}

impl<B: Blocks> Codec for Ggml<B> {
    fn parts(&self) -> &[Part] {
        &self.part
    }

    fn granule(&self) -> u64 {
        if self.needs_rows() { self.row } else { B::LEN as u64 }
    }

    fn least_slab(&self) -> u64 {
        B::LEN as u64
    }

    fn scan(&self, max_slab: u64) -> Option<Box<dyn Scan + '_>> {
        (self.needs_rows() && self.row > max_slab).then(|| {
            let means = Vec::with_capacity(self.n_rows as usize);
            Box::new(RowScan { row: self.row, means, sum: 0.0, n: 0 }) as Box<dyn Scan>
        })
    }

    fn whole(&self, _part: usize, _known: &Known) -> Vec<u8> {
        Vec::new()
    }

    fn encode(&self, slab: &Slab<'_>, x: &mut [f32], out: &mut [Vec<u8>]) -> std::result::Result<Tally, Unfit> {
        refuse_non_finite(slab.at, x)?;
        let out = &mut out[0];
        out.resize(x.len() / B::LEN * B::BYTES, 0);
        let row_mean_square = self.row_mean_squares(slab, x);
        let weights = slab.importance.map(|importance| Weights { importance, row_mean_square: &row_mean_square });
        widest!(<B: Blocks>(x: &[f32] = x, weights: Option<Weights<'_>> = weights, out: &mut [u8] = out, _of: PhantomData<B> = PhantomData::<B>) -> () {
            B::encode(x, weights, out);
        });
        self.refuse_overflow(slab.at, x, out)?;
        Ok(Tally::default())
    }

    fn keeps_numbers(&self) -> bool {
        true
    }

    fn decode(&self, at: u64, parts: &[&[u8]], out: &mut [f32]) {
        widest!(<B: Blocks>(skip: usize = (at % B::LEN as u64) as usize, bytes: &[u8] = parts[0], out: &mut [f32] = out, _of: PhantomData<B> = PhantomData::<B>) -> () {
            decode_from::<B>(skip, bytes, out);
        });
    }

    fn noise(&self, range: Range<u64>, every: u64, parts: &[&[u8]]) -> Option<Vec<f64>> {
        widest!(<B: Blocks>(range: Range<u64> = range, every: u64 = every, bytes: &[u8] = parts[0], _of: PhantomData<B> = PhantomData::<B>) -> Option<Vec<f64>> {
            steps::noise::<B>(range, every, bytes)
        })
    }
}

/// Decodes blocks of which the first `skip` numbers are not wanted, and of the last as many as `out` has room for.
#[inline(always)]
fn decode_from<B: Blocks>(skip: usize, bytes: &[u8], out: &mut [f32]) {
    let mut one = [0f32; 256];
    let one = &mut one[..B::LEN];
    let head = if skip == 0 { 0 } else { (B::LEN - skip).min(out.len()) };
    let (first, out) = out.split_at_mut(head);
    let bytes = if head == 0 {
        bytes
    } else {
        let (block, rest) = bytes.split_at(B::BYTES);
        B::decode(block, one);
        first.copy_from_slice(&one[skip..][..head]);
        rest
    };
    let whole = out.len() / B::LEN;
    let (body, tail) = out.split_at_mut(whole * B::LEN);
    let (bytes, rest) = bytes.split_at(whole * B::BYTES);
    B::decode(bytes, body);
    if !tail.is_empty() {
        B::decode(rest, one);
        tail.copy_from_slice(&one[..tail.len()]);
    }
}

/// Finds the mean squares of rows that do not fit a slab. The sum runs through the row, so slabs only hand over their numbers.
struct RowScan {
    row: u64,
    means: Vec<f32>,
    sum: f32,
    /// Elements in `sum`.
    n: u64,
}

impl Scan for RowScan {
    fn measure(&self, at: u64, x: &mut [f32]) -> std::result::Result<Measured, Unfit> {
        refuse_non_finite(at, x)?;
        Ok(Measured { numbers: x.to_vec(), ..Measured::default() })
    }

    fn fold(&mut self, measured: Measured) {
        let mut x = &measured.numbers[..];
        while !x.is_empty() {
            let (piece, rest) = x.split_at(((self.row - self.n) as usize).min(x.len()));
            self.sum = sum_squares(self.sum, piece);
            self.n += piece.len() as u64;
            if self.n == self.row {
                self.means.push(self.sum / self.row as f32);
                (self.sum, self.n) = (0.0, 0);
            }
            x = rest;
        }
    }

    fn finish(self: Box<Self>) -> Option<Known> {
        Some(Known::Rows(self.means))
    }
}
