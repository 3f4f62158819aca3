//! Memory: the real binary on a model far larger than its budget, file pages included.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;

use quant_tests::{command, peak};

/// A file with one matrix of `rows` × 4096 and eight of a sixteenth of it, in bf16. A pattern stands at the start of each
/// mebibyte; the rest are holes, which read as zeros.
fn model(path: &Path, rows: u64) -> u64 {
    let (mut entries, mut next) = (Vec::new(), 0u64);
    for i in 0..9u64 {
        let rows = if i == 0 { rows } else { rows / 16 };
        let end = next + rows * 4096 * 2;
        entries
            .push(format!("\"model.layers.{i}.mlp.up_proj.weight\":{{\"dtype\":\"BF16\",\"shape\":[{rows},4096],\"data_offsets\":[{next},{end}]}}"));
        next = end;
    }
    let header = format!("{{{}}}", entries.join(","));
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let (start, pattern) = (8 + header.len() as u64, [0x3cu8, 0x3d].repeat(2048));
    for at in (0..next).step_by(1 << 20) {
        file.seek(SeekFrom::Start(start + at)).unwrap();
        file.write_all(&pattern).unwrap();
    }
    file.set_len(start + next).unwrap();
    next
}

#[test]
fn a_model_far_larger_than_the_budget_converts_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("large.safetensors");
    let n_bytes = model(&from, 1 << 16);
    assert!(n_bytes > 700 << 20, "{n_bytes}");
    for (to, options) in [
        ("a.safetensors", &["--type", "nf4-dq"][..]),
        ("b.bqt", &["--type", "nf4-dq"]),
        ("c.bqt", &["--type", "affine4:tensor"]),
        ("d.safetensors", &["--type", "nf4-dq", "--io", "mmap"]),
        ("e.safetensors", &["--io", "mmap"]),
    ] {
        let out = dir.path().join(to);
        let mut args = vec!["convert".as_ref(), from.as_os_str(), out.as_os_str()];
        args.extend(options.iter().map(std::ffi::OsStr::new));
        let peak = peak(command(&args));
        assert!(peak < 100 << 20, "{to}: {} MiB resident at most", peak >> 20);
        std::fs::remove_file(out).unwrap();
    }
}

#[test]
fn the_test_above_could_fail() {
    // The same measurement sees a process that does hold much memory: Python, or any shell with its own pages.
    let mut shell = Command::new("sh");
    shell.args(["-c", "x=$(head -c 60000000 /dev/zero | tr '\\0' a); test ${#x} -eq 60000000"]);
    assert!(peak(shell) > 50 << 20);
}
