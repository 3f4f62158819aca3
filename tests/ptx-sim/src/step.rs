//! Instructions as they are executed.

use crate::kind::Space;
use crate::registers::{Lane, Registers};

/// Work on the registers of the lanes in a mask. An error says what a lane did wrong.
pub(crate) type Work = Box<dyn Fn(&mut Registers, u32) -> Result<(), &'static str> + Send + Sync>;

pub(crate) struct Instruction {
    pub guard: Option<Guard>,
    pub step: Step,
    pub line: u32,
    /// Its name in [`crate::Kernel`]'s list.
    pub opcode: usize,
}

/// The predicate in front of an instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    pub predicate: usize,
    pub negated: bool,
}

/// A predicate that is read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Condition {
    Predicate { index: usize, negated: bool },
    Constant(bool),
}

impl Condition {
    pub fn read(self, registers: &Registers) -> u32 {
        match self {
            Self::Constant(value) => mask_of(value),
            Self::Predicate { index, negated } => registers.predicates[index] ^ mask_of(negated),
        }
    }
}

/// All lanes or none.
pub(crate) fn mask_of(value: bool) -> u32 {
    if value { u32::MAX } else { 0 }
}

pub(crate) enum Step {
    Lanes(Work),
    Access(Access),
    Collective(Collective),
    Branch {
        target: usize,
        /// Whether all lanes must go the same way.
        uniform: bool,
    },
    /// A branch by a number.
    Table {
        index: usize,
        targets: Vec<usize>,
    },
    Barrier,
    Exit,
    Trap,
    Nothing,
    /// What is an error when it is executed.
    Refused(String),
}

/// A load, store or atomic.
pub(crate) struct Access {
    pub what: What,
    pub space: Space,
    pub base: usize,
    pub offset: i64,
    /// Bytes of an element.
    pub width: usize,
    /// Whether loads keep the sign of what is narrower than the register.
    pub signed: bool,
    /// The rows of the elements, none where a load drops one.
    pub rows: Vec<Option<usize>>,
}

pub(crate) enum What {
    Load,
    Store,
    /// An atomic gives the old value to the one row of [`Access::rows`]. It gets the old value and two operands.
    Atomic {
        operands: [usize; 2],
        update: fn(u64, u64, u64) -> u64,
    },
}

/// What the lanes of a mask do together.
pub(crate) struct Collective {
    /// The row that holds the mask.
    pub member: usize,
    pub action: Action,
}

pub(crate) enum Action {
    /// `bar.warp.sync`
    Sync,
    Shuffle {
        mode: Shuffle,
        to: usize,
        valid: Option<usize>,
        from: usize,
        lane: usize,
        clamp: usize,
    },
    Vote {
        mode: Vote,
        to: usize,
        condition: Condition,
    },
    Match {
        all: bool,
        wide: bool,
        to: usize,
        valid: Option<usize>,
        from: usize,
    },
    Reduce {
        to: usize,
        from: usize,
        update: fn(u64, u64, u64) -> u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

/// Work with one operand.
pub(crate) fn unary<A: Lane, D: Lane>(to: usize, a: usize, f: impl Fn(A) -> D + Send + Sync + 'static) -> Step {
    Step::Lanes(Box::new(move |registers, mask| {
        registers.map1(mask, to, a, &f);
        Ok(())
    }))
}

/// Work with two operands.
pub(crate) fn binary<A: Lane, B: Lane, D: Lane>(to: usize, from: [usize; 2], f: impl Fn(A, B) -> D + Send + Sync + 'static) -> Step {
    Step::Lanes(Box::new(move |registers, mask| {
        registers.map2(mask, to, from, &f);
        Ok(())
    }))
}

/// Work with three operands.
pub(crate) fn ternary<A: Lane, B: Lane, C: Lane, D: Lane>(to: usize, from: [usize; 3], f: impl Fn(A, B, C) -> D + Send + Sync + 'static) -> Step {
    Step::Lanes(Box::new(move |registers, mask| {
        registers.map3(mask, to, from, &f);
        Ok(())
    }))
}
