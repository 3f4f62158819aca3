//! Loads, stores, atomics and addresses.

use super::{Decoder, Operand, Result, predicate};
use crate::kind::{Kind, Space};
use crate::registers::lanes;
use crate::step::{Access, Step, What, unary};

/// Hints to caches, and orders that a machine which runs one thread after the other keeps anyway.
const HINTS: [&str; 21] = [
    "nc",
    "weak",
    "volatile",
    "relaxed",
    "acquire",
    "release",
    "acq_rel",
    "cta",
    "gpu",
    "sys",
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "L1::no_allocate",
    "L1::evict_last",
    "L2::128B",
    "L2::64B",
];

impl Decoder<'_, '_> {
    pub(super) fn memory(&mut self) -> Result<Step> {
        match self.root {
            "cvta" => self.generic_address(),
            "isspacep" => self.is_in_space(),
            "ld" | "ldu" | "st" => self.load_or_store(),
            "atom" | "red" => self.atomic(),
            _ => {
                // Fences and prefetches change nothing here.
                self.modifiers.clear();
                Ok(Step::Nothing)
            }
        }
    }

    fn hints(&mut self) {
        self.modifiers.retain(|modifier| !HINTS.contains(modifier));
    }

    /// The row, the offset and the space of an address.
    fn address(&mut self, index: usize) -> Result<(usize, i64, Space)> {
        let stated = self.take_some(Space::parse);
        let Operand::Address { row, offset, space } = self.operand(index)? else { return Err("an operand is no address".into()) };
        match (stated, space) {
            (Some(stated), Some(space)) if stated != *space => Err("the variable lies in another space".into()),
            (None, Some(_)) => Err("a variable is accessed without its space".into()),
            _ => Ok((*row, *offset, stated.unwrap_or(Space::Generic))),
        }
    }

    fn load_or_store(&mut self) -> Result<Step> {
        self.hints();
        let vector = self.take_some(|modifier| match modifier {
            "v2" => Some(2),
            "v4" => Some(4),
            _ => None,
        });
        let kind = self.kind()?;
        let load = self.root != "st";
        let (place, value) = if load { (1, 0) } else { (0, 1) };
        let (base, offset, space) = self.address(place)?;
        if kind.bytes() == 0 || !load && matches!(space, Space::Const | Space::Param) {
            return self.unknown();
        }
        let operand = self.operand(value)?;
        let elements = match (operand, vector) {
            (Operand::Vector(elements), Some(len)) if elements.len() == len => elements.as_slice(),
            (Operand::Vector(_), _) | (_, Some(_)) => return Err("a vector of another length".into()),
            (one, None) => std::slice::from_ref(one),
        };
        let rows = elements.iter().map(|element| match element {
            Operand::Sink if load => Ok(None),
            Operand::Constant(_) if load => Err("the result is no register".into()),
            element => self.row(element).map(Some),
        });
        let rows = rows.collect::<Result<Vec<_>>>()?;
        let what = if load { What::Load } else { What::Store };
        Ok(Step::Access(Access { what, space, base, offset, width: kind.bytes(), signed: kind.is_signed(), rows }))
    }

    fn atomic(&mut self) -> Result<Step> {
        let place = usize::from(self.root == "atom");
        self.hints();
        self.take("noftz");
        let operation = self
            .take_some(|modifier| ["add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"].into_iter().find(|name| *name == modifier));
        let kind = self.kind()?;
        if kind.is_float() {
            return Err("atomics on floats give what the order of threads gives".into());
        }
        let update = operation.and_then(|operation| update(operation, kind));
        let Some(update) = update else { return self.unknown() };
        let (base, offset, space) = self.address(place)?;
        if !matches!(space, Space::Global | Space::Shared | Space::Generic) {
            return self.unknown();
        }
        let first = self.from(place + 1)?;
        let second = if operation == Some("cas") { self.from(place + 2)? } else { first };
        let old = match self.operand(0)? {
            _ if place == 0 => None,
            Operand::Sink => None,
            _ => Some(self.to()?),
        };
        let what = What::Atomic { operands: [first, second], update };
        Ok(Step::Access(Access { what, space, base, offset, width: kind.bytes(), signed: false, rows: vec![old] }))
    }

    fn generic_address(&mut self) -> Result<Step> {
        let to_space = self.take("to");
        let Some(space) = self.take_some(Space::parse) else { return self.unknown() };
        if self.kind()?.bits() != 64 {
            return self.unknown();
        }
        let (to, from, window) = (self.to()?, self.from(1)?, space.window());
        Ok(if to_space { unary(to, from, move |a: u64| a.wrapping_sub(window)) } else { unary(to, from, move |a: u64| a.wrapping_add(window)) })
    }

    fn is_in_space(&mut self) -> Result<Step> {
        let Some(space @ (Space::Shared | Space::Local | Space::Global)) = self.take_some(Space::parse) else { return self.unknown() };
        let (to, from) = (predicate(self.operand(0)?)?, self.from(1)?);
        let wanted = if space == Space::Global { Space::Generic } else { space };
        Ok(Step::Lanes(Box::new(move |registers, mask| {
            let row = &registers.rows[from];
            let value = lanes(mask).fold(0, |value, lane| value | u32::from(Space::of_generic(row[lane]).0 == wanted) << lane);
            registers.set_predicate(mask, to, value);
            Ok(())
        })))
    }
}

/// What an atomic or a reduction does with the old value and its operands.
pub(super) fn update(operation: &str, kind: Kind) -> Option<fn(u64, u64, u64) -> u64> {
    let narrow = kind.bits() == 32;
    if !narrow && kind.bits() != 64 {
        return None;
    }
    Some(match (operation, kind) {
        ("add", Kind::U32 | Kind::S32 | Kind::U64) => |old, a, _| old.wrapping_add(a),
        ("min", Kind::U32) => |old, a, _| (old as u32).min(a as u32).into(),
        ("max", Kind::U32) => |old, a, _| (old as u32).max(a as u32).into(),
        ("min", Kind::S32) => |old, a, _| (old as i32).min(a as i32) as u64,
        ("max", Kind::S32) => |old, a, _| (old as i32).max(a as i32) as u64,
        ("min", Kind::U64) => |old, a, _| old.min(a),
        ("max", Kind::U64) => |old, a, _| old.max(a),
        ("min", Kind::S64) => |old, a, _| (old as i64).min(a as i64) as u64,
        ("max", Kind::S64) => |old, a, _| (old as i64).max(a as i64) as u64,
        ("and", Kind::B32 | Kind::B64) => |old, a, _| old & a,
        ("or", Kind::B32 | Kind::B64) => |old, a, _| old | a,
        ("xor", Kind::B32 | Kind::B64) => |old, a, _| old ^ a,
        ("exch", Kind::B32 | Kind::B64) => |_, a, _| a,
        ("cas", Kind::B32) => |old, a, b| if old as u32 == a as u32 { b } else { old },
        ("cas", Kind::B64) => |old, a, b| if old == a { b } else { old },
        ("inc", Kind::U32) => |old, a, _| if old as u32 >= a as u32 { 0 } else { old + 1 },
        ("dec", Kind::U32) => |old, a, _| if old as u32 == 0 || old as u32 > a as u32 { a } else { old - 1 },
        _ => return None,
    })
}
