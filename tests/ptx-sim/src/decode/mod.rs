//! Instructions as they stand in the text to [`Step`]s. What an instruction means is said here, in the files of its kind.
//!
//! Each modifier must be taken by the code for its instruction: one that is left over makes the instruction unknown, so that no
//! modifier is ever ignored.

mod bits;
mod control;
mod convert;
mod float;
mod integer;
mod memory;
mod select;

use crate::kind::Kind;
use crate::parse::{Builder, Operand, Statement};
use crate::step::{Condition, Step};

/// Why an instruction is not executed.
type Result<T> = std::result::Result<T, String>;

/// An instruction that is being decoded.
pub(crate) struct Decoder<'a, 'b> {
    builder: &'a mut Builder<'b>,
    statement: &'a Statement,
    root: &'a str,
    /// Modifiers that are not taken yet.
    modifiers: Vec<&'a str>,
}

pub(crate) fn step(builder: &mut Builder<'_>, statement: &Statement) -> Result<Step> {
    let mut parts = statement.opcode.split('.');
    let root = parts.next().unwrap_or_default();
    let mut decoder = Decoder { builder, statement, root, modifiers: parts.collect() };
    if let Some(why) = decoder.modifiers.iter().find_map(|modifier| inexact(modifier)) {
        return Err(why.into());
    }
    let step = decoder.decode()?;
    match decoder.modifiers.first() {
        Some(left) => Err(format!("the modifier .{left} is not known")),
        None => Ok(step),
    }
}

/// Modifiers with which results may differ in their last bits, or from what the CPU computes.
fn inexact(modifier: &str) -> Option<&'static str> {
    match modifier {
        "approx" | "full" => Some("an approximation, whose bits are not defined"),
        "ftz" => Some("denormals are flushed, which the CPU does not do"),
        _ => None,
    }
}

impl<'a> Decoder<'a, '_> {
    fn decode(&mut self) -> Result<Step> {
        match self.root {
            "add" | "sub" | "mul" | "mad" | "fma" | "div" | "min" | "max" | "neg" | "abs" if self.is_float() => self.float(),
            "sqrt" | "rcp" | "copysign" | "testp" => self.float(),
            "add" | "sub" | "mul" | "mad" | "div" | "rem" | "min" | "max" | "neg" | "abs" | "sad" | "dp4a" | "dp2a" => self.integer(),
            "and" | "or" | "xor" | "not" if self.modifiers == ["pred"] => self.predicates(),
            "and" | "or" | "xor" | "not" | "cnot" | "shl" | "shr" | "shf" | "bfe" | "bfi" | "bmsk" | "szext" | "popc" | "clz" | "brev" | "bfind"
            | "fns" | "prmt" | "lop3" => self.bits(),
            "mov" | "selp" | "slct" | "setp" | "set" => self.select(),
            "cvt" => self.convert(),
            "ld" | "ldu" | "st" | "atom" | "red" | "cvta" | "isspacep" | "membar" | "fence" | "prefetch" | "prefetchu" => self.memory(),
            "bra" | "brx" | "ret" | "exit" | "trap" | "bar" | "barrier" | "shfl" | "vote" | "match" | "redux" | "activemask" | "nanosleep" => {
                self.control()
            }
            _ => Err("the instruction is not known".into()),
        }
    }

    /// Whether the first type is that of a float.
    fn is_float(&self) -> bool {
        self.modifiers.iter().find_map(|modifier| Kind::parse(modifier)).is_some_and(Kind::is_float)
    }

    /// Takes a modifier, if it is there.
    fn take(&mut self, modifier: &str) -> bool {
        let found = self.modifiers.iter().position(|known| *known == modifier);
        found.map(|at| self.modifiers.remove(at)).is_some()
    }

    /// Takes the first modifier of which `known` says something.
    fn take_some<T>(&mut self, known: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (at, value) = self.modifiers.iter().enumerate().find_map(|(at, modifier)| Some((at, known(modifier)?)))?;
        self.modifiers.remove(at);
        Some(value)
    }

    /// Takes the next type.
    fn kind(&mut self) -> Result<Kind> {
        self.take_some(Kind::parse).ok_or_else(|| "a type is missing".into())
    }

    fn unknown<T>(&self) -> Result<T> {
        Err("not known with this type".into())
    }

    fn operand(&self, index: usize) -> Result<&'a Operand> {
        self.statement.operands.get(index).ok_or_else(|| format!("operand {} is missing", index + 1))
    }

    /// The row of a result.
    fn to(&self) -> Result<usize> {
        match self.operand(0)? {
            Operand::Row(row) => Ok(*row),
            _ => Err("the result is no register".into()),
        }
    }

    /// The row of a value that is read.
    fn from(&mut self, index: usize) -> Result<usize> {
        let operand = self.operand(index)?;
        self.row(operand)
    }

    fn row(&mut self, operand: &Operand) -> Result<usize> {
        match operand {
            Operand::Row(row) => Ok(*row),
            Operand::Constant(value) => Ok(self.builder.constant(*value)),
            Operand::Name(name) => Err(format!("{name} is not known")),
            _ => Err("an operand is no register".into()),
        }
    }

    fn pair(&mut self) -> Result<[usize; 2]> {
        Ok([self.from(1)?, self.from(2)?])
    }

    fn triple(&mut self) -> Result<[usize; 3]> {
        Ok([self.from(1)?, self.from(2)?, self.from(3)?])
    }

    /// A predicate that is read.
    fn condition(&self, index: usize) -> Result<Condition> {
        match self.operand(index)? {
            Operand::Predicate { index, negated } => Ok(Condition::Predicate { index: *index, negated: *negated }),
            Operand::Constant(value) => Ok(Condition::Constant(*value != 0)),
            _ => Err("an operand is no predicate".into()),
        }
    }
}

/// The index of a predicate that is written.
fn predicate(operand: &Operand) -> Result<usize> {
    match operand {
        Operand::Predicate { index, negated: false } => Ok(*index),
        _ => Err("the result is no predicate".into()),
    }
}
