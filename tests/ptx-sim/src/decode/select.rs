//! Moves, comparisons and choices.

use super::{Decoder, Operand, Result, predicate};
use crate::kind::Kind;
use crate::registers::{Lane, Registers, Row, lanes};
use crate::step::{Condition, Step, unary};

/// A comparison of two rows: the lanes where it holds.
type Comparison = Box<dyn Fn(&Registers, u32) -> u32 + Send + Sync>;

const COMPARISONS: [&str; 18] = ["eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];

/// What a second predicate does to the result of a comparison.
type Combine = fn(u32, u32) -> u32;

impl Decoder<'_, '_> {
    pub(super) fn select(&mut self) -> Result<Step> {
        match self.root {
            "mov" => self.copy(),
            "setp" => self.set_predicate(),
            "set" => self.set_register(),
            "selp" => self.choose(),
            _ => self.choose_by_sign(),
        }
    }

    fn copy(&mut self) -> Result<Step> {
        let kind = self.kind()?;
        if kind == Kind::Predicate {
            let (to, condition) = (predicate(self.operand(0)?)?, self.condition(1)?);
            return Ok(Step::Lanes(Box::new(move |registers, mask| {
                let value = condition.read(registers);
                registers.set_predicate(mask, to, value);
                Ok(())
            })));
        }
        match (self.operand(0)?, self.operand(1)?) {
            (Operand::Vector(parts), _) => self.unpack(kind, parts),
            (_, Operand::Vector(parts)) => self.pack(kind, parts),
            _ => Ok(unary(self.to()?, self.from(1)?, |a: u64| a)),
        }
    }

    /// One register to several, the low bits first.
    fn unpack(&mut self, kind: Kind, parts: &[Operand]) -> Result<Step> {
        let bits = part_bits(kind, parts)?;
        let to = parts.iter().map(|part| if let Operand::Sink = part { Ok(None) } else { self.row(part).map(Some) });
        let (to, from) = (to.collect::<Result<Vec<_>>>()?, self.from(1)?);
        Ok(Step::Lanes(Box::new(move |registers, mask| {
            // A copy: the register may be one of the parts.
            let row = registers.rows[from];
            for (place, to) in to.iter().enumerate().filter_map(|(place, to)| Some((place as u32, (*to)?))) {
                for lane in lanes(mask) {
                    registers.rows[to][lane] = row[lane] >> (place * bits) & (u64::MAX >> (64 - bits));
                }
            }
            Ok(())
        })))
    }

    /// Several registers to one.
    fn pack(&mut self, kind: Kind, parts: &[Operand]) -> Result<Step> {
        let bits = part_bits(kind, parts)?;
        let from = parts.iter().map(|part| self.row(part)).collect::<Result<Vec<_>>>()?;
        let to = self.to()?;
        Ok(Step::Lanes(Box::new(move |registers, mask| {
            let mut row: Row = [0; _];
            for (place, from) in from.iter().enumerate() {
                for (value, part) in row.iter_mut().zip(&registers.rows[*from]) {
                    *value |= (part & (u64::MAX >> (64 - bits))) << (place as u32 * bits);
                }
            }
            for lane in lanes(mask) {
                registers.rows[to][lane] = row[lane];
            }
            Ok(())
        })))
    }

    fn choose(&mut self) -> Result<Step> {
        self.kind()?;
        let (to, pair, condition) = (self.to()?, self.pair()?, self.condition(3)?);
        Ok(Step::Lanes(Box::new(move |registers, mask| {
            let chosen = condition.read(registers);
            let [a, b] = pair.map(|row| registers.rows[row]);
            let row = &mut registers.rows[to];
            for lane in lanes(mask) {
                row[lane] = if chosen >> lane & 1 != 0 { a[lane] } else { b[lane] };
            }
            Ok(())
        })))
    }

    /// `slct`: the first if the third is not negative.
    fn choose_by_sign(&mut self) -> Result<Step> {
        let (_, kind) = (self.kind()?, self.kind()?);
        let (to, [a, b, by]) = (self.to()?, self.triple()?);
        let first: fn(u64) -> bool = match kind {
            Kind::S32 => |by| by as i32 >= 0,
            Kind::F32 => |by| f32::from_bits(by as u32) >= 0.0,
            _ => return self.unknown(),
        };
        Ok(Step::Lanes(Box::new(move |registers, mask| {
            for lane in lanes(mask) {
                let from = if first(registers.rows[by][lane]) { a } else { b };
                registers.rows[to][lane] = registers.rows[from][lane];
            }
            Ok(())
        })))
    }

    /// The comparison and its combination with a predicate, which is operand `index`.
    fn comparison(&mut self, index: usize) -> Result<(Comparison, Option<(Combine, Condition)>)> {
        let name = self.take_some(|modifier| COMPARISONS.into_iter().find(|name| *name == modifier)).unwrap_or_default();
        let combine = self.take_some(|modifier| {
            Some(match modifier {
                "and" => |a, b| a & b,
                "or" => |a, b| a | b,
                "xor" => |a, b| a ^ b,
                _ => return None,
            } as Combine)
        });
        let second = match combine {
            Some(combine) => Some((combine, self.condition(index)?)),
            None => None,
        };
        let (kind, pair) = (self.kind()?, self.pair()?);
        let comparison = match kind {
            Kind::B16 | Kind::U16 => compare::<u16>(name, kind, pair),
            Kind::B32 | Kind::U32 => compare::<u32>(name, kind, pair),
            Kind::B64 | Kind::U64 => compare::<u64>(name, kind, pair),
            Kind::S16 => compare::<i16>(name, kind, pair),
            Kind::S32 => compare::<i32>(name, kind, pair),
            Kind::S64 => compare::<i64>(name, kind, pair),
            Kind::F32 => compare::<f32>(name, kind, pair),
            Kind::F64 => compare::<f64>(name, kind, pair),
            _ => None,
        };
        Ok((comparison.ok_or_else(|| format!("the comparison .{name} is not known with this type"))?, second))
    }

    fn set_predicate(&mut self) -> Result<Step> {
        let (holds, fails) = match self.operand(0)? {
            Operand::Pair(holds, fails) => (destination(holds)?, destination(fails)?),
            one => (destination(one)?, None),
        };
        let (comparison, second) = self.comparison(3)?;
        Ok(Step::Lanes(Box::new(move |registers, mask| {
            let value = comparison(registers, mask);
            let combined = |value| second.map_or(value, |(combine, condition)| combine(value, condition.read(registers)));
            let (yes, no) = (combined(value), combined(!value));
            if let Some(to) = holds {
                registers.set_predicate(mask, to, yes);
            }
            if let Some(to) = fails {
                registers.set_predicate(mask, to, no);
            }
            Ok(())
        })))
    }

    /// `set`: all bits, or 1.0 for a float.
    fn set_register(&mut self) -> Result<Step> {
        let (to, into) = (self.to()?, self.kind()?);
        let (comparison, second) = self.comparison(3)?;
        let one = match into {
            Kind::U32 | Kind::S32 | Kind::B32 => u64::from(u32::MAX),
            Kind::F32 => u64::from(1f32.to_bits()),
            _ => return self.unknown(),
        };
        Ok(Step::Lanes(Box::new(move |registers, mask| {
            let value = comparison(registers, mask);
            let value = second.map_or(value, |(combine, condition)| combine(value, condition.read(registers)));
            for lane in lanes(mask) {
                registers.rows[to][lane] = if value >> lane & 1 != 0 { one } else { 0 };
            }
            Ok(())
        })))
    }
}

/// The predicate of a result, unless it is dropped.
fn destination(operand: &Operand) -> Result<Option<usize>> {
    if let Operand::Sink = operand { Ok(None) } else { predicate(operand).map(Some) }
}

fn part_bits(kind: Kind, parts: &[Operand]) -> Result<u32> {
    match (kind.bits(), parts.len() as u32) {
        (bits, count) if bits >= 16 && matches!(count, 2 | 4) && bits / count >= 8 => Ok(bits / count),
        _ => Err("a vector of a length that is not known".into()),
    }
}

/// A comparison by its name. Those that end in `u` also hold if one side is NaN.
fn compare<T: Lane + PartialOrd + 'static>(name: &str, kind: Kind, pair: [usize; 2]) -> Option<Comparison> {
    fn of<T: Lane>(pair: [usize; 2], holds: impl Fn(T, T) -> bool + Send + Sync + 'static) -> Option<Comparison> {
        Some(Box::new(move |registers, mask| registers.compare(mask, pair, &holds)))
    }
    // Only a NaN is not equal to itself.
    let nan = |a: T| a.partial_cmp(&a).is_none();
    let unordered = move |a: T, b: T| nan(a) || nan(b);
    match (name, kind) {
        ("eq", _) => of(pair, |a: T, b: T| a == b),
        ("ne", _) => of(pair, move |a: T, b: T| a != b && !unordered(a, b)),
        (_, Kind::B16 | Kind::B32 | Kind::B64) => None,
        ("lt", _) | ("lo", Kind::U16 | Kind::U32 | Kind::U64) => of(pair, |a: T, b: T| a < b),
        ("le", _) | ("ls", Kind::U16 | Kind::U32 | Kind::U64) => of(pair, |a: T, b: T| a <= b),
        ("gt", _) | ("hi", Kind::U16 | Kind::U32 | Kind::U64) => of(pair, |a: T, b: T| a > b),
        ("ge", _) | ("hs", Kind::U16 | Kind::U32 | Kind::U64) => of(pair, |a: T, b: T| a >= b),
        (_, kind) if !kind.is_float() => None,
        ("equ", _) => of(pair, move |a: T, b: T| a == b || unordered(a, b)),
        ("neu", _) => of(pair, |a: T, b: T| a != b),
        ("ltu", _) => of(pair, move |a: T, b: T| a < b || unordered(a, b)),
        ("leu", _) => of(pair, move |a: T, b: T| a <= b || unordered(a, b)),
        ("gtu", _) => of(pair, move |a: T, b: T| a > b || unordered(a, b)),
        ("geu", _) => of(pair, move |a: T, b: T| a >= b || unordered(a, b)),
        ("num", _) => of(pair, move |a: T, b: T| !unordered(a, b)),
        ("nan", _) => of(pair, unordered),
        _ => None,
    }
}
