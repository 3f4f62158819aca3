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
