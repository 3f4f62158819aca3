//! A stand-in for the CUDA driver, for tests: programs that call the driver run on machines without a GPU.
//!
//! The library has the functions of `libcuda.so` that a program needs for one device: contexts, memory, streams, events, modules of
//! PTX, launches. Kernels run in [`ptx_sim`], with all its checks; what is wrong with them is printed to stderr.
//!
//! # Use
//! A crate whose tests need it has it as a dev-dependency, `fake-cuda.workspace = true`, so cargo builds the library with the tests.
//! A program is run on it with the folder that [`install`] fills:
//!
//! ```no_run
//! # let folder = std::path::Path::new("");
//! # let quant = "quant";
//! fake_cuda::install(folder);
//! let mut command = std::process::Command::new(quant);
//! command.env("LD_LIBRARY_PATH", folder).env("FAKE_CUDA", "launch-failure");
//! ```
//!
//! Tests that call the driver themselves need a process of their own, as a driver is loaded, and reads its variables, once. [`again`]
//! starts it:
//!
//! ```no_run
//! // #[test]
//! fn memory_has_an_end() {
//!     let Some(ran) = fake_cuda::again("memory_has_an_end", &[("FAKE_CUDA_MEMORY", "1000")]) else {
//!         // Here the driver is this library.
//!         return;
//!     };
//!     // Here is the process that started the other one, which has done its part without a failure.
//!     assert_eq!(ran.log, ["alloc 512 used 512 peak 512"]);
//! }
//! ```
//!
//! The library must never be found as a driver elsewhere. In the target directory it has another name than the driver; it must not
//! be installed.
//!
//! # Time
//! Work is done as late as can be. Copies from and to pinned memory, fills, launches and recorded events wait in their stream until
//! somebody waits for them: `cuStreamSynchronize`, `cuEventSynchronize`, `cuCtxSynchronize`, a synchronous copy on the null stream,
//! or the work of another stream behind `cuStreamWaitEvent`. So a program that reads a result too early, or uses a buffer again too
//! early, gets wrong data here in every run. Copies from and to other host memory wait for their stream, as with the real driver.
//!
//! * New device memory and pinned memory is full of `0xa5`.
//! * Pinned memory that is freed before a copy from it is done gives `0xdb`; a copy to it is dropped.
//! * `cuStreamQuery` and `cuEventQuery` do one piece of work, so that who asks again and again gets an answer.
//! * Streams do not wait for the null stream, as those with `CU_STREAM_NON_BLOCKING`.
//! * A kernel's fault shows when its stream is waited for. All later calls then give that error, as with a GPU.
//!
//! # Environment
//! Faults are asked for by variables, which are read once, when the first function is called.
//!
//! | variable | what it does |
//! |---|---|
//! | `FAKE_CUDA=no-device` | `cuInit` gives `CUDA_ERROR_NO_DEVICE` |
//! | `FAKE_CUDA=old-device` | the device says that it is of compute capability 7.0 |
//! | `FAKE_CUDA=old-driver` | the driver is that of CUDA 10.2; PTX newer than 6.5 is `CUDA_ERROR_UNSUPPORTED_PTX_VERSION` |
//! | `FAKE_CUDA=bad-image` | every module is `CUDA_ERROR_INVALID_IMAGE` |
//! | `FAKE_CUDA=launch-failure`, `launch-failure:3` | the first launch, or the third, ends in `CUDA_ERROR_LAUNCH_FAILED` |
//! | `FAKE_CUDA_MEMORY=1000000` | bytes of device memory (4 GiB if it is not set); beyond it is `CUDA_ERROR_OUT_OF_MEMORY` |
//! | `FAKE_CUDA_WRONG=2` | the second copy to the host has one wrong bit |
//! | `FAKE_CUDA_LOG=file` | a line for each event is added to the file |
//!
//! `FAKE_CUDA` may hold several faults, with commas between them. The lines of the log are
//!
//! ```text
//! alloc <bytes> used <bytes> peak <bytes>
//! launch <kernel> grid <x>,<y>,<z> threads <x>,<y>,<z> stream <number>
//! upload <bytes> stream <number>
//! download <bytes> stream <number>
//! fault <message>
//! ```
//!
//! in the order in which things were done, not asked for. Stream 0 is the null stream; others are numbered from 1 as they are made.

mod api;
mod device;
mod error;
mod harness;
mod memory;
mod settings;
mod stream;

pub use harness::{Ran, again, install, library};
