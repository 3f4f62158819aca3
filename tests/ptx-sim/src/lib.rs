//! Executes PTX on the CPU, and checks what it does.
//!
//! The text that nvcc wrote is parsed and run, one thread block after the other, so kernels are tested without a GPU:
//!
//! ```
//! use ptx_sim::{Arg, Launch, Memory, Module};
//!
//! let module = Module::parse(
//!     ".version 7.0 .target sm_75 .address_size 64
//!      .visible .entry twice(.param .u64 x) {
//!          .reg .b32 %r<3>; .reg .b64 %rd<3>;
//!          ld.param.u64 %rd0, [x];
//!          mov.u32 %r0, %tid.x;
//!          mul.wide.u32 %rd1, %r0, 4;
//!          add.s64 %rd2, %rd0, %rd1;
//!          ld.global.u32 %r1, [%rd2];
//!          add.s32 %r2, %r1, %r1;
//!          st.global.u32 [%rd2], %r2;
//!          ret;
//!      }",
//! )
//! .unwrap();
//! let mut memory = Memory::new();
//! let x = memory.alloc([1, 0, 0, 0, 21, 0, 0, 0]);
//! Launch::new(&module, "twice", 1, 2).run(&mut memory, &[Arg::U64(x)]).unwrap();
//! assert_eq!(memory.bytes(x, 8), [2, 0, 0, 0, 42, 0, 0, 0]);
//!
//! // A third thread has no element.
//! let fault = Launch::new(&module, "twice", 1, 3).run(&mut memory, &[Arg::U64(x)]).unwrap_err();
//! assert!(fault.to_string().contains("thread 2"));
//! ```
//!
//! # What is executed
//! Warps run in lockstep: lanes with the same next instruction run together, the lowest instruction first, and groups of lanes
//! merge where they meet. Instructions with `.sync` wait for the lanes that their mask names, as on GPUs since Volta. What a lane
//! may not rely on (the order of warps and blocks) can be turned round with [`Launch::reversed`].
//!
//! Only results that PTX defines to the last bit are computed. Instructions and modifiers that are unknown, `.approx`, `.ftz`,
//! additions that may be contracted and atomics on floats are errors when they are executed, never ignored. NaN results are
//! 0x7fffffff in `f32`; in `f64` they have the payload that the CPU gives them.
//!
//! # What is checked
//! * the bounds and alignment of each access; the nearest buffer is named;
//! * races in shared memory: accesses of two threads, one a write, that no barrier and no `bar.warp.sync` orders;
//! * shared memory that is read before it is written;
//! * barriers that some threads do not reach, or reach at another instruction, and deadlocks;
//! * `.sync` masks that lanes disagree on, or that name exited lanes;
//! * integer division by zero, traps, kernels that do not end.
//!
//! Races in global memory are not seen.

mod decode;
mod kind;
mod launch;
mod memory;
mod module;
mod number;
mod parse;
mod registers;
mod run;
mod step;
mod text;

pub use launch::{Arg, Fault, Launch, Place, Shape, Stats};
pub use memory::Memory;
pub use module::{Kernel, Module, Param};
pub use text::ParseError;

/// The instructions with their modifiers, like `add.rn.f32`, that the tests of this crate execute and compare with plain Rust.
///
/// Other ones may be executed, too, but nobody has looked whether that is right.
pub fn covered() -> std::collections::BTreeSet<&'static str> {
    include_str!("covered.txt").lines().collect()
}
