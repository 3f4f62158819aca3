//! [`Sim`]: a queue that runs the committed PTX in the interpreter.

// Each test file uses what it needs.
#![allow(dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use ptx_sim::{Launch, Memory, Module, Stats};
use quant_core::codec::{Known, Slab};
use quant_core::{Dtype, Scheme};
use quant_cuda::queue::{Arg, Buffer, DeviceError, Kernel, Queue};
use quant_cuda::run::{self, Decode, Encode, Outcome};

/// A queue on the CPU.
#[derive(Default)]
pub struct Sim {
    /// Its buffers.
    pub memory: Memory,
    /// What the kernels did, by their names.
    pub stats: BTreeMap<&'static str, Stats>,
    /// Whether blocks, warps and lanes take turns in the opposite order.
    pub reversed: bool,
}

impl Sim {
    /// A queue without buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// What all kernels did.
    pub fn total(&self) -> Stats {
        let mut total = Stats::default();
        self.stats.values().for_each(|stats| total += stats);
        total
    }

    fn address(&mut self, bytes: &[u8]) -> Buffer {
        Buffer { address: self.memory.alloc(bytes), len: bytes.len() }
    }
}

/// The module of a `.cu` file, parsed once.
///
/// # Panics
/// If its PTX is not there, or is none.
pub fn module(name: &str) -> &'static Module {
    static MODULES: LazyLock<Mutex<HashMap<String, &'static Module>>> = LazyLock::new(Mutex::default);
    let mut modules = MODULES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    modules.entry(name.to_owned()).or_insert_with(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ptx").join(name).with_extension("ptx");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let module = Module::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Box::leak(Box::new(module))
    })
}

fn argument(arg: &Arg) -> ptx_sim::Arg {
    match *arg {
        Arg::Buffer(buffer) => ptx_sim::Arg::U64(buffer.address),
        Arg::Null => ptx_sim::Arg::U64(0),
        Arg::U32(value) => ptx_sim::Arg::U32(value),
        Arg::U64(value) => ptx_sim::Arg::U64(value),
        Arg::F32(value) => ptx_sim::Arg::F32(value),
    }
}

impl Queue for Sim {
    fn room(&mut self, len: usize) -> Result<Buffer, DeviceError> {
        Ok(self.address(&vec![0; len]))
    }

    fn upload(&mut self, bytes: &[u8]) -> Result<Buffer, DeviceError> {
        Ok(self.address(bytes))
    }

    fn launch(&mut self, kernel: Kernel, grid: u32, threads: u32, args: &[Arg]) -> Result<(), DeviceError> {
        let args: Vec<_> = args.iter().map(argument).collect();
        let launch = Launch::new(module(kernel.module), kernel.name, grid, threads).reversed(self.reversed);
        let stats = launch.run(&mut self.memory, &args).map_err(|fault| DeviceError::Failed(fault.to_string()))?;
        *self.stats.entry(kernel.name).or_default() += &stats;
        Ok(())
    }

    fn download(&mut self, buffer: Buffer, out: &mut [u8]) -> Result<(), DeviceError> {
        let bytes = self.memory.get(buffer.address, out.len());
        out.copy_from_slice(bytes.ok_or_else(|| DeviceError::Failed(format!("{} bytes of a buffer of {}", out.len(), buffer.len)))?);
        Ok(())
    }

    fn reset(&mut self) {
        self.memory = Memory::new();
    }
}

/// Encodes a tensor on the device and by the codec, in slabs of `slab` elements (0: all at once), from numbers stored as `dtype`, and
/// compares all bytes and tallies.
///
/// # Panics
/// If they differ, or the device refuses a slab.
pub fn check_encode(scheme: &str, shape: &[u64], x: &[f32], dtype: Dtype, importance: Option<&[f32]>, slab: usize, reversed: bool) -> Sim {
    let mut sim = Sim { reversed, ..Sim::new() };
    let refused = encode_on(&mut sim, scheme, shape, x, dtype, importance, slab);
    assert_eq!(refused, 0, "{scheme} {shape:?}: slabs are refused");
    sim
}

/// [`check_encode`] where slabs may be refused: how many are.
///
/// # Panics
/// If bytes differ.
pub fn encode_on(sim: &mut Sim, scheme: &str, shape: &[u64], x: &[f32], dtype: Dtype, importance: Option<&[f32]>, slab: usize) -> usize {
    let text = scheme;
    let scheme: Scheme = scheme.parse().unwrap();
    let codec = scheme.codec_of(shape, importance.is_some()).unwrap();
    let stored = quant_core::convert::encode(Scheme::Dense(dtype), &[x.len() as u64], x).unwrap().remove(0);
    let x = quant_core::backend::numbers(dtype, &stored);
    let slab = if slab == 0 { x.len().max(1) } else { slab };
    let known = match codec.scan(if slab < x.len() { slab as u64 } else { u64::MAX }) {
        None => Known::Nothing,
        Some(mut scan) => {
            let Ok(measured) = scan.measure(0, &mut x.clone()) else { return 1 };
            scan.fold(measured);
            scan.finish().unwrap()
        }
    };
    let bytes_per = stored.len() / x.len().max(1);
    let mut refused = 0;
    for at in (0..x.len().max(1)).step_by(slab) {
        let end = (at + slab).min(x.len());
        let importance = importance.map(|h| &h[at..end]);
        let slab = Slab { known: &known, at: at as u64, importance };
        let raw = &stored[at * bytes_per..end * bytes_per];
        let job = Encode { scheme, shape, codec: &*codec, slab: &slab, dtype, x: raw };
        let n_parts = codec.parts().len();
        let (mut out, mut wanted) = (vec![vec![1, 2, 3]; n_parts], vec![vec![1, 2, 3]; n_parts]);
        let outcome = run::encode(sim, &job, &mut out).unwrap_or_else(|error| panic!("{text} {shape:?} at {at}: {error}"));
        sim.reset();
        let tally = codec.encode(&slab, &mut x[at..end].to_vec(), &mut wanted);
        match outcome {
            Outcome::Refused => refused += 1,
            Outcome::Done(done) => {
                assert_eq!(Ok(done), tally, "{text} {shape:?} at {at}");
                for (i, (out, wanted)) in out.iter().zip(&wanted).enumerate() {
                    let name = codec.parts()[i].name;
                    let first = (0..out.len().max(wanted.len())).find(|&i| out.get(i) != wanted.get(i));
                    if let Some(first) = first {
                        let (out, wanted) = (&out[first.min(out.len())..], &wanted[first.min(wanted.len())..]);
                        let [out, wanted] = [out, wanted].map(|bytes| &bytes[..bytes.len().min(8)]);
                        panic!("{text} {shape:?} at {at}: part {name} differs from byte {first} on: {out:x?}, and should be {wanted:x?}");
                    }
                }
            }
        }
    }
    refused
}

/// Decodes elements of an encoded tensor on the device and by the codec, and compares all bits; all NaN are one.
///
/// # Panics
/// If they differ, or the device refuses.
pub fn check_decode(scheme: &str, shape: &[u64], parts: &[Vec<u8>], at: u64, n: usize, reversed: bool) -> Sim {
    let text = scheme;
    let scheme: Scheme = scheme.parse().unwrap();
    let codec = scheme.codec(shape).unwrap();
    let pieces: Vec<&[u8]> = codec
        .parts()
        .iter()
        .zip(parts)
        .map(|(part, bytes)| {
            let range = part.decoded(at..at + n as u64);
            &bytes[range.start as usize..range.end as usize]
        })
        .collect();
    let (mut out, mut wanted) = (vec![7.0; n], vec![8.0; n]);
    codec.decode(at, &pieces, &mut wanted);
    let mut sim = Sim { reversed, ..Sim::new() };
    let job = Decode { scheme, shape, codec: &*codec, at, parts: &pieces };
    let done = run::decode(&mut sim, &job, &mut out).unwrap_or_else(|error| panic!("{text} {shape:?} at {at}: {error}"));
    assert!(done, "{text} {shape:?}: there is no kernel");
    let differ = |i: &usize| out[*i].to_bits() != wanted[*i].to_bits() && !(out[*i].is_nan() && wanted[*i].is_nan());
    if let Some(i) = (0..n).find(differ) {
        panic!("{text} {shape:?}: element {} is {:e}, and should be {:e}", at + i as u64, out[i], wanted[i]);
    }
    sim
}

/// Numbers of a normal distribution, the same in every run.
pub fn normal(n: usize, mut seed: u64) -> Vec<f32> {
    let mut uniform = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 40) as f32 / 16_777_216.0
    };
    (0..n).map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * 0.05).collect()
}

/// Tensors that ggml has made.
pub struct Goldens(Vec<u8>);

/// `tests/goldens/ggml.safetensors`.
///
/// # Panics
/// If it cannot be read.
pub fn ggml_goldens() -> Goldens {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/ggml.safetensors");
    Goldens(std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

impl Goldens {
    /// The bytes of a tensor, if there is one of this name.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let file = safetensors::SafeTensors::deserialize(&self.0).unwrap();
        file.tensor(name).ok().map(|tensor| tensor.data().to_vec())
    }

    /// The floats of a tensor.
    ///
    /// # Panics
    /// If there is none.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        let bytes = self.bytes(name).unwrap_or_else(|| panic!("there is no golden {name}"));
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }
}

/// The first part of a tensor that is encoded on the device in one slab.
///
/// # Panics
/// If it is refused.
pub fn encode_once(sim: &mut Sim, scheme: &str, shape: &[u64], x: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let scheme: Scheme = scheme.parse().unwrap();
    let codec = scheme.codec_of(shape, importance.is_some()).unwrap();
    let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
    let slab = Slab { known: &Known::Nothing, at: 0, importance };
    let mut out = vec![Vec::new(); codec.parts().len()];
    let job = Encode { scheme, shape, codec: &*codec, slab: &slab, dtype: Dtype::F32, x: &bytes };
    assert!(matches!(run::encode(sim, &job, &mut out), Ok(Outcome::Done(_))), "{scheme} is refused");
    sim.reset();
    out.remove(0)
}
