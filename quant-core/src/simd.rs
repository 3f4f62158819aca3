//! Wider vectors where the processor has them.
//!
//! The codecs are plain loops over lanes, shaped for the vectoriser. [`widest!`] compiles such a loop a second time, for AVX2
//! and F16C. Sums of an audit are written over [`Doubles`], for AVX2 and for AVX-512. All versions do the same IEEE operations in
//! the same order, so their bytes are the same. FMA is not enabled; where [`Doubles`] fuse, all versions do.

/// Whether the processor has what the wide versions are compiled for.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) fn has_wide() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("f16c")
}

/// Runs a block over the given arguments, compiled for the widest vectors of this processor.
///
/// What the block calls gains only if it is inlined, so that must be marked `#[inline(always)]`.
macro_rules! widest {
    ($(<$g:ident: $bound:ident>)? ($($arg:ident: $ty:ty = $value:expr),* $(,)?) -> $ret:ty $body:block) => {{
        #[inline(always)]
        fn plain$(<$g: $bound>)?($($arg: $ty),*) -> $ret $body

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,f16c")]
        fn wide$(<$g: $bound>)?($($arg: $ty),*) -> $ret {
            plain($($arg),*)
        }

        #[cfg(target_arch = "x86_64")]
        let done = if crate::simd::has_wide() {
            // SAFETY: the processor has just been found to have the features of `wide`.
            unsafe { wide($($value),*) }
        } else {
            plain($($value),*)
        };
        #[cfg(not(target_arch = "x86_64"))]
        let done = plain($($value),*);
        done
    }};
}

pub(crate) use widest;

/// Lanes of f64, for sums that compilers do not make vectors of: four for each of [`Doubles::BLOCKS`] blocks.
pub(crate) trait Doubles: Copy {
    /// Blocks that are summed at a time, 1 or 2.
    const BLOCKS: usize;

    /// A number for each block.
    fn of_blocks(x: [f64; 2]) -> Self;
    /// The numbers `i` of blocks of the same length that follow each other in `x`.
    fn widen(x: &[[f32; 4]], i: usize) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// The product with `a`, plus `b`, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// The greater, `self` if they are equal.
    fn max(self, other: Self) -> Self;
    /// The less, `self` if they are equal.
    fn min(self, other: Self) -> Self;
    /// The lanes of each block.
    fn to_arrays(self) -> [[f64; 4]; 2];
}

impl Doubles for [f64; 4] {
    const BLOCKS: usize = 1;

    #[inline(always)]
    fn of_blocks([x, _]: [f64; 2]) -> Self {
        [x; 4]
    }

    #[inline(always)]
    fn widen(x: &[[f32; 4]], i: usize) -> Self {
        x[i].map(f64::from)
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] - other[i])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] * other[i])
    }

    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        std::array::from_fn(|i| self[i].mul_add(a[i], b[i]))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if other[i] > self[i] { other[i] } else { self[i] })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        std::array::from_fn(|i| if other[i] < self[i] { other[i] } else { self[i] })
    }

    #[inline(always)]
    fn to_arrays(self) -> [[f64; 4]; 2] {
        [self; 2]
    }
}

/// Work over [`Doubles`] of any kind.
pub(crate) trait OverDoubles {
    type Done;

    /// Does it. To be marked `#[inline(always)]`.
    fn run<V: Doubles>(self) -> Self::Done;
}

/// Does work with the widest vectors of this processor.
pub(crate) fn with_doubles<W: OverDoubles>(work: W) -> W::Done {
    #[cfg(target_arch = "x86_64")]
    {
        if avx512::is_there() {
            // SAFETY: the processor has just been found to have what it is compiled for.
            return unsafe { avx512::run(work) };
        }
        if avx::is_there() {
            // SAFETY: as above.
            return unsafe { avx::run(work) };
        }
    }
    work.run::<[f64; 4]>()
}

/// One block in a vector.
#[cfg(target_arch = "x86_64")]
mod avx {
    use std::arch::x86_64::{
        __m256d, _mm_loadu_ps, _mm256_add_pd, _mm256_cvtps_pd, _mm256_fmadd_pd, _mm256_max_pd, _mm256_min_pd, _mm256_mul_pd, _mm256_set1_pd,
        _mm256_storeu_pd, _mm256_sub_pd,
    };

    use super::{Doubles, OverDoubles};

    /// Exists only inside [`run`], where the processor has AVX and FMA.
    #[derive(Clone, Copy)]
    struct Wide(__m256d);

    pub(super) fn is_there() -> bool {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn run<W: OverDoubles>(work: W) -> W::Done {
        work.run::<Wide>()
    }

    impl Doubles for Wide {
        const BLOCKS: usize = 1;

        #[inline(always)]
        fn of_blocks([x, _]: [f64; 2]) -> Self {
            // SAFETY: values of this type are made only where there are AVX and FMA.
            Wide(unsafe { _mm256_set1_pd(x) })
        }

        #[inline(always)]
        fn widen(x: &[[f32; 4]], i: usize) -> Self {
            let four = &x[i];
            // SAFETY: as above; four numbers are read from an array of four.
            Wide(unsafe { _mm256_cvtps_pd(_mm_loadu_ps(four.as_ptr())) })
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            Wide(unsafe { _mm256_add_pd(self.0, other.0) })
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: as above.
            Wide(unsafe { _mm256_sub_pd(self.0, other.0) })
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: as above.
            Wide(unsafe { _mm256_mul_pd(self.0, other.0) })
        }

        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            Wide(unsafe { _mm256_fmadd_pd(self.0, a.0, b.0) })
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: as above. Of equals the instruction gives its second operand.
            Wide(unsafe { _mm256_max_pd(other.0, self.0) })
        }

        #[inline(always)]
        fn min(self, other: Self) -> Self {
            // SAFETY: as above, with its second operand, too.
            Wide(unsafe { _mm256_min_pd(other.0, self.0) })
        }

        #[inline(always)]
        fn to_arrays(self) -> [[f64; 4]; 2] {
            let mut lanes = [0.0; 4];
            // SAFETY: as above; four numbers are written to an array of four.
            unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), self.0) };
            [lanes; 2]
        }
    }
}

/// Two blocks in a vector.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        __m512d, _mm256_loadu2_m128, _mm512_add_pd, _mm512_cvtps_pd, _mm512_fmadd_pd, _mm512_max_pd, _mm512_min_pd, _mm512_mul_pd, _mm512_setr_pd,
        _mm512_storeu_pd, _mm512_sub_pd,
    };

    use super::{Doubles, OverDoubles};

    /// Exists only inside [`run`], where the processor has AVX-512.
    #[derive(Clone, Copy)]
    struct Widest(__m512d);

    pub(super) fn is_there() -> bool {
        std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512vl")
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    pub(super) fn run<W: OverDoubles>(work: W) -> W::Done {
        work.run::<Widest>()
    }

    impl Doubles for Widest {
        const BLOCKS: usize = 2;

        #[inline(always)]
        fn of_blocks([a, b]: [f64; 2]) -> Self {
            // SAFETY: values of this type are made only where there is AVX-512.
            Widest(unsafe { _mm512_setr_pd(a, a, a, a, b, b, b, b) })
        }

        #[inline(always)]
        fn widen(x: &[[f32; 4]], i: usize) -> Self {
            let (a, b) = (&x[i], &x[x.len() / 2 + i]);
            // SAFETY: as above; four numbers are read from each of two arrays of four.
            Widest(unsafe { _mm512_cvtps_pd(_mm256_loadu2_m128(b.as_ptr(), a.as_ptr())) })
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: as above.
            Widest(unsafe { _mm512_add_pd(self.0, other.0) })
        }

        #[inline(always)]
        fn sub(self, other: Self) -> Self {
            // SAFETY: as above.
            Widest(unsafe { _mm512_sub_pd(self.0, other.0) })
        }

        #[inline(always)]
        fn mul(self, other: Self) -> Self {
            // SAFETY: as above.
            Widest(unsafe { _mm512_mul_pd(self.0, other.0) })
        }

        #[inline(always)]
        fn mul_add(self, a: Self, b: Self) -> Self {
            // SAFETY: as above.
            Widest(unsafe { _mm512_fmadd_pd(self.0, a.0, b.0) })
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: as above. Of equals the instruction gives its second operand.
            Widest(unsafe { _mm512_max_pd(other.0, self.0) })
        }

        #[inline(always)]
        fn min(self, other: Self) -> Self {
            // SAFETY: as above, with its second operand, too.
            Widest(unsafe { _mm512_min_pd(other.0, self.0) })
        }

        #[inline(always)]
        fn to_arrays(self) -> [[f64; 4]; 2] {
            let mut lanes = [[0.0; 4]; 2];
            // SAFETY: as above; eight numbers are written to an array of eight.
            unsafe { _mm512_storeu_pd(lanes.as_flattened_mut().as_mut_ptr(), self.0) };
            lanes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two blocks.
    struct Everything<'a>(&'a [[f32; 4]]);

    impl OverDoubles for Everything<'_> {
        /// Each block's, the operations in their order.
        type Done = [Vec<[u64; 4]>; 2];

        #[inline(always)]
        fn run<V: Doubles>(self) -> Self::Done {
            let mut done = [Vec::new(), Vec::new()];
            let n = self.0.len() / 2;
            for (block, numbers) in self.0.chunks(n * V::BLOCKS).enumerate() {
                for i in 1..n {
                    let (a, b, c) = (V::widen(numbers, i - 1), V::widen(numbers, i), V::of_blocks([0.1; 2]));
                    for v in [a, a.add(b), a.sub(b), a.mul(b), a.mul_add(b, c), a.max(b), a.min(b), a.mul(c)] {
                        let lanes = v.to_arrays();
                        (0..V::BLOCKS).for_each(|k| done[block + k].push(lanes[k].map(f64::to_bits)));
                    }
                }
            }
            done
        }
    }

    #[test]
    fn vectors_and_arrays_agree_bit_for_bit() {
        let numbers: Vec<[f32; 4]> = (0..998).map(|i| std::array::from_fn(|j| ((i * 7919 + j * 31) % 1009) as f32 * 1e-3 - 0.5)).collect();
        let special = vec![[0.0, -0.0, f32::MIN_POSITIVE, f32::MAX], [-0.0, 0.0, f32::from_bits(1), f32::MIN], [1.0, -1.0, 0.0, 3.0], [-0.0; 4]];
        for x in [numbers, special] {
            let plain = Everything(&x).run::<[f64; 4]>();
            assert_eq!(with_doubles(Everything(&x)), plain);
            #[cfg(target_arch = "x86_64")]
            if avx::is_there() {
                // SAFETY: the processor has just been found to have what it is compiled for.
                assert_eq!(unsafe { avx::run(Everything(&x)) }, plain);
            }
        }
    }

    #[test]
    fn two_blocks_have_a_number_each() {
        struct Numbers;
        impl OverDoubles for Numbers {
            type Done = (usize, [[f64; 4]; 2]);

            #[inline(always)]
            fn run<V: Doubles>(self) -> Self::Done {
                (V::BLOCKS, V::of_blocks([1.0, 2.0]).to_arrays())
            }
        }
        let (blocks, lanes) = with_doubles(Numbers);
        assert_eq!(lanes[..blocks], [[1.0; 4], [2.0; 4]][..blocks]);
    }
}
