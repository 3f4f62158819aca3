//! Thread blocks, one after the other.

mod access;
mod collective;
mod shared;
mod warp;

use crate::launch::{Fault, Launch, Place, Stats};
use crate::memory::Memory;
use crate::module::{Fill, Kernel, Module, Special};
use shared::Shared;
use warp::Warp;

/// Why a block stops: where it was, and what happened.
pub(crate) struct Halt {
    line: u32,
    thread: usize,
    message: String,
}

/// What the warps of a block share.
pub(crate) struct Machine<'a> {
    kernel: &'a Kernel,
    memory: &'a mut Memory,
    params: Vec<u8>,
    shared: Shared,
    /// Local memory of one thread after the other.
    local: Vec<u8>,
    reversed: bool,
    /// Instructions until the block is taken for one that does not end.
    patience: u64,
    /// Lanes that executed each instruction.
    lanes: Vec<u64>,
    /// The buffer that each instruction found last.
    hints: Vec<usize>,
    stats: Stats,
}

pub(crate) fn run(launch: &Launch<'_>, module: &Module, kernel: &Kernel, memory: &mut Memory, params: Vec<u8>) -> Result<Stats, Fault> {
    let variables = memory.variables(module);
    let threads = launch.threads.count() as usize;
    // Dynamic shared memory begins where any type may lie.
    let static_bytes = if launch.dynamic_shared > 0 { kernel.shared_bytes.next_multiple_of(16) } else { kernel.shared_bytes };
    let mut machine = Machine {
        kernel,
        memory,
        params,
        shared: Shared::new(static_bytes + launch.dynamic_shared),
        local: vec![0; kernel.local_bytes * threads],
        reversed: launch.reversed,
        patience: launch.patience,
        lanes: vec![0; kernel.code.len()],
        hints: vec![0; kernel.code.len()],
        stats: Stats::default(),
    };
    let mut warps: Vec<Warp> = (0..threads.div_ceil(32)).map(|index| Warp::new(kernel, index, threads)).collect();
    let blocks = launch.grid.count();
    for index in 0..blocks {
        let block = launch.grid.coordinates(if launch.reversed { blocks - 1 - index } else { index });
        for warp in &mut warps {
            warp.start(kernel, |fill, thread| value(fill, thread, block, launch, &variables, static_bytes));
        }
        machine.shared.start_block();
        machine.patience = launch.patience;
        machine.run_block(&mut warps).map_err(|halt| Fault {
            kernel: kernel.name.clone(),
            place: Some(Place { block, thread: launch.threads.coordinates(halt.thread as u64), line: halt.line }),
            message: halt.message,
        })?;
    }
    for (instruction, lanes) in kernel.code.iter().zip(&machine.lanes).filter(|(_, lanes)| **lanes > 0) {
        *machine.stats.opcodes.entry(kernel.opcodes[instruction.opcode].clone()).or_default() += lanes;
        machine.stats.lane_instructions += lanes;
    }
    Ok(machine.stats)
}

/// What a constant row holds in a thread.
fn value(fill: Fill, thread: usize, block: [u32; 3], launch: &Launch<'_>, variables: &[u64], static_bytes: usize) -> u64 {
    let special = match fill {
        Fill::Constant(value) => return value,
        Fill::Variable(index) => return variables[index],
        Fill::DynamicShared => return static_bytes as u64,
        Fill::Special(special) => special,
    };
    let lane = thread as u32 % 32;
    let below = (1u32 << lane) - 1;
    u64::from(match special {
        Special::Thread(axis) => launch.threads.coordinates(thread as u64)[axis],
        Special::Threads(axis) => launch.threads.0[axis],
        Special::Block(axis) => block[axis],
        Special::Blocks(axis) => launch.grid.0[axis],
        Special::Lane => lane,
        Special::Warp => thread as u32 / 32,
        Special::LanesEqual => 1 << lane,
        Special::LanesBelow => below,
        Special::LanesUpTo => below | 1 << lane,
        Special::LanesAbove => !(below | 1 << lane),
        Special::LanesFrom => !below,
    })
}

impl Machine<'_> {
    fn run_block(&mut self, warps: &mut [Warp]) -> Result<(), Halt> {
        loop {
            let mut progress = false;
            for index in 0..warps.len() {
                let warp = if self.reversed { warps.len() - 1 - index } else { index };
                progress |= warps[warp].run(self)?;
            }
            let live: u32 = warps.iter().map(|warp| warp.live.count_ones()).sum();
            if live == 0 {
                return Ok(());
            }
            let waiting: u32 = warps.iter().map(Warp::at_barrier).sum();
            if live == waiting {
                self.release(warps)?;
            } else if !progress {
                return Err(self.deadlock(warps));
            }
        }
    }

    /// All threads that have not exited wait at a barrier: they go on, if it is the same one.
    fn release(&mut self, warps: &mut [Warp]) -> Result<(), Halt> {
        let places: Vec<_> = warps.iter().flat_map(Warp::barriers).collect();
        if let Some((pc, thread)) = places.iter().find(|(pc, _)| *pc != places[0].0) {
            let message =
                format!("divergent barriers: other threads of the block wait at the barrier of line {}", self.kernel.code[places[0].0].line);
            return Err(self.halt(*pc, *thread, message));
        }
        self.stats.barriers += 1;
        self.shared.barrier();
        warps.iter_mut().for_each(Warp::pass_barrier);
        Ok(())
    }

    fn deadlock(&self, warps: &[Warp]) -> Halt {
        let places: Vec<_> = warps.iter().flat_map(|warp| warp.waits(self.kernel)).collect();
        let all: Vec<_> = places.iter().map(|(line, thread, lanes)| format!("warp {} lanes {lanes:#010x} at line {line}", thread / 32)).collect();
        let (line, thread, _) = places.first().copied().unwrap_or_default();
        Halt { line, thread, message: format!("deadlock, all threads wait for others: {}", all.join(", ")) }
    }

    /// Stops at an instruction.
    fn halt(&self, pc: usize, thread: usize, message: impl Into<String>) -> Halt {
        Halt { line: self.kernel.code[pc].line, thread, message: message.into() }
    }
}
