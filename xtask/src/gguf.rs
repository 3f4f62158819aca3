//! `cargo xtask bench-gguf`: whole conversions against llama-quantize, on a made-up Llama in memory-backed files.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rayon::prelude::*;

/// What is measured.
#[derive(clap::Args)]
pub struct Options {
    /// The folder with llama-quantize
    #[arg(long)]
    llama: PathBuf,
    /// The program to measure, built with --release
    #[arg(long, default_value = "target/release/quant")]
    quant: PathBuf,
    /// Where the files are made: memory-backed, and with room for two copies of the model
    #[arg(long, default_value = "/dev/shm")]
    folder: PathBuf,
    /// Layers of the model; 14 make 1.5 GB
    #[arg(long, default_value_t = 14)]
    layers: usize,
    /// Rows of the embeddings and of the output
    #[arg(long, default_value_t = 32_000)]
    vocabulary: usize,
    /// Threads of both programs
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Use an importance matrix
    #[arg(long)]
    imatrix: bool,
    /// The mixes
    #[arg(default_values = ["F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q6_K", "Q2_K", "Q4_K_M"])]
    mixes: Vec<String>,
}

const EMBEDDING: usize = 2048;
const FEED_FORWARD: usize = 5632;
const KEYS: usize = 512;

/// Runs both programs for every mix and prints a row each.
pub fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let folder = options.folder.join(format!("quant-bench-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let done = measure(options, &folder);
    std::fs::remove_dir_all(&folder)?;
    done
}

fn measure(options: &Options, folder: &Path) -> Result<(), Box<dyn Error>> {
    let (model, matrix) = (folder.join("model.gguf"), folder.join("model.dat"));
    let tensors = tensors(options.layers, options.vocabulary);
    let n: usize = tensors.iter().map(|t| t.1.iter().product::<usize>()).sum();
    write_model(&model, options, &tensors)?;
    write_matrix(&matrix, &tensors)?;
    println!("{:.0} M weights, {} threads, imatrix: {}", n as f64 / 1e6, options.threads, options.imatrix);
    println!("| mix | llama-quantize, s | quant, s | ratio | bytes |\n|---|---|---|---|---|");
    for mix in &options.mixes {
        let (theirs, ours) = (folder.join("theirs.gguf"), folder.join("ours.gguf"));
        let threads = options.threads.to_string();
        let mut one = Command::new(options.llama.join("llama-quantize"));
        let mut two = Command::new(&options.quant);
        two.arg("convert").args([&model, &ours]).args(["--type", mix, "--threads", &threads]);
        if options.imatrix {
            one.arg("--imatrix").arg(&matrix);
            two.arg("--imatrix").arg(&matrix);
        }
        one.args([&model, &theirs]).args([mix, &threads]);
        // One output at a time: a second one in memory would slow down whoever comes second.
        let (a, theirs) = (seconds(&mut one)?, digest_and_remove(&theirs)?);
        let (b, ours) = (seconds(&mut two)?, digest_and_remove(&ours)?);
        println!("| {mix} | {a:.2} | {b:.2} | {:.1} | {} |", a / b, if theirs == ours { "same" } else { "DIFFERENT" });
    }
    Ok(())
}

fn seconds(command: &mut Command) -> Result<f64, Box<dyn Error>> {
    let begin = Instant::now();
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(begin.elapsed().as_secs_f64()) } else { Err(format!("{command:?} failed").into()) }
}

/// What sha256sum says of a file, which then goes.
fn digest_and_remove(path: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let out = Command::new("sha256sum").stdin(File::open(path)?).output()?;
    std::fs::remove_file(path)?;
    if out.status.success() { Ok(out.stdout) } else { Err("sha256sum failed".into()) }
}

/// Names and dimensions (fastest first) of a Llama.
fn tensors(layers: usize, vocabulary: usize) -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![
        ("output.weight".to_owned(), vec![EMBEDDING, vocabulary]),
        ("output_norm.weight".to_owned(), vec![EMBEDDING]),
        ("token_embd.weight".to_owned(), vec![EMBEDDING, vocabulary]),
    ];
    for layer in 0..layers {
        let weights: [(&str, &[usize]); 9] = [
            ("attn_k", &[EMBEDDING, KEYS]),
            ("attn_norm", &[EMBEDDING]),
            ("attn_output", &[EMBEDDING, EMBEDDING]),
            ("attn_q", &[EMBEDDING, EMBEDDING]),
            ("attn_v", &[EMBEDDING, KEYS]),
            ("ffn_down", &[FEED_FORWARD, EMBEDDING]),
            ("ffn_gate", &[EMBEDDING, FEED_FORWARD]),
            ("ffn_norm", &[EMBEDDING]),
            ("ffn_up", &[EMBEDDING, FEED_FORWARD]),
        ];
        tensors.extend(weights.map(|(name, dims)| (format!("blk.{layer}.{name}.weight"), dims.to_vec())));
    }
    tensors
}

/// Matrices are bf16, vectors f32.
fn write_model(path: &Path, options: &Options, tensors: &[(String, Vec<usize>)]) -> Result<(), Box<dyn Error>> {
    let keys = [
        ("llama.block_count", options.layers),
        ("llama.context_length", 2048),
        ("llama.embedding_length", EMBEDDING),
        ("llama.feed_forward_length", FEED_FORWARD),
        ("llama.attention.head_count", 32),
        ("llama.attention.head_count_kv", 8),
        ("llama.rope.dimension_count", 64),
        ("llama.vocab_size", options.vocabulary),
        ("general.file_type", 32),
    ];
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((keys.len() as u64 + 2).to_le_bytes());
    let text = |head: &mut Vec<u8>, text: &str| {
        head.extend((text.len() as u64).to_le_bytes());
        head.extend(text.as_bytes());
    };
    text(&mut head, "general.architecture");
    head.extend(8u32.to_le_bytes());
    text(&mut head, "llama");
    for (key, value) in keys {
        text(&mut head, key);
        head.extend(4u32.to_le_bytes());
        head.extend((value as u32).to_le_bytes());
    }
    text(&mut head, "llama.attention.layer_norm_rms_epsilon");
    head.extend(6u32.to_le_bytes());
    head.extend(1e-5f32.to_le_bytes());
    let mut offset = 0u64;
    for (name, dims) in tensors {
        text(&mut head, name);
        head.extend((dims.len() as u32).to_le_bytes());
        head.extend(dims.iter().flat_map(|&d| (d as u64).to_le_bytes()));
        head.extend(if dims.len() == 1 { 0u32 } else { 30 }.to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset += dims.iter().product::<usize>() as u64 * if dims.len() == 1 { 4 } else { 2 };
    }
    head.resize(head.len().next_multiple_of(32), 0);
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&head)?;
    for (i, (_, dims)) in tensors.iter().enumerate() {
        let n = dims.iter().product::<usize>();
        let bytes: Vec<u8> = if dims.len() == 1 {
            1f32.to_le_bytes().repeat(n)
        } else {
            (0..n.div_ceil(1 << 16))
                .into_par_iter()
                .flat_map_iter(|piece| bf16_piece((i << 32 | piece) as u64, (n - (piece << 16)).min(1 << 16)))
                .collect()
        };
        file.write_all(&bytes)?;
    }
    Ok(file.flush()?)
}

/// Weights as they are in models: near normal, of a deviation of 0.02.
fn bf16_piece(seed: u64, n: usize) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 16_777_216.0 - 0.5
    };
    (0..n).flat_map(move |_| {
        let v = (uniform() + uniform() + uniform() + uniform()) * 0.034_64;
        ((v.to_bits() + 0x8000) >> 16).to_le_bytes().into_iter().take(2)
    })
}

/// An importance matrix in the old format, with an entry for every matrix.
fn write_matrix(path: &Path, tensors: &[(String, Vec<usize>)]) -> Result<(), Box<dyn Error>> {
    let matrices: Vec<_> = tensors.iter().filter(|(_, dims)| dims.len() == 2).collect();
    let mut out = (matrices.len() as i32).to_le_bytes().to_vec();
    for (i, (name, dims)) in matrices.iter().enumerate() {
        out.extend((name.len() as i32).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(1i32.to_le_bytes());
        out.extend((dims[0] as i32).to_le_bytes());
        out.extend((0..dims[0]).flat_map(|j| (0.01 + ((i * 31 + j * 17) % 101) as f32).to_le_bytes()));
    }
    out.extend(1i32.to_le_bytes());
    out.extend(4i32.to_le_bytes());
    out.extend(b"made");
    Ok(std::fs::write(path, out)?)
}
