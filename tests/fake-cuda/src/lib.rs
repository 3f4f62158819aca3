//! A stand-in for the CUDA driver, for tests.
