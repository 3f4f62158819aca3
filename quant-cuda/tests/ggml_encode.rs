//! Encoding of ggml's block types: the kernels' blocks are those of the codecs.

mod common;

use common::{Sim, check_encode, encode_on, normal};
use quant_core::Dtype;
use quant_core::backend::difficult;

const TYPES: [&str; 12] = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs"];

fn len(shape: &[u64]) -> usize {
    shape.iter().product::<u64>() as usize
}

fn importance(n: usize) -> Vec<f32> {
    normal(n, 77).iter().map(|v| v * v * 100.0).collect()
}

#[test]
fn all_types_with_and_without_importance() {
    for ty in TYPES {
        for (i, shape) in [&[3u64, 512][..], &[2, 2, 256], &[1, 256 * 9], &[0, 256]].into_iter().enumerate() {
            let x = normal(len(shape), i as u64);
            for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
                check_encode(ty, shape, &x, dtype, None, 0, i % 2 == 1);
            }
            check_encode(ty, shape, &x, Dtype::F32, Some(&importance(x.len())), 0, i % 2 == 0);
        }
    }
}

/// Ordinary, constant, zero, tiny, large and tied numbers, and blocks of one edge each.
#[test]
fn difficult_numbers() {
    let mut x = difficult(256 * 24);
    let mut state = 5u32;
    let mut random = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    for scale in [0.0, 1e-45, 1e-40, 1e-38, 1e-20, 9e-16, 1.1e-15, 1e-6, 6e-5, 1.0, 1000.0] {
        x.extend((0..256).map(|_| random() * scale));
        x.extend((0..256).map(|i| if i % 32 == 7 { -scale } else { 0.0 }));
        x.extend((0..256).map(|i| if i % 2 == 0 { scale } else { -scale }));
        x.extend([scale; 256]);
        x.extend([-scale; 256]);
        x.extend((0..256).map(|i| (i % 16) as f32 * scale));
        x.extend((0..256).map(|i| if i < 128 { 0.0 } else { random() * scale }));
    }
    x.extend((0..256).map(|i| if i % 3 == 0 { -0.0 } else { 0.0 }));
    x.extend((0..256).map(|i| (random() * 7.5).round() + if i % 5 == 0 { 0.5 } else { 0.0 }));
    x.extend((0..256).map(|_| 10f32.powi((random() * 30.0) as i32)).map(|v| v.min(60_000.0)));
    let shape = [x.len() as u64 / 256, 256];
    let h: Vec<f32> = importance(x.len()).iter().enumerate().map(|(i, v)| if i % 11 == 0 || i / 256 % 9 == 0 { 0.0 } else { *v }).collect();
    for ty in TYPES {
        check_encode(ty, &shape, &x, Dtype::F32, None, 0, false);
        check_encode(ty, &shape, &x, Dtype::F32, Some(&h), 0, true);
    }
}

/// Scales at the edge of f16: done where the codec does them, refused where it refuses.
#[test]
fn scales_that_overflow_are_refused() {
    for ty in TYPES {
        let mut done = 0;
        for scale in [3e4, 1e5, 1e6, 1e7, 1e8, 1e9, 3e38] {
            let x: Vec<f32> = normal(256, 4).iter().map(|v| v * 4.0 * scale).collect();
            let h = importance(256);
            for importance in [None, Some(&h[..])] {
                let codec = ty.parse::<quant_core::Scheme>().unwrap().codec_of(&[1, 256], importance.is_some()).unwrap();
                let known = quant_core::codec::Known::Nothing;
                let slab = quant_core::codec::Slab { known: &known, at: 0, importance };
                let is_fit = codec.encode(&slab, &mut x.clone(), &mut [Vec::new()]).is_ok();
                let refused = encode_on(&mut Sim::new(), ty, &[1, 256], &x, Dtype::F32, importance, 0);
                assert_eq!(refused == 0, is_fit, "{ty} {scale}");
                done += usize::from(is_fit);
            }
        }
        assert!(done > 0 && done < 14, "{ty}: {done}");
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = normal(512, 1);
            x[301] = bad;
            assert_eq!(encode_on(&mut Sim::new(), ty, &[1, 512], &x, Dtype::F32, None, 0), 1, "{ty}");
        }
    }
}

/// Slabs of some blocks, and the mean squares of rows that are longer than a slab.
#[test]
fn slabs() {
    let x = normal(4 * 768, 8);
    let h = importance(x.len());
    for ty in TYPES {
        check_encode(ty, &[4, 768], &x, Dtype::BF16, None, 256, false);
        check_encode(ty, &[4, 768], &x, Dtype::BF16, Some(&h), 256, false);
        check_encode(ty, &[4, 768], &x, Dtype::F32, Some(&h), 1536, true);
    }
}

/// The bytes that ggml itself made.
#[test]
fn goldens() {
    let goldens = common::ggml_goldens();
    let x = goldens.floats("x");
    let h: Vec<f32> = goldens.floats("imatrix").into_iter().cycle().take(x.len()).collect();
    let mut compared = Vec::new();
    for ty in TYPES {
        for (name, importance) in [(ty.to_owned(), None), (format!("{ty}.imatrix"), Some(&h[..]))] {
            let Some(wanted) = goldens.bytes(&name) else { continue };
            let mut sim = Sim::new();
            let blocks = common::encode_once(&mut sim, ty, &[32, 512], &x, importance);
            assert!(blocks == wanted, "{name}");
            compared.push(name);
        }
    }
    // Q8_0 looks at no importance.
    assert_eq!(compared.len(), 24, "{compared:?}");
}
