//! Wider vectors where the processor has them.
//!
//! The codecs are plain loops over lanes, shaped for the vectoriser. Here the same loops are compiled a second time for AVX2
//! and F16C. Both versions do the same IEEE operations in the same order, so their bytes are the same; FMA is not enabled.

/// Runs `work` compiled for the widest vectors of this processor. Only what is inlined into `work` gains.
#[inline]
pub(crate) fn widest<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("f16c") {
        // SAFETY: both features have just been found.
        return unsafe { on_avx2(work) };
    }
    work()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,f16c")]
fn on_avx2<R>(work: impl FnOnce() -> R) -> R {
    work()
}
