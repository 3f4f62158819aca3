//! Launches of kernels: what goes in, what comes out, what goes wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

use crate::{Kernel, Memory, Module, run};

/// An argument of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    /// 32 bits.
    U32(u32),
    /// 32 bits with a sign.
    I32(i32),
    /// 64 bits, or an address.
    U64(u64),
    /// A float.
    F32(f32),
    /// A double.
    F64(f64),
    /// A struct, as its bytes.
    Bytes(Vec<u8>),
}

impl Arg {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::U32(value) => value.to_le_bytes().to_vec(),
            Self::I32(value) => value.to_le_bytes().to_vec(),
            Self::U64(value) => value.to_le_bytes().to_vec(),
            Self::F32(value) => value.to_le_bytes().to_vec(),
            Self::F64(value) => value.to_le_bytes().to_vec(),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// The extent of a grid or a block along three axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape(pub [u32; 3]);

impl From<u32> for Shape {
    fn from(x: u32) -> Self {
        Self([x, 1, 1])
    }
}

impl From<[u32; 3]> for Shape {
    fn from(shape: [u32; 3]) -> Self {
        Self(shape)
    }
}

impl Shape {
    /// Blocks of a grid, or threads of a block.
    pub fn count(self) -> u64 {
        self.0.iter().fold(1, |count, extent| count.saturating_mul(u64::from(*extent)))
    }

    /// The coordinates of the element with a number.
    pub(crate) fn coordinates(self, index: u64) -> [u32; 3] {
        let [x, y, _] = self.0.map(u64::from);
        [index % x, index / x % y, index / x / y].map(|coordinate| coordinate as u32)
    }
}

/// A kernel that is to run.
pub struct Launch<'a> {
    module: &'a Module,
    name: &'a str,
    pub(crate) grid: Shape,
    pub(crate) threads: Shape,
    pub(crate) dynamic_shared: usize,
    pub(crate) reversed: bool,
    pub(crate) patience: u64,
}

/// The most bytes of shared memory of a block, unless the host asks for more.
const SHARED_LIMIT: usize = 48 << 10;

impl<'a> Launch<'a> {
    /// The kernel of that name over so many blocks of so many threads.
    pub fn new(module: &'a Module, name: &'a str, grid: impl Into<Shape>, threads: impl Into<Shape>) -> Self {
        Self { module, name, grid: grid.into(), threads: threads.into(), dynamic_shared: 0, reversed: false, patience: 1 << 32 }
    }

    /// With so many bytes of shared memory more than the kernel declares.
    #[must_use]
    pub fn dynamic_shared(self, dynamic_shared: usize) -> Self {
        Self { dynamic_shared, ..self }
    }

    /// Blocks, warps and lanes take turns in the opposite order. Kernels that are right give the same.
    #[must_use]
    pub fn reversed(self, reversed: bool) -> Self {
        Self { reversed, ..self }
    }

    /// So many instructions of warps, and a block is taken for one that does not end. As a rule they are 2^32.
    #[must_use]
    pub fn patience(self, patience: u64) -> Self {
        Self { patience, ..self }
    }

    /// Runs the kernel.
    ///
    /// # Errors
    /// If the kernel cannot be launched so, or does what it must not.
    pub fn run(&self, memory: &mut Memory, args: &[Arg]) -> Result<Stats, Fault> {
        let kernel = self.kernel()?;
        if args.len() != kernel.params.len() {
            return Err(self.refuse(format!("{} arguments are given, the kernel has {} parameters", args.len(), kernel.params.len())));
        }
        let mut params = vec![0; kernel.param_bytes()];
        for (index, (arg, param)) in args.iter().zip(&kernel.params).enumerate() {
            let bytes = arg.bytes();
            if bytes.len() != param.bytes {
                return Err(self.refuse(format!("argument {index} has {} bytes, the parameter {}", bytes.len(), param.bytes)));
            }
            params[param.offset..][..param.bytes].copy_from_slice(&bytes);
        }
        self.run_with(memory, params)
    }

    /// Runs the kernel with its parameters as bytes, as [`Kernel::params`] says.
    ///
    /// # Errors
    /// If the kernel cannot be launched so, or does what it must not.
    pub fn run_with(&self, memory: &mut Memory, params: Vec<u8>) -> Result<Stats, Fault> {
        let kernel = self.kernel()?;
        self.check()?;
        if params.len() != kernel.param_bytes() {
            return Err(self.refuse(format!("{} bytes of parameters are given, the kernel has {}", params.len(), kernel.param_bytes())));
        }
        run::run(self, self.module, kernel, memory, params)
    }

    fn kernel(&self) -> Result<&'a Kernel, Fault> {
        self.module.kernel(self.name).ok_or_else(|| self.refuse("the module has no such kernel".into()))
    }

    /// Whether a GPU would take the launch.
    ///
    /// # Errors
    /// If it would not.
    pub fn check(&self) -> Result<(), Fault> {
        let kernel = self.kernel()?;
        let ([x, y, z], threads) = (self.grid.0, self.threads.count());
        if self.grid.count() == 0 || x > i32::MAX as u32 || y > 65535 || z > 65535 {
            return Err(self.refuse(format!("a grid of {x} x {y} x {z} blocks")));
        }
        if threads == 0 || threads > kernel.max_threads as u64 || self.threads.0[2] > 64 {
            return Err(self.refuse(format!("blocks of {threads} threads, where 1 to {} are possible", kernel.max_threads)));
        }
        let shared = kernel.shared_bytes + self.dynamic_shared;
        if shared > SHARED_LIMIT {
            return Err(self.refuse(format!("{shared} bytes of shared memory, where {SHARED_LIMIT} are possible")));
        }
        Ok(())
    }

    fn refuse(&self, message: String) -> Fault {
        Fault { kernel: self.name.into(), place: None, message }
    }
}

/// Where something went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The block.
    pub block: [u32; 3],
    /// The thread in it.
    pub thread: [u32; 3],
    /// The line of the PTX text, counted from 1.
    pub line: u32,
}

/// What a kernel, or who launched it, did wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kernel.
    pub kernel: String,
    /// Where. Launches that are refused fail nowhere.
    pub place: Option<Place>,
    /// What.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kernel {}", self.kernel)?;
        if let Some(Place { block, thread, line }) = self.place {
            write!(f, ", block {}, thread {}, PTX line {line}", axes(block), axes(thread))?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Fault {}

/// Coordinates, without those at the end that are zero.
fn axes([x, y, z]: [u32; 3]) -> String {
    match (y, z) {
        (0, 0) => x.to_string(),
        (_, 0) => format!("{x},{y}"),
        _ => format!("{x},{y},{z}"),
    }
}

/// What kernels did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Instructions, counted once for each lane that took part.
    pub lane_instructions: u64,
    /// Instructions, counted once for all lanes that took part together.
    pub warp_instructions: u64,
    /// `lane_instructions` by the instruction with its modifiers, like `add.rn.f32`.
    pub opcodes: BTreeMap<String, u64>,
    /// Bytes that lanes read from global memory.
    pub bytes_read: u64,
    /// Bytes that lanes wrote to global memory.
    pub bytes_written: u64,
    /// Barriers, counted once for each block.
    pub barriers: u64,
}

impl AddAssign<&Self> for Stats {
    fn add_assign(&mut self, other: &Self) {
        self.lane_instructions += other.lane_instructions;
        self.warp_instructions += other.warp_instructions;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
        self.barriers += other.barriers;
        for (opcode, count) in &other.opcodes {
            *self.opcodes.entry(opcode.clone()).or_default() += count;
        }
    }
}
