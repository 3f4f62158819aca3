//! bitsandbytes' schemes and linear quantization: the kernels' bytes are those of the codecs.

mod common;

use common::{Sim, check_decode, check_encode, encode_on, normal};
use quant_core::Dtype;
use quant_core::backend::difficult;
use quant_core::convert::encode;

const SCHEMES: [&str; 26] = [
    "nf4",
    "nf4:32",
    "nf4:4096@cpu",
    "nf4@cpu",
    "fp4",
    "fp4:128",
    "fp4@cpu",
    "nf4-dq:32",
    "nf4-dq@cpu",
    "fp4-dq",
    "fp4-dq:32@cpu",
    "int8",
    "int8-block:64",
    "int8-block",
    "int8-block:32@cpu",
    "affine2:tensor",
    "affine3:16",
    "affine4",
    "affine5-zero:32",
    "affine6:row",
    "affine7-zero:row",
    "affine8:row",
    "absmax2:4096",
    "absmax3:tensor",
    "absmax5:row",
    "absmax8",
];

const SHAPES: [&[u64]; 7] = [&[64, 96], &[7, 9], &[1, 5000], &[3], &[1], &[2, 3, 65], &[0, 8]];

fn len(shape: &[u64]) -> usize {
    shape.iter().product::<u64>() as usize
}

#[test]
fn all_schemes_in_awkward_shapes() {
    for scheme in SCHEMES {
        for (i, shape) in SHAPES.into_iter().enumerate() {
            for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
                check_encode(scheme, shape, &normal(len(shape), i as u64), dtype, None, 0, i % 2 == 1);
            }
        }
    }
}

#[test]
fn difficult_numbers() {
    let mut refused = Vec::new();
    for scheme in SCHEMES {
        for shape in [&[64u64, 96][..], &[9, 97], &[1, 700]] {
            let mut sim = Sim::new();
            if encode_on(&mut sim, scheme, shape, &difficult(len(shape)), Dtype::F32, None, 0) > 0 {
                refused.push(scheme);
            }
        }
    }
    assert!(refused.is_empty(), "{refused:?}");
}

/// Numbers at and beside the thresholds, ties, zeros, subnormal and huge numbers, one block each.
#[test]
fn edges() {
    let tiny = f32::MIN_POSITIVE;
    let mut x: Vec<f32> = Vec::new();
    let mut block = |values: &[f32]| {
        let mut block = [0.0; 64];
        block[..values.len()].copy_from_slice(values);
        x.extend(block);
    };
    let tables = quant_core::tables::all();
    for table in ["NF4_CUDA", "NF4_CPU", "FP4_CUDA", "FP4_CPU"] {
        let quant_core::tables::Items::F32(bits) = &tables.iter().find(|t| t.name == table).unwrap().items else { panic!("{table}") };
        let mut values = vec![1.0];
        values.extend(bits.iter().map(|&b| f32::from_bits(b)).flat_map(|t| [t, t.next_up(), t.next_down()]));
        block(&values);
        block(&values.iter().map(|v| v * 3.7e-5).collect::<Vec<_>>());
    }
    let quant_core::tables::Items::F32(midpoints) = &tables.iter().find(|t| t.name == "DYNAMIC8_MIDPOINTS").unwrap().items else {
        panic!("no table")
    };
    for some in midpoints.chunks(20) {
        let mut values = vec![1.0];
        values.extend(some.iter().map(|&b| f32::from_bits(b)).flat_map(|t| [t, t.next_up(), t.next_down()]));
        block(&values);
    }
    for v in [tiny, tiny / 2.0, 1e-45, 3e-39, 1e-38, 3e38, f32::MAX, 1.0] {
        block(&[v, -v, v / 2.0, v / 3.0, -v / 5.0, v.next_down()]);
        block(&[-v; 64]);
        block(&[v; 64]);
    }
    block(&(0..64).map(|i| i as f32 - 32.0).collect::<Vec<_>>());
    block(&(0..64).map(|i| (i as f32 - 32.0) / 2.0).collect::<Vec<_>>());
    block(&[0.0; 64]);
    let shape = [x.len() as u64 / 64, 64];
    for scheme in ["nf4", "nf4@cpu", "fp4", "fp4@cpu", "int8-block:64", "int8-block:64@cpu", "absmax8", "absmax4", "absmax2"] {
        check_encode(scheme, &shape, &x, Dtype::F32, None, 0, false);
    }
    // A range that overflows f32 is refused by the codec too; everything else is done.
    for (i, row) in x.chunks(64).enumerate() {
        for scheme in ["affine4", "affine8-zero", "int8", "nf4-dq", "fp4-dq@cpu"] {
            let is_refused = encode_on(&mut Sim::new(), scheme, &[1, 64], row, Dtype::F32, None, 0) == 1;
            let greatest = row.iter().fold(0f32, |m, v| m.max(v.abs()));
            let is_large = greatest >= if scheme == "int8" { 65_520.0 } else { 1e38 };
            assert!(!is_refused || is_large, "{scheme} row {i}");
        }
    }
}

/// Slabs of groups longer than a slab, and of whole granules.
#[test]
fn slabs() {
    let x = normal(96 * 640, 3);
    for (scheme, slab) in [("int8", 200), ("affine4:row", 328), ("absmax3:row", 312), ("affine6:tensor", 1000), ("absmax8:tensor", 8), ("int8", 640)]
    {
        let rows = if slab == 8 { 1 } else { 6 };
        check_encode(scheme, &[rows, 640], &x[..rows as usize * 640], Dtype::BF16, None, slab, false);
    }
    for (scheme, slab) in [("nf4", 640), ("nf4-dq:32", 8192), ("affine3:16", 160), ("int8-block:64", 64)] {
        check_encode(scheme, &[96, 640], &x, Dtype::F32, None, slab, true);
    }
}

/// Of two zeros none is the least: groups of both give the same bytes in any slabs, and on the GPU.
#[test]
fn zeros_of_both_signs() {
    let x: Vec<f32> = (0..2000).map(|i| [0.0, -0.0, 0.5, 0.25][i * i % 4] * if i > 900 { 0.0 } else { 1.0 }).collect();
    for scheme in ["affine4", "affine3-zero:16", "affine8:row", "affine4:tensor"] {
        for slab in [0, 320, 640] {
            check_encode(scheme, &[2, 1000], &x, Dtype::F32, None, slab, slab == 320);
        }
    }
    let negative: Vec<f32> = x.iter().map(|v| -v.abs()).collect();
    check_encode("affine4", &[2, 1000], &negative, Dtype::F32, None, 0, false);
}

#[test]
fn outlier_columns_are_counted() {
    let mut x = normal(64 * 300, 9);
    for i in [5, 700, 701, 5000, 19_199] {
        x[i] = if i % 2 == 0 { 6.0 } else { -7.5 };
    }
    x[9] = 5.999;
    let sim = check_encode("int8", &[64, 300], &x, Dtype::F32, None, 0, false);
    assert!(sim.total().opcodes.keys().any(|opcode| opcode.contains("or.b32")));
    // Columns beyond the limit count as one.
    let n = 1 << 20 | 40;
    let mut x = vec![0.25; n];
    (x[n - 1], x[n - 30], x[3]) = (8.0, 9.0, -6.0);
    check_encode("int8", &[1, n as u64], &x, Dtype::F16, None, 0, false);
}

#[test]
fn what_the_codec_refuses_is_refused() {
    for scheme in SCHEMES {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = normal(640, 1);
            x[333] = bad;
            assert_eq!(encode_on(&mut Sim::new(), scheme, &[2, 320], &x, Dtype::F32, None, 0), 1, "{scheme} {bad}");
        }
    }
    let mut x = normal(640, 1);
    x[0] = 65_520.0;
    assert_eq!(encode_on(&mut Sim::new(), "int8", &[2, 320], &x, Dtype::F32, None, 0), 1);
    x[0] = 65_519.0;
    check_encode("int8", &[2, 320], &x, Dtype::F32, None, 0, false);
}

#[test]
fn decoding() {
    for scheme in SCHEMES {
        for shape in SHAPES {
            let n = len(shape);
            let parts = encode(scheme.parse().unwrap(), shape, &normal(n, 5)).unwrap();
            check_decode(scheme, shape, &parts, 0, n, false);
            for (at, n) in [(8, n.saturating_sub(8)), (16, n.saturating_sub(16) / 2), (64, n.saturating_sub(64) / 3)] {
                check_decode(scheme, shape, &parts, at, n, true);
            }
        }
    }
    // Any bytes decode to something.
    for scheme in SCHEMES {
        let shape = [16, 640];
        let mut parts = encode(scheme.parse().unwrap(), &shape, &normal(16 * 640, 6)).unwrap();
        let mut state = 1u32;
        for byte in parts.iter_mut().flatten() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        check_decode(scheme, &shape, &parts, 640, 5000, false);
    }
}

/// The numbers that bitsandbytes was asked to quantize, for the goldens, in the types that they were given in.
#[test]
fn numbers_of_the_goldens() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/bnb_functional.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let cases: serde_json::Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["cases"]).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let (mut done, mut refused) = (0, Vec::new());
    for case in cases.as_array().unwrap() {
        let (scheme, shape) = (case["scheme"].as_str().unwrap(), case["shape"].as_array().unwrap());
        let shape: Vec<u64> = shape.iter().map(|extent| extent.as_u64().unwrap()).collect();
        let stored = tensors.tensor(case["input"].as_str().unwrap()).unwrap();
        let dtype: Dtype = stored.dtype().to_string().parse().unwrap();
        let x = quant_core::backend::numbers(dtype, stored.data());
        match encode_on(&mut Sim::new(), scheme, &shape, &x, dtype, None, 0) {
            0 => done += 1,
            _ => refused.push(format!("{} {scheme}", case["case"])),
        }
        let parts = encode(scheme.parse().unwrap(), &shape, &x).unwrap();
        check_decode(scheme, &shape, &parts, 0, x.len(), false);
    }
    assert_eq!((done, refused), (847, Vec::new()));
}
