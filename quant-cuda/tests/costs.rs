//! What kernels cost: instructions and bytes a weight, counted by the interpreter. A change of a kernel shows here; the model in
//! docs/performance.md is made of these figures.

mod common;

use common::{check_decode, check_encode, normal};
use quant_core::Dtype;
use quant_core::convert::encode;

/// Schemes with a kernel to encode; the others are only decoded.
const ENCODED: [&str; 22] = [
    "nf4",
    "nf4-dq",
    "fp4",
    "int8",
    "int8-block",
    "affine4",
    "affine8",
    "absmax4",
    "absmax8",
    "q4_0",
    "q4_1",
    "q5_0",
    "q5_1",
    "q8_0",
    "q2_k",
    "q3_k",
    "q4_k",
    "q5_k",
    "q6_k",
    "iq4_nl",
    "iq4_xs",
    "fp4-dq",
];
const DECODED: [&str; 13] = ["iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "tq1_0", "tq2_0", "mxfp4", "nvfp4", "q1_0", "q2_0"];

#[test]
fn instructions_and_bytes_a_weight() {
    let shape = [64, 1024];
    let n = 64 * 1024;
    let x = normal(n, 1);
    let of = |stats: &ptx_sim::Stats| {
        let per_weight = |count: u64| count as f64 / n as f64;
        format!("{:10.1} {:8.2} {:8.2}", per_weight(stats.lane_instructions), per_weight(stats.bytes_read), per_weight(stats.bytes_written))
    };
    let mut lines = vec![format!("{:<12} {:>28}   {:>28}", "", "encode from bf16", "decode to f32")];
    lines.push(format!("{:<12} {:>10} {:>8} {:>8}   {:>10} {:>8} {:>8}", "a weight", "instr.", "read", "written", "instr.", "read", "written"));
    for scheme in ENCODED.into_iter().chain(DECODED) {
        let encoded = match ENCODED.contains(&scheme) {
            true => of(&check_encode(scheme, &shape, &x, Dtype::BF16, None, 0, false).total()),
            false => format!("{:>28}", "on the CPU"),
        };
        let parts = if ENCODED.contains(&scheme) { encode(scheme.parse().unwrap(), &shape, &x).unwrap() } else { vec![blocks(scheme, n)] };
        let decoded = of(&check_decode(scheme, &shape, &parts, 0, n, false).total());
        lines.push(format!("{scheme:<12} {encoded}   {decoded}"));
    }
    insta::assert_snapshot!(lines.join("\n"));
}

/// Blocks of any bytes.
fn blocks(scheme: &str, n: usize) -> Vec<u8> {
    let codec = scheme.parse::<quant_core::Scheme>().unwrap().codec(&[64, n as u64 / 64]).unwrap();
    (0..codec.parts()[0].n_bytes()).map(|i| ((i * 7919) >> 5) as u8).collect()
}
