//! Bugs that are planted into kernels are found: see `bugs/bugs.cu`. Each is caught by the interpreter, or by its bytes.

use std::sync::LazyLock;

use ptx_sim::{Arg, Launch, Memory, Module};
use quant_core::Scheme;
use quant_core::backend::difficult;
use quant_core::codec::{Known, Slab};
use quant_core::ggml::Type;

static BUGS: LazyLock<Module> = LazyLock::new(|| Module::parse(include_str!("bugs/bugs.ptx")).unwrap());

/// How a bug is found.
#[derive(Debug, PartialEq)]
enum Caught {
    /// The interpreter stops, and says so.
    Fault(&'static str),
    /// The bytes are not those of quant-core.
    Bytes,
}

use Caught::{Bytes, Fault};

const Q8_BUGS: [(&str, Caught); 8] = [
    ("q8_ties_to_even", Bytes),
    ("q8_fused", Bytes),
    ("q8_approximate", Fault("approx")),
    ("q8_truncated_f16", Bytes),
    ("q8_off_by_one", Fault("the nearest one")),
    ("q8_misaligned", Fault("aligned")),
    ("q8_exited", Fault("exited")),
    ("q8_short_maximum", Bytes),
];

const Q1_BUGS: [(&str, Caught); 7] = [
    ("q1_no_barrier", Fault("race")),
    // A race, or uninitialised, as the warps take turns.
    ("q1_no_last_barrier", Fault("shared address")),
    ("q1_uninitialised", Fault("uninitialised")),
    ("q1_divergent_barrier", Fault("barrier")),
    ("q1_sum_in_pairs", Bytes),
    ("q1_float_atomic", Fault("atom")),
    ("q1_strict_sign", Bytes),
];

/// Numbers for either type: ordinary ones, zeros, and those that show how a kernel rounds.
fn numbers() -> Vec<f32> {
    let mut x = difficult(31 * 128);
    // Quotients of q8_0 that are ties, or one bit away from ties.
    for (block, greatest) in x[..16 * 32].chunks_mut(32).zip((0..).map(|i| 127.0 + 0.37 * i as f32)) {
        let d = greatest / 127.0;
        block.iter_mut().enumerate().for_each(|(i, v)| *v = (2.5 + 3.0 * i as f32) * d);
        block[0] = greatest;
    }
    // The mean of q1_0 is a tie of f16 if each small number is lost by itself.
    x.push(128.0625);
    x.extend([f32::exp2(-17.0); 127]);
    x
}

/// What quant-core makes of the numbers.
fn expected(ty: Type, x: &[f32]) -> Vec<u8> {
    let codec = Scheme::Ggml(ty).codec(&[x.len() as u64]).unwrap();
    let mut out = vec![Vec::new()];
    codec.encode(&Slab::new(&Known::Nothing, 0), &mut x.to_vec(), &mut out).unwrap();
    out.remove(0)
}

/// What a kernel makes of them.
fn found(kernel: &str, ty: Type, x: &[f32], reversed: bool) -> Result<Vec<u8>, String> {
    let n_blocks = (x.len() as u64 / ty.block_len()) as usize;
    let mut memory = Memory::new();
    let input: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
    let input = Arg::U64(memory.alloc(input));
    let len = n_blocks * ty.block_bytes() as usize;
    let out = memory.alloc(vec![0; len]);
    let args = if ty == Type::Q8_0 { vec![input, Arg::U32(n_blocks as u32), Arg::U64(out)] } else { vec![input, Arg::U64(out)] };
    // A warp more than there are blocks.
    let grid = if ty == Type::Q8_0 { n_blocks as u32 / 4 + 1 } else { n_blocks as u32 };
    let launch = Launch::new(&BUGS, kernel, grid, 128).reversed(reversed);
    launch.run(&mut memory, &args).map_err(|fault| fault.to_string())?;
    Ok(memory.bytes(out, len).to_vec())
}

/// Runs the kernel without a bug, and those with one.
fn check(ty: Type, good: &str, bugs: &[(&str, Caught)]) {
    let x = numbers();
    let expected = expected(ty, &x);
    for reversed in [false, true] {
        assert!(found(good, ty, &x, reversed).unwrap() == expected, "{good}");
        let mut wrong = Vec::new();
        for (kernel, caught) in bugs {
            let found = found(kernel, ty, &x, reversed).map(|bytes| bytes == expected);
            let is_caught = match (&found, caught) {
                (Ok(same), Bytes) => !same,
                (Err(fault), Fault(text)) => fault.contains(text),
                _ => false,
            };
            if !is_caught {
                wrong.push(format!("{kernel}: {found:?} instead of {caught:?}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn bugs_of_a_warp_are_caught() {
    check(Type::Q8_0, "q8_good", &Q8_BUGS);
}

#[test]
fn bugs_of_a_block_are_caught() {
    check(Type::Q1_0, "q1_good", &Q1_BUGS);
}

#[test]
fn every_kernel_of_the_file_is_tried() {
    let tried = Q8_BUGS.iter().chain(&Q1_BUGS).map(|(kernel, _)| *kernel).chain(["q8_good", "q1_good"]);
    let mut tried: Vec<_> = tried.collect();
    let mut there: Vec<_> = BUGS.kernels().iter().map(|kernel| kernel.name()).collect();
    tried.sort_unstable();
    there.sort_unstable();
    assert_eq!(tried, there);
}
