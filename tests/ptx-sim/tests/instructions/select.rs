//! Moves, comparisons and choices.

use std::cmp::Ordering;

use crate::support::Class::{D, H, P, W};
use crate::support::{Case, Class, case, check, f32_of};

/// Which results of a comparison make it hold. Nothing: one side is NaN.
const COMPARISONS: [(&str, &[Option<Ordering>]); 14] = {
    use Ordering::{Equal, Greater, Less};
    [
        ("eq", &[Some(Equal)]),
        ("ne", &[Some(Less), Some(Greater)]),
        ("lt", &[Some(Less)]),
        ("le", &[Some(Less), Some(Equal)]),
        ("gt", &[Some(Greater)]),
        ("ge", &[Some(Greater), Some(Equal)]),
        ("equ", &[Some(Equal), None]),
        ("neu", &[Some(Less), Some(Greater), None]),
        ("ltu", &[Some(Less), None]),
        ("leu", &[Some(Less), Some(Equal), None]),
        ("gtu", &[Some(Greater), None]),
        ("geu", &[Some(Greater), Some(Equal), None]),
        ("num", &[Some(Less), Some(Equal), Some(Greater)]),
        ("nan", &[None]),
    ]
};

/// A type, its registers, and how two of it compare.
type Compared = (&'static str, Class, fn([u64; 4]) -> Option<Ordering>);

fn kinds() -> Vec<Compared> {
    fn unsigned(x: [u64; 4]) -> Option<Ordering> {
        Some(x[0].cmp(&x[1]))
    }
    vec![
        ("b16", H, unsigned),
        ("u16", H, unsigned),
        ("s16", H, |x| Some((x[0] as i16).cmp(&(x[1] as i16)))),
        ("b32", W, unsigned),
        ("u32", W, unsigned),
        ("s32", W, |x| Some((x[0] as i32).cmp(&(x[1] as i32)))),
        ("b64", D, unsigned),
        ("u64", D, unsigned),
        ("s64", D, |x| Some((x[0] as i64).cmp(&(x[1] as i64)))),
        ("f32", W, |x| f32_of(x[0]).partial_cmp(&f32_of(x[1]))),
        ("f64", D, |x| f64::from_bits(x[0]).partial_cmp(&f64::from_bits(x[1]))),
    ]
}

/// What a comparison is combined with.
type Combination = (&'static str, fn(u64, u64) -> u64);

const COMBINATIONS: [Combination; 3] = [(".and", |a, b| a & b), (".or", |a, b| a | b), (".xor", |a, b| a ^ b)];

fn comparisons() -> Vec<Case> {
    let mut cases = Vec::new();
    for (kind, class, compare) in kinds() {
        for (name, holds) in COMPARISONS {
            let known = match kind.as_bytes()[0] {
                b'b' => matches!(name, "eq" | "ne"),
                b'f' => true,
                _ => holds.len() <= 2 && !holds.contains(&None),
            };
            if !known {
                continue;
            }
            let value = move |x| u64::from(holds.contains(&compare(x)));
            cases.push(case(&format!("setp.{name}.{kind}"), &[class, class], P, value));
            for (combination, combine) in COMBINATIONS {
                cases.push(case(&format!("setp.{name}{combination}.{kind}"), &[class, class, P], P, move |x| combine(value(x), x[2])));
            }
        }
    }
    cases
}

/// A case with its text as it is.
fn text(text: &str, from: &[Class], to: Class, reference: impl Fn([u64; 4]) -> u64 + 'static) -> Case {
    Case { text: text.into(), ..case("", from, to, reference) }
}

fn choices() -> Vec<Case> {
    let mut cases = vec![
        case("mov.pred", &[P], P, |x| x[0]),
        text("mov.pred %py, 1;", &[], P, |_| 1),
        case("slct.b32.s32", &[W, W, W], W, |x| if (x[2] as i32) < 0 { x[1] } else { x[0] }),
        case("slct.f32.f32", &[W, W, W], W, |x| if f32_of(x[2]) >= 0.0 { x[0] } else { x[1] }),
        case("set.lt.u32.f32", &[W, W], W, |x| if f32_of(x[0]) < f32_of(x[1]) { u64::MAX } else { 0 }),
        case("set.geu.f32.f32", &[W, W], W, |x| if f32_of(x[0]) < f32_of(x[1]) { 0 } else { u64::from(1f32.to_bits()) }),
        // Operands of other shapes.
        text("selp.b32 %wy, %wa, 0f3F800000, %pb;", &[W, P], W, |x| if x[1] != 0 { x[0] } else { 0x3f80_0000 }),
        text("add.s32 %wy, %wa, -5;", &[W], W, |x| x[0].wrapping_sub(5)),
        text("setp.lt.s32 %py|%pz, %wa, %wb;\n@%pz add.s32 %wa, %wa, %wb;\n@!%pz sub.s32 %wa, %wa, %wb;\nmov.b32 %wy, %wa;", &[W, W], W, |x| {
            if (x[0] as i32) < x[1] as i32 { x[0].wrapping_sub(x[1]) } else { x[0].wrapping_add(x[1]) }
        }),
        text("setp.lt.and.s32 _|%py, %wa, %wb, !%pc;", &[W, W, P], P, |x| u64::from((x[0] as i32) >= x[1] as i32) & (1 - x[2])),
        // Vectors of registers.
        text("mov.b64 %dy, {%wa, %wb};", &[W, W], D, |x| x[1] << 32 | x[0]),
        text("mov.b32 %wy, {%ha, %hb};", &[H, H], W, |x| x[1] << 16 | x[0]),
        text("mov.b64 %dy, {%ha, %hb, %hc, %hd};", &[H; 4], D, |x| x[3] << 48 | x[2] << 32 | x[1] << 16 | x[0]),
        text("mov.b64 {%wa, %wb}, %da;\nxor.b32 %wy, %wb, 1;", &[D], W, |x| x[0] >> 32 ^ 1),
        text("mov.b64 {%wy, _}, %da;", &[D], W, |x| x[0]),
        text("mov.b32 {_, %hy}, %wa;", &[W], H, |x| x[0] >> 16),
        text("mov.b64 {%ha, %hb, %hy, %hd}, %da;", &[D], H, |x| x[0] >> 32),
        // A scope of its own, and a predicated instruction.
        text("mov.b32 %wy, %wa;\n{\n.reg .b32 t;\nadd.s32 t, %wa, 1;\n@%pb mov.b32 %wy, t;\n}", &[W, P], W, |x| x[0] + x[1]),
    ];
    for (kind, class) in
        [("b16", H), ("u16", H), ("s16", H), ("b32", W), ("u32", W), ("s32", W), ("f32", W), ("b64", D), ("u64", D), ("s64", D), ("f64", D)]
    {
        cases.push(case(&format!("mov.{kind}"), &[class], class, |x| x[0]));
        cases.push(case(&format!("selp.{kind}"), &[class, class, P], class, |x| if x[2] != 0 { x[0] } else { x[1] }));
    }
    cases
}

pub fn cases() -> Vec<Case> {
    [comparisons(), choices()].into_iter().flatten().collect()
}

#[test]
fn choices_are_as_in_rust() {
    check(&cases());
}
