//! Single tensors against what the real libraries gave: `goldens/bnb_functional.safetensors`, made by `peers/bnb_functional.py`.

use std::collections::BTreeMap;

use quant_core::aten::Mean;
use quant_core::codec::Fill;
use quant_core::convert::{decode, encode};
use quant_core::{Dtype, Scheme};
use quant_tests::here;
use safetensors::SafeTensors;
use serde_json::Value;

/// The golden file.
struct Golden {
    bytes: Vec<u8>,
}

impl Golden {
    fn load() -> Golden {
        Golden { bytes: std::fs::read(here("goldens/bnb_functional.safetensors")).unwrap() }
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    fn cases(&self) -> Vec<Value> {
        let (_, metadata) = SafeTensors::read_metadata(&self.bytes).unwrap();
        serde_json::from_str(&metadata.metadata().as_ref().unwrap()["cases"]).unwrap()
    }
}

fn floats(t: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let view = t.tensor(name).unwrap();
    let dtype: Dtype = format!("{}", view.dtype()).parse().unwrap();
    decode(Scheme::Dense(dtype), &[view.data().len() as u64 * 8 / dtype.bits()], &[view.data().to_vec()]).unwrap()
}

#[test]
fn every_scheme_gives_the_bytes_of_the_library() {
    let golden = Golden::load();
    let t = golden.tensors();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut subnormal = 0;
    for case in golden.cases() {
        let text = case["scheme"].as_str().unwrap();
        let scheme: Scheme = text.parse().unwrap();
        let shape: Vec<u64> = case["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).collect();
        let x = floats(&t, case["input"].as_str().unwrap());
        // The restatement of the CUDA kernels keeps subnormal inputs, which the GPU takes for zeros.
        if case["maker"] == "restatement" && x.iter().any(|v| v.is_subnormal()) {
            subnormal += 1;
            continue;
        }
        let parts = encode(scheme, &shape, &x).unwrap();
        let codec = scheme.codec(&shape).unwrap();
        let expected = case["parts"].as_object().unwrap();
        for (part, found) in codec.parts().iter().zip(&parts) {
            let Some(name) = expected.get(part.name).and_then(Value::as_str) else {
                assert!(matches!(part.fill, Fill::Whole { .. }), "{case}: {} is not in the golden", part.name);
                continue;
            };
            if t.tensor(name).unwrap().data() != found {
                wrong.push(format!("{} {text}: {}", case["case"], part.name));
            }
        }
        if let Some(name) = expected.get("decoded").and_then(Value::as_str) {
            let decoded = decode(scheme, &shape, &parts).unwrap();
            // The sign of a decoded zero differs between the library's own paths.
            if floats(&t, name).iter().zip(&decoded).any(|(a, b)| a != b) {
                wrong.push(format!("{} {text}: decoded", case["case"]));
            }
        }
        *seen.entry(text.split(['@', ':']).next().unwrap().into()).or_default() += 1;
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(seen.keys().map(String::as_str).collect::<Vec<_>>(), ["fp4", "fp4-dq", "int8", "int8-block", "nf4", "nf4-dq"]);
    assert_eq!((seen.values().sum::<u32>(), subnormal), (828, 19));
}

#[test]
fn the_mean_is_torchs() {
    let golden = Golden::load();
    let t = golden.tensors();
    let n: Vec<u64> = t.tensor("mean.n").unwrap().data().as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
    let bits: Vec<u32> = t.tensor("mean.bits").unwrap().data().as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    assert!(n.contains(&1_000_003) && n.len() > 48);
    let mut wrong = Vec::new();
    for (&n, &bits) in n.iter().zip(&bits) {
        let mut mean = Mean::new(n);
        (0..n).for_each(|i| mean.push(&[(i * 2_654_435_761 % 1009) as f32 * 0.37]));
        let found = mean.finish();
        if found.to_bits() != bits {
            wrong.push((n, found, f32::from_bits(bits)));
        }
    }
    assert_eq!(wrong, []);
}

#[test]
fn dense_conversions_are_torchs() {
    let golden = Golden::load();
    let t = golden.tensors();
    let x = floats(&t, "conv.in");
    for (name, scheme) in [("conv.f16", "f16"), ("conv.bf16", "bf16"), ("conv.e4m3fn", "f8_e4m3"), ("conv.e5m2", "f8_e5m2")] {
        let found = encode(scheme.parse().unwrap(), &[x.len() as u64], &x).unwrap();
        let expected = t.tensor(name).unwrap();
        let width = expected.data().len() / x.len();
        for (i, (a, b)) in found[0].chunks(width).zip(expected.data().chunks(width)).enumerate() {
            assert_eq!(a, b, "{name}: {:e}", x[i]);
        }
    }
    for (name, dtype) in [("conv.e4m3fn.to_f32", Dtype::F8E4M3), ("conv.e5m2.to_f32", Dtype::F8E5M2)] {
        let all: Vec<u8> = (0..=255).collect();
        let found = decode(Scheme::Dense(dtype), &[256], &[all]).unwrap();
        for (code, (a, b)) in found.iter().zip(floats(&t, name)).enumerate() {
            assert!(a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()), "{dtype} code {code}: {a} against {b}");
        }
    }
}
