//! Arithmetic of floats.

use crate::support::Class::{D, P, W};
use crate::support::{Case, case, check, f32_of, partial, single};

/// An operation on up to three floats.
fn f32_case(opcode: &str, operands: usize, operation: impl Fn(f32, f32, f32) -> f32 + 'static) -> Case {
    case(opcode, &vec![W; operands], W, move |x| single(operation(f32_of(x[0]), f32_of(x[1]), f32_of(x[2]))))
}

/// An operation on up to three doubles.
fn f64_case(opcode: &str, operands: usize, operation: impl Fn(f64, f64, f64) -> f64 + 'static) -> Case {
    case(opcode, &vec![D; operands], D, move |x| operation(f64::from_bits(x[0]), f64::from_bits(x[1]), f64::from_bits(x[2])).to_bits())
}

/// The larger number by the total order of IEEE; NaN loses.
fn larger(a: f64, b: f64) -> f64 {
    match (a.is_nan(), b.is_nan()) {
        (true, _) => b,
        (_, true) => a,
        _ if a.total_cmp(&b).is_ge() => a,
        _ => b,
    }
}

fn smaller(a: f64, b: f64) -> f64 {
    -larger(-a, -b)
}

/// A float as an integer times a power of two.
fn parts(x: f32) -> (i128, i32) {
    let bits = x.to_bits();
    let exponent = (bits >> 23 & 0xff) as i32;
    let fraction = i128::from(bits & 0x7f_ffff) | if exponent == 0 { 0 } else { 1 << 23 };
    (if bits >> 31 == 0 { fraction } else { -fraction }, exponent.max(1) - 150)
}

/// `a * b + c` in whole numbers, cut to a float. Nothing if it is not finite, zero, or the exponents are far apart.
fn cut(a: f32, b: f32, c: f32) -> Option<u64> {
    if !(a.is_finite() && b.is_finite() && c.is_finite()) {
        return None;
    }
    let ((a, ea), (b, eb), (c, ec)) = (parts(a), parts(b), parts(c));
    let (product, ep) = (a * b, ea + eb);
    let exponent = ep.min(ec);
    if (ep - exponent).max(ec - exponent) > 70 {
        return None;
    }
    let sum = (product << (ep - exponent)) + (c << (ec - exponent));
    let (magnitude, sign) = (sum.unsigned_abs(), u64::from(sum < 0) << 31);
    if magnitude == 0 {
        return None;
    }
    // The last place of the result: 24 bits, or that of denormals.
    let length = 128 - magnitude.leading_zeros() as i32;
    let last = (exponent + length - 24).max(-149);
    let shift = last - exponent;
    let units = if shift >= 0 { magnitude.checked_shr(shift as u32).unwrap_or(0) } else { magnitude << -shift } as u64;
    let biased = (last + 149) as u64;
    let code = (biased << 23) + units;
    Some(sign | code.min(u64::from(f32::MAX.to_bits())))
}

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        f32_case("add.rn.f32", 2, |a, b, _| a + b),
        f32_case("sub.rn.f32", 2, |a, b, _| a - b),
        f32_case("mul.rn.f32", 2, |a, b, _| a * b),
        f32_case("div.rn.f32", 2, |a, b, _| a / b),
        f32_case("fma.rn.f32", 3, f32::mul_add),
        f32_case("sqrt.rn.f32", 1, |a, _, _| a.sqrt()),
        f32_case("rcp.rn.f32", 1, |a, _, _| 1.0 / a),
        f32_case("min.f32", 2, |a, b, _| smaller(a.into(), b.into()) as f32),
        f32_case("max.f32", 2, |a, b, _| larger(a.into(), b.into()) as f32),
        f64_case("add.rn.f64", 2, |a, b, _| a + b),
        f64_case("sub.rn.f64", 2, |a, b, _| a - b),
        f64_case("mul.rn.f64", 2, |a, b, _| a * b),
        f64_case("div.rn.f64", 2, |a, b, _| a / b),
        f64_case("fma.rn.f64", 3, f64::mul_add),
        f64_case("sqrt.rn.f64", 1, |a, _, _| a.sqrt()),
        f64_case("rcp.rn.f64", 1, |a, _, _| 1.0 / a),
        f64_case("min.f64", 2, |a, b, _| smaller(a, b)),
        f64_case("max.f64", 2, |a, b, _| larger(a, b)),
        // Signs, of NaNs too.
        case("neg.f32", &[W], W, |x| x[0] ^ 1 << 31),
        case("abs.f32", &[W], W, |x| x[0] & 0x7fff_ffff),
        case("neg.f64", &[D], D, |x| x[0] ^ 1 << 63),
        case("abs.f64", &[D], D, |x| x[0] << 1 >> 1),
        case("copysign.f32", &[W, W], W, |x| x[1] & 0x7fff_ffff | x[0] >> 31 << 31),
        case("copysign.f64", &[D, D], D, |x| x[1] << 1 >> 1 | x[0] >> 63 << 63),
        partial("add.rz.f32", &[W, W], W, |x| cut(f32_of(x[0]), 1.0, f32_of(x[1]))),
        partial("sub.rz.f32", &[W, W], W, |x| cut(f32_of(x[0]), 1.0, -f32_of(x[1]))),
        partial("mul.rz.f32", &[W, W], W, |x| cut(f32_of(x[0]), f32_of(x[1]), 0.0)),
        partial("fma.rz.f32", &[W, W, W], W, |x| cut(f32_of(x[0]), f32_of(x[1]), f32_of(x[2]))),
    ];
    for (name, larger_wins) in [("min.NaN.f32", false), ("max.NaN.f32", true)] {
        cases.push(f32_case(name, 2, move |a, b, _| {
            if a.is_nan() || b.is_nan() {
                f32::NAN
            } else if larger_wins {
                larger(a.into(), b.into()) as f32
            } else {
                smaller(a.into(), b.into()) as f32
            }
        }));
    }
    for (name, question) in
        [("finite", f64::is_finite as fn(f64) -> bool), ("infinite", f64::is_infinite), ("number", |x| !x.is_nan()), ("notanumber", f64::is_nan)]
    {
        cases.push(case(&format!("testp.{name}.f32"), &[W], P, move |x| question(f32_of(x[0]).into()).into()));
        cases.push(case(&format!("testp.{name}.f64"), &[D], P, move |x| question(f64::from_bits(x[0])).into()));
    }
    cases
}

#[test]
fn floats_are_as_in_rust() {
    check(&cases());
}
