//! Arithmetic of integers.

use super::{Decoder, Result};
use crate::kind::Kind;
use crate::step::{Step, binary, ternary, unary};

/// One step for each type: `$make` with the operation on values of that type.
macro_rules! by_kind {
    ($decoder:expr, $kind:expr, $make:expr, |$($x:ident),+| $operation:expr) => {
        match $kind {
            Kind::U16 => $make(|$($x: u16),+| $operation),
            Kind::S16 => $make(|$($x: i16),+| $operation),
            Kind::U32 => $make(|$($x: u32),+| $operation),
            Kind::S32 => $make(|$($x: i32),+| $operation),
            Kind::U64 => $make(|$($x: u64),+| $operation),
            Kind::S64 => $make(|$($x: i64),+| $operation),
            _ => return $decoder.unknown(),
        }
    };
}

/// Which bits of a product.
enum Part {
    Low,
    High,
    Wide,
}

impl Decoder<'_, '_> {
    pub(super) fn integer(&mut self) -> Result<Step> {
        let to = self.to()?;
        match self.root {
            "mul" | "mad" => return self.product(to),
            "dp4a" => return self.dot(to),
            _ => {}
        }
        let kind = self.kind()?;
        if matches!(self.root, "neg" | "abs") {
            if !kind.is_signed() {
                return self.unknown();
            }
            let from = self.from(1)?;
            let negate = self.root == "neg";
            return Ok(match kind {
                Kind::S16 => unary(to, from, move |a: i16| if negate { a.wrapping_neg() } else { a.wrapping_abs() }),
                Kind::S32 => unary(to, from, move |a: i32| if negate { a.wrapping_neg() } else { a.wrapping_abs() }),
                _ => unary(to, from, move |a: i64| if negate { a.wrapping_neg() } else { a.wrapping_abs() }),
            });
        }
        let (saturate, pair) = (self.take("sat"), self.pair()?);
        if saturate && !matches!(self.root, "add" | "sub") {
            return self.unknown();
        }
        Ok(match self.root {
            "add" | "sub" if saturate => match (self.root, kind) {
                ("add", Kind::S32) => binary(to, pair, i32::saturating_add),
                ("sub", Kind::S32) => binary(to, pair, i32::saturating_sub),
                _ => return self.unknown(),
            },
            "add" => by_kind!(self, kind, |f| binary(to, pair, f), |a, b| a.wrapping_add(b)),
            "sub" => by_kind!(self, kind, |f| binary(to, pair, f), |a, b| a.wrapping_sub(b)),
            "min" => by_kind!(self, kind, |f| binary(to, pair, f), |a, b| a.min(b)),
            "max" => by_kind!(self, kind, |f| binary(to, pair, f), |a, b| a.max(b)),
            "div" | "rem" => self.divide(kind, to, pair)?,
            "sad" => {
                let triple = self.triple()?;
                by_kind!(self, kind, |f| ternary(to, triple, f), |a, b, c| c.wrapping_add(a.max(b).wrapping_sub(a.min(b))))
            }
            _ => return self.unknown(),
        })
    }

    /// Division by zero gives what the machine likes, so it is an error here.
    fn divide(&mut self, kind: Kind, to: usize, pair: [usize; 2]) -> Result<Step> {
        let work = match self.root {
            "div" => by_kind!(self, kind, |f| binary(to, pair, f), |a, b| if b == 0 { 0 } else { a.wrapping_div(b) }),
            _ => by_kind!(self, kind, |f| binary(to, pair, f), |a, b| if b == 0 { 0 } else { a.wrapping_rem(b) }),
        };
        let Step::Lanes(work) = work else { return self.unknown() };
        let bits = u64::MAX >> (64 - kind.bits());
        Ok(Step::Lanes(Box::new(move |registers, mask| {
            if registers.compare(mask, pair, |_: u64, divisor: u64| divisor & bits == 0) != 0 {
                return Err("integer division by zero");
            }
            work(registers, mask)
        })))
    }

    fn product(&mut self, to: usize) -> Result<Step> {
        let part = self.take_some(|modifier| match modifier {
            "lo" => Some(Part::Low),
            "hi" => Some(Part::High),
            "wide" => Some(Part::Wide),
            _ => None,
        });
        let Some(part) = part else { return self.unknown() };
        let kind = self.kind()?;
        if self.root == "mul" {
            let pair = self.pair()?;
            return Ok(match part {
                Part::Low => by_kind!(self, kind, |f| binary(to, pair, f), |a, b| a.wrapping_mul(b)),
                Part::High => match kind {
                    Kind::U16 => binary(to, pair, |a: u16, b: u16| high(a, b) as u16),
                    Kind::S16 => binary(to, pair, |a: i16, b: i16| high(a, b) as i16),
                    Kind::U32 => binary(to, pair, |a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32),
                    Kind::S32 => binary(to, pair, |a: i32, b: i32| ((i64::from(a) * i64::from(b)) >> 32) as i32),
                    Kind::U64 => binary(to, pair, |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64),
                    Kind::S64 => binary(to, pair, |a: i64, b: i64| ((i128::from(a) * i128::from(b)) >> 64) as i64),
                    _ => return self.unknown(),
                },
                Part::Wide => match kind {
                    Kind::U16 => binary(to, pair, |a: u16, b: u16| u32::from(a) * u32::from(b)),
                    Kind::S16 => binary(to, pair, |a: i16, b: i16| i32::from(a) * i32::from(b)),
                    Kind::U32 => binary(to, pair, |a: u32, b: u32| u64::from(a) * u64::from(b)),
                    Kind::S32 => binary(to, pair, |a: i32, b: i32| i64::from(a) * i64::from(b)),
                    _ => return self.unknown(),
                },
            });
        }
        let triple = self.triple()?;
        Ok(match part {
            Part::Low => by_kind!(self, kind, |f| ternary(to, triple, f), |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
            Part::High => match kind {
                Kind::U32 => ternary(to, triple, |a: u32, b: u32, c: u32| (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c)),
                Kind::S32 => ternary(to, triple, |a: i32, b: i32, c: i32| (((i64::from(a) * i64::from(b)) >> 32) as i32).wrapping_add(c)),
                Kind::U64 => ternary(to, triple, |a: u64, b: u64, c: u64| (((u128::from(a) * u128::from(b)) >> 64) as u64).wrapping_add(c)),
                Kind::S64 => ternary(to, triple, |a: i64, b: i64, c: i64| (((i128::from(a) * i128::from(b)) >> 64) as i64).wrapping_add(c)),
                _ => return self.unknown(),
            },
            Part::Wide => match kind {
                Kind::U16 => ternary(to, triple, |a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c)),
                Kind::S16 => ternary(to, triple, |a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c)),
                Kind::U32 => ternary(to, triple, |a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c)),
                Kind::S32 => ternary(to, triple, |a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c)),
                _ => return self.unknown(),
            },
        })
    }

    /// The dot product of four bytes and four bytes, added to a sum.
    fn dot(&mut self, to: usize) -> Result<Step> {
        let (a, b) = (self.kind()?, self.kind()?);
        if a.bits() != 32 || b.bits() != 32 {
            return self.unknown();
        }
        let triple = self.triple()?;
        Ok(ternary(to, triple, move |x: u32, y: u32, sum: u32| {
            let products = x.to_le_bytes().into_iter().zip(y.to_le_bytes()).map(|(x, y)| byte(x, a) * byte(y, b));
            products.fold(sum, |sum, product| sum.wrapping_add(product as u32))
        }))
    }
}

fn byte(value: u8, kind: Kind) -> i32 {
    if kind.is_signed() { i32::from(value as i8) } else { i32::from(value) }
}

/// The upper half of a product of 16 bits.
fn high<T: Into<i64>>(a: T, b: T) -> i64 {
    (a.into() * b.into()) >> 16
}
