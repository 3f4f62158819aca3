//! What kernels do wrong is found, and told with its place. Text that is no PTX is refused.

mod launches;
mod parser;

use ptx_sim::{Arg, Fault, Launch, Memory, Module};

const BUGS: &str = include_str!("bugs.ptx");

fn launch(kernel: &str, threads: u32, reversed: bool) -> Result<(), Fault> {
    let module = Module::parse(BUGS).unwrap();
    let mut memory = Memory::new();
    let ones: Vec<u8> = std::iter::repeat_n(1f32.to_le_bytes(), threads as usize).flatten().collect();
    let out = memory.alloc_named("out", ones);
    Launch::new(&module, kernel, 1, threads).reversed(reversed).run(&mut memory, &[Arg::U64(out)]).map(drop)
}

/// The kernel, its threads, the thread that is at fault, its instruction, and what is said.
const MISTAKES: [(&str, u32, u32, &str, &str); 10] = [
    ("missing_barrier", 256, 0, "ld.shared.f32", "uninitialised: shared address 0x3fc"),
    ("out_of_bounds", 256, 255, "st.global.u32", "offset 1024 of the buffer out of 1024 bytes"),
    ("exited_lane", 32, 24, "ret", "the lane exits, but other lanes wait for it at line"),
    ("divergent_barrier", 128, 100, "bar.sync", "other threads of the block wait at the barrier of line"),
    ("uninitialised", 256, 7, "ld.shared.f32", "shared address 0x1c was not written"),
    ("misaligned", 32, 0, "st.global.u32", "misaligned: global address"),
    ("missing_warp_sync", 32, 0, "ld.volatile.shared.f32", "race: shared address 0x40 was written by thread 16"),
    ("float_atomic", 32, 0, "global.add.f32", "order of threads"),
    ("approximate_function", 32, 0, ".approx", "an approximation"),
    ("approximate_division", 32, 0, "div.approx.f32", "an approximation"),
];

#[test]
fn each_mistake_is_found_where_it_is() {
    for (kernel, threads, thread, instruction, message) in MISTAKES {
        let fault = launch(kernel, threads, false).unwrap_err();
        let place = fault.place.unwrap();
        let line = BUGS.lines().nth(place.line as usize - 1).unwrap();
        assert!(line.contains(instruction), "{fault}: {line}");
        assert_eq!((fault.kernel.as_str(), place.block, place.thread), (kernel, [0; 3], [thread, 0, 0]), "{fault}");
        assert!(fault.message.contains(message), "{fault}");
        let place = format!("kernel {kernel}, block 0, thread {thread}, PTX line {}: ", place.line);
        assert!(fault.to_string().starts_with(&place), "{fault}");
        // In the other order, too, if perhaps in another thread.
        assert!(launch(kernel, threads, true).is_err());
    }
}

#[test]
fn a_kernel_without_mistakes_runs() {
    for reversed in [false, true] {
        launch("no_mistake", 256, reversed).unwrap();
    }
}
