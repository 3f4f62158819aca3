//! A model folder in the layout of Hugging Face: what stands beside the weights and what the weights are.
//!
//! Nothing here opens a file: these are the rules, as data and small functions over names and text.
//!
//! - [`config`]: `config.json`, kept as text, so that an edit changes one key and nothing else;
//! - [`json`]: JSON that is kept as text;
//! - [`roles`]: what a tensor is in its model, and which modules bitsandbytes would quantize;
//! - [`side_files`]: which files of the folder belong to the model.
//!
//! Source: transformers 5.23.0, bitsandbytes 0.50.2.

pub mod config;
pub mod json;
pub mod roles;
pub mod side_files;
pub mod skip_modules;
