//! quant's maths as CUDA kernels, with the bytes of the CPU.
//!
//! | file | what |
//! |---|---|
//! | `kernels/*.cu` | the kernels, one file a family of schemes |
//! | `ptx/*.ptx` | what `cargo xtask kernels` made of them; part of the program |
//! | [`run`] | which kernels do a slab, over a [`queue::Queue`] |
//! | `gpu` | the driver and the [`Backend`]; only with the feature `driver` |
//!
//! The driver is loaded when it is asked for. Without one, everything else works:
//!
//! ```
//! use quant_cuda::{Choice, Settings};
//!
//! let opened = quant_cuda::open(Choice::Cpu, Settings::default()).unwrap();
//! assert_eq!(opened.backend.name(), "cpu");
//! ```

#![warn(clippy::unwrap_used)]

#[cfg(feature = "driver")]
mod gpu;
pub mod ptx;
pub mod queue;
pub mod run;

pub use quant_core::backend::{Backend, Cpu, same_bytes};
use quant_core::{Error, Result};

/// Without the driver.
#[cfg(not(feature = "driver"))]
mod gpu {
    use crate::queue::DeviceError;
    use crate::{Backend, Devices, Settings};

    fn absent() -> DeviceError {
        DeviceError::Failed("this program was built without CUDA".into())
    }

    pub(crate) fn open(_: &Settings) -> Result<&'static dyn Backend, DeviceError> {
        Err(absent())
    }

    pub(crate) fn devices() -> Result<Devices, DeviceError> {
        Err(absent())
    }
}

/// Which backend is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// A GPU if there is one, else the CPU. Never fails for lack of a GPU.
    Auto,
    /// The CPU.
    #[default]
    Cpu,
    /// A GPU, or an error.
    Cuda,
}

/// How a GPU is used.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The number of the device.
    pub ordinal: u32,
    /// Bytes of its memory at most, for all streams together.
    pub memory: usize,
    /// Streams: as many slabs are copied and computed at a time.
    pub streams: usize,
    /// Whether the CPU goes on where the GPU fails.
    pub falls_back: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { ordinal: 0, memory: 64 << 20, streams: 2, falls_back: false }
    }
}

/// A backend, open until the program ends.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The backend.
    pub backend: &'static dyn Backend,
    /// Why it is not the GPU, if that was to be tried.
    pub note: Option<String>,
}

impl Opened {
    /// Whether it is a GPU.
    pub fn is_gpu(&self) -> bool {
        self.backend.name() != Cpu.name()
    }
}

/// Bytes of a device's memory that a stream needs, for the smallest slab that is worth a launch.
pub const LEAST_MEMORY: usize = 1 << 16;

/// Opens a backend. `settings.falls_back` is what `choice` says.
///
/// # Errors
/// If a GPU is asked for, and there is none that can be used; if one is to be tried with too little memory.
pub fn open(choice: Choice, settings: Settings) -> Result<Opened> {
    let cpu = |note| Opened { backend: &Cpu, note };
    if choice == Choice::Cpu {
        return Ok(cpu(None));
    }
    let needed = LEAST_MEMORY * settings.streams.max(1);
    if settings.memory < needed {
        return Err(Error::request(format!("--device-memory is too small: {} streams need {needed} bytes", settings.streams)));
    }
    match gpu::open(&Settings { falls_back: choice == Choice::Auto, ..settings }) {
        Ok(backend) => Ok(Opened { backend, note: None }),
        Err(error) if choice == Choice::Auto => Ok(cpu(Some(format!("{error}; the CPU does the work")))),
        Err(error) => Err(Error::request(format!("--device cuda: {error}; use --device auto or --device cpu"))),
    }
}

/// What the driver has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// The newest CUDA that the driver knows, such as (12, 8).
    pub cuda: (i32, i32),
    /// The devices.
    pub found: Vec<Info>,
}

/// What is known of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its number.
    pub ordinal: u32,
    /// Its name.
    pub name: String,
    /// Its compute capability, such as (9, 0).
    pub capability: (i32, i32),
    /// Its memory in bytes.
    pub memory: u64,
    /// Its multiprocessors.
    pub multiprocessors: i32,
}

/// The least compute capability that the kernels run on.
pub const LEAST_CAPABILITY: (i32, i32) = (7, 5);

/// What the driver has.
///
/// # Errors
/// If there is no driver, it is too old, or it does not answer.
pub fn devices() -> std::result::Result<Devices, queue::DeviceError> {
    gpu::devices()
}

#[cfg(test)]
mod tests {
    use quant_core::backend::{Encoded, Target, Verified};
    use quant_core::codec::Slab;

    use super::*;

    /// A backend with one wrong bit.
    struct Wrong;

    impl Backend for Wrong {
        fn name(&self) -> &str {
            "wrong"
        }

        fn encode(&self, target: &Target<'_>, slab: &Slab<'_>, x: &mut [f32], out: &mut [Vec<u8>]) -> Encoded {
            let tally = target.codec.encode(slab, x, out)?;
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
    }

    #[test]
    fn one_wrong_bit_is_a_failure_in_tensors_that_are_verified() {
        let shape = [4, 64];
        let codec = quant_core::Scheme::Int8.codec(&shape).unwrap();
        let of = |tensor, verified: &Verified| {
            let target = Target { tensor, scheme: quant_core::Scheme::Int8, shape: &shape, codec: &*codec };
            let known = quant_core::codec::Known::Nothing;
            let x = quant_core::backend::difficult(256);
            verified.encode(&target, &Slab::new(&known, 0), &mut x.clone(), &mut vec![Vec::new(); 2])
        };
        let (right, wrong) = (Verified::new(&Cpu, 2), Verified::new(&Wrong, 2));
        assert!(of(1, &right).is_ok());
        let quant_core::backend::Failure::Device(message) = of(7, &wrong).unwrap_err() else { panic!("no failure of the device") };
        assert!(message.starts_with("wrong and the CPU do not agree: byte 255 of part 'weight' of the elements from 0 on is 0x"), "{message}");
        assert!(of(9, &wrong).is_err());
        assert!(of(2, &wrong).is_ok(), "the third tensor is not looked at");
        assert!(of(7, &wrong).is_err());
    }
}
