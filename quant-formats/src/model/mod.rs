//! Models of Hugging Face as GGUF, and the reverse: names, layouts, metadata, tokenizers.
//!
//! A family of models is a table (`family.rs`); its tensors are shown under their other names and layouts and made while they
//! are read (`view.rs`), so that whatever reads a [`crate::Checkpoint`] reads them too.

mod back;
mod check;
mod families;
mod family;
mod hparams;
mod keys;
pub(crate) mod link;
mod metadata;
mod names;
mod to_gguf;
mod to_hf;
mod tokenizer;
mod types;
pub(crate) mod view;

pub use to_gguf::{Mapped, ToGguf, is_mappable, no_config, to_gguf};
pub use to_hf::{is_mappable_back, to_hf};
pub use tokenizer::is_guarded;
pub use types::Outtype;
