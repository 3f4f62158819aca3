//! Encoding of ggml's types.
