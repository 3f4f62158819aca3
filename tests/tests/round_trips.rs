//! There and back again, byte for byte: every scheme, every container, whatever the threads, the slabs and the way of reading.

use std::path::{Path, PathBuf};

use quant_core::backend::{SCHEMES, difficult};
use quant_core::convert::{decode, encode};
use quant_core::source::Source;
use quant_core::{Dtype, Scheme};
use quant_tests::made::{self, Made};
use quant_tests::{assert_same_folders, convert, here, quant_ok, sha256, tiny_llama};

/// Schemes that safetensors has a layout for.
const IN_SAFETENSORS: [&str; 8] = ["bf16", "f16", "f32", "nf4", "nf4-dq", "fp4:128", "fp4-dq@cpu", "int8"];

/// A file with weights of awkward shapes and every kind of other tensor.
fn odd_model(dir: &Path) -> PathBuf {
    let linear = |name: &str, shape: [u64; 2]| Made::bf16(name, &shape, &difficult((shape[0] * shape[1]) as usize));
    let path = dir.join("odd.safetensors");
    made::write(
        &path,
        &[
            Made::raw("flag", "BOOL", &[3], vec![0, 1, 2]),
            linear("a.weight", [33, 65]),
            Made::f32("b.weight", &[300, 7], &difficult(2100)),
            linear("c.weight", [3, 70_000]),
            Made::raw("empty.weight", "F16", &[0, 64], vec![]),
            Made::raw("ids", "I64", &[2], (0..16).collect()),
            Made::f32("scalar", &[], &[0.5]),
            linear("d.weight", [1, 1]),
        ],
    );
    path
}

#[test]
fn every_scheme_goes_into_bqt_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    for scheme in IN_SAFETENSORS {
        let direct = dir.path().join(format!("{scheme}-direct"));
        convert(&tiny_llama(), &direct, &["--type", scheme]);
        let (bqt, again) = (dir.path().join(format!("{scheme}.bqt")), dir.path().join(format!("{scheme}-again")));
        convert(&direct, &bqt, &[]);
        convert(&bqt, &again, &[]);
        assert_same_folders(&again, &direct);
        // Quantized into BQT first and into the layout of Hugging Face after.
        let (first, after) = (dir.path().join(format!("{scheme}-first.bqt")), dir.path().join(format!("{scheme}-after")));
        convert(&tiny_llama(), &first, &["--type", scheme]);
        convert(&first, &after, &[]);
        assert_same_folders(&after, &direct);
    }
}

#[test]
fn golden_models_go_into_bqt_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    for model in ["llama-sharded", "llama-tied", "gpt2", "bert-mlm", "mixtral", "llama-old"] {
        let (from, bqt, back) = (here("goldens/hf").join(model).join("dense"), dir.path().join(format!("{model}.bqt")), dir.path().join(model));
        convert(&from, &bqt, &[]);
        quant_ok(&["verify".as_ref(), bqt.as_os_str()]);
        convert(&bqt, &back, &[]);
        assert_same_folders(&back, &from);
    }
}

#[test]
fn a_sharded_quantized_model_comes_back_in_its_shards() {
    let dir = tempfile::tempdir().unwrap();
    let (sharded, bqt, back) = (dir.path().join("sharded"), dir.path().join("m.bqt"), dir.path().join("back"));
    convert(&tiny_llama(), &sharded, &["--type", "nf4-dq", "--max-shard-size", "300kB"]);
    let shards = std::fs::read_dir(&sharded).unwrap().filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("model-")).count();
    assert!(shards > 6, "2.7 MB in shards of 300 kB, two tensors of 524 kB apart: found {shards}");
    convert(&sharded, &bqt, &[]);
    convert(&bqt, &back, &[]);
    assert_same_folders(&back, &sharded);
    // Joined again it is what it would have been in one file.
    let (whole, joined) = (dir.path().join("whole"), dir.path().join("joined"));
    convert(&tiny_llama(), &whole, &["--type", "nf4-dq"]);
    convert(&sharded, &joined, &["--max-shard-size", "1GB"]);
    assert_same_folders(&joined, &whole);
}

#[test]
fn an_odd_file_comes_back_whatever_lies_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let from = odd_model(dir.path());
    let (bqt, back, copy) = (dir.path().join("odd.bqt"), dir.path().join("back.safetensors"), dir.path().join("copy.safetensors"));
    convert(&from, &bqt, &[]);
    convert(&bqt, &back, &[]);
    convert(&from, &copy, &[]);
    assert_eq!((sha256(&back), sha256(&copy)), (sha256(&from), sha256(&from)));
}

/// The numbers of a tensor of a checkpoint, and its shape.
fn numbers(path: &Path, name: &str) -> (Vec<u64>, Vec<f32>) {
    let checkpoint = quant_formats::open(path, quant_formats::Io::Read).unwrap();
    let (i, tensor) = checkpoint.tensors.iter().enumerate().find(|(_, t)| t.name == name).unwrap();
    let n_parts = tensor.scheme.codec(&tensor.shape).unwrap().parts().len();
    let read = |part: usize| {
        let mut bytes = vec![0; tensor.parts[part].n_bytes as usize];
        checkpoint.read(i, part, 0, &mut bytes).unwrap();
        bytes
    };
    let parts: Vec<Vec<u8>> = (0..n_parts).map(read).collect();
    (tensor.shape.clone(), decode(tensor.scheme, &tensor.shape, &parts).unwrap())
}

#[test]
fn a_transposed_weight_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let from = here("goldens/hf/gpt2/dense");
    for scheme in ["int8", "nf4", "nf4-dq"] {
        let (quantized, dense) = (dir.path().join(scheme), dir.path().join(format!("{scheme}-dense")));
        convert(&from, &quantized, &["--type", scheme]);
        convert(&quantized, &dense, &["--type", "f32", "--slab", "40"]);
        for name in ["transformer.h.0.attn.c_attn.weight", "transformer.h.0.mlp.c_proj.weight"] {
            let (source, (turned, q), (shape, x)) = (numbers(&from, name).0, numbers(&quantized, name), numbers(&dense, name));
            assert_eq!((&shape, [turned[1], turned[0]].as_slice()), (&source, source.as_slice()), "{scheme} {name}");
            let (rows, columns) = (shape[0] as usize, shape[1] as usize);
            assert!((0..rows * columns).all(|i| x[i] == q[i % columns * rows + i / columns]), "{scheme} {name}");
        }
        let text = std::fs::read_to_string(dense.join("config.json")).unwrap();
        assert!(!text.contains("quantization_config"), "{text}");
    }
}

#[test]
fn threads_slabs_and_ways_of_reading_make_no_difference() {
    let dir = tempfile::tempdir().unwrap();
    let from = odd_model(dir.path());
    for scheme in SCHEMES {
        let to = |name: &str| dir.path().join(format!("{}-{name}.bqt", scheme.replace(':', "_")));
        // A slab has so many elements: 1024 of f32 are 4 KiB, 2^20 are 4 MiB.
        let ways: [(&str, &[&str]); 4] = [
            ("plain", &[]),
            ("small", &["--slab", "1024", "--threads", "1"]),
            ("large", &["--slab", "1048576", "--threads", "4", "--io", "mmap"]),
            ("tiny", &["--slab", "8", "--threads", "2", "--io", "read", "--memory", "64MiB"]),
        ];
        let hashes = ways.map(|(name, options)| {
            let mut all = vec!["--type", scheme];
            all.extend(options);
            convert(&from, &to(name), &all);
            sha256(&to(name))
        });
        assert_eq!(hashes.iter().filter(|h| **h == hashes[0]).count(), 4, "{scheme}");
    }
}

#[test]
fn what_was_decoded_encodes_to_the_same() {
    // Exact where decoding gives a group's parameters back exactly: the greatest magnitude is a code's own value.
    // The others find parameters that may differ in the last bit, but not one code.
    let exact = ["f64", "f32", "f16", "bf16", "f8_e4m3", "f8_e5m2", "nf4", "nf4:4096", "nf4@cpu", "int8"];
    let codes = ["affine4", "affine3:16", "affine8:row", "affine5-zero:32", "affine2:tensor", "absmax8", "absmax7:row", "absmax2:4096"];
    let shape = [66, 97];
    let x: Vec<f32> = difficult(66 * 97).into_iter().map(|v| if v.abs() < 1e-6 { 0.0 } else { v }).collect();
    for (text, parts) in exact.iter().map(|t| (*t, usize::MAX)).chain(codes.iter().map(|t| (*t, 1))) {
        let scheme: Scheme = text.parse().unwrap();
        let first = encode(scheme, &shape, &x).unwrap();
        let decoded = decode(scheme, &shape, &first).unwrap();
        let second = encode(scheme, &shape, &decoded).unwrap();
        for (i, (a, b)) in first.iter().zip(&second).take(parts).enumerate() {
            assert!(a == b, "{text}, part {i}: {} of {} bytes differ", a.iter().zip(b).filter(|(a, b)| a != b).count(), a.len());
        }
    }
    // The dynamic map has no −1: only a block whose greatest number is positive finds its scale again.
    let (scheme, positive): (Scheme, Vec<f32>) = ("int8-block:64".parse().unwrap(), x.iter().map(|v| v.abs()).collect());
    let first = encode(scheme, &shape, &positive).unwrap();
    assert!(encode(scheme, &shape, &decode(scheme, &shape, &first).unwrap()).unwrap() == first);
    // FP4 has two codes for zero, so only the numbers stay.
    for text in ["fp4", "fp4:4096@cpu"] {
        let scheme: Scheme = text.parse().unwrap();
        let again = |x: &[f32]| decode(scheme, &shape, &encode(scheme, &shape, x).unwrap()).unwrap();
        assert_eq!(again(&again(&x)), again(&x), "{text}");
    }
}

#[test]
fn dense_types_hold_what_they_should() {
    let x = [0.0, -0.0, 1.0, -2.5, 65_504.0, 3.0e-8, f32::MAX, f32::INFINITY];
    let bf16 = encode(Scheme::Dense(Dtype::BF16), &[8], &x).unwrap();
    assert_eq!(bf16[0][..8], [0, 0, 0, 0x80, 0x80, 0x3f, 0x20, 0xc0]);
    let f64 = encode(Scheme::Dense(Dtype::F64), &[8], &x).unwrap();
    assert_eq!(f64[0][24..32], (-2.5f64).to_le_bytes());
}
