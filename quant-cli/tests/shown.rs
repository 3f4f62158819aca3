//! What people read: help, tables, reports. Snapshots; look at them when they change.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs `quant` where the committed model is called `tiny-llama`. Returns its exit code and everything it printed.
fn shown(dir: &Path, args: &[&str]) -> String {
    let model = dir.join("tiny-llama");
    if !model.exists() {
        std::os::unix::fs::symlink(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/tiny-llama"), &model).unwrap();
    }
    let out = Command::new(env!("CARGO_BIN_EXE_quant")).args(args).current_dir(dir).env("NO_COLOR", "1").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(out.stdout), text(out.stderr));
    let timed = |line: &str| line.split(", in ").next().unwrap_or_default().to_owned();
    let stdout: Vec<String> = stdout.lines().map(timed).collect();
    let stderr = if stderr.is_empty() { String::new() } else { format!("--- stderr\n{stderr}") };
    format!("$ quant {}\n{}\n{stderr}--- exit {}\n", args.join(" "), stdout.join("\n"), out.status.code().unwrap())
}

#[test]
fn help() {
    let dir = tempfile::tempdir().unwrap();
    let pages = [&["--help"][..], &["inspect", "--help"], &["convert", "--help"], &["verify", "--help"]];
    insta::assert_snapshot!(pages.map(|args| shown(dir.path(), args)).join("\n"));
}

#[test]
fn inspect() {
    let dir = tempfile::tempdir().unwrap();
    insta::assert_snapshot!("inspect_dense", shown(dir.path(), &["inspect", "tiny-llama"]));
    shown(dir.path(), &["convert", "tiny-llama", "nf4", "--type", "nf4-dq"]);
    insta::assert_snapshot!("inspect_nf4", shown(dir.path(), &["inspect", "nf4"]));
    shown(dir.path(), &["convert", "nf4", "nf4.bqt"]);
    insta::assert_snapshot!("inspect_bqt", shown(dir.path(), &["inspect", "nf4.bqt"]));
}

#[test]
fn inspect_json() {
    let dir = tempfile::tempdir().unwrap();
    let text = shown(dir.path(), &["inspect", "tiny-llama", "--json"]);
    let head: Vec<&str> = text.lines().take(45).collect();
    insta::assert_snapshot!(head.join("\n"));
}

#[test]
fn convert() {
    let dir = tempfile::tempdir().unwrap();
    insta::assert_snapshot!("convert", shown(dir.path(), &["convert", "tiny-llama", "out", "--type", "nf4-dq"]));
    let mixed = ["convert", "tiny-llama", "m.bqt", "--type", "affine4:32", "--tensor-type", "down_proj=affine8", "--keep", "layers.0", "--dry-run"];
    insta::assert_snapshot!("convert_dry_run", shown(dir.path(), &mixed));
    insta::assert_snapshot!("convert_int8", shown(dir.path(), &["convert", "tiny-llama", "out8", "--type", "int8"]));
}

#[test]
fn verify() {
    let dir = tempfile::tempdir().unwrap();
    shown(dir.path(), &["convert", "tiny-llama", "m.bqt", "--type", "int8"]);
    let intact = shown(dir.path(), &["verify", "m.bqt"]);
    let mut bytes = std::fs::read(dir.path().join("m.bqt")).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(dir.path().join("m.bqt"), bytes).unwrap();
    let damaged = ["verify m.bqt", "verify m.bqt --json", "convert m.bqt out"].map(|args| shown(dir.path(), &args.split(' ').collect::<Vec<_>>()));
    let dense = shown(dir.path(), &["verify", "tiny-llama"]);
    insta::assert_snapshot!(format!("{intact}\n{}\n{dense}", damaged.join("\n")));
}

#[test]
fn errors() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("recipe.toml"), "type = \"nf4\"\nkeep = [\"(\"]\n").unwrap();
    std::fs::write(dir.path().join("text.safetensors"), "just some text").unwrap();
    let lines = [
        "inspect nowhere",
        "inspect text.safetensors",
        "convert tiny-llama out --type q9",
        "convert tiny-llama out.gguf",
        "convert tiny-llama out.bin",
        "convert tiny-llama out --type affine4",
        "convert tiny-llama out --tensor-type embed=nf4",
        "convert tiny-llama out --type nf4 --tensor-type down_proj=int8",
        "convert tiny-llama out.bqt --max-shard-size 1GB",
        "convert tiny-llama out --recipe recipe.toml",
        "convert tiny-llama out --type nf4-dq:4096 --memory 1MB",
        "convert tiny-llama tiny-llama --type f16 --force",
        "convert tiny-llama recipe.toml --to bqt",
    ];
    let shown = lines.map(|line| shown(dir.path(), &line.split(' ').collect::<Vec<_>>()));
    insta::assert_snapshot!(shown.join("\n"));
}
