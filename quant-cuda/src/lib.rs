//! quant-cuda
