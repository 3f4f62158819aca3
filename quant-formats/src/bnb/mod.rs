//! The layout of bitsandbytes in safetensors: one quantized weight as several sibling tensors.
//!
//! | scheme | tensors for the weight `P.weight` |
//! |---|---|
//! | `nf4`, `fp4` | `P.weight` (codes), `P.weight.absmax`, `P.weight.quant_map`, `P.weight.quant_state.bitsandbytes__nf4` |
//! | `-dq` | also `P.weight.nested_absmax`, `P.weight.nested_quant_map`; the offset is in the quant_state |
//! | `int8` | `P.weight`, `P.SCB`, `P.weight_format` |
//!
//! Source: bitsandbytes 0.50.2 (`QuantState.as_dict`, `Linear8bitLt`), transformers 5.23.

pub mod quant_state;
pub(crate) mod read;
pub(crate) mod write;

/// The key of the quant_state tensor is `P.weight` + this + the name of the book.
pub(crate) const QUANT_STATE: &str = ".quant_state.bitsandbytes__";
/// The part that holds the quant_state text of a tensor that came from such a checkpoint.
pub(crate) const QUANT_STATE_PART: &str = "quant_state";
