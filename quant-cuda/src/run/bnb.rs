//! bitsandbytes' schemes and linear quantization.
