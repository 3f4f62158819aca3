//! safetensors: one file, or a folder in the layout of Hugging Face.

pub mod header;
pub mod index;
pub(crate) mod layout;
pub mod order;
pub(crate) mod read;
pub mod write;
