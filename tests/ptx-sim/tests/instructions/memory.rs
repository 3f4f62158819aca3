//! Loads, stores, atomics and addresses.

use crate::support::Class::{D, H, P, W};
use crate::support::{Case, Class, case, check};

/// A type, its bits, and a register that it fits into.
const KINDS: [(&str, u32, Class); 14] = [
    ("b8", 8, H),
    ("u8", 8, W),
    ("s8", 8, W),
    ("b16", 16, H),
    ("u16", 16, W),
    ("s16", 16, W),
    ("b32", 32, W),
    ("u32", 32, D),
    ("s32", 32, D),
    ("f32", 32, W),
    ("b64", 64, D),
    ("u64", 64, D),
    ("s64", 64, D),
    ("f64", 64, D),
];

fn letter(class: Class) -> char {
    match class {
        H => 'h',
        W => 'w',
        D => 'd',
        P => 'p',
    }
}

/// What a load of these bits gives.
fn extended(x: u64, kind: &str, bits: u32) -> u64 {
    let rest = 64 - bits;
    if kind.starts_with('s') { ((x << rest) as i64 >> rest) as u64 } else { x << rest >> rest }
}

/// A case whose text puts its operand into a variable of a space at the address `%rd2`.
fn through(space: &str, text: &str, from: &[Class], to: Class, reference: impl Fn([u64; 4]) -> u64 + 'static) -> Case {
    let place = match space {
        // Each thread has 16 bytes.
        "shared" => ".shared .align 16 .b8 room[2048];\nmov.u64 %rd2, room;\nmul.wide.u32 %rd3, %tid.x, 16;\nadd.s64 %rd2, %rd2, %rd3;\n",
        "local" => ".local .align 16 .b8 room[16];\nmov.u64 %rd2, room;\n",
        // The operand's own place in its buffer.
        _ => "ld.param.u64 %rd2, [p_a];\nadd.s64 %rd2, %rd2, %rd0;\n",
    };
    Case { text: format!("{place}{text}"), ..case("", from, to, reference) }
}

fn loads_and_stores() -> Vec<Case> {
    let mut cases = Vec::new();
    for space in ["global", "shared", "local"] {
        for (kind, bits, class) in KINDS {
            let y = format!("%{}y", letter(class));
            let text = format!("st.{space}.b64 [%rd2], %da;\nld.{space}.{kind} {y}, [%rd2];");
            cases.push(through(space, &text, &[D], class, move |x| extended(x[0], kind, bits)));
            // Only so many bytes are written.
            let text = format!("st.{space}.b64 [%rd2], %da;\nmov.b64 %rd3, %db;\nst.{space}.{kind} [%rd2], %rd3;\nld.{space}.b64 %dy, [%rd2];");
            cases.push(through(space, &text, &[D, D], D, move |x| extended(x[1], "b", bits) | if bits == 64 { 0 } else { x[0] >> bits << bits }));
        }
        // Vectors, with an offset below zero.
        let text = format!(
            "st.{space}.v2.b32 [%rd2], {{%wa, %wb}};\nadd.s64 %rd3, %rd2, 64;\nld.{space}.v4.b16 {{_, %ha, %hb, _}}, [%rd3+-64];\nmov.b32 %wy, {{%ha, %hb}};"
        );
        cases.push(through(space, &text, &[W, W], W, |x| x[0] >> 16 | x[1] << 16));
    }
    for (kind, bits, len) in [("b8", 8, 2), ("u8", 8, 4), ("u16", 16, 2), ("u16", 16, 4), ("b32", 32, 2), ("f32", 32, 2), ("u32", 32, 2)] {
        let (letter, class) = if bits < 32 { ('h', H) } else { ('w', W) };
        let names: Vec<_> = "abcd".chars().take(len).map(|name| format!("%{letter}{name}")).collect();
        let list = names.join(", ");
        let text = format!("ld.global.v{len}.{kind} {{{list}}}, [%rd2];\nmov.b{0} %{letter}y, {1};", bits.max(16), names[len - 1]);
        cases.push(through("global", &text, &[D], class, move |x| extended(x[0] >> (bits * (len as u32 - 1)), "u", bits)));
    }
    for kind in ["u32", "f32"] {
        let text = format!("st.global.v2.{kind} [%rd2], {{%wb, %wa}};\nld.global.b64 %dy, [%rd2];");
        cases.push(through("global", &text, &[W, W], D, |x| x[1] | x[0] << 32));
    }
    for (kind, bits) in [("u8", 8), ("u16", 16)] {
        let text = format!("st.shared.b64 [%rd2], %da;\nld.shared.v2.{kind} {{%ha, %hb}}, [%rd2];\nmov.b32 %wy, {{%hb, %ha}};");
        cases.push(through("shared", &text, &[D], W, move |x| extended(x[0] >> bits, "u", bits) | extended(x[0], "u", bits) << 16));
    }
    let text = "mov.b64 {%ha, %hb, %hc, %hd}, %da;\nst.shared.v4.u8 [%rd2], {%ha, %hb, %hc, %hd};\nld.shared.b32 %wy, [%rd2];";
    cases.push(through("shared", text, &[D], W, |x| (0..4).fold(0, |bytes, i| bytes | (x[0] >> (16 * i) & 0xff) << (8 * i))));
    cases.extend(vectors_of_16_bytes());
    for (hint, kind) in
        [("nc", "f32"), ("nc", "b32"), ("nc", "u32"), ("nc", "s32"), ("ca", "u32"), ("cg", "u32"), ("cs", "u32"), ("cv", "u32"), ("lu", "u32")]
    {
        cases.push(through("global", &format!("ld.global.{hint}.{kind} %wy, [%rd2];"), &[W], W, |x| x[0]));
    }
    for (kind, bits, class) in KINDS {
        let text = format!("ld.global.nc.{kind} %{}y, [%rd2];", letter(class));
        cases.push(through("global", &text, &[D], class, move |x| extended(x[0], kind, bits)));
    }
    for hint in ["wb", "cg", "cs", "wt"] {
        let text = format!("add.s32 %wa, %wa, 1;\nst.global.{hint}.u32 [%rd2], %wa;\nld.global.u32 %wy, [%rd2];");
        cases.push(through("global", &text, &[W], W, |x| x[0] + 1));
    }
    for space in ["global", "shared"] {
        let text = format!("st.volatile.{space}.u32 [%rd2], %wa;\nld.volatile.{space}.u32 %wy, [%rd2];\nmembar.cta;\nfence.acq_rel.gpu;");
        cases.push(through(space, &text, &[W], W, |x| x[0]));
    }
    cases
}

/// Four words, two doubles.
fn vectors_of_16_bytes() -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in ["b32", "u32", "s32", "f32"] {
        for hint in ["", ".nc"] {
            // The operands of two threads lie in 16 bytes.
            let load = format!(
                "and.b64 %rd3, %rd2, 8;\nsetp.ne.u64 %pz, %rd3, 0;\nand.b64 %rd3, %rd2, -16;\nld.global{hint}.v4.{kind} {{%wa, %wb, %wc, %wd}}, [%rd3];"
            );
            cases.push(through("global", &format!("{load}\nselp.b32 %wy, %wc, %wa, %pz;"), &[D], W, |x| x[0]));
            cases.push(through("global", &format!("{load}\nselp.b32 %wy, %wd, %wb, %pz;"), &[D], W, |x| x[0] >> 32));
        }
        for space in ["shared", "local"] {
            for (index, name) in ["%wy, _, _, _", "_, %wy, _, _", "_, _, %wy, _", "_, _, _, %wy"].into_iter().enumerate() {
                let text = format!("st.{space}.v4.{kind} [%rd2], {{%wa, %wb, %wc, %wd}};\nld.{space}.v4.{kind} {{{name}}}, [%rd2];");
                cases.push(through(space, &text, &[W; 4], W, move |x| x[index]));
            }
        }
        let text = format!(
            "and.b64 %rd3, %rd2, 8;\nsetp.eq.u64 %pz, %rd3, 0;\n@%pz st.global.v4.{kind} [%rd2], {{%wb, %wc, %wb, %wc}};\nld.global.u32 %wy, [%rd2+4];\n\
             @!%pz mov.u32 %wy, %wc;"
        );
        cases.push(through("global", &text, &[W; 3], W, |x| x[2]));
    }
    for kind in ["b64", "u64", "f64"] {
        let text = format!("st.shared.v2.{kind} [%rd2], {{%da, %db}};\nld.shared.v2.{kind} {{%dc, %dy}}, [%rd2];\nxor.b64 %dy, %dy, %dc;");
        cases.push(through("shared", &text, &[D, D], D, |x| x[0] ^ x[1]));
        let text = format!("st.local.v2.{kind} [%rd2], {{%da, %db}};\nld.local.v2.{kind} {{%dc, %dy}}, [%rd2];\nxor.b64 %dy, %dy, %dc;");
        cases.push(through("local", &text, &[D, D], D, |x| x[0] ^ x[1]));
    }
    cases
}

/// Operations of atomics: their types, and what they leave.
type Operation = (&'static str, &'static [&'static str], fn(i128, i128, i128) -> i128);

const ATOMICS: [Operation; 10] = [
    ("add", &["u32", "s32", "u64"], |old, a, _| old + a),
    ("min", &["u32", "s32", "u64", "s64"], |old, a, _| old.min(a)),
    ("max", &["u32", "s32", "u64", "s64"], |old, a, _| old.max(a)),
    ("and", &["b32", "b64"], |old, a, _| old & a),
    ("or", &["b32", "b64"], |old, a, _| old | a),
    ("xor", &["b32", "b64"], |old, a, _| old ^ a),
    ("exch", &["b32", "b64"], |_, a, _| a),
    ("cas", &["b32", "b64"], |old, a, b| if old == a { b } else { old }),
    ("inc", &["u32"], |old, a, _| if old >= a { 0 } else { old + 1 }),
    ("dec", &["u32"], |old, a, _| if old == 0 || old > a { a } else { old - 1 }),
];

fn atomics() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, kinds, update) in ATOMICS {
        for kind in kinds {
            let bits: u32 = kind[1..].parse().unwrap();
            let class = if bits == 32 { W } else { D };
            let letter = letter(class);
            let read =
                move |x: u64| if kind.starts_with('s') { i128::from(extended(x, "s", bits) as i64) } else { i128::from(extended(x, "u", bits)) };
            let second = if name == "cas" { format!(", %{letter}c") } else { String::new() };
            for space in ["global", "shared"] {
                let start = format!("st.{space}.b{bits} [%rd2], %{letter}a;\n");
                let end = format!("\nld.{space}.b{bits} %{letter}y, [%rd2];");
                // What is left, with the old value compared too.
                let text = format!(
                    "{start}atom.{space}.{name}.{kind} %{letter}d, [%rd2], %{letter}b{second};{end}\nxor.b{bits} %{letter}y, %{letter}y, %{letter}d;"
                );
                cases.push(through(space, &text, &[class; 3], class, move |x| update(read(x[0]), read(x[1]), read(x[2])) as u64 ^ x[0]));
                if !matches!(name, "exch" | "cas") {
                    let text = format!("{start}red.{space}.{name}.{kind} [%rd2], %{letter}b;{end}");
                    cases.push(through(space, &text, &[class; 2], class, move |x| update(read(x[0]), read(x[1]), 0) as u64));
                }
            }
        }
    }
    cases.push(through("global", "st.global.u32 [%rd2], %wa;\natom.relaxed.gpu.global.add.u32 %wy, [%rd2], %wb;", &[W, W], W, |x| x[0]));
    cases
}

fn addresses() -> Vec<Case> {
    let mut cases = Vec::new();
    for space in ["global", "shared", "local"] {
        let text = format!(
            "cvta.{space}.u64 %rd3, %rd2;\nst.u64 [%rd3], %da;\nadd.s64 %rd3, %rd3, 4;\nld.u32 %wy, [%rd3];\n\
             isspacep.{space} %pz, %rd3;\n@!%pz mov.u32 %wy, 0;\ncvta.to.{space}.u64 %rd3, %rd3;\nst.{space}.u32 [%rd3], %wy;\nld.{space}.u32 %wy, [%rd2+4];"
        );
        cases.push(through(space, &text, &[D], W, |x| x[0] >> 32));
    }
    cases
}

pub fn cases() -> Vec<Case> {
    [loads_and_stores(), atomics(), addresses()].into_iter().flatten().collect()
}

#[test]
fn memory_holds_what_is_written() {
    check(&cases());
}
