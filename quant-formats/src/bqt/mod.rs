//! BQT, the project's own block-quantized container: one file, one index, every bit under a checksum.
//!
//! ```text
//! 0        32                  32 + index length      multiples of 256                      file length
//! | header | index: JSON, spaces | part | 0… | part | 0… | … | side file | 0… | … | blob |
//! ```
//!
//! The specification is `docs/format.md`, a reader in 60 lines of Python is `docs/bqt.py`.
//!
//! Invariants: [`open`] and [`verify`] use nothing of an index whose checksum is wrong; whatever [`Writer`] commits has
//! passed the very checks of [`open`]; extents tile the data without hole or overlap, so no byte of a file is unaccounted for.

mod affected;
mod check;
mod chunks;
mod errors;
mod hash;
mod header;
mod index;
mod json;
mod layout;
mod read;
mod verify;
mod write;

#[cfg(test)]
mod tests;

pub use hash::{Digest, hash_sources};
pub use header::MAGIC;
pub use layout::Contents;
pub(crate) use read::GGUF_METADATA;
pub use read::{Provenance, SourceOf, open, provenance};
pub use verify::{Damage, Report, Spot, verify};
pub use write::Writer;

/// Parts, files and blobs start at multiples of this.
const ALIGN: u64 = 256;

/// Bytes of a piece of anything that is read or copied in pieces.
const PIECE: u64 = 1 << 20;
