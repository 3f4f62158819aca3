//! What a PTX file holds.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ParseError;
use crate::kind::Space;
use crate::step::Instruction;

/// A parsed PTX file.
pub struct Module {
    /// Tells modules apart: their variables live in the memory of a device.
    pub(crate) id: u64,
    pub(crate) version: (u32, u32),
    pub(crate) target: String,
    pub(crate) kernels: Vec<Kernel>,
    pub(crate) variables: Vec<Variable>,
}

impl Module {
    /// Parses PTX.
    ///
    /// # Errors
    /// If the text is not PTX, or has functions besides kernels. Unknown instructions are errors only when they are executed.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut module =
            Self { id: NEXT.fetch_add(1, Ordering::Relaxed), version: (0, 0), target: String::new(), kernels: Vec::new(), variables: Vec::new() };
        crate::parse::parse(text, &mut module)?;
        Ok(module)
    }

    /// The version of the PTX language.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The architecture it is for, like `sm_75`.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The kernels, in the order of the file.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// The kernel of that name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// The instructions with their modifiers, like `add.rn.f32`.
    pub fn instructions(&self) -> BTreeSet<&str> {
        self.kernels.iter().flat_map(|kernel| kernel.opcodes.iter().map(String::as_str)).collect()
    }
}

/// A function that can be launched.
pub struct Kernel {
    pub(crate) name: String,
    pub(crate) params: Vec<Param>,
    pub(crate) shared_bytes: usize,
    pub(crate) local_bytes: usize,
    pub(crate) max_threads: usize,
    pub(crate) code: Vec<Instruction>,
    /// The instructions with their modifiers, each once.
    pub(crate) opcodes: Vec<String>,
    pub(crate) rows: usize,
    pub(crate) predicates: usize,
    /// Rows of registers that hold the same all the time.
    pub(crate) fills: Vec<(usize, Fill)>,
}

impl Kernel {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its parameters.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// Bytes of all parameters.
    pub fn param_bytes(&self) -> usize {
        self.params.last().map_or(0, |param| param.offset + param.bytes)
    }

    /// Bytes of shared memory, without what a launch adds.
    pub fn shared_bytes(&self) -> usize {
        self.shared_bytes
    }

    /// Bytes of local memory of each thread.
    pub fn local_bytes(&self) -> usize {
        self.local_bytes
    }

    /// The most threads that a block may have.
    pub fn max_threads(&self) -> usize {
        self.max_threads
    }
}

/// Where a parameter lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its offset from the first one.
    pub offset: usize,
    /// Its length.
    pub bytes: usize,
}

/// A `.const` or `.global` variable of a module.
pub(crate) struct Variable {
    pub name: String,
    pub space: Space,
    pub bytes: Vec<u8>,
}

/// What a constant row of registers holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fill {
    Constant(u64),
    Special(Special),
    /// The address of a variable of the module.
    Variable(usize),
    /// Where shared memory begins whose length a launch decides.
    DynamicShared,
}

/// Special registers. Arrays are indexed by the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Thread(usize),
    Threads(usize),
    Block(usize),
    Blocks(usize),
    Lane,
    Warp,
    LanesEqual,
    LanesBelow,
    LanesUpTo,
    LanesAbove,
    LanesFrom,
}

impl Special {
    pub fn parse(name: &str) -> Option<Self> {
        let axis = |name: &str| ["x", "y", "z"].iter().position(|axis| *axis == name);
        Some(match name {
            "%laneid" => Self::Lane,
            "%warpid" => Self::Warp,
            "%lanemask_eq" => Self::LanesEqual,
            "%lanemask_lt" => Self::LanesBelow,
            "%lanemask_le" => Self::LanesUpTo,
            "%lanemask_gt" => Self::LanesAbove,
            "%lanemask_ge" => Self::LanesFrom,
            _ => match name.split_once('.')? {
                ("%tid", rest) => Self::Thread(axis(rest)?),
                ("%ntid", rest) => Self::Threads(axis(rest)?),
                ("%ctaid", rest) => Self::Block(axis(rest)?),
                ("%nctaid", rest) => Self::Blocks(axis(rest)?),
                _ => return None,
            },
        })
    }
}
