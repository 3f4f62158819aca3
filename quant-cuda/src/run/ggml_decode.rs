//! Decoding of ggml's types.
