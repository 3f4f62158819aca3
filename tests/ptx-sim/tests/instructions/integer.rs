//! Arithmetic of integers, and bits.

use crate::support::Class::{D, H, P, W};
use crate::support::{Case, Class, case, check};

/// The types of a width.
const WIDTHS: [(u32, Class); 3] = [(16, H), (32, W), (64, D)];

/// The bits as a signed integer.
fn signed(x: u64, bits: u32) -> i128 {
    let x = i128::from(x) & ((1 << bits) - 1);
    if x >> (bits - 1) != 0 { x - (1 << bits) } else { x }
}

/// The bits as the integer of a type that begins with `s` or `u`.
fn read(x: u64, kind: char, bits: u32) -> i128 {
    if kind == 's' { signed(x, bits) } else { i128::from(x) & ((1 << bits) - 1) }
}

fn arithmetic() -> Vec<Case> {
    let mut cases = Vec::new();
    for (bits, class) in WIDTHS {
        for kind in ['s', 'u'] {
            let with = move |x: [u64; 4]| [read(x[0], kind, bits), read(x[1], kind, bits), read(x[2], kind, bits)];
            let two = [class, class];
            cases.push(case(&format!("add.{kind}{bits}"), &two, class, move |x| x[0].wrapping_add(x[1])));
            cases.push(case(&format!("sub.{kind}{bits}"), &two, class, move |x| x[0].wrapping_sub(x[1])));
            cases.push(case(&format!("mul.lo.{kind}{bits}"), &two, class, move |x| x[0].wrapping_mul(x[1])));
            cases.push(case(&format!("mul.hi.{kind}{bits}"), &two, class, move |x| {
                let [a, b, _] = with(x);
                // u64 by u64 does not fit into i128.
                if kind == 'u' { ((a as u128 * b as u128) >> bits) as u64 } else { ((a * b) >> bits) as u64 }
            }));
            cases.push(case(&format!("mad.lo.{kind}{bits}"), &[class; 3], class, move |x| x[0].wrapping_mul(x[1]).wrapping_add(x[2])));
            cases.push(case(&format!("min.{kind}{bits}"), &two, class, move |x| with(x)[0].min(with(x)[1]) as u64));
            cases.push(case(&format!("max.{kind}{bits}"), &two, class, move |x| with(x)[0].max(with(x)[1]) as u64));
            cases.push(case(&format!("sad.{kind}{bits}"), &[class; 3], class, move |x| {
                let [a, b, c] = with(x);
                ((a - b).abs() + c) as u64
            }));
            // Divisors that are never zero: division by zero is a fault, and tested as such.
            let odd = format!("or.b{bits} %{0}b, %{0}b, 1;\n", ["h", "w", "d"][(bits / 32) as usize]);
            for (name, quotient) in [("div", true), ("rem", false)] {
                let mut divide = case(&format!("{name}.{kind}{bits}"), &two, class, move |x| {
                    let [a, b, _] = with([x[0], x[1] | 1, 0, 0]);
                    if quotient { (a / b) as u64 } else { (a % b) as u64 }
                });
                divide.text.insert_str(0, &odd);
                cases.push(divide);
            }
            if bits < 64 {
                let wide = if bits == 16 { W } else { D };
                cases.push(case(&format!("mul.wide.{kind}{bits}"), &two, wide, move |x| (with(x)[0] * with(x)[1]) as u64));
                cases.push(case(&format!("mad.wide.{kind}{bits}"), &[class, class, wide], wide, move |x| {
                    ((with(x)[0] * with(x)[1]) as u64).wrapping_add(x[2])
                }));
            }
            if bits > 16 {
                cases.push(case(&format!("mad.hi.{kind}{bits}"), &[class; 3], class, move |x| {
                    let [a, b, _] = with(x);
                    let high = if kind == 'u' { ((a as u128 * b as u128) >> bits) as u64 } else { ((a * b) >> bits) as u64 };
                    high.wrapping_add(x[2])
                }));
            }
        }
        cases.push(case(&format!("neg.s{bits}"), &[class], class, |x| x[0].wrapping_neg()));
        cases.push(case(&format!("abs.s{bits}"), &[class], class, move |x| signed(x[0], bits).unsigned_abs() as u64));
    }
    for (name, sign) in [("add", 1), ("sub", -1)] {
        cases.push(case(&format!("{name}.sat.s32"), &[W, W], W, move |x| {
            (signed(x[0], 32) + sign * signed(x[1], 32)).clamp(i32::MIN.into(), i32::MAX.into()) as u64
        }));
    }
    for (name, kinds) in [("s32.s32", "ss"), ("u32.u32", "uu"), ("s32.u32", "su"), ("u32.s32", "us")] {
        let kinds: Vec<char> = kinds.chars().collect();
        cases.push(case(&format!("dp4a.{name}"), &[W; 3], W, move |x| {
            let products = (0..4).map(|byte| read(x[0] >> (8 * byte), kinds[0], 8) * read(x[1] >> (8 * byte), kinds[1], 8));
            (products.sum::<i128>() + i128::from(x[2])) as u64
        }));
    }
    cases
}

fn logic() -> Vec<Case> {
    let mut cases = Vec::new();
    for (bits, class) in WIDTHS {
        let two = [class, class];
        cases.push(case(&format!("and.b{bits}"), &two, class, |x| x[0] & x[1]));
        cases.push(case(&format!("or.b{bits}"), &two, class, |x| x[0] | x[1]));
        cases.push(case(&format!("xor.b{bits}"), &two, class, |x| x[0] ^ x[1]));
        cases.push(case(&format!("not.b{bits}"), &[class], class, |x| !x[0]));
        cases.push(case(&format!("cnot.b{bits}"), &[class], class, |x| u64::from(x[0] == 0)));
        cases.push(case(&format!("shl.b{bits}"), &[class, W], class, |x| if x[1] < 64 { x[0] << x[1] } else { 0 }));
        for kind in ['b', 'u', 's'] {
            cases.push(case(&format!("shr.{kind}{bits}"), &[class, W], class, move |x| (read(x[0], kind, bits) >> x[1].min(100)) as u64));
        }
    }
    cases.push(case("and.pred", &[P, P], P, |x| x[0] & x[1]));
    cases.push(case("or.pred", &[P, P], P, |x| x[0] | x[1]));
    cases.push(case("xor.pred", &[P, P], P, |x| x[0] ^ x[1]));
    cases.push(case("not.pred", &[P], P, |x| 1 - x[0]));
    for (mode, limit) in [("wrap", None), ("clamp", Some(32))] {
        let amount = move |n: u64| limit.map_or(n % 32, |limit: u64| n.min(limit));
        cases.push(case(&format!("shf.l.{mode}.b32"), &[W; 3], W, move |x| ((u128::from(x[1] << 32 | x[0]) << amount(x[2])) >> 32) as u64));
        cases.push(case(&format!("shf.r.{mode}.b32"), &[W; 3], W, move |x| (x[1] << 32 | x[0]) >> amount(x[2])));
    }
    cases.push(case("prmt.b32", &[W; 3], W, |x| {
        let bytes = x[1] << 32 | x[0];
        (0..4).fold(0, |result, place| {
            let selector = x[2] >> (4 * place) & 15;
            let byte = bytes >> (8 * (selector % 8)) & 0xff;
            let byte = if selector < 8 { byte } else { byte / 128 * 255 };
            result | byte << (8 * place)
        })
    }));
    for table in [0x00, 0x01, 0x2d, 0x80, 0x96, 0xca, 0xe8, 0xfe, 0xff] {
        let mut lop = case("lop3.b32", &[W; 3], W, move |x| {
            (0..32).fold(0, |result, bit| {
                let index = [0, 1, 2].iter().fold(0, |index, operand| index << 1 | x[*operand as usize] >> bit & 1);
                result | (table >> index & 1) << bit
            })
        });
        lop.text = lop.text.replace(';', &format!(", {table};"));
        cases.push(lop);
    }
    cases
}

fn fields() -> Vec<Case> {
    let mut cases = Vec::new();
    for (bits, class) in [(32u32, W), (64, D)] {
        for kind in ['u', 's'] {
            cases.push(case(&format!("bfe.{kind}{bits}"), &[class, W, W], class, move |x| {
                // Bit by bit, as the manual has it.
                let (at, len) = (x[1] & 0xff, x[2] & 0xff);
                let last = u64::from(bits) - 1;
                let sign = if kind == 's' && len > 0 { x[0] >> (at + len - 1).min(last) & 1 } else { 0 };
                (0..=last).fold(0, |result, bit| {
                    let inside = bit < len && at + bit <= last;
                    result | if inside { x[0] >> (at + bit) & 1 } else { sign } << bit
                })
            }));
        }
        cases.push(case(&format!("bfi.b{bits}"), &[class, class, W, W], class, move |x| {
            let (at, len) = (x[2] & 0xff, x[3] & 0xff);
            (0..u64::from(bits)).fold(0, |result, bit| {
                let from = if bit >= at && bit < at + len { x[0] >> (bit - at) } else { x[1] >> bit };
                result | (from & 1) << bit
            })
        }));
        cases.push(case(&format!("popc.b{bits}"), &[class], W, |x| (0..64).map(|bit| x[0] >> bit & 1).sum()));
        cases.push(case(&format!("clz.b{bits}"), &[class], W, move |x| (0..bits).take_while(|bit| x[0] >> (bits - 1 - bit) & 1 == 0).count() as u64));
        cases.push(case(&format!("brev.b{bits}"), &[class], class, move |x| {
            (0..bits).fold(0, |result, bit| result | (x[0] >> bit & 1) << (bits - 1 - bit))
        }));
        for kind in ['u', 's'] {
            let find = move |x: u64| {
                let x = if kind == 's' && x >> (bits - 1) & 1 != 0 { !x } else { x };
                (0..bits).rev().find(|bit| x >> bit & 1 != 0)
            };
            cases.push(case(&format!("bfind.{kind}{bits}"), &[class], W, move |x| find(x[0]).map_or(u64::MAX, u64::from)));
            cases.push(case(&format!("bfind.shiftamt.{kind}{bits}"), &[class], W, move |x| {
                find(x[0]).map_or(u64::MAX, |bit| u64::from(bits - 1 - bit))
            }));
        }
    }
    cases
}

pub fn cases() -> Vec<Case> {
    [arithmetic(), logic(), fields()].into_iter().flatten().collect()
}

#[test]
fn integers_are_as_in_rust() {
    check(&cases());
}
