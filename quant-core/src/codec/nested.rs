//! `nf4-dq` and `fp4-dq`: double quantization, where the scales are quantized too.
//!
//! **Formula.** offset = mean of absmax, in ATen's order ([`crate::aten`]); d = absmax − offset; d becomes dynamic 8-bit codes
//! ([`super::dynamic8`]) in blocks of 256 scales. Decoded: absmax' = map\[code\] · nested_absmax + offset, two f32 roundings,
//! then as without double quantization.
//!
//! **Layout.** `codes` and `quant_map` as in [`super::four_bit`]; `absmax`: U8, one a block; `nested_absmax`: F32, one a 256 blocks;
//! `nested_quant_map`: F32 \[256\]; `offset`: F32, one. 4 + 8/block + 32/(256·block) bits a weight: 4.127 for blocks of 64.
//!
//! Scales so large that their mean overflows f32 are refused.
//!
//! The mean needs every scale before the first can be encoded, so the tensor is read twice; nothing is kept in between.
//!
//! **Source.** Dettmers et al., "QLoRA", 2023, section 3; `compress_statistics` of bitsandbytes 0.50.2. The last bit of the
//! offset depends on threads and GPU there; here it is always that of one CPU thread.

use super::dynamic8::{Dynamic8, MAP};
use super::four_bit::{self, FourBit};
use super::groups::{Groups, Kernel, absmax};
use super::{Codec, Known, Measured, Part, Scan, Slab, Tally, Unfit, f32_at, f32_bytes};
use crate::Dtype;
use crate::aten::Mean;
use crate::scheme::{Book, Profile};
use crate::simd::widest;

/// Scales that share a nested scale.
pub const NESTED_BLOCK: u64 = 256;

/// A 4-bit codec whose scales are quantized.
pub(super) struct Nested {
    inner: Groups<FourBit>,
    scales: Dynamic8,
    parts: Vec<Part>,
}

impl Nested {
    pub(super) fn new(book: Book, block: u32, profile: Profile, n: u64) -> Nested {
        let inner = four_bit::codec(book, block, profile, n);
        let blocks = n.div_ceil(inner.group);
        let nested_group = inner.group * NESTED_BLOCK;
        let [codes, _, map] = &inner.parts[..] else { unreachable!("four_bit has three parts") };
        let parts = vec![
            codes.clone(),
            Part::stream("absmax", Dtype::U8, vec![blocks], inner.group, 1),
            map.clone(),
            Part::stream("nested_absmax", Dtype::F32, vec![blocks.div_ceil(NESTED_BLOCK)], nested_group, 4),
            Part::whole("nested_quant_map", Dtype::F32, vec![256]),
            Part::whole("offset", Dtype::F32, vec![]),
        ];
        Nested { inner, scales: Dynamic8 { profile }, parts }
    }

    /// The scale of block `block`, given the parts from block `first` and nested block `first / 256` on.
    fn scale(&self, block: u64, first: u64, parts: &[&[u8]]) -> f32 {
        let code = parts[1].get((block - first) as usize).copied().unwrap_or_default();
        let nested = f32_at(parts[3], (block / NESTED_BLOCK - first / NESTED_BLOCK) as usize);
        f32_at(parts[4], code.into()) * nested + f32_at(parts[5], 0)
    }
}

impl Codec for Nested {
    fn parts(&self) -> &[Part] {
        &self.parts
    }

    fn granule(&self) -> u64 {
        self.inner.group * NESTED_BLOCK
    }

    fn scan(&self, _max_slab: u64) -> Option<Box<dyn Scan + '_>> {
        let mean = Mean::new(self.inner.n.div_ceil(self.inner.group));
        (self.inner.n > 0).then(|| Box::new(MeanScan { codec: self, mean }) as Box<dyn Scan>)
    }

    fn whole(&self, part: usize, known: &Known) -> Vec<u8> {
        match (self.parts[part].name, known) {
            ("quant_map", _) => self.inner.kernel.table("quant_map"),
            ("nested_quant_map", _) => f32_bytes(&*MAP),
            ("offset", Known::Offset(offset)) => offset.to_le_bytes().to_vec(),
            _ => vec![0; self.parts[part].n_bytes() as usize],
        }
    }

    fn encode(&self, slab: &Slab<'_>, x: &mut [f32], out: &mut [Vec<u8>]) -> Result<Tally, Unfit> {
        // Only a tensor without elements is encoded without a scan.
        let offset = if let Known::Offset(offset) = *slab.known { offset } else { 0.0 };
        debug_assert!(*slab.known != Known::Nothing || x.is_empty(), "double quantization needs its scan first");
        let mut tally = Tally::default();
        let (codes, params) = self.inner.quantize(&Known::Nothing, slab.at, x, &mut tally)?;
        self.inner.packing.pack(&codes, &mut out[0]);
        let scales: Vec<f32> = params.iter().map(|p| p[0] - offset).collect();
        let mut codes = vec![0; scales.len()];
        out[3].clear();
        for (scales, codes) in scales.chunks(NESTED_BLOCK as usize).zip(codes.chunks_mut(NESTED_BLOCK as usize)) {
            let stats = absmax(scales);
            self.scales.quantize([stats[1], 0.0], true, scales, codes);
            out[3].extend_from_slice(&stats[1].to_le_bytes());
        }
        out[1] = codes;
        Ok(tally)
    }

    fn decode(&self, at: u64, parts: &[&[u8]], out: &mut [f32]) {
        widest!((codec: &Nested = self, at: u64 = at, parts: &[&[u8]] = parts, out: &mut [f32] = out) -> () {
            codec.decode_here(at, parts, out);
        });
    }
}

impl Nested {
    #[inline(always)]
    fn decode_here(&self, at: u64, parts: &[&[u8]], out: &mut [f32]) {
        let mut codes = vec![0; out.len()];
        self.inner.packing.unpack(parts[0], &mut codes);
        let first = at / self.inner.group;
        for (block, piece) in self.inner.pieces(at, out.len()) {
            let params = [self.scale(block, first, parts), 0.0];
            self.inner.kernel.dequantize(params, &parts[2..3], &codes[piece.clone()], &mut out[piece]);
        }
    }
}

/// Finds the mean of the scales.
struct MeanScan<'a> {
    codec: &'a Nested,
    mean: Mean,
}

impl Scan for MeanScan<'_> {
    fn measure(&self, at: u64, x: &mut [f32]) -> Result<Measured, Unfit> {
        let inner = &self.codec.inner;
        let mut measured = inner.measure(at, x)?;
        for (block, stats) in (measured.first..).zip(&mut measured.groups) {
            *stats = inner.params_of(block, *stats)?;
        }
        Ok(measured)
    }

    fn fold(&mut self, measured: Measured) {
        let scales: Vec<f32> = measured.groups.iter().map(|p| p[0]).collect();
        self.mean.push(&scales);
    }

    fn finish(self: Box<Self>) -> Option<Known> {
        Some(self.mean.finish()).filter(|offset| offset.is_finite()).map(Known::Offset)
    }
}
