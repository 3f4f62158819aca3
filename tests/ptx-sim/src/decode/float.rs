//! Arithmetic of floats.

use super::{Decoder, Result};
use crate::kind::Kind;
use crate::number;
use crate::registers::lanes;
use crate::step::{Step, binary, ternary, unary};

impl Decoder<'_, '_> {
    pub(super) fn float(&mut self) -> Result<Step> {
        if self.root == "testp" {
            return self.test();
        }
        let (nearest, toward_zero) = (self.take("rn"), self.take("rz"));
        let nan = self.take("NaN");
        let (kind, to) = (self.kind()?, self.to()?);
        match self.root {
            "add" | "sub" | "mul" if !nearest && !toward_zero => {
                return Err("without a rounding mode it may be contracted to fma; compile with -fmad=false".into());
            }
            "fma" | "mad" | "div" | "sqrt" | "rcp" if !nearest && !toward_zero => return Err("it has no rounding mode".into()),
            "min" | "max" | "neg" | "abs" | "copysign" if nearest || toward_zero => return self.unknown(),
            "min" | "max" => {}
            _ if nan => return self.unknown(),
            _ => {}
        }
        match kind {
            Kind::F32 if toward_zero => self.toward_zero(to),
            Kind::F32 => self.single(to, nan),
            Kind::F64 if !nan && !toward_zero => self.double(to),
            _ => self.unknown(),
        }
    }

    fn single(&mut self, to: usize, nan: bool) -> Result<Step> {
        Ok(match self.root {
            "add" => binary(to, self.pair()?, |a: f32, b: f32| a + b),
            "sub" => binary(to, self.pair()?, |a: f32, b: f32| a - b),
            "mul" => binary(to, self.pair()?, |a: f32, b: f32| a * b),
            "div" => binary(to, self.pair()?, |a: f32, b: f32| a / b),
            "min" if nan => binary(to, self.pair()?, |a: f32, b: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { number::min(a, b) }),
            "max" if nan => binary(to, self.pair()?, |a: f32, b: f32| if a.is_nan() || b.is_nan() { f32::NAN } else { number::max(a, b) }),
            "min" => binary(to, self.pair()?, number::min),
            "max" => binary(to, self.pair()?, number::max),
            "fma" | "mad" => ternary(to, self.triple()?, f32::mul_add),
            "sqrt" => unary(to, self.from(1)?, f32::sqrt),
            "rcp" => unary(to, self.from(1)?, |a: f32| 1.0 / a),
            // Signs change without a look at the rest.
            "neg" => unary(to, self.from(1)?, |a: u32| a ^ 1 << 31),
            "abs" => unary(to, self.from(1)?, |a: u32| a & !(1 << 31)),
            "copysign" => binary(to, self.pair()?, |sign: u32, a: u32| a & !(1 << 31) | sign & 1 << 31),
            _ => return self.unknown(),
        })
    }

    fn double(&mut self, to: usize) -> Result<Step> {
        Ok(match self.root {
            "add" => binary(to, self.pair()?, |a: f64, b: f64| a + b),
            "sub" => binary(to, self.pair()?, |a: f64, b: f64| a - b),
            "mul" => binary(to, self.pair()?, |a: f64, b: f64| a * b),
            "div" => binary(to, self.pair()?, |a: f64, b: f64| a / b),
            "min" => binary(to, self.pair()?, number::min_double),
            "max" => binary(to, self.pair()?, number::max_double),
            "fma" | "mad" => ternary(to, self.triple()?, f64::mul_add),
            "sqrt" => unary(to, self.from(1)?, f64::sqrt),
            "rcp" => unary(to, self.from(1)?, |a: f64| 1.0 / a),
            "neg" => unary(to, self.from(1)?, |a: u64| a ^ 1 << 63),
            "abs" => unary(to, self.from(1)?, |a: u64| a & !(1 << 63)),
            "copysign" => binary(to, self.pair()?, |sign: u64, a: u64| a & !(1 << 63) | sign & 1 << 63),
            _ => return self.unknown(),
        })
    }

    /// What `roundf` is made of.
    fn toward_zero(&mut self, to: usize) -> Result<Step> {
        Ok(match self.root {
            "add" => binary(to, self.pair()?, |a: f32, b: f32| number::add_toward_zero(a.into(), b.into())),
            "sub" => binary(to, self.pair()?, |a: f32, b: f32| number::add_toward_zero(a.into(), (-b).into())),
            "mul" => binary(to, self.pair()?, |a: f32, b: f32| number::add_toward_zero(f64::from(a) * f64::from(b), -0.0)),
            "fma" => ternary(to, self.triple()?, |a: f32, b: f32, c: f32| number::add_toward_zero(f64::from(a) * f64::from(b), c.into())),
            _ => return self.unknown(),
        })
    }

    fn test(&mut self) -> Result<Step> {
        let to = super::predicate(self.operand(0)?)?;
        let from = self.from(1)?;
        let question = self.take_some(|modifier| {
            Some(match modifier {
                "finite" => f64::is_finite,
                "infinite" => f64::is_infinite,
                "number" => |a: f64| !a.is_nan(),
                "notanumber" => f64::is_nan,
                _ => return None,
            })
        });
        let (Some(question), kind) = (question as Option<fn(f64) -> bool>, self.kind()?) else { return self.unknown() };
        let read: fn(u64) -> f64 = match kind {
            Kind::F32 => |bits| f32::from_bits(bits as u32).into(),
            Kind::F64 => f64::from_bits,
            _ => return self.unknown(),
        };
        Ok(Step::Lanes(Box::new(move |registers, mask| {
            let row = &registers.rows[from];
            let value = lanes(mask).fold(0, |value, lane| value | u32::from(question(read(row[lane]))) << lane);
            registers.set_predicate(mask, to, value);
            Ok(())
        })))
    }
}
