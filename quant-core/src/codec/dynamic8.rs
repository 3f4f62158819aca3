//! `int8-block`: the dynamic 8-bit codebook of bitsandbytes, block-wise. Also the second level of double quantization.
//!
//! **Formula.** absmax = max|w| of a block; v = w · (1 / absmax); code = the nearest entry of the dynamic map.
//! Decoded: ŵ = map\[code\] · absmax, one f32 multiplication.
//!
//! **Map.** 256 entries in ascending order: for each decade 10^(i−6), i = 0 … 6, the midpoints of 2^i even steps from 0.1
//! to 1, with both signs, then 0 (code 127) and 1 (code 255). Source: Dettmers, "8-Bit Approximations for Parallelism in
//! Deep Learning", 2015; `create_dynamic_map(signed=True, 7, 8)` with the arithmetic of `torch.linspace` on AVX2.
//!
//! **Layout.** `codes`: U8, one a weight; `absmax`: F32, one a block of consecutive elements, row-major, running over row
//! ends (a last block may be short); `quant_map`: F32 \[256\]. 8 + 32/block bits a weight.
//!
//! **Ties.** Profile `cuda` (`dQuantize`): the nearest entry, an exact midpoint (f32) to the even index. Profile `cpu`
//! (0.50): a table of 65 536 steps over \[−1, 1\], which sends an exact 0 to code 131.
//! There is no −1: a block whose greatest magnitude is negative decodes to 0.993 of it.
//! **Zero block.** absmax 0, all codes 0. **NaN, ±Inf** are refused.
//!
//! **Source.** `quantize_blockwise` of bitsandbytes 0.50.2.

use std::sync::LazyLock;

use super::groups::{Groups, Kernel, absmax};
use super::packing::Packing;
use super::{Part, Tally, Unfit, f32_at, f32_bytes, refuse_non_finite};
use crate::Dtype;
use crate::scheme::Profile;

pub(super) fn codec(block: u32, profile: Profile, shape: &[u64], n: u64) -> Groups<Dynamic8> {
    let map = Part::whole("quant_map", Dtype::F32, vec![256]);
    let codes = ("codes", Dtype::U8, shape.to_vec());
    Groups::new(Dynamic8 { profile }, Packing::LowFirst { bits: 8 }, n, block.into(), codes, &["absmax"], vec![map])
}

pub(super) struct Dynamic8 {
    pub(super) profile: Profile,
}

impl Kernel for Dynamic8 {
    const PARAMS: usize = 1;

    #[inline(always)]
    fn prepare(&self, at: u64, x: &mut [f32], _tally: &mut Tally) -> Result<(), Unfit> {
        refuse_non_finite(at, x)
    }

    #[inline(always)]
    fn measure(&self, x: &[f32]) -> [f32; 2] {
        absmax(x)
    }

    #[inline(always)]
    fn params(&self, stats: [f32; 2], _full: bool) -> Result<[f32; 2], f32> {
        Ok([stats[1], 0.0])
    }

    #[inline(always)]
    fn quantize(&self, [absmax, _]: [f32; 2], _full: bool, x: &[f32], codes: &mut [u8]) {
        if absmax == 0.0 {
            return codes.fill(0);
        }
        let inv = 1.0 / absmax;
        match self.profile {
            Profile::Cuda => codes.iter_mut().zip(x).for_each(|(code, w)| *code = nearest(w * inv)),
            Profile::Cpu => codes.iter_mut().zip(x).for_each(|(code, w)| *code = stepped(w * inv)),
        }
    }

    #[inline(always)]
    fn dequantize(&self, [absmax, _]: [f32; 2], tables: &[&[u8]], codes: &[u8], out: &mut [f32]) {
        for (w, &code) in out.iter_mut().zip(codes) {
            *w = f32_at(tables[0], code.into()) * absmax;
        }
    }

    fn table(&self, _name: &str) -> Vec<u8> {
        f32_bytes(&*MAP)
    }
}

/// The dynamic map.
pub static MAP: LazyLock<[f32; 256]> = LazyLock::new(|| {
    let mut map = vec![0.0, 1.0];
    for (i, decade) in [1e-6f32, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0].into_iter().enumerate() {
        let edges = linspace_tenth_to_one((1 << i) + 1);
        let values = edges.windows(2).map(|e| decade * ((e[0] + e[1]) / 2.0));
        map.extend(values.flat_map(|v| [v, -v]));
    }
    map.sort_by(f32::total_cmp);
    map.try_into().expect("2 + 2 (1 + 2 + … + 64) = 256 entries")
});

/// `torch.linspace(0.1, 1, n)` in float32, whose vectorised kernel fuses the multiplication with the addition.
///
/// The fused result is taken in f64: a product of an f32 and a small integer is exact there.
fn linspace_tenth_to_one(n: usize) -> Vec<f32> {
    let (start, end) = (0.1f32, 1f32);
    let step = (end - start) / (n - 1) as f32;
    let from_start = |i: usize| (f64::from(start) + f64::from(step) * i as f64) as f32;
    let from_end = |i: usize| (f64::from(end) - f64::from(step) * (n - 1 - i) as f64) as f32;
    (0..n).map(|i| if i < n / 2 { from_start(i) } else { from_end(i) }).collect()
}

/// The midpoints between neighbours of the map.
pub(crate) static MIDPOINTS: LazyLock<[f32; 255]> = LazyLock::new(|| std::array::from_fn(|i| (MAP[i] + MAP[i + 1]) * 0.5));

/// Profile `cuda`: the nearest entry, an exact midpoint to the even index.
fn nearest(v: f32) -> u8 {
    let midpoints = &*MIDPOINTS;
    let below = midpoints.partition_point(|&m| m < v);
    let tie = below < 255 && midpoints[below] == v;
    (below + usize::from(tie && below % 2 == 1)) as u8
}

/// Profile `cpu`: for each of 65 536 steps over [−1, 1] the number of midpoints below it.
static STEPS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let value = |i: u32| -1.0 + 2.0 * i as f32 / 65_535.0;
    (0..65_536).map(|i| MIDPOINTS.partition_point(|&m| m < value(i)) as u8).collect()
});

fn stepped(v: f32) -> u8 {
    let half = (v.clamp(-1.0, 1.0) + 1.0) * 0.5;
    let step = (f64::from(half) * 65_535.0 + 0.5) as f32;
    STEPS[step as u32 as usize & 0xffff]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_has_the_bits_of_torch() {
        // Positive entries 128 to 135 and 248 to 255 as printed by bitsandbytes 0.50.2 on torch 2.15.
        let first = [0x3513a3b7, 0x365a1a94, 0x370205ff, 0x37b24206, 0x38378034, 0x388aefb3, 0x38ba1f4b, 0x3923d70b];
        let last = [0x3f68999a, 0x3f6c3333, 0x3f6fcccd, 0x3f736666, 0x3f770000, 0x3f7a999a, 0x3f7e3333, 0x3f800000];
        let bits: Vec<u32> = MAP.iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits[128..136], first);
        assert_eq!(bits[248..], last);
        assert_eq!((bits[127], MAP[0]), (0, -0.992_968_74));
        assert!((1..=127).all(|k| MAP[127 - k] == -MAP[127 + k]));
    }

    #[test]
    fn ties_go_to_the_even_index() {
        for (i, &m) in MIDPOINTS.iter().enumerate() {
            assert_eq!(nearest(m) as usize, i + i % 2);
            assert_eq!(nearest(m.next_up()) as usize, i + 1);
            assert_eq!(nearest(m.next_down()) as usize, i);
        }
    }

    #[test]
    fn the_cpu_profile_sends_zero_to_131() {
        assert_eq!((stepped(0.0), nearest(0.0)), (131, 127));
        assert_eq!((stepped(-1.0), stepped(1.0)), (0, 255));
    }
}
