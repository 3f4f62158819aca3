//! Conversions.

use super::{Decoder, Result};
use crate::kind::Kind;
use crate::number::{BF16, F16};
use crate::step::{Step, binary, unary};

/// How to an integer.
type Round = fn(f64) -> f64;

impl Decoder<'_, '_> {
    pub(super) fn convert(&mut self) -> Result<Step> {
        let nearest = self.take("rn");
        let saturate = self.take("sat");
        let round = self.take_some(|modifier| {
            Some(match modifier {
                "rni" => f64::round_ties_even,
                "rzi" => f64::trunc,
                "rmi" => f64::floor,
                "rpi" => f64::ceil,
                _ => return None,
            } as Round)
        });
        let (into, of, to, from) = (self.kind()?, self.kind()?, self.to()?, self.from(1)?);
        match (into.is_float(), of.is_float()) {
            (false, false) if !nearest && round.is_none() => self.integers(into, of, saturate),
            (true, false) if nearest && !saturate && round.is_none() => self.float_of(into, of),
            (false, true) if !nearest => match round {
                Some(round) => self.integer_of(into, of, round),
                None => Err("it has no rounding mode".into()),
            },
            (true, true) => match (into, of, nearest, round) {
                (Kind::F16x2 | Kind::Bf16x2, Kind::F32, true, None) if !saturate => self.packed(into),
                // Narrower ones are rounded, wider ones are exact.
                (Kind::F16, Kind::F32 | Kind::F64, true, None) if !saturate => {
                    let read = reader(of)?;
                    Ok(unary(to, from, move |a: u64| F16.narrow(read(a))))
                }
                (Kind::Bf16, Kind::F32, true, None) if !saturate => Ok(unary(to, from, |a: f32| BF16.narrow(a.into()))),
                (Kind::F32, Kind::F64, true, None) if saturate => Ok(unary(to, from, |a: f64| unit(a as f32))),
                (Kind::F32, Kind::F64, true, None) => Ok(unary(to, from, |a: f64| a as f32)),
                (Kind::F32, Kind::F16 | Kind::Bf16, false, None) | (Kind::F32, Kind::F32, false, _) => {
                    let (read, round) = (reader(of)?, round.unwrap_or(|x| x));
                    Ok(if saturate {
                        unary(to, from, move |a: u64| unit(round(read(a)) as f32))
                    } else {
                        unary(to, from, move |a: u64| round(read(a)) as f32)
                    })
                }
                (Kind::F64, Kind::F16 | Kind::F32, false, None) | (Kind::F64, Kind::F64, false, _) if !saturate => {
                    let (read, round) = (reader(of)?, round.unwrap_or(|x| x));
                    Ok(unary(to, from, move |a: u64| round(read(a))))
                }
                _ => self.unknown(),
            },
            _ => self.unknown(),
        }
    }

    /// Cut, or extended by the sign or by zeros: what the narrower type says.
    fn integers(&mut self, into: Kind, of: Kind, saturate: bool) -> Result<Step> {
        let (to, from) = (self.to()?, self.from(1)?);
        if saturate {
            let (least, most) = range(into);
            return Ok(unary(to, from, move |a: u64| integer(a, of).clamp(least, most) as u64));
        }
        // A negative number becomes one without a sign: nothing of the sign is left above its type.
        let keep = if into.is_signed() { u64::MAX } else { u64::MAX >> (64 - into.bits()) };
        Ok(match if into.bits() <= of.bits() { into } else { of } {
            Kind::U8 => unary(to, from, |a: u8| a),
            Kind::U16 => unary(to, from, |a: u16| a),
            Kind::U32 => unary(to, from, |a: u32| a),
            Kind::S8 => unary(to, from, move |a: i8| a as u64 & keep),
            Kind::S16 => unary(to, from, move |a: i16| a as u64 & keep),
            Kind::S32 => unary(to, from, move |a: i32| a as u64 & keep),
            Kind::U64 | Kind::S64 => unary(to, from, |a: u64| a),
            _ => return self.unknown(),
        })
    }

    fn float_of(&mut self, into: Kind, of: Kind) -> Result<Step> {
        let (to, from) = (self.to()?, self.from(1)?);
        Ok(match (into, of) {
            (Kind::F32, Kind::U32) => unary(to, from, |a: u32| a as f32),
            (Kind::F32, Kind::S32) => unary(to, from, |a: i32| a as f32),
            (Kind::F32, Kind::U64) => unary(to, from, |a: u64| a as f32),
            (Kind::F32, Kind::S64) => unary(to, from, |a: i64| a as f32),
            (Kind::F64, Kind::U64) => unary(to, from, |a: u64| a as f64),
            (Kind::F64, Kind::S64) => unary(to, from, |a: i64| a as f64),
            // What is left has at most 32 bits: exact in f64.
            (Kind::F32, _) if of.bits() < 32 => unary(to, from, move |a: u64| integer(a, of) as f32),
            (Kind::F64, _) if of.bits() <= 32 => unary(to, from, move |a: u64| integer(a, of) as f64),
            (Kind::F16, _) if of.bits() <= 32 => unary(to, from, move |a: u64| F16.narrow(integer(a, of) as f64)),
            _ => return self.unknown(),
        })
    }

    /// What is out of range becomes the end of the range; NaN is 0, or the top bit where doubles or 64 bits take part.
    fn integer_of(&mut self, into: Kind, of: Kind, round: Round) -> Result<Step> {
        let (to, from, read) = (self.to()?, self.from(1)?, reader(of)?);
        let nan = if of == Kind::F64 || into.bits() == 64 { 1u64 << (into.bits() - 1) } else { 0 };
        let cast: fn(f64) -> u64 = match into {
            Kind::U8 => |x| (x as u8).into(),
            Kind::S8 => |x| x as i8 as u64,
            Kind::U16 => |x| (x as u16).into(),
            Kind::S16 => |x| x as i16 as u64,
            Kind::U32 => |x| (x as u32).into(),
            Kind::S32 => |x| x as i32 as u64,
            Kind::U64 => |x| x as u64,
            Kind::S64 => |x| x as i64 as u64,
            _ => return self.unknown(),
        };
        Ok(unary(to, from, move |a: u64| {
            let x = read(a);
            if x.is_nan() { nan } else { cast(round(x)) }
        }))
    }

    /// Two floats to the halves of a register, the first one high.
    fn packed(&mut self, into: Kind) -> Result<Step> {
        let format = if into == Kind::F16x2 { F16 } else { BF16 };
        let (to, pair) = (self.to()?, self.pair()?);
        Ok(binary(to, pair, move |high: f32, low: f32| u32::from(format.narrow(high.into())) << 16 | u32::from(format.narrow(low.into()))))
    }
}

/// Between 0 and 1. NaN is 0.
fn unit(x: f32) -> f32 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

/// Reads a float: exact in f64.
fn reader(kind: Kind) -> Result<fn(u64) -> f64> {
    Ok(match kind {
        Kind::F32 => |bits| f32::from_bits(bits as u32).into(),
        Kind::F64 => f64::from_bits,
        Kind::F16 => |bits| F16.widen(bits as u16).into(),
        Kind::Bf16 => |bits| BF16.widen(bits as u16).into(),
        _ => return Err("not known with this type".into()),
    })
}

/// Reads an integer.
fn integer(bits: u64, kind: Kind) -> i128 {
    let rest = 64 - kind.bits();
    if kind.is_signed() { ((bits << rest) as i64 >> rest).into() } else { (bits << rest >> rest).into() }
}

/// The least and the largest integer.
fn range(kind: Kind) -> (i128, i128) {
    match (kind.is_signed(), kind.bits()) {
        (true, bits) => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        (false, bits) => (0, (1 << bits) - 1),
    }
}
