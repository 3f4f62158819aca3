//! quant-cli
