//! gguf-rs must read what `quant` writes as `quant` reads it: names, types, shapes and offsets.
//!
//! Its sizes are not compared: for types beyond number 9 it guesses blocks of 256, so BF16, IQ4_NL and MXFP4 come out wrong.
//! It knows no type beyond 39.
