//! The maths of `quant`: what a scheme is, how it becomes bytes, and the loop that converts a checkpoint.
//!
//! | word | meaning |
//! |---|---|
//! | [`Scheme`] | **what**: how numbers become bytes |
//! | [`Codec`] | **how**: the arithmetic of one tensor, and the parts it consists of |
//! | [`source::Source`] | an opened checkpoint |
//! | [`recipe::Recipe`] | **which** scheme for which tensor |
//! | [`mix`] | the same, as llama-quantize chooses |
//! | [`plan::Plan`] | every decision, before the first byte |
//! | [`sink::Sink`] | a checkpoint being written, at offsets known from the plan |
//! | [`convert::Pass`] | the loop |
//! | [`allocate`] | **where** the bits go |
//! | [`audit`] | **how well**: what became of the numbers |
//!
//! Nothing here opens a file, prints, or knows a file format.

#![warn(clippy::unwrap_used)]

pub mod allocate;
pub mod aten;
pub mod audit;
pub mod backend;
pub mod codec;
pub mod convert;
pub mod dtype;
pub mod error;
pub mod ggml;
pub mod mix;
pub mod plan;
pub mod recipe;
pub mod scheme;
mod simd;
pub mod sink;
pub mod source;
pub mod tables;

pub use codec::Codec;
pub use dtype::Dtype;
pub use error::{Error, Result};
pub use scheme::Scheme;
