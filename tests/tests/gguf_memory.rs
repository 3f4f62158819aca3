//! Memory: the real binary on a GGUF file with one tensor far larger than its budget, with and without an importance matrix.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use quant_tests::{command, peak};

/// The columns of the tensor: a row is longer than any slab.
const COLUMNS: u64 = 1 << 21;
const NAME: &str = "blk.0.ffn_up.weight";

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A file with one F16 matrix of `rows` × 2 097 152, whose bytes are returned. Numbers stand at the start of each 16 MiB;
/// the rest are holes, which read as zeros and are quickly quantized.
fn model(path: &Path, rows: u64) -> u64 {
    let mut head = b"GGUF\x03\0\0\0".to_vec();
    head.extend([1u64, 1].iter().flat_map(|n| n.to_le_bytes()));
    head.extend([string("general.architecture"), 8u32.to_le_bytes().to_vec(), string("llama")].concat());
    head.extend([string(NAME), 2u32.to_le_bytes().to_vec()].concat());
    head.extend([COLUMNS, rows].iter().flat_map(|n| n.to_le_bytes()));
    head.extend([&1u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat());
    let start = (head.len() as u64).next_multiple_of(32);
    let n_bytes = rows * COLUMNS * 2;
    let mut file = File::create(path).unwrap();
    file.write_all(&head).unwrap();
    // Halves between 0.5 and 2.
    let numbers: Vec<u8> = (0..1u16 << 15).flat_map(|i| (0x3800 + i.wrapping_mul(37) % 2048).to_le_bytes()).collect();
    for at in (0..n_bytes).step_by(16 << 20) {
        file.seek(SeekFrom::Start(start + at)).unwrap();
        file.write_all(&numbers).unwrap();
    }
    file.set_len(start + n_bytes).unwrap();
    n_bytes
}

/// An importance matrix in the old form: one entry, one call.
fn imatrix(path: &Path) {
    let number = |n: usize| (n as i32).to_le_bytes();
    let mut bytes = [&number(1)[..], &number(NAME.len()), NAME.as_bytes(), &number(1), &number(COLUMNS as usize)].concat();
    bytes.extend((0..COLUMNS).flat_map(|i| (1.0 + (i % 13) as f32).to_le_bytes()));
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_tensor_far_larger_than_the_budget_is_quantized_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (from, matrix) = (dir.path().join("large.gguf"), dir.path().join("imatrix.dat"));
    let n_bytes = model(&from, 80);
    assert!(n_bytes > 300_000_000, "{n_bytes}");
    imatrix(&matrix);
    let weighted = ["--imatrix", matrix.to_str().unwrap()];
    for (name, scheme, more) in [
        ("q4_k", "q4_k_s", &[][..]),
        ("iq4_xs", "iq4_xs", &[]),
        // The scale of a block depends on its whole row, which is scanned first.
        ("q4_0", "q4_0", &weighted),
        ("mapped", "q8_0", &["--io", "mmap"]),
        ("copied", "copy", &["--io", "mmap"]),
    ] {
        let out = dir.path().join(format!("{name}.gguf"));
        let mut args = vec!["convert".as_ref(), from.as_os_str(), out.as_os_str(), "--type".as_ref(), scheme.as_ref()];
        args.extend(["--pure"].iter().chain(more).map(std::ffi::OsStr::new));
        let peak = peak(command(&args));
        assert!(peak < 100 << 20, "{name}: {} MiB resident at most", peak >> 20);
        std::fs::remove_file(out).unwrap();
    }
}
