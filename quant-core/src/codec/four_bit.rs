//! `nf4` and `fp4`: the 4-bit codebooks of bitsandbytes, block-wise.
//!
//! **Formula.** absmax = max|w| of a block; v = w · (1 / absmax), one f32 multiplication; code = the number of thresholds
//! below v, through the order of the book. Decoded: ŵ = book\[code\] · absmax.
//!
//! **Layout.** `codes`: U8 \[⌈n/2⌉, 1\], the first of two elements in the high nibble; an odd last element is paired with the
//! code of 0. `absmax`: F32, one a block of consecutive elements, row-major, running over row ends (a last block may be
//! short). `quant_map`: F32 \[16\], the book. 4 + 32/block bits a weight.
//!
//! **Books.** NF4: the quantiles of a normal distribution, with an exact 0. FP4: sign, then 0, 1/192, 2/3, 1, 1/3, 1/2, 1/6, 1/4.
//!
//! **Thresholds** lie between neighbouring values; v on a threshold takes the lower code. The CUDA kernels and the CPU
//! backend have thresholds that differ in the last bit, hence two profiles:
//!
//! | | `cuda` | `cpu` (0.50) |
//! |---|---|---|
//! | NF4 thresholds | the literals of the kernel | (book\[i\] + book\[i+1\]) / 2 in f32 |
//! | FP4 thresholds | on the magnitude, then the sign | on the signed, sorted book |
//! | zero block | codes 0, absmax 0 | the code of 0, absmax 0 |
//! | least divisor | none | 1e-38 |
//! | short last block | as the others | v = w / absmax, and absmax is stored as at least 1e-38 |
//! | subnormal numbers | count as 0 | as they are |
//!
//! On bf16 and f16 weights both give the same NF4 codes, but for zero blocks. **NaN, ±Inf** are refused.
//!
//! **Source.** Dettmers et al., "QLoRA", 2023; `quantize_4bit` of bitsandbytes 0.50.2, the CUDA thresholds as compiled.
//! The GPU's approximate reciprocal is taken as the correctly rounded one.

use super::groups::{Groups, Kernel, absmax};
use super::packing::Packing;
use super::{Part, Tally, Unfit, f32_at, f32_bytes, refuse_non_finite};
use crate::Dtype;
use crate::scheme::{Book, Profile};

/// The values of a codebook, by code.
pub fn book_values(book: Book) -> [f32; 16] {
    match book {
        Book::Nf4 => NF4.map(f32::from_bits),
        Book::Fp4 => FP4.map(f32::from_bits),
    }
}

/// What decides about codes: 15 ascending thresholds, of which those below v are passed, and the code for each number of them.
pub(crate) fn decisions(book: Book, profile: Profile) -> ([f32; 15], [u8; 16]) {
    let FourBit { thresholds, order, .. } = FourBit::new(book, profile);
    (thresholds, order)
}

const NF4: [u32; 16] = [
    0xbf800000, 0xbf3239b1, 0xbf066b30, 0xbeca32a0, 0xbe91a24d, 0xbe3d353f, 0xbdba7871, 0x00000000, 0x3da2faff, 0x3e24cae3, 0x3e7c04dd, 0x3ead033a,
    0x3ee1a4b8, 0x3f1007ab, 0x3f3913b3, 0x3f800000,
];
const FP4: [u32; 16] = [
    0x00000000, 0x3baaaaab, 0x3f2aaaab, 0x3f800000, 0x3eaaaaab, 0x3f000000, 0x3e2aaaab, 0x3e800000, 0x00000000, 0xbbaaaaab, 0xbf2aaaab, 0xbf800000,
    0xbeaaaaab, 0xbf000000, 0xbe2aaaab, 0xbe800000,
];
const NF4_CUDA: [u32; 15] = [
    0xbf591cd9, 0xbf1c5270, 0xbeeb8480, 0xbeadea76, 0xbe703cec, 0xbe0d38bc, 0xbd3a7871, 0x3d22faff, 0x3df64863, 0x3e5067e0, 0x3e9582d4, 0x3ec753f9,
    0x3f006d03, 0x3f248daf, 0x3f5c89d9,
];
/// On magnitudes.
const FP4_CUDA: [u32; 7] = [0x3b2aaab9, 0x3db00000, 0x3e555555, 0x3e955555, 0x3ed55556, 0x3f155550, 0x3f555555];

const NF4_ORDER: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// FP4 codes by ascending value; the CPU backend has its negative zero above its positive one.
const FP4_ORDER_CPU: [u8; 16] = [11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3];
const FP4_ORDER_CUDA: [u8; 16] = [11, 10, 13, 12, 15, 14, 9, 8, 0, 1, 6, 7, 4, 5, 2, 3];

/// A divisor below this is taken as this, in profile `cpu`.
const CPU_LEAST: f32 = 1e-38;

pub(super) fn codec(book: Book, block: u32, profile: Profile, n: u64) -> Groups<FourBit> {
    let kernel = FourBit::new(book, profile);
    let packing = Packing::HighNibbleFirst { filler: kernel.code(0.0) };
    let map = Part::whole("quant_map", Dtype::F32, vec![16]);
    Groups::new(kernel, packing, n, block.into(), ("codes", Dtype::U8, vec![n.div_ceil(2), 1]), &["absmax"], vec![map])
}

/// One book under one profile: 15 ascending thresholds, and the code for each number of thresholds passed.
pub(super) struct FourBit {
    book: Book,
    profile: Profile,
    thresholds: [f32; 15],
    order: [u8; 16],
}

impl FourBit {
    fn new(book: Book, profile: Profile) -> FourBit {
        let values = book_values(book);
        let midpoints = |order: [u8; 16]| std::array::from_fn(|i| (values[order[i] as usize] + values[order[i + 1] as usize]) / 2.0);
        let (thresholds, order) = match (book, profile) {
            (Book::Nf4, Profile::Cuda) => (NF4_CUDA.map(f32::from_bits), NF4_ORDER),
            (Book::Nf4, Profile::Cpu) => (midpoints(NF4_ORDER), NF4_ORDER),
            (Book::Fp4, Profile::Cuda) => (signed(FP4_CUDA.map(f32::from_bits)), FP4_ORDER_CUDA),
            (Book::Fp4, Profile::Cpu) => (midpoints(FP4_ORDER_CPU), FP4_ORDER_CPU),
        };
        FourBit { book, profile, thresholds, order }
    }

    fn code(&self, v: f32) -> u8 {
        self.order[self.thresholds.iter().filter(|&&t| v > t).count()]
    }
}

/// Thresholds for `v > t` that decide like |v| > t with the sign apart: −v > t is v ≥ −t turned round, so its bound is the
/// next float below. Between the signs, results too small for a normal float count as +0, as the kernel flushes them.
fn signed(magnitudes: [f32; 7]) -> [f32; 15] {
    std::array::from_fn(|i| match i {
        0..7 => (-magnitudes[6 - i]).next_down(),
        7 => -f32::MIN_POSITIVE,
        _ => magnitudes[i - 8],
    })
}

impl Kernel for FourBit {
    const PARAMS: usize = 1;

    #[inline(always)]
    fn prepare(&self, at: u64, x: &mut [f32], _tally: &mut Tally) -> Result<(), Unfit> {
        refuse_non_finite(at, x)?;
        if self.profile == Profile::Cuda {
            x.iter_mut().for_each(|w| *w = if w.abs() < f32::MIN_POSITIVE { 0.0 } else { *w });
        }
        Ok(())
    }

    #[inline(always)]
    fn measure(&self, x: &[f32]) -> [f32; 2] {
        absmax(x)
    }

    #[inline(always)]
    fn params(&self, [_, absmax]: [f32; 2], full: bool) -> Result<[f32; 2], f32> {
        let least = if self.profile == Profile::Cpu && !full { CPU_LEAST } else { 0.0 };
        Ok([absmax.max(least), 0.0])
    }

    #[inline(always)]
    fn quantize(&self, [absmax, _]: [f32; 2], full: bool, x: &[f32], codes: &mut [u8]) {
        match self.profile {
            Profile::Cuda if absmax == 0.0 => return codes.fill(0),
            Profile::Cuda => {
                let inv = 1.0 / absmax;
                let inv = if inv < f32::MIN_POSITIVE { 0.0 } else { inv };
                count_above(&self.thresholds, x, codes, |w| w * inv);
            }
            Profile::Cpu if full => {
                let inv = 1.0 / absmax.max(CPU_LEAST);
                count_above(&self.thresholds, x, codes, |w| w * inv);
            }
            Profile::Cpu => count_above(&self.thresholds, x, codes, |w| w / absmax),
        }
        if self.book == Book::Fp4 {
            codes.iter_mut().for_each(|code| *code = self.order[*code as usize]);
        }
    }

    #[inline(always)]
    fn dequantize(&self, [absmax, _]: [f32; 2], tables: &[&[u8]], codes: &[u8], out: &mut [f32]) {
        let book: [f32; 16] = std::array::from_fn(|i| f32_at(tables[0], i));
        for (w, &code) in out.iter_mut().zip(codes) {
            *w = book[(code & 15) as usize] * absmax;
        }
    }

    fn table(&self, _name: &str) -> Vec<u8> {
        f32_bytes(&book_values(self.book))
    }
}

/// For each element the number of thresholds below it. Plain loops over elements without a branch, as the vectoriser likes.
///
/// Counts are kept as wide as the floats until all are made; narrowed any earlier they cost four instructions a threshold.
#[inline(always)]
fn count_above(thresholds: &[f32; 15], x: &[f32], codes: &mut [u8], scaled: impl Fn(f32) -> f32) {
    let thresholds = *thresholds;
    let mut counts = [0u32; 64];
    for (x, codes) in x.chunks(counts.len()).zip(codes.chunks_mut(counts.len())) {
        for (count, &w) in counts.iter_mut().zip(x) {
            let v = scaled(w);
            let mut above = 0;
            for t in thresholds {
                above += u32::from(v > t);
            }
            *count = above;
        }
        codes.iter_mut().zip(&counts).for_each(|(code, &count)| *code = count as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel as the CUDA source reads: magnitude first, then the sign.
    fn fp4_by_magnitude(v: f32) -> u8 {
        let v = if v.abs() < f32::MIN_POSITIVE { 0.0 } else { v };
        let rank = FP4_CUDA.iter().filter(|&&t| v.abs() > f32::from_bits(t)).count();
        [0, 1, 6, 7, 4, 5, 2, 3][rank] + if v < 0.0 { 8 } else { 0 }
    }

    #[test]
    fn signed_thresholds_decide_like_magnitudes() {
        let fp4 = FourBit::new(Book::Fp4, Profile::Cuda);
        let edges = FP4_CUDA.iter().map(|&t| f32::from_bits(t)).chain([0.0, 1.0, f32::MIN_POSITIVE, 1e-40]);
        for edge in edges {
            for v in [edge, edge.next_up(), edge.next_down(), -edge, -edge.next_up(), -edge.next_down()] {
                assert_eq!(fp4.code(v), fp4_by_magnitude(v), "{v:e}");
            }
        }
    }

    #[test]
    fn codes_are_nearest_values() {
        for profile in [Profile::Cuda, Profile::Cpu] {
            for book in [Book::Nf4, Book::Fp4] {
                let kernel = FourBit::new(book, profile);
                let values = book_values(book);
                for i in -1000..=1000 {
                    let v = i as f32 / 1000.0;
                    let error = (values[kernel.code(v) as usize] - v).abs();
                    let least = values.iter().map(|x| (x - v).abs()).fold(1.0, f32::min);
                    assert!(error <= least + 1e-5, "{book:?} {profile:?} {v}");
                }
            }
        }
    }

    /// The codes of one group of `x`, one a byte.
    fn codes(book: Book, profile: Profile, full: bool, x: &[f32]) -> (f32, Vec<u8>) {
        let (kernel, mut x, mut codes) = (FourBit::new(book, profile), x.to_vec(), vec![0; x.len()]);
        kernel.prepare(0, &mut x, &mut Tally::default()).unwrap();
        let params = kernel.params(kernel.measure(&x), full).unwrap();
        kernel.quantize(params, full, &x, &mut codes);
        (params[0], codes)
    }

    #[test]
    fn a_short_last_block_of_the_cpu_is_divided_and_a_full_one_multiplied() {
        let kernel = FourBit::new(Book::Fp4, Profile::Cpu);
        let mut told_apart = 0;
        for i in 1..40_000u32 {
            // Ratios of small integers lie on FP4's thresholds, where one rounding more or less decides.
            let (absmax, x) = ((i / 24 + 24) as f32 * 0.37, (i % 24) as f32 * 0.37);
            let (divided, multiplied) = (kernel.code(x / absmax), kernel.code(x * (1.0 / absmax)));
            told_apart += u32::from(divided != multiplied);
            assert_eq!(codes(Book::Fp4, Profile::Cpu, false, &[absmax, x]).1[1], divided, "{x} of {absmax}");
            assert_eq!(codes(Book::Fp4, Profile::Cpu, true, &[absmax, x]).1[1], multiplied, "{x} of {absmax}");
        }
        assert!(told_apart > 0, "the numbers must tell the two apart");
    }

    #[test]
    fn the_gpu_takes_subnormal_numbers_for_zeros_and_the_cpu_does_not() {
        let tiny = -1e-40f32;
        assert_eq!(codes(Book::Fp4, Profile::Cuda, true, &[1.0, tiny]), (1.0, vec![3, 0]));
        assert_eq!(codes(Book::Nf4, Profile::Cuda, true, &[tiny, tiny]), (0.0, vec![0, 0]));
        assert_eq!(codes(Book::Nf4, Profile::Cpu, true, &[tiny, 0.0]).0, -tiny);
        assert_eq!(codes(Book::Nf4, Profile::Cpu, false, &[tiny, 0.0]).0, CPU_LEAST);
    }
}
