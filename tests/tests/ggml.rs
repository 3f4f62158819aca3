//! ggml's block types against what ggml itself gives: `goldens/ggml.safetensors`.

use std::collections::BTreeMap;

use quant_core::convert::{decode, encode_weighted};
use quant_core::ggml::Type;
use quant_core::{Dtype, Scheme};
use quant_tests::here;
use safetensors::SafeTensors;

const SHAPE: [u64; 2] = [32, 512];

/// The scheme of a golden entry: a block type, or f16 or bf16.
fn scheme(name: &str) -> Scheme {
    name.parse().unwrap()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    decode(Scheme::Dense(Dtype::F32), &[bytes.len() as u64 / 4], &[bytes.to_vec()]).unwrap()
}

/// The rows that differ.
fn differing(found: &[u8], expected: &[u8]) -> Vec<usize> {
    assert_eq!(found.len(), expected.len());
    let row = expected.len() / SHAPE[0] as usize;
    let differ = |i: &usize| found[i * row..][..row] != expected[i * row..][..row];
    (0..SHAPE[0] as usize).filter(differ).collect()
}

#[test]
fn every_golden_entry_is_equal() {
    let bytes = std::fs::read(here("goldens/ggml.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let data = |name: &str| golden.tensor(name).unwrap().data().to_vec();
    let x = floats(&data("x"));
    let importance: Vec<f32> = floats(&data("imatrix")).into_iter().cycle().take(x.len()).collect();
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    let mut wrong = Vec::new();
    for name in golden.names().into_iter().filter(|&name| name != "x" && name != "imatrix") {
        let expected = data(name);
        let (kind, rows) = match name.split_once('.') {
            None => ("quantized", differing(&encode_weighted(scheme(name), &SHAPE, &x, None).unwrap()[0], &expected)),
            Some((ty, "imatrix")) => ("quantized", differing(&encode_weighted(scheme(ty), &SHAPE, &x, Some(&importance)).unwrap()[0], &expected)),
            Some((ty, _)) => {
                let weighted = format!("{ty}.imatrix");
                let needs = ty.parse::<Type>().is_ok() && golden.tensor(ty).is_err();
                let blocks = data(if needs { &weighted } else { ty });
                let numbers = decode(scheme(ty), &SHAPE, &[blocks]).unwrap();
                ("dequantized", differing(&numbers.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>(), &expected))
            }
        };
        *seen.entry(kind).or_default() += 1;
        if !rows.is_empty() {
            wrong.push(format!("{name}: rows {rows:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(seen, BTreeMap::from([("quantized", 46), ("dequantized", 27)]));
}
