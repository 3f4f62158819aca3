//! Files that are refused, each with what it is told.

use super::*;

/// `f32` of `n` elements at `offset`.
fn f32s(name: &str, n: u64, offset: u64) -> Vec<u8> {
    info(name, &[n], 0, offset)
}

/// A file of one key.
fn of_key(kind: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
    file(&[kv("k", kind, value)], &[], 32, &[])
}

/// A file of one tensor and 64 bytes of data.
fn of_tensor(dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    file(&[], &[info("t", dims, kind, offset)], 32, &data(64))
}

/// A file of two tensors and `n` bytes of data.
fn of_two(a: Vec<u8>, b: Vec<u8>, n: usize) -> Vec<u8> {
    file(&[], &[a, b], 32, &data(n))
}

fn of_alignment(kind: u32, value: &[u8]) -> Vec<u8> {
    file(&[kv("general.alignment", kind, value)], &[], 32, &[])
}

fn with_counts(n_tensors: u64, n_keys: u64) -> Vec<u8> {
    let mut bytes = head(3, &[], &[]);
    bytes[8..16].copy_from_slice(&n_tensors.to_le_bytes());
    bytes[16..24].copy_from_slice(&n_keys.to_le_bytes());
    bytes.resize(64, 0);
    bytes
}

fn check(cases: &[(Vec<u8>, &str)]) {
    for (bytes, expected) in cases {
        let found = refused(bytes);
        assert!(found.starts_with(&format!("x.gguf at byte {expected}")), "\n   found {found}\n  needed x.gguf at byte {expected}");
    }
}

#[test]
fn magic_and_version() {
    check(&[
        (vec![], "0: the file ends inside the magic of a GGUF file: found 0 bytes, needed 4"),
        (b"GGU".to_vec(), "0: the file ends inside the magic of a GGUF file: found 3 bytes, needed 4"),
        (vec![0; 64], r#"0: not a GGUF file: it begins with "\x00\x00\x00\x00" instead of "GGUF" (llama-quantize writes the header last"#),
        (b"FUGG\0\0\0\x03".to_vec(), r#"0: not a GGUF file: it begins with "FUGG" instead of "GGUF" (the magic in reverse order"#),
        (b"gguf".to_vec(), r#"0: not a GGUF file: it begins with "gguf""#),
        (b"tjgg".to_vec(), r#"0: not a GGUF file: it begins with "tjgg" instead of "GGUF" (an ancestor of GGUF"#),
        (head(0, &[], &[]), "4: GGUF version 0 is not known; 2 and 3 are read"),
        (head(1, &[], &[]), "4: GGUF version 1 is not read; convert the original model again"),
        (head(4, &[], &[]), "4: GGUF version 4 is not known"),
        (head(0x0300_0000, &[], &[]), "4: a big-endian GGUF file; convert it with gguf-convert-endian"),
    ]);
}

#[test]
fn counts() {
    check(&[
        (with_counts(u64::MAX, 0), "8: found a count of 18446744073709551615 tensors, the 48 bytes after it hold at most 1"),
        (with_counts(2, 0), "8: found a count of 2 tensors, the 48 bytes after it hold at most 1"),
        (with_counts(0, 1 << 40), "16: found a count of 1099511627776 keys, the 40 bytes after it hold at most 2"),
        ([with_counts(0, 1 << 19), vec![0; 8 << 20]].concat(), "16: found a count of 524288 keys, at most 65536 are read"),
    ]);
}

#[test]
fn keys() {
    let long = file(&[kv(vec![b'k'; 65_536], 4, [0; 4])], &[], 32, &[]);
    check(&[
        (file(&[kv("", 4, [0; 4])], &[], 32, &[]), "24: a key is empty"),
        (file(&[kv("a\0b", 4, [0; 4])], &[], 32, &[]), "24: a key has a NUL in it"),
        (file(&[kv(b"ab\xff", 4, [0; 4])], &[], 32, &[]), "34: a key is not UTF-8"),
        (long, "24: a key has 65536 bytes, at most 65535 are read"),
        (file(&[u32_kv("k", 1), u32_kv("k", 1)], &[], 32, &[]), "41: key 'k': comes twice"),
    ]);
}

#[test]
fn values() {
    let nested = (0..9).fold(array(4, 0, []), |inner, _| array(9, 1, inner));
    check(&[
        (of_key(13, [0; 8]), "33: key 'k': found a value of type 13; known are 0 to 12"),
        (of_key(7, [2]), "37: key 'k': found a bool of 2, needed 0 or 1"),
        (of_key(8, string(b"ab\xc3")), "47: key 'k': a string is not UTF-8"),
        (of_key(8, u64::MAX.to_le_bytes()), "37: key 'k': a string has 18446744073709551615 bytes, at most 67108864 are read"),
        (of_key(8, 1000u64.to_le_bytes()), "45: key 'k': the file ends inside a string: found 19 bytes, needed 1000"),
        (of_key(9, array(13, 0, [])), "37: key 'k': found a value of type 13"),
        (of_key(9, array(10, 1 << 61, [])), "41: key 'k': found a count of 2305843009213693952 items, the 15 bytes after it hold at most 1"),
        (of_key(9, array(8, 2, [string("a"), vec![0xff; 8]].concat())), "58: key 'k': a string of an array has 18446744073709551615 bytes"),
        (of_key(9, array(7, 5000, vec![1; 4999].as_slice()))[..5040].to_vec(), "41: key 'k': found a count of 5000 items, the 4991 bytes after it"),
        (of_key(9, array(7, 5000, [vec![1; 4500], vec![9; 500]].concat())), "4549: key 'k': found a bool of 9"),
        (of_key(9, nested), "133: key 'k': arrays lie more than 8 deep in each other"),
    ]);
}

#[test]
fn alignments() {
    check(&[
        (of_alignment(4, &[0; 4]), "53: key 'general.alignment': found an alignment of 0, needed a power of two up to 1048576"),
        (of_alignment(4, &[24, 0, 0, 0]), "53: key 'general.alignment': found an alignment of 24"),
        (of_alignment(4, &[0, 0, 32, 0]), "53: key 'general.alignment': found an alignment of 2097152"),
        (of_alignment(5, &[32, 0, 0, 0]), "53: key 'general.alignment': is of type int32, needed uint32"),
        (of_alignment(8, &string("32")), "53: key 'general.alignment': is of type string, needed uint32"),
    ]);
}

#[test]
fn names_of_tensors() {
    let named = |name: &[u8]| file(&[], &[info(name, &[8], 0, 0)], 32, &data(32));
    check(&[
        (named(b""), "24: the name of a tensor is empty"),
        (named(b"a\0"), "24: the name of a tensor has a NUL in it"),
        (named(b"\xff"), "32: the name of a tensor is not UTF-8"),
        (named(&[b'a'; 65]), "24: the name of a tensor has 65 bytes, at most 64 are read"),
        (of_two(f32s("a", 8, 0), f32s("a", 8, 32), 64), "57: tensor 'a': comes twice"),
    ]);
}

#[test]
fn shapes_and_types() {
    const MAX: u64 = u64::MAX;
    check(&[
        (of_tensor(&[1; 5], 0, 0), "33: tensor 't': found 5 dimensions, at most 4 are possible"),
        (of_tensor(&[MAX], 24, 0), "33: tensor 't': shape [18446744073709551615] has more elements than 63 bits can count"),
        (of_tensor(&[0, MAX], 24, 0), "33: tensor 't': shape [18446744073709551615, 0] has more elements"),
        (of_tensor(&[1 << 32, 1 << 32], 24, 0), "33: tensor 't': shape [4294967296, 4294967296] has more elements"),
        (of_tensor(&[1 << 61], 28, 0), "33: tensor 't': shape [2305843009213693952] of f64 has more bytes than 63 bits can count"),
        (of_tensor(&[1 << 60], 12, 0), "64: tensor 't': the file ends inside its data: found 64 bytes of data, needed 648518346341351424 from 0 on"),
        (of_tensor(&[16, 2], 2, 0), "33: tensor 't': q4_0 needs rows of a multiple of 32 elements, found shape [2, 16]"),
        (of_tensor(&[], 8, 0), "33: tensor 't': q8_0 needs rows of a multiple of 32 elements, found shape []"),
        (of_tensor(&[8], 31, 0), "45: tensor 't': its type q4_0_4_4 (number 31) was given up by ggml"),
        (of_tensor(&[8], 43, 0), "45: tensor 't': its type, number 43, is not known"),
        (of_tensor(&[8], u32::MAX, 0), "45: tensor 't': its type, number 4294967295, is not known"),
    ]);
}

#[test]
fn places() {
    let short_head = head(3, &[], &[f32s("t", 0, 0)]);
    check(&[
        (of_tensor(&[8], 0, 16), "49: tensor 't': found an offset of 16, needed a multiple of 32"),
        (of_tensor(&[8], 0, u64::MAX - 31), "49: tensor 't': an offset of 18446744073709551584 and 32 bytes pass 2^64"),
        (of_tensor(&[8], 0, u64::MAX - 127), "18446744073709551552: tensor 't': the file ends inside its data: found 64 bytes of data"),
        (of_tensor(&[8], 0, 64), "128: tensor 't': the file ends inside its data: found 64 bytes of data, needed 32 from 64 on"),
        (of_tensor(&[17], 0, 0), "64: tensor 't': the file ends inside its data: found 64 bytes of data, needed 68 from 0 on"),
        (of_two(f32s("a", 16, 0), f32s("b", 8, 32), 64), "128: tensor 'b': its data overlaps that of tensor 'a', which ends at byte 160"),
        (of_two(f32s("a", 8, 0), f32s("b", 8, 0), 64), "96: tensor 'b': its data overlaps that of tensor 'a'"),
        (short_head, "57: the file ends before its data: found 57 bytes, needed 64"),
    ]);
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let entries = [kv("b", 7, [1]), kv("s", 8, string("some text")), kv("a", 9, array(8, 2, [string("x"), string("yz")].concat()))];
    let infos = [info("t", &[5, 2], 0, 0), info("u", &[32], 8, 64)];
    let bytes = file(&entries, &infos, 32, &data(98));
    open_bytes(&bytes).unwrap();
    for n in 0..bytes.len() {
        let text = refused(&bytes[..n]);
        assert!(text.contains("the file ends") || text.contains("found a count"), "{n}: {text}");
    }
}
