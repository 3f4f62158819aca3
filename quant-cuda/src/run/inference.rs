//! Matrix products over quantized weights, with what they are on the CPU.
