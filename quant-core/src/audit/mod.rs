//! What did quantization cost: the differences between weights and what stands for them.
//!
//! [`ErrorStats`] is what is kept of them, with every metric as a method whose doc is its formula. [`Audit`] measures pairs of
//! tensors, or what a scheme would do to them; [`crate::convert::Pass::audited`] measures what is being written.
//!
//! Invariants: constant memory whatever the size of a tensor; all sums in f64, in an order that does not depend on threads or
//! memory; what was encoded is decoded by the code that any reader uses.

mod activations;
mod measure;
mod moments;
mod ordered;
mod outer;
mod pass;
mod rows;
mod sketch;
mod spectral;
mod stats;
mod sums;

pub use activations::Activations;
pub use measure::stats_on;
pub use moments::Moments;
pub use ordered::Ordered;
pub use outer::Outer;
pub use pass::{Audit, Candidate, Inputs, Seen, Subject};
pub(crate) use pass::{in_blocks, of_encoded};
pub use rows::Rows;
pub(crate) use sketch::Counting;
pub use sketch::Sketch;
pub use stats::{BLOCK, ErrorStats, WorstBlock};
pub use sums::{BlockSums, DeviceSums, Sums};
