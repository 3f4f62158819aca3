//! Between GGUF and safetensors: names and shapes stay, and the numbers are those that decoding and encoding give.

use std::path::Path;

use quant_core::convert::{decode, encode};
use quant_core::{Dtype, Scheme};
use quant_tests::{convert, here, refused, tiny_llama};

use crate::made::{names, numbers, open, stored};

/// Asserts that every tensor of `to` has the bytes that its scheme makes of the numbers in `from`; how many have the given one.
fn assert_encoded(from: &Path, to: &Path, scheme: &str) -> usize {
    let (from, to, scheme): (_, _, Scheme) = (open(from), open(to), scheme.parse().unwrap());
    assert_eq!(names(&from), names(&to));
    let check = |name: &str| {
        let (found, shape, parts) = stored(&to, name);
        let (before, shape_before, parts_before) = stored(&from, name);
        assert_eq!(shape, shape_before, "{name}");
        let x = decode(before, &shape, &parts_before).unwrap();
        let expected = if found == before { parts_before } else { encode(found, &shape, &x).unwrap() };
        assert!(parts == expected, "{name}: {found} from {before}");
        found == scheme
    };
    names(&to).into_iter().filter(|name| check(name)).count()
}

#[test]
fn blocks_of_ggml_become_dense_in_safetensors() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let from = path("q4_k_m.gguf");
    convert(&here("data/tiny-llama.gguf"), &from, &["--type", "q4_k_m"]);
    for scheme in ["f32", "bf16", "f16"] {
        let to = path(&format!("{scheme}.safetensors"));
        convert(&from, &to, &["--type", scheme]);
        assert_eq!(assert_encoded(&from, &to, scheme), 39, "{scheme}");
    }
    // The numbers of the blocks, without a step between.
    let (blocks, dense) = (open(&from), open(&path("f32.safetensors")));
    let name = "blk.1.ffn_down.weight";
    assert!(matches!(stored(&blocks, name).0, Scheme::Ggml(_)));
    assert_eq!(stored(&dense, name).0, Scheme::Dense(Dtype::F32));
    assert_eq!(numbers(&dense, name), numbers(&blocks, name));
}

#[test]
fn safetensors_become_gguf_and_dense_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let from = tiny_llama().join("model.safetensors");
    convert(&from, &path("q8_0.gguf"), &["--type", "q8_0"]);
    assert_eq!(assert_encoded(&from, &path("q8_0.gguf"), "q8_0"), 30);
    convert(&path("q8_0.gguf"), &path("back.safetensors"), &["--type", "bf16"]);
    assert_eq!(assert_encoded(&path("q8_0.gguf"), &path("back.safetensors"), "bf16"), 39);
    // Without a type, GGUF holds what safetensors held, and gives it back.
    convert(&from, &path("same.gguf"), &[]);
    convert(&path("same.gguf"), &path("same.safetensors"), &[]);
    assert_eq!(assert_encoded(&from, &path("same.safetensors"), "bf16"), 39);
}

#[test]
fn layouts_of_bitsandbytes_become_blocks_and_the_other_way_round() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for scheme in ["nf4", "nf4-dq", "int8"] {
        let from = path(&format!("{scheme}.safetensors"));
        convert(&tiny_llama().join("model.safetensors"), &from, &["--type", scheme]);
        for to in ["q8_0", "f16"] {
            let (mut options, out) = (vec!["--type", to], path(&format!("{scheme}-{to}.gguf")));
            if to == "q8_0" {
                options.push("--allow-requantize");
            }
            convert(&from, &out, &options);
            assert_eq!(assert_encoded(&from, &out, to), 30, "{scheme} {to}");
        }
    }
    let gguf = path("q6_k.gguf");
    convert(&here("data/tiny-llama.gguf"), &gguf, &["--type", "q6_k"]);
    for scheme in ["nf4", "int8"] {
        let out = path(&format!("from-gguf-{scheme}.safetensors"));
        let refusal = |more: &[&str]| {
            let options = [&["--type", scheme], more].concat();
            let mut args = vec!["convert".as_ref(), gguf.as_os_str(), out.as_os_str()];
            args.extend(options.iter().map(std::ffi::OsStr::new));
            refused(&args)
        };
        let line = refusal(&[]);
        assert!(line.contains(&format!("is q6_k and would become {scheme}")) && line.contains("--allow-requantize"), "{line}");
        // The schemes of bitsandbytes are for linear layers: what they leave has no place in safetensors.
        let line = refusal(&["--allow-requantize"]);
        assert!(line.contains("safetensors has no layout for q6_k"), "{line}");
        convert(&gguf, &out, &["--type", scheme, "--allow-requantize", "--tensor-type", "^(output|token_embd)\\.weight$=bf16"]);
        assert_eq!(assert_encoded(&gguf, &out, scheme), 28, "{scheme}");
    }
}
