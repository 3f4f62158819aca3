//! [`Blocks`]: the arithmetic of one ggml block type.

/// One block type. `encode` and `decode` take any number of whole blocks, so that independent blocks can share vectors.
///
/// Bytes are those of ggml 0.25.3 in its default x86-64 build: every operation is rounded to f32 on its own, every sum runs
/// from left to right. What a block becomes depends on that block alone (and on [`Weights::row_mean_square`]).
pub(crate) trait Blocks {
    /// Elements of a block.
    const LEN: usize;
    /// Bytes of a block.
    const BYTES: usize;

    /// Encodes `x`, whole blocks of finite numbers, into `out`.
    fn encode(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]);

    /// Decodes whole blocks. Any bytes decode to something.
    fn decode(bytes: &[u8], out: &mut [f32]);

    /// The step between neighbouring values in each sixteenth of a block, if values are evenly spaced. Its sign is of no account.
    #[inline(always)]
    fn steps(_block: &[u8]) -> Option<[f32; 16]> {
        None
    }
}

/// How much each element matters, from an importance matrix.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    /// The importance of each element of `x`.
    pub(crate) importance: &'a [f32],
    /// For each block, Σx² / length of the row that it lies in (only filled for the types that ask for it).
    pub(crate) row_mean_square: &'a [f32],
}

impl<'a> Weights<'a> {
    /// The importance of the elements of block `i`, blocks being of `len` elements.
    #[inline(always)]
    pub(crate) fn block(&self, i: usize, len: usize) -> &'a [f32] {
        &self.importance[i * len..][..len]
    }
}
