//! [`Sim`]: a queue that runs the committed PTX in the interpreter.

// Each test file uses what it needs.
#![allow(dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use ptx_sim::{Launch, Memory, Module, Stats};
use quant_cuda::queue::{Arg, Buffer, DeviceError, Kernel, Queue};

/// A queue on the CPU.
#[derive(Default)]
pub struct Sim {
    memory: Memory,
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
