//! The mechanism behind every scheme of scaled groups: parameters per group of elements, then a code per element.
//!
//! A [`Kernel`] is the arithmetic of one group; [`Groups`] cuts a tensor into groups, packs the codes and knows
//! where each byte lies. A group longer than a slab (a long row, a whole tensor) is measured in a first pass.

use std::ops::Range;

use super::packing::Packing;
use super::{Codec, Known, Measured, Part, Scan, Slab, Tally, Unfit, cut, f32_at};
use crate::Dtype;
use crate::simd::widest;

/// The arithmetic of one group.
pub(super) trait Kernel: Send + Sync {
    /// The f32 parameters of a group, in the order of the parts after the codes.
    const PARAMS: usize;

    /// Refuses elements that the scheme cannot hold, and rounds the others to what the scheme quantizes from.
    fn prepare(&self, at: u64, x: &mut [f32], tally: &mut Tally) -> Result<(), Unfit>;

    /// Statistics of a piece of a group; those of pieces are joined by taking least and greatest.
    fn measure(&self, x: &[f32]) -> [f32; 2];

    /// The stored parameters of a group with these statistics. `full` is false for a last, short group.
    fn params(&self, stats: [f32; 2], full: bool) -> Result<[f32; 2], f32>;

    /// The codes of a piece of a group.
    fn quantize(&self, params: [f32; 2], full: bool, x: &[f32], codes: &mut [u8]);

    /// The numbers of a piece of a group. `tables` are the whole parts, which hold any codebook.
    fn dequantize(&self, params: [f32; 2], tables: &[&[u8]], codes: &[u8], out: &mut [f32]);

    /// The step between neighbouring values of a group, if they are evenly spaced.
    fn step(&self, _params: [f32; 2]) -> Option<f32> {
        None
    }

    /// The bytes of the whole part `name`.
    fn table(&self, _name: &str) -> Vec<u8> {
        Vec::new()
    }
}

/// Nothing measured yet, for statistics that are joined by taking least and greatest.
pub(super) const NOTHING: [f32; 2] = [f32::INFINITY, f32::NEG_INFINITY];

/// Joins the statistics of two pieces of a group.
#[inline(always)]
pub(super) fn join(a: [f32; 2], b: [f32; 2]) -> [f32; 2] {
    [a[0].min(b[0]), a[1].max(b[1])]
}

/// The greatest magnitude of `x`, as statistics.
#[inline(always)]
pub(super) fn absmax(x: &[f32]) -> [f32; 2] {
    let mut lanes = [0f32; 16];
    let chunks = x.chunks_exact(16);
    let rest = chunks.remainder().iter().fold(0f32, |m, v| max(m, v.abs()));
    for chunk in chunks {
        for (lane, v) in lanes.iter_mut().zip(chunk) {
            *lane = max(*lane, v.abs());
        }
    }
    [0.0, lanes.into_iter().fold(rest, max)]
}

/// The least and the greatest of `x`.
#[inline(always)]
pub(super) fn range(x: &[f32]) -> [f32; 2] {
    let (mut lo, mut hi) = ([f32::INFINITY; 16], [f32::NEG_INFINITY; 16]);
    let chunks = x.chunks_exact(16);
    let rest = chunks.remainder().iter().fold(NOTHING, |r, &v| join(r, [v, v]));
    for chunk in chunks {
        for i in 0..16 {
            lo[i] = if chunk[i] < lo[i] { chunk[i] } else { lo[i] };
            hi[i] = max(hi[i], chunk[i]);
        }
    }
    (0..16).fold(rest, |r, i| join(r, [lo[i], hi[i]]))
}

/// The greater of two numbers, in the form that maps to one instruction; neither is NaN.
#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Codes, one a byte, and the parameters of the groups that begin among them.
pub(super) type Quantized = (Vec<u8>, Vec<[f32; 2]>);

/// A codec of scaled groups. Its first part holds the codes, the next [`Kernel::PARAMS`] the parameters.
pub(super) struct Groups<K> {
    pub(super) kernel: K,
    pub(super) packing: Packing,
    pub(super) n: u64,
    pub(super) group: u64,
    pub(super) parts: Vec<Part>,
}

impl<K: Kernel> Groups<K> {
    /// A codec of `n` elements in groups of `group`, with the given parts beside the codes.
    pub(super) fn new(
        kernel: K,
        packing: Packing,
        n: u64,
        group: u64,
        codes: (&'static str, Dtype, Vec<u64>),
        params: &[&'static str],
        tables: Vec<Part>,
    ) -> Self {
        assert_eq!(params.len(), K::PARAMS);
        let (per, bytes) = packing.item();
        let n_groups = n.div_ceil(group);
        let mut parts = vec![Part::stream(codes.0, codes.1, codes.2, per, bytes)];
        parts.extend(params.iter().map(|name| Part::stream(name, Dtype::F32, vec![n_groups], group, 4)));
        parts.extend(tables);
        Groups { kernel, packing, n, group, parts }
    }

    /// Cuts the elements from `at` on at the ends of groups: each piece's group and its range within the slab.
    pub(super) fn pieces(&self, at: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>)> + use<K> {
        let (group, end) = (self.group, at + len as u64);
        let mut next = at;
        std::iter::from_fn(move || {
            if next >= end {
                return None;
            }
            let (index, start) = (next / group, next);
            next = (index + 1).saturating_mul(group).min(end);
            Some((index, (start - at) as usize..(next - at) as usize))
        })
    }

    #[inline(always)]
    fn decode_here(&self, at: u64, parts: &[&[u8]], out: &mut [f32]) {
        let mut codes = vec![0; out.len()];
        self.packing.unpack(parts[0], &mut codes);
        let tables = &parts[1 + K::PARAMS..];
        let first = at / self.group;
        for (group, piece) in self.pieces(at, out.len()) {
            let params = stored_params::<K>(parts, (group - first) as usize);
            self.kernel.dequantize(params, tables, &codes[piece.clone()], &mut out[piece]);
        }
    }

    /// The statistics of the groups that a slab touches.
    pub(super) fn measure(&self, at: u64, x: &mut [f32]) -> Result<Measured, Unfit> {
        widest!(<K: Kernel>(codec: &Groups<K> = self, at: u64 = at, x: &mut [f32] = x) -> Result<Measured, Unfit> {
            codec.kernel.prepare(at, x, &mut Tally::default())?;
            let groups = codec.pieces(at, x.len()).map(|(_, piece)| codec.kernel.measure(&x[piece])).collect();
            Ok(Measured { first: at / codec.group, groups, numbers: Vec::new() })
        })
    }

    fn is_full(&self, group: u64) -> bool {
        (group + 1).saturating_mul(self.group) <= self.n
    }

    /// The parameters of a group with these statistics.
    pub(super) fn params_of(&self, group: u64, stats: [f32; 2]) -> Result<[f32; 2], Unfit> {
        self.kernel.params(stats, self.is_full(group)).map_err(|value| Unfit { index: group * self.group, value })
    }

    /// The codes of a slab, one a byte, and the parameters of the groups that begin in it.
    pub(super) fn quantize(&self, known: &Known, at: u64, x: &mut [f32], tally: &mut Tally) -> Result<Quantized, Unfit> {
        widest!(<K: Kernel>(codec: &Groups<K> = self, known: &Known = known, at: u64 = at, x: &mut [f32] = x, tally: &mut Tally = tally)
            -> Result<Quantized, Unfit> { codec.quantize_here(known, at, x, tally) })
    }

    #[inline(always)]
    fn quantize_here(&self, known: &Known, at: u64, x: &mut [f32], tally: &mut Tally) -> Result<Quantized, Unfit> {
        self.kernel.prepare(at, x, tally)?;
        let mut codes = vec![0; x.len()];
        let mut begun = Vec::with_capacity((x.len() as u64 / self.group) as usize + 1);
        for (group, piece) in self.pieces(at, x.len()) {
            let stats = match known {
                Known::Groups(stats) => stats[group as usize],
                _ => self.kernel.measure(&x[piece.clone()]),
            };
            let params = self.params_of(group, stats)?;
            if at + piece.start as u64 == group * self.group {
                begun.push(params);
            }
            self.kernel.quantize(params, self.is_full(group), &x[piece.clone()], &mut codes[piece]);
        }
        Ok((codes, begun))
    }
}

impl<K: Kernel> Codec for Groups<K> {
    fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn granule(&self) -> u64 {
        self.group
    }

    fn scan(&self, max_slab: u64) -> Option<Box<dyn Scan + '_>> {
        (super::slab_granule(self.group).min(self.n) > max_slab).then(|| {
            let stats = vec![NOTHING; self.n.div_ceil(self.group) as usize];
            Box::new(GroupScan { codec: self, stats }) as Box<dyn Scan>
        })
    }

    fn whole(&self, part: usize, _known: &Known) -> Vec<u8> {
        self.kernel.table(self.parts[part].name)
    }

    fn encode(&self, slab: &Slab<'_>, x: &mut [f32], out: &mut [Vec<u8>]) -> Result<Tally, Unfit> {
        let mut tally = Tally::default();
        let (codes, params) = self.quantize(slab.known, slab.at, x, &mut tally)?;
        self.packing.pack(&codes, &mut out[0]);
        for (i, out) in out[1..=K::PARAMS].iter_mut().enumerate() {
            out.clear();
            out.extend(params.iter().flat_map(|p| p[i].to_le_bytes()));
        }
        Ok(tally)
    }

    fn decode(&self, at: u64, parts: &[&[u8]], out: &mut [f32]) {
        widest!(<K: Kernel>(codec: &Groups<K> = self, at: u64 = at, parts: &[&[u8]] = parts, out: &mut [f32] = out) -> () {
            codec.decode_here(at, parts, out);
        });
    }

    fn noise(&self, range: Range<u64>, every: u64, parts: &[&[u8]]) -> Option<Vec<f64>> {
        let first = range.start / self.group;
        let of_piece = |(group, piece): (u64, Range<usize>)| {
            let step = f64::from(self.kernel.step(stored_params::<K>(parts, (group - first) as usize))?);
            Some(piece.len() as f64 * (step * step / 12.0))
        };
        let of =
            |block: Range<u64>| self.pieces(block.start, (block.end - block.start) as usize).try_fold(0.0, |sum, piece| Some(sum + of_piece(piece)?));
        cut(range, every).map(of).collect()
    }
}

/// The parameters of a group, as stored in parts that begin with those of the first group wanted.
#[inline(always)]
fn stored_params<K: Kernel>(parts: &[&[u8]], group: usize) -> [f32; 2] {
    [f32_at(parts[1], group), if K::PARAMS == 2 { f32_at(parts[2], group) } else { 0.0 }]
}

/// Finds the statistics of groups that do not fit a slab.
struct GroupScan<'a, K> {
    codec: &'a Groups<K>,
    stats: Vec<[f32; 2]>,
}

impl<K: Kernel> Scan for GroupScan<'_, K> {
    fn measure(&self, at: u64, x: &mut [f32]) -> Result<Measured, Unfit> {
        self.codec.measure(at, x)
    }

    fn fold(&mut self, measured: Measured) {
        let stats = &mut self.stats[measured.first as usize..];
        for (total, piece) in stats.iter_mut().zip(measured.groups) {
            *total = join(*total, piece);
        }
    }

    fn finish(self: Box<Self>) -> Option<Known> {
        Some(Known::Groups(self.stats))
    }
}

/// The shape of a packed `codes` part of `n` elements: one dimension of bytes.
pub(super) fn byte_shape(packing: Packing, n: u64) -> Vec<u64> {
    vec![packing.n_bytes(n)]
}
