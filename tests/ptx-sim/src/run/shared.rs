//! Shared memory, and who used it since the last barrier.

use std::ops::Range;

/// An access to a byte.
#[derive(Clone, Copy, Default)]
struct Stamp {
    /// The barriers before it. 0: there was no access.
    epoch: u32,
    /// The time of the lane.
    clock: u32,
    thread: u16,
}

/// The last accesses to a byte.
#[derive(Clone, Copy, Default)]
struct Cell {
    write: Stamp,
    /// Whether the last write was an atomic.
    atomic: bool,
    /// The first reader since a barrier, and the last other one.
    reads: [Stamp; 2],
}

/// How a thread uses memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Write,
    Atomic,
}

/// What the lanes of a warp know of each other: `bar.warp.sync` orders what lanes did before it and do after it.
pub(super) struct Order {
    clock: [u32; 32],
    /// For each lane the time up to which it knows what another one did.
    knows: [[u32; 32]; 32],
}

impl Order {
    pub fn new() -> Self {
        Self { clock: [1; 32], knows: [[0; 32]; 32] }
    }

    pub fn sync(&mut self, mask: u32) {
        let mut all = [0; 32];
        for lane in crate::registers::lanes(mask) {
            for (known, other) in all.iter_mut().zip(self.knows[lane]) {
                *known = other.max(*known);
            }
            all[lane] = self.clock[lane];
        }
        for lane in crate::registers::lanes(mask) {
            self.knows[lane] = all;
            self.clock[lane] += 1;
        }
    }
}

pub(super) struct Shared {
    bytes: Vec<u8>,
    cells: Vec<Cell>,
    epoch: u32,
    /// The epoch in which the block began. What was written before is not there any more.
    first_epoch: u32,
}

impl Shared {
    pub fn new(len: usize) -> Self {
        Self { bytes: vec![0; len], cells: vec![Cell::default(); len], epoch: 0, first_epoch: 0 }
    }

    pub fn start_block(&mut self) {
        self.epoch += 1;
        self.first_epoch = self.epoch;
    }

    pub fn barrier(&mut self) {
        self.epoch += 1;
    }

    /// Bytes that a thread may use. `order` is that of its warp.
    pub fn access(&mut self, address: u64, len: usize, how: Use, thread: usize, order: &Order) -> Result<&mut [u8], String> {
        let range = usize::try_from(address).ok().and_then(|start| Some(start..start.checked_add(len)?));
        let Some(range) = range.filter(|range| range.end <= self.bytes.len()) else {
            return Err(format!("out of bounds: shared address {address:#x} of {} bytes", self.bytes.len()));
        };
        self.check(range.clone(), how, thread, order)?;
        Ok(&mut self.bytes[range])
    }

    fn check(&mut self, range: Range<usize>, how: Use, thread: usize, order: &Order) -> Result<(), String> {
        let (epoch, lane) = (self.epoch, thread % 32);
        let now = Stamp { epoch, clock: order.clock[lane], thread: thread as u16 };
        let unordered = |stamp: &Stamp| {
            let (other, its_lane) = (usize::from(stamp.thread), usize::from(stamp.thread % 32));
            stamp.epoch == epoch && other != thread && (other / 32 != thread / 32 || order.knows[lane][its_lane] < stamp.clock)
        };
        for address in range {
            let cell = &mut self.cells[address];
            if how != Use::Write && cell.write.epoch < self.first_epoch {
                return Err(format!("uninitialised: shared address {address:#x} was not written"));
            }
            if unordered(&cell.write) && !(how == Use::Atomic && cell.atomic) {
                return Err(race(address, "written", cell.write.thread));
            }
            if how == Use::Read {
                let free = cell.reads[0].epoch != epoch || cell.reads[0].thread == now.thread;
                cell.reads[usize::from(!free)] = now;
            } else {
                if let Some(read) = cell.reads.iter().find(|read| unordered(read)) {
                    return Err(race(address, "read", read.thread));
                }
                cell.write = now;
                cell.atomic = how == Use::Atomic;
            }
        }
        Ok(())
    }
}

fn race(address: usize, what: &str, thread: u16) -> String {
    format!("race: shared address {address:#x} was {what} by thread {thread}, and no barrier lies between")
}
