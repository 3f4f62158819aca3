//! Importance matrices of both kinds.

use std::sync::Arc;

use super::*;
use crate::gguf::imatrix::ImportanceMatrix;

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn keys() -> Vec<Vec<u8>> {
    let datasets = array(8, 2, [string("wiki.txt"), string("b")].concat());
    vec![
        kv("general.type", 8, string("imatrix")),
        kv("imatrix.datasets", 9, datasets),
        u32_kv("imatrix.chunk_count", 77),
        u32_kv("imatrix.chunk_size", 512),
    ]
}

/// A GGUF file of tensors of F32: name, dimensions, values.
fn matrix(keys: &[Vec<u8>], tensors: &[(&str, &[u64], &[f32])]) -> Vec<u8> {
    let (mut infos, mut data) = (Vec::new(), Vec::new());
    for (name, dims, values) in tensors {
        infos.push(info(name, dims, 0, data.len() as u64));
        data.extend(floats(values));
        data.resize(data.len().next_multiple_of(32), 0);
    }
    file(keys, &infos, 32, &data)
}

fn opened(bytes: &[u8]) -> Result<Arc<ImportanceMatrix>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    std::fs::write(&path, bytes).unwrap();
    ImportanceMatrix::open(&path, Io::default())
}

fn refused(bytes: &[u8]) -> String {
    opened(bytes).expect_err("needed an error").to_string()
}

fn bits(matrix: &Arc<ImportanceMatrix>, name: &str) -> Vec<u32> {
    let mut values = vec![0.0; matrix.n_values(name).unwrap() as usize];
    matrix.of(name).unwrap().read(0, &mut values).unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// An entry of a legacy file.
fn legacy(name: &str, calls: i32, values: &[f32]) -> Vec<u8> {
    let [len, n] = [name.len(), values.len()].map(|n| (n as i32).to_le_bytes());
    [&len[..], name.as_bytes(), &calls.to_le_bytes(), &n, &floats(values)].concat()
}

fn legacy_file(n: i32, entries: &[Vec<u8>], end: &[u8]) -> Vec<u8> {
    [&n.to_le_bytes()[..], &entries.concat(), end].concat()
}

#[test]
fn sums_are_divided_by_the_counts_of_their_expert() {
    let sums = [0.1, 7.0, 1e-40, 3.0, f32::NAN, 5.0, 1e30, 2.0];
    let tensors: [(&str, &[u64], &[f32]); 4] = [
        ("blk.0.ffn_up_exps.weight.in_sum2", &[2, 4], &sums),
        ("blk.0.ffn_up_exps.weight.counts", &[1, 4], &[3.0, 2.5, 0.4, 49.0]),
        ("a.counts", &[1], &[-1.0]),
        ("a.in_sum2", &[3], &[4.0, 5.0, 6.0]),
    ];
    let matrix = opened(&matrix(&keys(), &tensors)).unwrap();
    assert_eq!(matrix.names().collect::<Vec<_>>(), ["a", "blk.0.ffn_up_exps.weight"]);
    assert_eq!((matrix.n_entries(), matrix.n_chunks(), matrix.datasets()), (2, 77, &["wiki.txt".to_owned(), "b".into()][..]));
    assert_eq!((matrix.n_values("blk.0.ffn_up_exps.weight"), matrix.n_values("b")), (Some(8), None));
    // numpy: float32(0.1) / float32(3), …; 2.5 rounds to 3, and 0.4 to 0, whose expert counts 1 throughout.
    let expected = [0x3d08_8889, 0x4015_5555, 0x0000_5ceb, 0x3f80_0000, 0x3f80_0000, 0x3f80_0000, 0x6e83_e279, 0x3d27_2f05];
    assert_eq!(bits(&matrix, "blk.0.ffn_up_exps.weight"), expected);
    assert_eq!(bits(&matrix, "a"), [1.0f32.to_bits(); 3]);
    let mut middle = [0.0; 4];
    matrix.of("blk.0.ffn_up_exps.weight").unwrap().read(1, &mut middle).unwrap();
    assert_eq!(middle.map(f32::to_bits), expected[1..5]);
    assert!(matrix.of("a").unwrap().read(1, &mut [0.0; 3]).is_err());
}

#[test]
fn long_rows_are_read_in_pieces() {
    let sums: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
    let tensors: [(&str, &[u64], &[f32]); 2] = [("w.in_sum2", &[50_000, 2], &sums), ("w.counts", &[1, 2], &[2.0, 4.0])];
    let matrix = opened(&matrix(&keys(), &tensors)).unwrap();
    let expected: Vec<u32> = sums.iter().enumerate().map(|(i, v)| (v / if i < 50_000 { 2.0 } else { 4.0 }).to_bits()).collect();
    assert!(bits(&matrix, "w") == expected);
}

#[test]
fn legacy_values_are_divided_by_the_calls() {
    let entries = [legacy("a", 3, &[0.1, 7.0]), legacy("b", 0, &[0.1]), legacy("c\0d", -2, &[5.0])];
    let end = [&77i32.to_le_bytes()[..], &6i32.to_le_bytes(), b"wiki\0x"].concat();
    let matrix = opened(&legacy_file(3, &entries, &end)).unwrap();
    assert_eq!(matrix.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!((bits(&matrix, "a"), bits(&matrix, "b")), (vec![0x3d08_8889, 0x4015_5555], vec![0x3dcc_cccd]));
    assert_eq!((bits(&matrix, "c"), matrix.n_chunks(), matrix.datasets()), (vec![5.0f32.to_bits()], 77, &["wiki".to_owned()][..]));
    let older = opened(&legacy_file(1, &entries, &[])).unwrap_err().to_string();
    assert!(older.contains("the file ends inside the name of a data set"), "{older}");
    let older = opened(&legacy_file(3, &entries, &[])).unwrap();
    assert_eq!((older.n_chunks(), older.datasets().len()), (0, 0));
}

#[test]
fn entries_are_retained_by_parts_of_their_names() {
    let names = ["blk.0.attn_q.weight", "blk.0.ffn_up.weight", "blk.1.attn_q.weight", "output.weight"];
    let entries: Vec<_> = names.iter().map(|name| legacy(name, 1, &[1.0])).collect();
    let bytes = legacy_file(4, &entries, &[]);
    let kept = |include: &[&str], exclude: &[&str]| {
        let mut matrix = opened(&bytes).unwrap();
        let [include, exclude] = [include, exclude].map(|texts| texts.iter().map(|t| t.to_string()).collect::<Vec<_>>());
        Arc::get_mut(&mut matrix).unwrap().retain(&include, &exclude);
        names.iter().map(|name| matrix.of(name).map_or('.', |_| '#')).collect::<String>()
    };
    assert_eq!(kept(&[], &[]), "####");
    assert_eq!(kept(&["attn_q"], &[]), "#.#.");
    assert_eq!(kept(&[], &["blk.0.", "output"]), "..#.");
    assert_eq!(kept(&["blk.0.", "output"], &["attn"]), ".#.#");
    assert_eq!(kept(&["none"], &[]), "....");
}

#[test]
fn what_is_no_importance_matrix_is_refused() {
    let sums: (&str, &[u64], &[f32]) = ("w.in_sum2", &[2], &[1.0, f32::INFINITY]);
    let counts: (&str, &[u64], &[f32]) = ("w.counts", &[1], &[1.0]);
    let with = |tensor| matrix(&keys(), &[sums, tensor]);
    let halves = file(&keys(), &[info("w.in_sum2", &[2], 1, 0), info("w.counts", &[1], 0, 32)], 32, &[0; 64]);
    let negative = [&1i32.to_le_bytes()[..], &(-1i32).to_le_bytes(), &[0; 16]].concat();
    let cases = [
        (matrix(&[], &[sums, counts]), "x.gguf: not an importance matrix: it has no key 'imatrix.datasets'"),
        (matrix(&keys()[..3], &[sums, counts]), "it has no key 'imatrix.chunk_size'"),
        (
            matrix(&[&keys()[..3], &[kv("imatrix.chunk_size", 5, [0; 4])]].concat(), &[sums, counts]),
            "'imatrix.chunk_size': is of type int32, needed uint32",
        ),
        (matrix(&keys(), &[]), "holds no importance of any tensor"),
        (matrix(&keys(), &[sums]), "tensor 'w': there is no '.counts' of it"),
        (matrix(&keys(), &[counts]), "tensor 'w': there is no '.in_sum2' of it"),
        (halves, "tensor 'w': 'w.in_sum2' is of type f16, needed f32"),
        (with(("w.counts", &[0], &[])), "tensor 'w': found 0 counts for 2 sums"),
        (with(("w.counts", &[3], &[1.0; 3])), "tensor 'w': found 3 counts for 2 sums"),
        (with(("w.counts", &[1], &[f32::NAN])), "tensor 'w': found a count of NaN"),
        (with(counts), ": tensor 'w': the importance of column 1 is inf"),
        (b"".to_vec(), "at byte 0: the file ends inside the number of entries: found 0 bytes, needed 4"),
        (legacy_file(0, &[], &[0; 64]), "not an importance matrix: found a count of 0 entries"),
        (legacy_file(5, &[], &[0; 64]), "found a count of 5 entries, the 64 bytes after it hold at most 4"),
        (negative, "at byte 4: the length of a name is -1"),
        (legacy_file(1, &[legacy("a", 1, &[])], &[0; 8]), "at byte 13: tensor 'a': it has no values"),
        (legacy_file(2, &[legacy("a", 1, &[1.0]), legacy("a", 1, &[1.0])], &[]), "at byte 21: tensor 'a': comes twice"),
        (legacy_file(1, &[legacy("a", 1, &[1.0, f32::NAN])], &[]), "at byte 21: tensor 'a': the importance of column 1 is NaN"),
        (
            legacy_file(1, &[legacy("a", 1, &[0.0, -0.0, -1.0])], &[]),
            "at byte 25: tensor 'a': the importance of column 2 is -1, needed a mean of squares",
        ),
    ];
    for (bytes, expected) in cases {
        let text = refused(&bytes);
        assert!(text.contains(expected), "\n   found {text}\n  needed {expected}");
    }
}

#[test]
fn a_legacy_file_cut_anywhere_is_refused() {
    let end = [&77i32.to_le_bytes()[..], &4i32.to_le_bytes(), b"wiki"].concat();
    let bytes = legacy_file(2, &[legacy("a", 3, &[0.1, 7.0]), legacy("b", 0, &[0.1])], &end);
    opened(&bytes).unwrap();
    // The end is optional, and so is the data set.
    let optional = [bytes.len() - 12, bytes.len() - 8];
    for n in (0..bytes.len()).filter(|n| !optional.contains(n)) {
        refused(&bytes[..n]);
    }
}
