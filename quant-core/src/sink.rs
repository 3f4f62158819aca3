//! [`Sink`]: a checkpoint being written, as the conversion loop sees it.

use crate::Result;

/// An output whose layout is settled: every part has its place, so bytes come in any order, from any thread.
pub trait Sink: Send + Sync {
    /// Writes `bytes` of part `part` of planned tensor `tensor`, from `offset` within the part on.
    ///
    /// Each byte of each streamed part is written exactly once.
    ///
    /// # Errors
    /// If the system refuses.
    fn write(&self, tensor: usize, part: usize, offset: u64, bytes: &[u8]) -> Result<()>;
}

/// What the loop tells whoever watches, and asks whether to go on.
pub trait Observer: Sync {
    /// So many more bytes of the source are done in this pass.
    fn advance(&self, _n_bytes: u64) {}

    /// A pass over so many source bytes begins.
    fn begin(&self, _pass: &'static str, _n_bytes: u64) {}

    /// Whether to stop at the next slab.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Watches nothing and never stops.
impl Observer for () {}
