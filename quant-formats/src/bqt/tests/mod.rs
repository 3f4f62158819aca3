//! Whole files, written and read.

mod damage;
mod hostile;
mod python;
mod round_trip;

use std::fs;
use std::path::{Path, PathBuf};

use quant_core::codec::{Fill, Known};
use quant_core::convert::{Budget, Pass, encode};
use quant_core::plan::{Decision, Plan, View};
use quant_core::source::{Role, Stored, Tensor};
use quant_core::{Dtype, Scheme};

use super::{Contents, Writer, hash_sources, open, verify};
use crate::checkpoint::{At, Checkpoint, Format, Origin, OriginFile, Place, SideFile};
use crate::input::{Input, Io};

/// Every kind of scheme, every width, each way to group.
fn schemes() -> impl Iterator<Item = &'static str> {
    let dense = "f64 f32 f16 bf16";
    let books = "nf4 nf4-dq nf4:128@cpu nf4-dq:32 fp4 fp4-dq fp4-dq:32@cpu int8 int8-block int8-block:32 int8-block@cpu";
    let affine = "affine2 affine3 affine4 affine5:16 affine6 affine7-zero affine8:row affine4:tensor affine3-zero:row";
    let absmax = "absmax2 absmax3 absmax4:128 absmax5 absmax6:row absmax7 absmax8:tensor";
    [dense, books, affine, absmax].into_iter().flat_map(str::split_whitespace)
}

/// Reproducible numbers of both signs and several magnitudes.
fn numbers(n: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next() * (next() * 4.0).exp2()).collect()
}

fn scheme(text: &str) -> Scheme {
    text.parse().unwrap()
}

/// A tensor in memory, and its parts.
fn tensor(name: &str, text: &str, shape: &[u64]) -> (Tensor, Vec<At>) {
    let scheme = scheme(text);
    let codec = scheme.codec(shape).unwrap();
    let n = shape.iter().product::<u64>() as usize;
    let empty = |i: usize| if matches!(codec.parts()[i].fill, Fill::Whole { .. }) { codec.whole(i, &Known::Nothing) } else { vec![] };
    let bytes = if n == 0 { (0..codec.parts().len()).map(empty).collect() } else { encode(scheme, shape, &numbers(n)).unwrap() };
    let stored = |p: &quant_core::codec::Part| Stored { name: p.name.into(), dtype: p.dtype, shape: p.shape.clone(), n_bytes: p.n_bytes() };
    let dtype = if let Scheme::Dense(dtype) = scheme { dtype } else { Dtype::BF16 };
    let parts = codec.parts().iter().map(stored).collect();
    (
        Tensor { name: name.into(), shape: shape.into(), dtype, scheme, role: Role::Other, parts, packed: None },
        bytes.into_iter().map(At::Bytes).collect(),
    )
}

fn checkpoint(tensors: Vec<(Tensor, Vec<At>)>) -> Checkpoint {
    let (tensors, places) = tensors.into_iter().unzip();
    Checkpoint {
        format: Format::Safetensors,
        path: "hand-made".into(),
        tensors,
        places,
        inputs: vec![],
        metadata: vec![("b".into(), "ü\u{0}\"".into()), ("a".into(), String::new())],
        side_files: vec![side_file("config.json", b"{}"), side_file("empty", b"")],
        kv: Vec::new(),
        origin: None,
        notes: vec![],
        base: None,
        errors: Vec::new(),
        original: None,
    }
}

fn side_file(name: &str, bytes: &[u8]) -> SideFile {
    SideFile { name: name.into(), n_bytes: bytes.len() as u64, at: At::Bytes(bytes.into()) }
}

fn contents(checkpoint: &Checkpoint) -> Contents<'_> {
    Contents {
        checkpoint,
        recipe: Some("* = nf4"),
        metadata: &checkpoint.metadata,
        side_files: &checkpoint.side_files,
        origin: checkpoint.origin.as_ref(),
        audited: false,
    }
}

/// A plan that stores every tensor under `scheme`, or as it is.
fn plan(checkpoint: &Checkpoint, scheme: Option<Scheme>) -> Plan {
    let mut plan = Plan::new(checkpoint, |_| Ok((Decision { scheme, reason: String::new() }, View::Whole))).unwrap();
    plan.scan(checkpoint, &Budget::default(), false, &()).unwrap();
    plan
}

/// Writes a file; `chunk` is far below what files usually have.
fn write(checkpoint: &Checkpoint, plan: &Plan, folder: &Path, chunk: u64) -> PathBuf {
    let target = folder.join("model.bqt");
    let writer = Writer::create_chunked(&target, plan, &contents(checkpoint), true, &[], chunk).unwrap();
    Pass::new(checkpoint, plan, &Budget::default()).unwrap().run(plan, &writer, &()).unwrap();
    writer.finish(&hash_sources(checkpoint, plan, &()).unwrap(), &[]).unwrap();
    target
}

fn input(path: &Path) -> Input {
    Input::open(path, Io::default()).unwrap()
}

/// The bytes of a file that holds a bit of everything.
fn small_file(folder: &Path) -> Vec<u8> {
    let checkpoint = checkpoint(vec![tensor("q", "nf4-dq:32", &[40, 33]), tensor("n", "bf16", &[65]), tensor("l", "affine3", &[8, 64])]);
    fs::read(write(&checkpoint, &plan(&checkpoint, None), folder, 256)).unwrap()
}
