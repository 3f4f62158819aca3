//! Logic, shifts, fields and counts of bits.

use super::{Decoder, Result};
use crate::kind::Kind;
use crate::step::{Condition, Step, binary, ternary, unary};

impl Decoder<'_, '_> {
    pub(super) fn bits(&mut self) -> Result<Step> {
        match self.root {
            "shf" => self.funnel(),
            "prmt" => self.permute(),
            "lop3" => self.table(),
            "bfe" | "bfi" => self.field(),
            "popc" | "clz" | "brev" | "bfind" => self.counts(),
            "shl" | "shr" => self.shift(),
            _ => self.logic(),
        }
    }

    fn logic(&mut self) -> Result<Step> {
        let (to, kind) = (self.to()?, self.kind()?);
        if !matches!(kind, Kind::B16 | Kind::B32 | Kind::B64) {
            return self.unknown();
        }
        match self.root {
            "not" | "cnot" => {
                let from = self.from(1)?;
                Ok(match (self.root, kind) {
                    ("not", _) => unary(to, from, |a: u64| !a),
                    (_, Kind::B16) => unary(to, from, |a: u16| u16::from(a == 0)),
                    (_, Kind::B32) => unary(to, from, |a: u32| u32::from(a == 0)),
                    _ => unary(to, from, |a: u64| u64::from(a == 0)),
                })
            }
            "and" => Ok(binary(to, self.pair()?, |a: u64, b: u64| a & b)),
            "or" => Ok(binary(to, self.pair()?, |a: u64, b: u64| a | b)),
            "xor" => Ok(binary(to, self.pair()?, |a: u64, b: u64| a ^ b)),
            _ => self.unknown(),
        }
    }

    /// Logic of predicates.
    pub(super) fn predicates(&mut self) -> Result<Step> {
        let kind = self.kind()?;
        debug_assert_eq!(kind, Kind::Predicate);
        let to = super::predicate(self.operand(0)?)?;
        let a = self.condition(1)?;
        let b = if self.root == "not" { Condition::Constant(true) } else { self.condition(2)? };
        let operation: fn(u32, u32) -> u32 = match self.root {
            "and" => |a, b| a & b,
            "or" => |a, b| a | b,
            _ => |a, b| a ^ b,
        };
        Ok(Step::Lanes(Box::new(move |registers, mask| {
            let value = operation(a.read(registers), b.read(registers));
            registers.set_predicate(mask, to, value);
            Ok(())
        })))
    }

    /// Shifts by more than the width are shifts by the width.
    fn shift(&mut self) -> Result<Step> {
        let (to, kind, pair) = (self.to()?, self.kind()?, self.pair()?);
        Ok(match (self.root, kind) {
            ("shl", Kind::B16) => binary(to, pair, |a: u16, n: u32| a.checked_shl(n).unwrap_or(0)),
            ("shl", Kind::B32) => binary(to, pair, |a: u32, n: u32| a.checked_shl(n).unwrap_or(0)),
            ("shl", Kind::B64) => binary(to, pair, |a: u64, n: u32| a.checked_shl(n).unwrap_or(0)),
            ("shr", Kind::B16 | Kind::U16) => binary(to, pair, |a: u16, n: u32| a.checked_shr(n).unwrap_or(0)),
            ("shr", Kind::B32 | Kind::U32) => binary(to, pair, |a: u32, n: u32| a.checked_shr(n).unwrap_or(0)),
            ("shr", Kind::B64 | Kind::U64) => binary(to, pair, |a: u64, n: u32| a.checked_shr(n).unwrap_or(0)),
            ("shr", Kind::S16) => binary(to, pair, |a: i16, n: u32| a >> n.min(15)),
            ("shr", Kind::S32) => binary(to, pair, |a: i32, n: u32| a >> n.min(31)),
            ("shr", Kind::S64) => binary(to, pair, |a: i64, n: u32| a >> n.min(63)),
            _ => return self.unknown(),
        })
    }

    /// Shifts two registers as one of 64 bits, the first one low.
    fn funnel(&mut self) -> Result<Step> {
        let (left, right) = (self.take("l"), self.take("r"));
        let (clamp, wrap) = (self.take("clamp"), self.take("wrap"));
        if left == right || clamp == wrap || self.kind()? != Kind::B32 {
            return self.unknown();
        }
        let (to, triple) = (self.to()?, self.triple()?);
        let amount = move |n: u32| if clamp { n.min(32) } else { n & 31 };
        let joined = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        Ok(if left {
            ternary(to, triple, move |a: u32, b: u32, n: u32| ((u128::from(joined(a, b)) << amount(n)) >> 32) as u32)
        } else {
            ternary(to, triple, move |a: u32, b: u32, n: u32| (joined(a, b) >> amount(n)) as u32)
        })
    }

    /// Picks four of the eight bytes of two registers. A selector with its top bit set gives the sign of the byte.
    fn permute(&mut self) -> Result<Step> {
        if self.kind()? != Kind::B32 {
            return self.unknown();
        }
        let (to, triple) = (self.to()?, self.triple()?);
        Ok(ternary(to, triple, |a: u32, b: u32, selectors: u32| {
            let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
            u32::from_le_bytes(std::array::from_fn(|place| {
                let selector = selectors >> (4 * place);
                let byte = bytes[(selector & 7) as usize];
                if selector & 8 == 0 { byte } else { (byte as i8 >> 7) as u8 }
            }))
        }))
    }

    /// Any logic of three operands: bit `4a + 2b + c` of a table.
    fn table(&mut self) -> Result<Step> {
        let super::Operand::Constant(table @ 0..=255) = self.operand(4)? else { return self.unknown() };
        if self.kind()? != Kind::B32 {
            return self.unknown();
        }
        let terms: [u32; 8] = std::array::from_fn(|bit| crate::step::mask_of(table >> bit & 1 != 0));
        let (to, triple) = (self.to()?, self.triple()?);
        Ok(ternary(to, triple, move |a: u32, b: u32, c: u32| {
            let pick = |x: u32, one: u32, zero: u32| x & one | !x & zero;
            let with = |a: usize| pick(b, pick(c, terms[a + 3], terms[a + 2]), pick(c, terms[a + 1], terms[a]));
            pick(a, with(4), with(0))
        }))
    }

    /// `bfe` takes a field of bits out, `bfi` puts one in.
    fn field(&mut self) -> Result<Step> {
        let (to, kind) = (self.to()?, self.kind()?);
        if self.root == "bfi" {
            let from = [self.from(1)?, self.from(2)?, self.from(3)?, self.from(4)?];
            let bits = match kind {
                Kind::B32 => 32,
                Kind::B64 => 64,
                _ => return self.unknown(),
            };
            return Ok(Step::Lanes(Box::new(move |registers, mask| {
                for lane in crate::registers::lanes(mask) {
                    let [a, b, at, len] = from.map(|row| registers.rows[row][lane]);
                    registers.rows[to][lane] = insert(a, b, (at as u8).into(), (len as u8).into(), bits);
                }
                Ok(())
            })));
        }
        let triple = self.triple()?;
        let small = |n: u32| n & 0xff;
        Ok(match kind {
            Kind::U32 => ternary(to, triple, move |a: u32, at: u32, len: u32| extract(i128::from(a), small(at), small(len), 32, false) as u32),
            Kind::S32 => ternary(to, triple, move |a: i32, at: u32, len: u32| extract(i128::from(a), small(at), small(len), 32, true) as u32),
            Kind::U64 => ternary(to, triple, move |a: u64, at: u32, len: u32| extract(i128::from(a), small(at), small(len), 64, false)),
            Kind::S64 => ternary(to, triple, move |a: i64, at: u32, len: u32| extract(i128::from(a), small(at), small(len), 64, true)),
            _ => return self.unknown(),
        })
    }

    fn counts(&mut self) -> Result<Step> {
        let amount = self.take("shiftamt");
        let (to, kind, from) = (self.to()?, self.kind()?, self.from(1)?);
        if amount && self.root != "bfind" {
            return self.unknown();
        }
        Ok(match (self.root, kind) {
            ("popc", Kind::B32) => unary(to, from, u32::count_ones),
            ("popc", Kind::B64) => unary(to, from, u64::count_ones),
            ("clz", Kind::B32) => unary(to, from, u32::leading_zeros),
            ("clz", Kind::B64) => unary(to, from, u64::leading_zeros),
            ("brev", Kind::B32) => unary(to, from, u32::reverse_bits),
            ("brev", Kind::B64) => unary(to, from, u64::reverse_bits),
            ("bfind", Kind::U32) => unary(to, from, move |a: u32| highest(a.leading_zeros(), 32, amount)),
            ("bfind", Kind::U64) => unary(to, from, move |a: u64| highest(a.leading_zeros(), 64, amount)),
            // The highest bit that differs from the sign.
            ("bfind", Kind::S32) => unary(to, from, move |a: i32| highest((a ^ a >> 31).leading_zeros(), 32, amount)),
            ("bfind", Kind::S64) => unary(to, from, move |a: i64| highest((a ^ a >> 63).leading_zeros(), 64, amount)),
            _ => return self.unknown(),
        })
    }
}

/// The place of the highest bit that is set, or how far it is from the top.
fn highest(leading_zeros: u32, bits: u32, amount: bool) -> u32 {
    match leading_zeros {
        zeros if zeros == bits => u32::MAX,
        zeros if amount => zeros,
        zeros => bits - 1 - zeros,
    }
}

/// `len` bits from `at` on. What lies above the value is its sign, or zero.
fn extract(value: i128, at: u32, len: u32, bits: u32, signed: bool) -> u64 {
    let sign = if signed && len > 0 {
        let place = (at + len - 1).min(bits - 1);
        value >> place & 1
    } else {
        0
    };
    let field = if at >= bits { 0 } else { (value as u64) & (u64::MAX >> (64 - bits)) };
    let field = field.checked_shr(at).unwrap_or(0);
    let have = len.min(bits.saturating_sub(at));
    let keep = u64::MAX.checked_shr(64 - have).unwrap_or(0);
    if sign == 0 { field & keep } else { field & keep | !keep }
}

/// `len` bits of `a` in place of those of `b` from `at` on.
fn insert(a: u64, b: u64, at: u32, len: u32, bits: u32) -> u64 {
    if at >= bits {
        return b;
    }
    let ones = if len >= 64 { u64::MAX } else { (1 << len) - 1 };
    let field = ones << at;
    a << at & field | b & !field
}
