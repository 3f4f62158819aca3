//! Where slabs are encoded: the seam between the conversion loop and a GPU.
//!
//! A backend encodes slabs with the bytes of the CPU. The loop does not know which one it drives:
//!
//! ```
//! use quant_cuda::{Backend, Choice};
//!
//! let backend = quant_cuda::open(Choice::Auto).unwrap();
//! assert_eq!(backend.name(), "cpu"); // no kernels are built into this version
//! assert!(quant_core::backend::same_bytes(backend).unwrap().is_empty());
//! ```
//!
//! This version holds no kernels: [`Choice::Auto`] gives the CPU and [`Choice::Cuda`] is refused, saying so.

#![warn(clippy::unwrap_used)]

pub mod queue;
pub mod run;

pub use quant_core::backend::{Backend, Cpu, same_bytes};
use quant_core::{Error, Result};

/// Which backend is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The fastest there is. Never fails for lack of a GPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU, or an error.
    Cuda,
}

/// Opens a backend.
///
/// # Errors
/// If a GPU is asked for: this version has no kernels.
pub fn open(choice: Choice) -> Result<&'static dyn Backend> {
    match choice {
        Choice::Auto | Choice::Cpu => Ok(&Cpu),
        Choice::Cuda => Err(Error::request("this version of quant has no CUDA kernels; use the cpu")),
    }
}

#[cfg(test)]
mod tests {
    use quant_core::Codec;
    use quant_core::codec::{Slab, Tally, Unfit};

    use super::*;

    /// A backend with one wrong bit.
    struct Wrong;

    impl Backend for Wrong {
        fn name(&self) -> &str {
            "wrong"
        }

        fn encode(&self, codec: &dyn Codec, slab: &Slab<'_>, x: &mut [f32], out: &mut [Vec<u8>]) -> std::result::Result<Tally, Unfit> {
            let tally = codec.encode(slab, x, out)?;
            if let Some(last) = out[0].last_mut() {
                *last ^= 1;
            }
            Ok(tally)
        }
    }

    #[test]
    fn the_suite_accepts_the_cpu_and_finds_one_wrong_bit() {
        assert_eq!(same_bytes(&Cpu).unwrap(), Vec::<String>::new());
        // Every scheme in four shapes, every block type of ggml in three.
        let cases = 4 * quant_core::backend::SCHEMES.len() + 3 * quant_core::ggml::Type::all().count();
        assert_eq!(same_bytes(&Wrong).unwrap().len(), cases);
        assert!(open(Choice::Cuda).is_err());
    }
}
