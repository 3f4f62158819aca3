//! The primitives of inference: the device gives the bits of the CPU, and both the product that they stand for.

mod common;

use common::{Sim, normal};
use quant_core::backend::numbers;
use quant_core::convert::{decode, encode};
use quant_core::scheme::Book;
use quant_core::{Dtype, Scheme};
use quant_cuda::run::inference::{FourBitWeights, Int8Weights, four_bit_gemv, four_bit_gemv_on_cpu, int8_matmul, int8_matmul_on_cpu};

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn same(a: &[f32], b: &[f32]) {
    assert_eq!(a.iter().map(|v| v.to_bits()).collect::<Vec<_>>(), b.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
}

/// ‖a − b‖/‖b‖.
fn error(a: &[f32], b: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - b)) / norm(&mut b.iter().copied())
}

fn product(x: &[f32], w: &[f32], k: usize) -> Vec<f64> {
    let row = |x: &[f32], w: &[f32]| x.iter().zip(w).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    x.chunks(k).flat_map(|x| w.chunks(k).map(move |w| row(x, w))).collect()
}

#[test]
fn int8_products_with_and_without_outliers() {
    for (m, n, k) in [(1, 1, 4), (3, 5, 64), (2, 7, 132), (5, 33, 256)] {
        for outliers in [0, 3] {
            let shape = [n as u64, k as u64];
            let parts = encode(Scheme::Int8, &shape, &normal(n * k, 3)).unwrap();
            let mut x: Vec<f32> = normal(m * k, 4).iter().map(|v| v * 8.0).collect();
            (0..outliers).for_each(|i| x[(i * 37) % (m * k)] = if i % 2 == 0 { 60.0 } else { -6.0 });
            let stored = encode(Scheme::Dense(Dtype::F16), &[x.len() as u64], &x).unwrap().remove(0);
            let scales = floats(&parts[1]);
            let weights = Int8Weights { codes: &parts[0], scales: &scales, columns: k };
            let wanted = int8_matmul_on_cpu(&stored, &weights).unwrap();
            for reversed in [false, true] {
                same(&int8_matmul(&mut Sim { reversed, ..Sim::new() }, &stored, &weights).unwrap(), &wanted);
            }
            let exact = product(&numbers(Dtype::F16, &stored), &decode(Scheme::Int8, &shape, &parts).unwrap(), k);
            // A sum of few products can be small beside them.
            let bound = if k < 64 { 0.2 } else { 0.02 };
            assert!(error(&wanted, &exact) < bound, "{m} {n} {k}: {}", error(&wanted, &exact));
        }
    }
    // What the decomposition is for: one large column does not spoil the others.
    let (k, mut x) = (256, normal(256, 1));
    x[7] = 1000.0;
    let stored = encode(Scheme::Dense(Dtype::F16), &[256], &x).unwrap().remove(0);
    let parts = encode(Scheme::Int8, &[8, 256], &normal(2048, 2)).unwrap();
    let scales = floats(&parts[1]);
    let y = int8_matmul_on_cpu(&stored, &Int8Weights { codes: &parts[0], scales: &scales, columns: k }).unwrap();
    let exact = product(&numbers(Dtype::F16, &stored), &decode(Scheme::Int8, &[8, 256], &parts).unwrap(), k);
    assert!(error(&y, &exact) < 1e-4);
}

#[test]
fn four_bit_products() {
    for (scheme, book, block) in [("nf4", Book::Nf4, 64), ("fp4:128", Book::Fp4, 128), ("nf4:32", Book::Nf4, 32)] {
        for (rows, columns) in [(1, 8), (3, 72), (5, 256), (9, 1000)] {
            let shape = [rows as u64, columns as u64];
            let parts = encode(scheme.parse().unwrap(), &shape, &normal(rows * columns, 5)).unwrap();
            let (absmax, x) = (floats(&parts[1]), normal(columns, 6));
            let weights = FourBitWeights { book, block, codes: &parts[0], absmax: &absmax, columns };
            let wanted = four_bit_gemv_on_cpu(&weights, &x).unwrap();
            for reversed in [false, true] {
                same(&four_bit_gemv(&mut Sim { reversed, ..Sim::new() }, &weights, &x).unwrap(), &wanted);
            }
            let exact = product(&x, &decode(scheme.parse().unwrap(), &shape, &parts).unwrap(), columns);
            assert!(error(&wanted, &exact) < 1e-5, "{scheme} {rows} {columns}");
        }
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let weights = Int8Weights { codes: &[0; 12], scales: &[1.0; 2], columns: 6 };
    assert!(int8_matmul(&mut Sim::new(), &[0; 12], &weights).is_err());
    let weights = FourBitWeights { book: Book::Nf4, block: 64, codes: &[0; 8], absmax: &[1.0], columns: 8 };
    assert!(four_bit_gemv(&mut Sim::new(), &weights, &[0.0; 7]).is_err());
    assert!(four_bit_gemv_on_cpu(&FourBitWeights { absmax: &[], ..weights }, &[0.0; 8]).is_err());
}
