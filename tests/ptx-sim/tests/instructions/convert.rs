//! Conversions.

use std::sync::LazyLock;

use crate::support::Class::{D, H, W};
use crate::support::{Case, Class, case, check, f32_of, single};

/// The class of registers that hold a type.
fn class(bits: u32) -> Class {
    match bits {
        64 => D,
        32 => W,
        _ => H,
    }
}

/// The range of an integer type.
fn range(kind: char, bits: u32) -> (i128, i128) {
    if kind == 's' { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// The integer of a type whose bits these are.
fn integer(x: u64, kind: char, bits: u32) -> i128 {
    let x = i128::from(x) & ((1 << bits) - 1);
    if kind == 's' && x >> (bits - 1) != 0 { x - (1 << bits) } else { x }
}

fn integers() -> Vec<Case> {
    let mut cases = Vec::new();
    let kinds = || [8, 16, 32, 64].into_iter().flat_map(|bits| [('u', bits), ('s', bits)]);
    for (into, to) in kinds() {
        for (of, from) in kinds() {
            let opcode = format!("{into}{to}.{of}{from}");
            // The register is wider than the type: the result is extended as the type says.
            let wrap = move |x: i128| integer(x as u64, into, to) as u64;
            cases.push(case(&format!("cvt.{opcode}"), &[class(from)], class(to), move |x| wrap(integer(x[0], of, from))));
            let (least, most) = range(into, to);
            cases.push(case(&format!("cvt.sat.{opcode}"), &[class(from)], class(to), move |x| wrap(integer(x[0], of, from).clamp(least, most))));
        }
        if to > 8 {
            cases.push(case(&format!("cvt.rn.f32.{into}{to}"), &[class(to)], W, move |x| single(integer(x[0], into, to) as f32)));
            cases.push(case(&format!("cvt.rn.f64.{into}{to}"), &[class(to)], D, move |x| (integer(x[0], into, to) as f64).to_bits()));
        }
        if to == 16 || to == 32 {
            cases.push(case(&format!("cvt.rn.f16.{into}{to}"), &[class(to)], H, move |x| SMALL[0].nearest(integer(x[0], into, to) as f64)));
        }
    }
    // Registers wider than the types.
    cases.push(case("cvt.u16.s8", &[W], W, |x| (x[0] as i8 as u64) & 0xffff));
    cases.push(case("cvt.s16.s8", &[W], W, |x| x[0] as i8 as u64));
    cases.push(case("cvt.u16.u32", &[W], W, |x| x[0] & 0xffff));
    cases.push(case("cvt.s8.s32", &[W], W, |x| x[0] as i8 as u64));
    cases.push(case("cvt.u8.u32", &[W], W, |x| x[0] & 0xff));
    cases.push(case("cvt.s32.s8", &[W], W, |x| x[0] as i8 as u64));
    cases
}

/// How floats become integers: the modifier, and what it does.
type Rounding = (&'static str, fn(f64) -> f64);

const ROUNDINGS: [Rounding; 4] = [("rni", f64::round_ties_even), ("rzi", f64::trunc), ("rmi", f64::floor), ("rpi", f64::ceil)];

/// A type of floats: its bits, and how they are read.
type Float = (&'static str, u32, fn(u64) -> f64);

const FLOATS: [Float; 3] = [("f16", 16, |x| SMALL[0].value(x as u16)), ("f32", 32, |x| f32_of(x).into()), ("f64", 64, |x| f64::from_bits(x))];

fn to_integers() -> Vec<Case> {
    let mut cases = Vec::new();
    for (rounding, round) in ROUNDINGS {
        for (float, from, read) in FLOATS {
            for (kind, bits) in [8, 16, 32, 64].into_iter().flat_map(|bits| [('u', bits), ('s', bits)]) {
                let (least, most) = range(kind, bits);
                cases.push(case(&format!("cvt.{rounding}.{kind}{bits}.{float}"), &[class(from)], class(bits), move |x| {
                    let value = read(x[0]);
                    if value.is_nan() {
                        return if from == 64 || bits == 64 { 1 << (bits - 1) } else { 0 };
                    }
                    // i128 holds all in range; what is outside of it is cut to its ends first.
                    (round(value) as i128).clamp(least, most) as u64
                }));
            }
        }
        cases.push(case(&format!("cvt.{rounding}.f32.f32"), &[W], W, move |x| single(round(f32_of(x[0]).into()) as f32)));
        cases.push(case(&format!("cvt.{rounding}.f64.f64"), &[D], D, move |x| round(f64::from_bits(x[0])).to_bits()));
    }
    cases
}

/// A small float, by a list of its numbers.
struct Small {
    fraction: u32,
    /// The positive finite numbers with their bits, rising.
    numbers: Vec<f64>,
}

static SMALL: LazyLock<[Small; 2]> = LazyLock::new(|| [Small::new(5, 10), Small::new(8, 7)]);

impl Small {
    fn new(exponent: i32, fraction: u32) -> Self {
        let bias = (1 << (exponent - 1)) - 1;
        let numbers = (0..((1u32 << exponent) - 1) << fraction).map(|bits| {
            let (e, f) = ((bits >> fraction) as i32, f64::from(bits & ((1 << fraction) - 1)));
            let scale = 2f64.powi(-(fraction as i32));
            if e == 0 { f * scale * 2f64.powi(1 - bias) } else { (1.0 + f * scale) * 2f64.powi(e - bias) }
        });
        Self { fraction, numbers: numbers.collect() }
    }

    fn value(&self, bits: u16) -> f64 {
        let magnitude = usize::from(bits & 0x7fff);
        let value = match self.numbers.get(magnitude) {
            Some(value) => *value,
            None if magnitude == self.numbers.len() => f64::INFINITY,
            None => return f64::NAN,
        };
        if bits >> 15 == 0 { value } else { -value }
    }

    /// The bits of the number that is nearest, the even one of two.
    fn nearest(&self, x: f64) -> u64 {
        if x.is_nan() {
            return 0x7fff;
        }
        let last = self.numbers.len() as u64 - 1;
        let above = self.numbers.partition_point(|number| *number < x.abs()) as u64;
        let code = if above == 0 {
            0
        } else if above > last {
            // Infinity is where the next number would be.
            let (end, step) = (self.numbers[last as usize], self.numbers[last as usize] - self.numbers[last as usize - 1]);
            if x.abs() < end + step / 2.0 { last } else { last + 1 }
        } else {
            let (low, high) = (self.numbers[above as usize - 1], self.numbers[above as usize]);
            match (x.abs() - low).total_cmp(&(high - x.abs())) {
                std::cmp::Ordering::Less => above - 1,
                std::cmp::Ordering::Greater => above,
                std::cmp::Ordering::Equal => above - 1 + (above - 1) % 2,
            }
        };
        u64::from(x.is_sign_negative()) << 15 | code
    }
}

fn unit(x: f32) -> u64 {
    single(if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0).abs() })
}

fn floats() -> Vec<Case> {
    let [half, brain] = &*SMALL;
    assert_eq!((half.fraction, brain.fraction), (10, 7));
    vec![
        case("cvt.f64.f32", &[W], D, |x| f64::from(f32_of(x[0])).to_bits()),
        case("cvt.rn.f32.f64", &[D], W, |x| single(f64::from_bits(x[0]) as f32)),
        case("cvt.rn.sat.f32.f64", &[D], W, |x| unit(f64::from_bits(x[0]) as f32)),
        case("cvt.sat.f32.f32", &[W], W, |x| unit(f32_of(x[0]))),
        case("cvt.f32.f16", &[H], W, |x| single(half.value(x[0] as u16) as f32)),
        case("cvt.f64.f16", &[H], D, |x| half.value(x[0] as u16).to_bits()),
        case("cvt.f32.bf16", &[H], W, |x| single(brain.value(x[0] as u16) as f32)),
        case("cvt.rn.f16.f32", &[W], H, |x| half.nearest(f32_of(x[0]).into())),
        case("cvt.rn.f16.f64", &[D], H, |x| half.nearest(f64::from_bits(x[0]))),
        case("cvt.rn.bf16.f32", &[W], H, |x| brain.nearest(f32_of(x[0]).into())),
        case("cvt.rn.f16x2.f32", &[W, W], W, |x| half.nearest(f32_of(x[0]).into()) << 16 | half.nearest(f32_of(x[1]).into())),
        case("cvt.rn.bf16x2.f32", &[W, W], W, |x| brain.nearest(f32_of(x[0]).into()) << 16 | brain.nearest(f32_of(x[1]).into())),
    ]
}

pub fn cases() -> Vec<Case> {
    [integers(), to_integers(), floats()].into_iter().flatten().collect()
}

#[test]
fn conversions_are_as_in_rust() {
    check(&cases());
}
