//! What people read: help, tables, reports. Snapshots; look at them when they change.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs `quant` where the committed models are called `tiny-llama` and `tiny-llama.gguf`. Returns its exit code and everything it printed.
fn shown(dir: &Path, args: &[&str]) -> String {
    for name in ["tiny-llama", "tiny-llama.gguf", "tiny-llama.imatrix.gguf"] {
        let link = dir.join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data").join(name), &link).unwrap();
        }
    }
    let out = Command::new(env!("CARGO_BIN_EXE_quant")).args(args).current_dir(dir).env("NO_COLOR", "1").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(out.stdout), text(out.stderr));
    let timed = |line: &str| line.split(", in ").next().unwrap_or_default().to_owned();
    let stdout: Vec<String> = stdout.lines().filter(|line| !line.starts_with(" took ")).map(timed).collect();
    let stderr = if stderr.is_empty() { String::new() } else { format!("--- stderr\n{stderr}") };
    format!("$ quant {}\n{}\n{stderr}--- exit {}\n", args.join(" "), stdout.join("\n"), out.status.code().unwrap())
}

#[test]
fn help() {
    let dir = tempfile::tempdir().unwrap();
    let pages = [
        &["--help"][..],
        &["inspect", "--help"],
        &["convert", "--help"],
        &["verify", "--help"],
        &["audit", "--help"],
        &["plan", "--help"],
        &["estimate", "--help"],
    ];
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
fn gguf() {
    let dir = tempfile::tempdir().unwrap();
    let lines = [
        "inspect tiny-llama.gguf",
        "convert tiny-llama.gguf q4.gguf --type q4_k_m",
        "convert tiny-llama.gguf iq2.gguf --type iq2_xs --imatrix tiny-llama.imatrix.gguf --tensor-type attn_k=q8_0 --dry-run",
        "convert tiny-llama.gguf shards --to gguf --max-shard-tensors 20",
        "convert q4.gguf named.gguf --set general.name=str:Another --set x.y=u8:7 --remove general.size_label",
        "inspect named.gguf",
        "convert q4.gguf q4.safetensors --type bf16",
    ];
    insta::assert_snapshot!(lines.map(|line| shown(dir.path(), &line.split(' ').collect::<Vec<_>>())).join("\n"));
    let errors = [
        "convert q4.gguf q3.gguf --type q3_k_m",
        "convert tiny-llama.gguf o.gguf --type iq2_xs",
        "convert tiny-llama.gguf o.gguf --type q4_k_q",
        "convert tiny-llama.gguf o.gguf --type mxfp4",
        "convert tiny-llama.gguf o.gguf --type q4_0 --tensor-type ffn_up=q8_1",
        "convert tiny-llama.gguf o.gguf --type nf4",
        "convert tiny-llama.gguf o.gguf --type q4_0 --prune-layers 7",
        "convert tiny-llama.gguf o.gguf --imatrix tiny-llama.imatrix.gguf",
        "convert tiny-llama.gguf o.gguf --max-shard-size 1MB",
        "convert tiny-llama.gguf o.gguf --set general.alignment=u32:64",
        "convert tiny-llama.gguf o.gguf --set x=u8:256",
        "convert tiny-llama.gguf o.gguf --remove nothing",
        "convert tiny-llama.gguf tiny-llama.imatrix.gguf --type q8_0 --imatrix tiny-llama.imatrix.gguf --force",
        "inspect tiny-llama.gguf/",
    ];
    insta::assert_snapshot!("gguf_errors", errors.map(|line| shown(dir.path(), &line.split(' ').collect::<Vec<_>>())).join("\n"));
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
fn audit() {
    let dir = tempfile::tempdir().unwrap();
    shown(dir.path(), &["convert", "tiny-llama", "q4.gguf", "--type", "q4_k_m"]);
    let lines = [
        "audit tiny-llama q4.gguf",
        "audit tiny-llama --type q4_k_m,nf4-dq,int8",
        "audit tiny-llama --type nf4 --all --only layers.0.mlp|embed",
        "audit tiny-llama tiny-llama",
        "audit tiny-llama q4.gguf --fail-if ffn_down:sqnr_db<23 --only ffn_(up|down)",
        "audit tiny-llama.gguf --type q8_0 --imatrix tiny-llama.imatrix.gguf --only blk.0.attn --spectral",
        "convert tiny-llama nf4.bqt --type nf4 --audit",
        "audit nf4.bqt --only nothing",
        "plan tiny-llama.gguf recipe.toml --target-bpw 4.5 --imatrix tiny-llama.imatrix.gguf",
        "estimate tiny-llama --context 2048 --fits 320MB",
        "estimate --params 7B --layers 32 --kv-heads 8 --head-dim 128",
    ];
    insta::assert_snapshot!(lines.map(|line| shown(dir.path(), &line.split(' ').collect::<Vec<_>>())).join("\n"));
    let csv = shown(dir.path(), &["audit", "tiny-llama", "q4.gguf", "--csv", "--only", "blk.0.attn_q"]);
    let recipe = std::fs::read_to_string(dir.path().join("recipe.toml")).unwrap();
    let recipe: Vec<&str> = recipe.lines().take(14).collect();
    insta::assert_snapshot!("audit_files", format!("{csv}\n{}", recipe.join("\n")));
    std::fs::write(dir.path().join("nf4.toml"), "type = \"nf4\"\n").unwrap();
    let errors = [
        "audit tiny-llama",
        "audit tiny-llama --type q4_k_q",
        "audit tiny-llama --type iq2_xs",
        "audit tiny-llama --type q4_k_m --fail-if sqnr<20",
        "audit tiny-llama --type q4_k_m --fail-if output_error>0.1",
        "audit tiny-llama nowhere",
        "plan tiny-llama",
        "plan tiny-llama --target-bpw 1",
        "plan tiny-llama --target-bpw 4 --schemes q9",
        "plan tiny-llama --target-bpw 4 --schemes q4_k_m",
        "plan tiny-llama --target-bpw 5 --schemes iq2_xxs,nf4",
        "plan tiny-llama --target-size 1MB --schemes affine4",
        "plan tiny-llama --target-bpw 4 --imatrix tiny-llama/model.safetensors",
        "convert tiny-llama out.bqt --recipe nf4.toml --imatrix tiny-llama.imatrix.gguf",
        "plan tiny-llama --max-error 0.001%",
        "plan tiny-llama recipe.gguf --target-bpw 4",
        "plan tiny-llama folder/ --target-bpw 4",
        "plan recipe.toml --target-bpw 4",
        "audit tiny-llama.imatrix.gguf --type q8_0",
        "audit nf4.bqt --imatrix tiny-llama.imatrix.gguf",
        "audit q4.gguf",
        "convert tiny-llama out --type nf4 --audit --dry-run",
        "estimate",
        "estimate --params many",
    ];
    insta::assert_snapshot!("audit_errors", errors.map(|line| shown(dir.path(), &line.split(' ').collect::<Vec<_>>())).join("\n"));
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
