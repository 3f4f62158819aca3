//! Wider vectors where the processor has them.
//!
//! The codecs are plain loops over lanes, shaped for the vectoriser. [`widest!`] compiles such a loop a second time, for AVX2
//! and F16C. Both versions do the same IEEE operations in the same order, so their bytes are the same; FMA is not enabled.

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

/// Four f64 lanes, for sums that compilers do not make vectors of.
pub(crate) trait Doubles: Copy {
    fn splat(x: f64) -> Self;
    fn widen(x: &[f32; 4]) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn abs(self) -> Self;
    /// The greater, `self` if they are equal.
    fn max(self, other: Self) -> Self;
    fn to_array(self) -> [f64; 4];
}

impl Doubles for [f64; 4] {
    #[inline(always)]
    fn splat(x: f64) -> Self {
        [x; 4]
    }

    #[inline(always)]
    fn widen(x: &[f32; 4]) -> Self {
        x.map(f64::from)
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
    fn abs(self) -> Self {
        self.map(f64::abs)
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|i| if other[i] > self[i] { other[i] } else { self[i] })
    }

    #[inline(always)]
    fn to_array(self) -> [f64; 4] {
        self
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
    if has_wide() {
        // SAFETY: the processor has just been found to have AVX2 and F16C.
        return unsafe { avx::run(work) };
    }
    work.run::<[f64; 4]>()
}

#[cfg(target_arch = "x86_64")]
mod avx {
    use std::arch::x86_64::{
        __m256d, _mm_loadu_ps, _mm256_add_pd, _mm256_andnot_pd, _mm256_cvtps_pd, _mm256_max_pd, _mm256_mul_pd, _mm256_set1_pd, _mm256_storeu_pd,
        _mm256_sub_pd,
    };

    use super::{Doubles, OverDoubles};

    /// Exists only inside [`run`], where the processor has AVX.
    #[derive(Clone, Copy)]
    struct Wide(__m256d);

    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn run<W: OverDoubles>(work: W) -> W::Done {
        work.run::<Wide>()
    }

    impl Doubles for Wide {
        #[inline(always)]
        fn splat(x: f64) -> Self {
            // SAFETY: values of this type are made only where there is AVX.
            Wide(unsafe { _mm256_set1_pd(x) })
        }

        #[inline(always)]
        fn widen(x: &[f32; 4]) -> Self {
            // SAFETY: as above; four numbers are read from an array of four.
            Wide(unsafe { _mm256_cvtps_pd(_mm_loadu_ps(x.as_ptr())) })
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
        fn abs(self) -> Self {
            // SAFETY: as above.
            Wide(unsafe { _mm256_andnot_pd(_mm256_set1_pd(-0.0), self.0) })
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: as above. Of equals the instruction gives its second operand.
            Wide(unsafe { _mm256_max_pd(other.0, self.0) })
        }

        #[inline(always)]
        fn to_array(self) -> [f64; 4] {
            let mut lanes = [0.0; 4];
            // SAFETY: as above; four numbers are written to an array of four.
            unsafe { _mm256_storeu_pd(lanes.as_mut_ptr(), self.0) };
            lanes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Everything(Vec<[f32; 4]>);

    impl OverDoubles for Everything {
        type Done = Vec<[u64; 4]>;

        #[inline(always)]
        fn run<V: Doubles>(self) -> Self::Done {
            let pairs = self.0.windows(2).map(|pair| (V::widen(&pair[0]), V::widen(&pair[1])));
            let all = pairs.flat_map(|(a, b)| [a, a.add(b), a.sub(b), a.mul(b), a.abs(), a.max(b), a.mul(V::splat(0.1))]);
            all.map(|v| v.to_array().map(f64::to_bits)).collect()
        }
    }

    #[test]
    fn vectors_and_arrays_agree_bit_for_bit() {
        let numbers: Vec<[f32; 4]> = (0..999).map(|i| std::array::from_fn(|j| ((i * 7919 + j * 31) % 1009) as f32 * 1e-3 - 0.5)).collect();
        let special = vec![[0.0, -0.0, f32::MIN_POSITIVE, f32::MAX], [-0.0, 0.0, f32::from_bits(1), f32::MIN], [1.0, -1.0, 0.0, 3.0]];
        for x in [numbers, special] {
            assert_eq!(with_doubles(Everything(x.clone())), Everything(x).run::<[f64; 4]>());
        }
    }
}
