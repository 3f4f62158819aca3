//! Files that are read, and what is found in them.

use quant_core::source::Tensor;
use quant_core::{Dtype, Scheme};

use super::*;
use crate::checkpoint::At;
use crate::gguf::{Kind, Scalar, find_entry};

fn shown(t: &Tensor) -> String {
    let parts: Vec<String> = t.parts.iter().map(|p| format!("{} {} {:?} {}", p.name, p.dtype, p.shape, p.n_bytes)).collect();
    format!("{} {} {} {:?}: {}", t.name, t.scheme, t.dtype, t.shape, parts.join(", "))
}

#[test]
fn tensors_have_the_shapes_and_parts_of_their_types() {
    let infos = [
        info("dense", &[3, 2, 1], 30, 0),
        info("blocks", &[64, 3], 2, 32),
        info("scalar", &[], 26, 160),
        info("empty", &[32, 0], 8, 192),
        info("activations", &[256], 15, 192),
    ];
    let bytes = file(&[], &infos, 32, &data(192 + 292));
    let checkpoint = open_bytes(&bytes).unwrap();
    let found: Vec<String> = checkpoint.tensors.iter().map(shown).collect();
    let expected = [
        "dense bf16 BF16 [1, 2, 3]: data BF16 [1, 2, 3] 12",
        "blocks q4_0 F32 [3, 64]: blocks U8 [3, 36] 108",
        "scalar i32 I32 []: data I32 [] 4",
        "empty q8_0 F32 [0, 32]: blocks U8 [0, 34] 0",
        "activations ggml:15 U8 [256]: data U8 [292] 292",
    ];
    assert_eq!(found, expected);
    assert_eq!(bytes_of(&checkpoint, 1), data(140)[32..]);
    assert_eq!(bytes_of(&checkpoint, 4), data(484)[192..]);
    assert_eq!(rebuilt(&checkpoint), [(String::new(), bytes)]);
    assert_eq!(checkpoint.tensors[1].scheme, Scheme::Ggml(quant_core::ggml::Type::Q4_0));
    assert_eq!(checkpoint.tensors[4].dtype, Dtype::U8);
    assert!(checkpoint.notes[0].ends_with("the padding after the last tensor is missing"), "{:?}", checkpoint.notes);
}

#[test]
fn values_are_kept_byte_for_byte() {
    let (short, long) = (string("a\0\u{1b}\u{e4}"), string("x".repeat(4097)));
    let tokens = array(8, 3, [string("a"), string(b"\xff\xfe"), string("")].concat());
    let nested = array(9, 2, [array(0, 3, [1, 2, 3]), array(7, 1, [1])].concat());
    let values: [(&str, u32, Vec<u8>); 10] = [
        ("u8", 0, vec![200]),
        ("i16", 3, (-2i16).to_le_bytes().to_vec()),
        ("f32", 6, f32::NAN.to_le_bytes().to_vec()),
        ("bool", 7, vec![1]),
        ("short", 8, short.clone()),
        ("long", 8, long.clone()),
        ("tokens", 9, tokens),
        ("nested", 9, nested),
        ("i64", 11, i64::MIN.to_le_bytes().to_vec()),
        ("f64", 12, 0.1f64.to_le_bytes().to_vec()),
    ];
    let entries: Vec<Vec<u8>> = values.iter().map(|(key, kind, value)| kv(key, *kind, value)).collect();
    let checkpoint = open_bytes(&file(&entries, &[], 32, &[])).unwrap();
    assert_eq!(checkpoint.kv.len(), values.len());
    for (entry, (key, kind, value)) in checkpoint.kv.iter().zip(&values) {
        assert_eq!((entry.key.as_str(), entry.kind.id(), entry.n_bytes), (*key, *kind, value.len() as u64));
        let mut bytes = vec![0; value.len()];
        checkpoint.read_at(&entry.at, 0, &mut bytes).unwrap();
        assert_eq!(&bytes, value, "{key}");
        let is_kept = *kind != 9 && value.len() <= 4096 + 8;
        assert_eq!(matches!(entry.at, At::Bytes(_)), is_kept, "{key}");
    }
    let entry = |key| find_entry(&checkpoint.kv, key).unwrap();
    assert_eq!((entry("i16").scalar(), entry("short").text()), (Some(Scalar::Signed(-2)), Some("a\0\u{1b}\u{e4}")));
    assert_eq!((entry("tokens").items, entry("nested").items), (Some((Kind::String, 3)), Some((Kind::Array, 2))));
}

#[test]
fn versions_and_alignments() {
    for version in [2, 3] {
        let mut bytes = head(version, &[], &[info("t", &[8], 0, 0)]);
        bytes.resize(96, 1);
        bytes[57..64].fill(0);
        assert_eq!(bytes_of(&open_bytes(&bytes).unwrap(), 0), [1; 32]);
    }
    for alignment in [1, 8, 64, 4096, 1 << 20] {
        let second = 8u64.next_multiple_of(alignment);
        let entries = [u32_kv("a", 1), u32_kv("general.alignment", alignment as u32)];
        let bytes = file(&entries, &[info("t", &[2], 0, 0), info("u", &[2], 0, second)], alignment as usize, &data(second as usize + 8));
        let checkpoint = open_bytes(&bytes).unwrap();
        assert_eq!(bytes_of(&checkpoint, 1), data(second as usize + 8)[second as usize..]);
        assert_eq!(rebuilt(&checkpoint)[0].1, bytes);
    }
}

#[test]
fn odd_layouts_are_read_and_noted() {
    let [f, g] = [info("t", &[8], 0, 128), info("u", &[6], 0, 32)];
    let bytes = file(&[], &[f, g], 32, &data(32 + 128 + 32));
    let checkpoint = open_bytes(&bytes).unwrap();
    assert_eq!((bytes_of(&checkpoint, 0), bytes_of(&checkpoint, 1)), (data(160)[128..].to_vec(), data(56)[32..].to_vec()));
    assert_eq!(rebuilt(&checkpoint)[0].1, bytes);
    let notes = checkpoint.notes.join("\n");
    // 32 before the first, 64 after the padding of the second in the order of the data, 32 at the end.
    assert!(notes.contains("128 bytes belong to no tensor"), "{notes}");
    assert!(notes.contains("the padding at byte 152 is not zero"), "{notes}");
}

#[test]
fn a_file_without_tensors_may_end_with_its_keys() {
    let bytes = head(3, &[u32_kv("k", 7)], &[]);
    let checkpoint = open_bytes(&bytes).unwrap();
    assert_eq!((checkpoint.kv[0].unsigned(), checkpoint.notes.len()), (Some(7), 0));
    assert_eq!(rebuilt(&checkpoint)[0].1, bytes);
    let longer = [bytes, data(100)].concat();
    let checkpoint = open_bytes(&longer).unwrap();
    assert_eq!(rebuilt(&checkpoint)[0].1, longer);
    assert!(checkpoint.notes.iter().any(|n| n.contains("belong to no tensor")), "{:?}", checkpoint.notes);
}

#[test]
fn a_great_many_tokens_are_walked_over() {
    let tokens: Vec<u8> = (0..300_000u32).flat_map(|i| string(format!("token {i}"))).collect();
    let bytes = file(&[kv("tokens", 9, array(8, 300_000, &tokens)), u32_kv("after", 5)], &[], 32, &[]);
    let checkpoint = open_bytes(&bytes).unwrap();
    assert_eq!((checkpoint.kv[0].n_bytes, checkpoint.kv[1].unsigned()), (tokens.len() as u64 + 12, Some(5)));
}
