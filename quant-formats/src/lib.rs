//! Readers and writers of checkpoints: safetensors in files and folders, the layouts of quantizers within it, GGUF, and BQT; and
//! the way of models between Hugging Face and GGUF ([`model`]).
//!
//! [`open()`] gives a [`Checkpoint`], whatever the format; [`convert::plan`] and [`convert::run`] turn it into another.
//!
//! ```no_run
//! use quant_core::recipe::Recipe;
//! use quant_formats::convert::{self, Request, Target};
//!
//! let model = quant_formats::open("Llama".as_ref(), quant_formats::Io::Auto)?;
//! let recipe = Recipe { default: Some("nf4-dq".parse()?), ..Recipe::default() };
//! let request = Request { recipe, ..Request::new(Target::Hf) };
//! let mut plan = convert::plan(&model, &request)?;
//! convert::run(&model, &mut plan, &request, "Llama-nf4".as_ref(), &())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants: headers are checked whole before use; nothing in a file can cause a panic or an allocation that the file's own
//! size does not pay for; an output appears under its name only when it is complete and synced.

#![warn(clippy::unwrap_used)]

pub mod audit;
pub mod bnb;
pub mod bqt;
pub mod checkpoint;
pub mod convert;
pub mod foreign;
pub mod gguf;
pub mod hf;
pub mod input;
mod json;
mod map;
pub mod model;
mod open;
pub mod output;
mod placed;
pub mod python;
mod request;
pub mod safetensors;

pub use checkpoint::{Checkpoint, Format};
pub use input::{Io, Opening};
pub use open::open;
