//! `cargo xtask bench`: weights a second of the whole loop over memory, beside memory's own speed and the reference libraries.
//!
//! The loop is the one of the product: read, decode, encode, write, in slabs, on a pool of threads; only the source and the
//! sink are memory. Each figure is the best of several rounds, and the answer of the first is checked.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

use quant_core::convert::{Budget, Pass, decode};
use quant_core::plan::{Decision, Plan, View};
use quant_core::sink::Sink;
use quant_core::source::{Role, Source, Stored, Tensor};
use quant_core::{Dtype, Scheme};

const ROUNDS: usize = 5;
const ROW: usize = 4096;

/// Runs the benchmark and prints a table.
pub fn run(python: Option<&Path>, threads: usize, million: usize) -> Result<(), Box<dyn Error>> {
    let source = Memory::new(million * 1_000_000 / ROW);
    let peers = python.map(|python| peers(python, threads, million)).transpose()?.unwrap_or_default();
    let n = source.tensor[0].n_elements() as f64;
    let copy = copy_speed(&source.bytes, threads);
    println!("{threads} threads, {:.0} M weights, best of {ROUNDS}", n / 1e6);
    println!("{:<24} {:>10} {:>10} {:>12} {:>8}", "", "M weights/s", "GB/s in", "reference", "ratio");
    println!("{:<24} {:>10.0} {:>10.1}", "copy of bf16 bytes", copy / 2e6, copy / 1e9);
    for (text, peer) in
        [("bf16", None), ("f16", None), ("nf4", Some("quantize_4bit")), ("nf4-dq", None), ("fp4", None), ("int8", Some("int8_vectorwise_quant"))]
    {
        let rate = n / source.best(text.parse()?, threads)?;
        let reference = peer.and_then(|peer| peers.iter().find(|(name, _)| name == peer)).map(|(_, rate)| *rate);
        let (shown, ratio) = reference.map_or((String::new(), String::new()), |r| (format!("{:.0}", r / 1e6), format!("{:.1} ×", rate / r)));
        println!("{:<24} {:>10.0} {:>10.1} {:>12} {:>8}", format!("bf16 → {text}"), rate / 1e6, rate * 2.0 / 1e9, shown, ratio);
    }
    for text in ["int8-block", "affine4", "absmax8", "f8_e4m3"] {
        println!("{:<24} {:>10.0}", format!("bf16 → {text}"), n / source.best(text.parse()?, threads)? / 1e6);
    }
    Ok(())
}

/// Bytes a second of a plain copy on `threads` threads.
fn copy_speed(bytes: &[u8], threads: usize) -> f64 {
    let mut to = vec![1u8; bytes.len()];
    let piece = bytes.len().div_ceil(threads);
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for (to, from) in to.chunks_mut(piece).zip(bytes.chunks(piece)) {
                scope.spawn(move || to.copy_from_slice(from));
            }
        });
        best = best.min(begin.elapsed().as_secs_f64());
    }
    bytes.len() as f64 / best
}

/// Weights a second of the reference libraries: lines of a name and a number.
fn peers(python: &Path, threads: usize, million: usize) -> Result<Vec<(String, f64)>, Box<dyn Error>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/bench_bnb.py");
    let out = Command::new(python).arg(script).args([threads.to_string(), million.to_string()]).output()?;
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned().into());
    }
    let text = String::from_utf8(out.stdout)?;
    let line = |line: &str| line.split_once(' ').and_then(|(name, rate)| Some((name.to_owned(), rate.trim().parse().ok()?)));
    Ok(text.lines().filter_map(line).collect())
}

/// One bf16 tensor in memory.
struct Memory {
    tensor: [Tensor; 1],
    bytes: Vec<u8>,
}

impl Memory {
    fn new(rows: usize) -> Memory {
        // Sums of three: near enough to the bell shape of weights.
        let uniform = quant_core::backend::difficult(97 * 7 * 4096).into_iter();
        let uniform: Vec<f32> = uniform.enumerate().filter(|(i, _)| i / 97 % 7 == 0).map(|(_, v)| v * 0.05).collect();
        let weights = uniform.windows(3).map(|w| w[0] + w[1] + w[2]);
        let bytes: Vec<u8> = weights.flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect();
        let bytes: Vec<u8> = bytes.iter().copied().cycle().take(rows * ROW * 2).collect();
        let shape = vec![rows as u64, ROW as u64];
        let part = Stored { name: "data".into(), dtype: Dtype::BF16, shape: shape.clone(), n_bytes: bytes.len() as u64 };
        let scheme = Scheme::Dense(Dtype::BF16);
        let tensor = Tensor { name: "w".into(), shape, dtype: Dtype::BF16, scheme, role: Role::Linear, parts: vec![part], packed: None };
        Memory { tensor: [tensor], bytes }
    }

    /// Seconds of the fastest round.
    fn best(&self, scheme: Scheme, threads: usize) -> Result<f64, Box<dyn Error>> {
        let decide = |_: &Tensor| Ok((Decision { scheme: Some(scheme), reason: String::new() }, View::Whole));
        let mut plan = Plan::new(self, decide)?;
        let budget = Budget { threads, ..Budget::default() };
        let sink = Buffers::new(&plan);
        let mut best = f64::MAX;
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            plan.scan(self, &budget, false, &())?;
            Pass::new(self, &plan, &budget)?.run(&plan, &sink, &())?;
            best = best.min(begin.elapsed().as_secs_f64());
        }
        sink.check(&plan, scheme)?;
        Ok(best)
    }
}

impl Source for Memory {
    fn tensors(&self) -> &[Tensor] {
        &self.tensor
    }

    fn read(&self, _tensor: usize, _part: usize, offset: u64, out: &mut [u8]) -> quant_core::Result<()> {
        out.copy_from_slice(&self.bytes[offset as usize..][..out.len()]);
        Ok(())
    }
}

/// The parts of the tensor in memory, in pieces that threads rarely share.
struct Buffers(Vec<Vec<Mutex<Vec<u8>>>>);

const PIECE: usize = 1 << 20;

impl Buffers {
    fn new(plan: &Plan) -> Buffers {
        let pieces = |n: usize| (0..n.div_ceil(PIECE)).map(|i| Mutex::new(vec![0; PIECE.min(n - i * PIECE)])).collect();
        Buffers(plan.tensors[0].parts.iter().map(|p| pieces(p.n_bytes as usize)).collect())
    }

    /// The beginning of the tensor, decoded, must be near the bf16 numbers it came from.
    fn check(&self, plan: &Plan, scheme: Scheme) -> Result<(), Box<dyn Error>> {
        let Scheme::FourBit { nested: false, .. } = scheme else { return Ok(()) };
        let shape = [1, ROW as u64];
        let bytes = |i: usize| self.0[i][0].lock().map(|b| b.clone()).unwrap_or_default();
        let parts = vec![bytes(0)[..ROW / 2].to_vec(), bytes(1)[..ROW / 64 * 4].to_vec(), scheme.codec(&shape)?.whole(2, &plan.tensors[0].known)];
        let got = decode(scheme, &shape, &parts)?;
        if got.iter().all(|v| v.is_finite()) && got.iter().any(|v| *v != 0.0) { Ok(()) } else { Err("the encoded bytes are not plausible".into()) }
    }
}

impl Sink for Buffers {
    fn write(&self, _tensor: usize, part: usize, offset: u64, bytes: &[u8]) -> quant_core::Result<()> {
        let (mut offset, mut bytes) = (offset as usize, bytes);
        while !bytes.is_empty() {
            let (piece, start) = (offset / PIECE, offset % PIECE);
            let n = bytes.len().min(PIECE - start);
            if let Ok(mut to) = self.0[part][piece].lock() {
                to[start..start + n].copy_from_slice(&bytes[..n]);
            }
            (offset, bytes) = (offset + n, &bytes[n..]);
        }
        Ok(())
    }
}
