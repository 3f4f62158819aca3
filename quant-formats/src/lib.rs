//! quant-formats
