//! A warp: groups of lanes that are at the same instruction.

use super::shared::Order;
use super::{Halt, Machine};
use crate::module::{Fill, Kernel, Special};
use crate::registers::{Registers, lanes};
use crate::step::Step;

/// Lanes at an instruction.
#[derive(Clone, Copy)]
pub(super) struct Group {
    pub pc: usize,
    pub lanes: u32,
}

/// Lanes that wait for the others of a `.sync` mask.
pub(super) struct Waiting {
    pub group: Group,
    pub member: u32,
    /// Whether it is a `bar.warp.sync`, which lanes may reach at different instructions.
    pub sync: bool,
}

pub(crate) struct Warp {
    pub(super) registers: Registers,
    pub(super) ready: Vec<Group>,
    pub(super) waiting: Vec<Waiting>,
    /// Groups at a barrier of the block.
    barrier: Vec<Group>,
    /// Lanes that have not exited.
    pub live: u32,
    pub(super) first_thread: usize,
    threads: usize,
    pub(super) order: Order,
    started: bool,
}

impl Warp {
    /// Warp `index` of a block with so many threads.
    pub fn new(kernel: &Kernel, index: usize, threads: usize) -> Self {
        Self {
            registers: Registers { rows: vec![[0; _]; kernel.rows], predicates: vec![0; kernel.predicates] },
            ready: Vec::new(),
            waiting: Vec::new(),
            barrier: Vec::new(),
            live: 0,
            first_thread: index * 32,
            threads,
            order: Order::new(),
            started: false,
        }
    }

    /// Puts all lanes at the first instruction of another block. `value` says what constant rows hold.
    pub fn start(&mut self, kernel: &Kernel, value: impl Fn(Fill, usize) -> u64) {
        let lanes = (self.threads - self.first_thread).min(32);
        self.live = u32::MAX >> (32 - lanes);
        self.ready = vec![Group { pc: 0, lanes: self.live }];
        for (row, fill) in &kernel.fills {
            // All else is as it was in the block before.
            if !self.started || matches!(fill, Fill::Special(Special::Block(_))) {
                self.registers.rows[*row] = std::array::from_fn(|lane| value(*fill, self.first_thread + lane));
            }
        }
        self.started = true;
    }

    /// Threads that wait at a barrier of the block.
    pub fn at_barrier(&self) -> u32 {
        self.barrier.iter().map(|group| group.lanes.count_ones()).sum()
    }

    /// The barriers at which threads wait, as instructions, and one of the threads.
    pub fn barriers(&self) -> impl Iterator<Item = (usize, usize)> {
        self.barrier.iter().map(|group| (group.pc, self.thread(group.lanes)))
    }

    pub fn pass_barrier(&mut self) {
        self.ready.extend(self.barrier.drain(..).map(|group| Group { pc: group.pc + 1, ..group }));
    }

    /// Where lanes wait: the line, the first thread, and the lanes.
    pub fn waits(&self, kernel: &Kernel) -> Vec<(u32, usize, u32)> {
        let groups = self.waiting.iter().map(|waiting| waiting.group).chain(self.barrier.iter().copied());
        groups.map(|group| (kernel.code[group.pc].line, self.thread(group.lanes), group.lanes)).collect()
    }

    /// The first thread of some lanes.
    pub(super) fn thread(&self, lanes: u32) -> usize {
        self.first_thread + lanes.trailing_zeros() as usize
    }

    /// Takes the lanes with the lowest instruction.
    fn take_lowest(&mut self) -> Option<Group> {
        let pc = self.ready.iter().map(|group| group.pc).min()?;
        let mut lanes = 0;
        self.ready.retain(|group| {
            if group.pc == pc {
                lanes |= group.lanes;
            }
            group.pc != pc
        });
        Some(Group { pc, lanes })
    }

    /// Runs until all lanes wait or have exited: whether anything was done.
    pub fn run(&mut self, machine: &mut Machine<'_>) -> Result<bool, Halt> {
        let mut progress = false;
        while let Some(group) = self.take_lowest() {
            progress = true;
            self.run_group(group, machine)?;
        }
        Ok(progress)
    }

    /// Runs lanes until they part, wait, exit, or meet others.
    fn run_group(&mut self, mut group: Group, machine: &mut Machine<'_>) -> Result<(), Halt> {
        let kernel = machine.kernel;
        let others = self.ready.iter().map(|group| group.pc).min().unwrap_or(usize::MAX);
        while group.pc < others {
            let instruction = &kernel.code[group.pc];
            let active = instruction.guard.map_or(group.lanes, |guard| {
                let predicate = self.registers.predicates[guard.predicate];
                group.lanes & if guard.negated { !predicate } else { predicate }
            });
            machine.stats.warp_instructions += 1;
            machine.patience -= 1;
            if machine.patience == 0 {
                return Err(machine.halt(group.pc, self.thread(group.lanes), "the kernel does not end"));
            }
            if active == 0 {
                group.pc += 1;
                continue;
            }
            machine.lanes[group.pc] += u64::from(active.count_ones());
            match &instruction.step {
                Step::Lanes(work) => {
                    work(&mut self.registers, active).map_err(|why| machine.halt(group.pc, self.thread(active), why))?;
                }
                Step::Access(access) => self.access(machine, access, group.pc, active)?,
                Step::Nothing => {}
                Step::Refused(why) => return Err(machine.halt(group.pc, self.thread(active), why)),
                Step::Trap => return Err(machine.halt(group.pc, self.thread(active), "trap")),
                Step::Branch { target, .. } if active == group.lanes => {
                    group.pc = *target;
                    continue;
                }
                Step::Branch { uniform: true, .. } => {
                    return Err(machine.halt(group.pc, self.thread(active), "lanes part at a branch that says they do not"));
                }
                Step::Branch { target, .. } => {
                    self.ready.push(Group { pc: *target, lanes: active });
                    self.ready.push(Group { pc: group.pc + 1, lanes: group.lanes & !active });
                    return Ok(());
                }
                Step::Table { index, targets } => return self.part(machine, group, active, *index, targets),
                Step::Barrier => {
                    if active != group.lanes {
                        return Err(machine.halt(group.pc, self.thread(group.lanes & !active), "divergent barrier: the lane skips it"));
                    }
                    self.barrier.push(group);
                    return Ok(());
                }
                Step::Collective(collective) => {
                    if !self.join(machine, collective, group, active)? {
                        return Ok(());
                    }
                }
                Step::Exit => {
                    self.exit(machine, group.pc, active)?;
                    group.lanes &= !active;
                    if group.lanes == 0 {
                        return Ok(());
                    }
                }
            }
            group.pc += 1;
        }
        self.ready.push(group);
        Ok(())
    }

    /// Lanes go to different targets.
    fn part(&mut self, machine: &Machine<'_>, group: Group, active: u32, index: usize, targets: &[usize]) -> Result<(), Halt> {
        for lane in lanes(active) {
            let index = self.registers.rows[index][lane] as u32 as usize;
            let Some(target) = targets.get(index) else {
                let message = format!("branch {index} of a list of {}", targets.len());
                return Err(machine.halt(group.pc, self.first_thread + lane, message));
            };
            self.ready.push(Group { pc: *target, lanes: 1 << lane });
        }
        let rest = group.lanes & !active;
        if rest != 0 {
            self.ready.push(Group { pc: group.pc + 1, lanes: rest });
        }
        Ok(())
    }

    fn exit(&mut self, machine: &Machine<'_>, pc: usize, active: u32) -> Result<(), Halt> {
        self.live &= !active;
        let missed = self.waiting.iter().find(|waiting| waiting.member & active != 0);
        missed.map_or(Ok(()), |waiting| {
            let message = format!("the lane exits, but other lanes wait for it at line {}", machine.kernel.code[waiting.group.pc].line);
            Err(machine.halt(pc, self.thread(waiting.member & active), message))
        })
    }
}
