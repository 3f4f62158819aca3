//! GGUF: the container of llama.cpp, versions 2 and 3, in one file or a set of shards.
//!
//! Invariants: a header is checked whole before use; metadata is kept byte for byte and in order, and read only where somebody
//! looks; what is written is what llama.cpp 0.5.0-dev writes.

mod cursor;
mod edit;
mod entry;
mod header;
pub mod imatrix;
pub(crate) mod layout;
pub(crate) mod quantize;
mod read;
mod split;
pub(crate) mod write;

mod value;

#[cfg(test)]
mod tests;

pub use edit::Edit;
pub use entry::{Entry, Kind, Scalar, find as find_entry};
pub(crate) use header::metadata;
pub(crate) use layout::{Layout, Shards};
pub use quantize::{Mix, model};
pub(crate) use read::{find, open};
pub use value::Value;
