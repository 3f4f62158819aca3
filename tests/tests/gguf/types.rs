//! Every type of ggml on short rows and on rows longer than a slab: the bytes depend neither on threads nor on slabs nor on the
//! way of reading, and are those that encoding the whole tensor gives.

use std::path::Path;

use quant_core::convert::encode_weighted;
use quant_core::ggml::Type;
use quant_core::{Dtype, Scheme};
use quant_tests::{convert, quant, sha256};

use crate::made::{Gguf, imatrix, open, stored, weights};

const SHORT: (&str, [u64; 2]) = ("blk.0.ffn_up.weight", [24, 512]);
/// Rows longer than the 65 536 elements of a slab by default.
const LONG: (&str, [u64; 2]) = ("blk.0.ffn_down.weight", [2, 66_560]);
/// Rows longer than any slab: with importance, the types of 4 and 5 bits need the sum of a whole row, which is scanned first.
const ENDLESS: (&str, [u64; 2]) = ("blk.0.ffn_up.weight", [2, (1 << 20) + 64]);

/// Numbers of a tensor, and the importance of its columns.
fn data(shape: [u64; 2]) -> (Vec<f32>, Vec<f32>) {
    let importance = weights(shape[1] as usize, 7).into_iter().map(|v| v * v * 1e4).collect();
    (weights((shape[0] * shape[1]) as usize, shape[0] as u32), importance)
}

fn make(model: &Path, matrix: &Path, tensors: &[(&str, [u64; 2])]) {
    let mut file = Gguf::llama();
    tensors.iter().for_each(|(name, shape)| file.f32(name, shape, &data(*shape).0));
    file.write(model);
    let entries: Vec<_> = tensors.iter().map(|(name, shape)| (*name, data(*shape).1)).collect();
    imatrix(matrix, &entries);
}

/// The bytes that a tensor should have.
fn expected(scheme: Scheme, shape: [u64; 2], weighted: bool) -> Vec<u8> {
    let (x, importance) = data(shape);
    let each: Vec<f32> = importance.iter().copied().cycle().take(x.len()).collect();
    encode_weighted(scheme, &shape, &x, weighted.then_some(&each[..])).unwrap().remove(0)
}

#[test]
fn threads_slabs_and_ways_of_reading_make_no_difference() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (model, matrix) = (path("model.gguf"), path("imatrix.dat"));
    make(&model, &matrix, &[SHORT, LONG]);
    let ways: [&[&str]; 3] = [
        &["--threads", "2"],
        &["--threads", "1", "--slab", "256", "--io", "mmap"],
        &["--threads", "2", "--slab", "4096", "--io", "read", "--memory", "8MiB"],
    ];
    let mut n = 0;
    for ty in Type::all() {
        let rule = format!(".*={ty}");
        // Without importance as a plain rule, with it as part of a mix.
        let plain = vec!["--force", "--tensor-type", &rule];
        let mixed = [&plain[..], &["--type", "q8_0", "--imatrix", matrix.to_str().unwrap()]].concat();
        for (options, weighted) in [(plain, false), (mixed, true)] {
            if !weighted && ty.needs_importance() {
                continue;
            }
            let hashes = ways.map(|way| {
                let out = path("out.gguf");
                convert(&model, &out, &[&options[..], way].concat());
                sha256(&out)
            });
            assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{ty}, importance: {weighted}");
            let found = open(&path("out.gguf"));
            for (name, shape) in [SHORT, LONG] {
                let (scheme, _, parts) = stored(&found, name);
                assert_eq!(scheme, Scheme::Ggml(ty), "{name}");
                assert!(parts[0] == expected(scheme, shape, weighted), "{ty}, importance: {weighted}, {name}");
            }
            n += 1;
        }
    }
    assert_eq!(n, 25 + 22);
}

#[test]
fn rows_longer_than_any_slab_are_scanned() {
    let dir = tempfile::tempdir().unwrap();
    let (model, matrix, out) = (dir.path().join("model.gguf"), dir.path().join("imatrix.dat"), dir.path().join("out.gguf"));
    make(&model, &matrix, &[ENDLESS]);
    for (ty, way) in [
        ("q4_0", &["--threads", "2", "--io", "mmap"][..]),
        ("q4_1", &["--threads", "1"]),
        ("q5_0", &["--threads", "2", "--slab", "1024"]),
        ("q5_1", &["--threads", "2", "--slab", "99999", "--memory", "8MiB"]),
    ] {
        let options = ["--force", "--pure", "--type", ty, "--imatrix", matrix.to_str().unwrap()];
        convert(&model, &out, &[&options, way].concat());
        let (scheme, shape, parts) = stored(&open(&out), ENDLESS.0);
        assert_eq!((scheme.to_string().as_str(), &shape[..]), (ty, &ENDLESS.1[..]));
        assert!(parts[0] == expected(scheme, ENDLESS.1, true), "{ty}");
    }
}

#[test]
fn types_that_need_importance_are_refused_without() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (dir.path().join("model.gguf"), dir.path().join("out.gguf"));
    make(&model, &dir.path().join("imatrix.dat"), &[SHORT]);
    let refusals = |options: &[&str]| -> Vec<&str> {
        let is_refused = |ty: &Type| {
            let rule = format!(".*={ty}");
            let mut args = vec!["convert".as_ref(), model.as_os_str(), out.as_os_str(), "--tensor-type".as_ref(), std::ffi::OsStr::new(&rule)];
            args.extend(options.iter().map(std::ffi::OsStr::new));
            let done = quant(&[&args[..], &["--dry-run".as_ref()]].concat());
            let text = String::from_utf8(done.stderr).unwrap();
            let reason = format!("{ty} needs the importance of its columns");
            assert!(done.status.success() || (done.status.code() == Some(2) && text.contains(&reason)), "{text}");
            !done.status.success()
        };
        Type::all().filter(is_refused).map(Type::name).collect()
    };
    assert_eq!(refusals(&[]), ["iq2_xxs", "iq2_xs", "iq1_s"]);
    // llama-quantize asks for it where it is only better.
    assert_eq!(refusals(&["--type", "q8_0"]), ["iq2_xxs", "iq2_xs", "iq3_xxs", "iq1_s", "iq2_s", "iq1_m"]);
}

#[test]
fn importance_makes_a_difference() {
    // Else the test above could pass without it.
    let differs = |ty: &Type| expected(Scheme::Ggml(*ty), LONG.1, true) != expected(Scheme::Ggml(*ty), LONG.1, false);
    let same: Vec<&str> = Type::all().filter(|ty| !ty.needs_importance()).filter(|ty| !differs(ty)).map(Type::name).collect();
    assert_eq!(same, ["q8_0", "tq1_0", "tq2_0", "mxfp4", "nvfp4", "q1_0", "q2_0"]);
}

#[test]
fn dense_types_are_made_in_slabs_too() {
    let dir = tempfile::tempdir().unwrap();
    let (model, matrix, out) = (dir.path().join("model.gguf"), dir.path().join("imatrix.dat"), dir.path().join("out.gguf"));
    make(&model, &matrix, &[SHORT, LONG]);
    for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32] {
        let scheme = Scheme::Dense(dtype);
        convert(&model, &out, &["--type", &scheme.to_string(), "--force", "--slab", "256"]);
        for (name, shape) in [SHORT, LONG] {
            assert!(stored(&open(&out), name) == (scheme, shape.to_vec(), vec![expected(scheme, shape, false)]), "{scheme}, {name}");
        }
    }
}
