//! Text that is no PTX: an error with its line, never a panic.

use ptx_sim::{Arg, Launch, Memory, Module};

use crate::BUGS;

/// All of a text's first `len` bytes, or what is left of them.
fn cut(text: &str, len: usize) -> &str {
    &text[..text.floor_char_boundary(len)]
}

#[test]
fn errors_have_their_lines() {
    let head = ".version 7.0\n.target sm_75\n.address_size 64\n";
    for (text, line, message) in [
        ("#include <x>", 4, "`#` is not known here"),
        (".func f() { ret; }", 4, "functions that are not inlined"),
        (".address_size 32", 4, "another size than 64"),
        (".version seven", 4, "a version like 7.0"),
        (".const .b8 x[65537];", 4, "more than 64 KiB of constants"),
        (".const .b8 x[2] = {1, 2, 3};", 4, "more values than the variable has elements"),
        (".global .u64 x = y;", 4, "a number expected, found `y`"),
        (".global .b8 x[99999999999];", 4, "at most"),
        (".global .u64 x[60000000];", 4, "more than 64 MiB"),
        (".visible .entry k(.param .u64 x)\n{\n  ret;", 6, "the kernel does not end"),
        (".visible .entry k() {\n.reg .b32 %r<70000>; }", 5, "at most 65536"),
        (".visible .entry k() {\n.reg .b32 %r<65000>, %q<65000>; }", 5, "too many registers"),
        (".visible .entry k() {\n\n.local .b8 x[999999]; }", 6, "too much shared or local memory"),
        (".visible .entry k() { x: x: }", 4, "the label x stands twice"),
        (".visible .entry k() { add.s32 %r1 %r2; }", 4, "`,` expected, found `%r2`"),
        (".visible .entry k() { @1 ret; }", 4, "a guard that is no predicate"),
        (".visible .entry k() { ld.global.u32 _, [y]; }", 4, "`y` has no address"),
        (".visible .entry k(.param .b8 x[5000]) { }", 4, "at most 4096"),
        (".visible .entry k() .sometimes { }", 4, "a kernel with `.sometimes`"),
        ("\n.visible .entry k() { \u{e9} }", 5, "not ASCII"),
    ] {
        let error = Module::parse(&format!("{head}{text}")).err().unwrap_or_else(|| panic!("{text}"));
        assert_eq!((error.line, error.message.contains(message)), (line, true), "{error}");
        assert!(error.to_string().starts_with(&format!("PTX line {line}: ")));
    }
}

/// Cuts and changes of a good text. What still parses may run, or fail; only a panic is wrong.
#[test]
fn broken_text_never_panics() {
    let mut seed = 1u64;
    let mut random = move |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % n
    };
    let words: Vec<&str> =
        BUGS.split_whitespace().chain(["{", "}", ";", ",", "[", "]", "<", ">", "\"", "/*", "-1", "0xffffffffffffffff", "::", "|", "!"]).collect();
    let mut parsed = 0;
    for round in 0..3000 {
        let mut text = BUGS.to_owned();
        match round % 4 {
            0 => text.truncate(cut(BUGS, random(BUGS.len())).len()),
            1 => {
                let at = random(text.len());
                text.replace_range(at..at + 1, words[random(words.len())]);
            }
            2 => {
                let at = random(text.len());
                let end = (at + random(40)).min(text.len());
                text.replace_range(at..end, "");
            }
            _ => {
                for _ in 0..3 {
                    let (from, to) = (words[random(words.len())], words[random(words.len())]);
                    text = text.replacen(from, to, 1 + random(3));
                }
            }
        }
        let Ok(module) = Module::parse(&text) else { continue };
        parsed += 1;
        for kernel in module.kernels().iter().filter(|kernel| kernel.params().len() == 1 && kernel.param_bytes() == 8) {
            let mut memory = Memory::new();
            let out = memory.alloc(vec![0; 256]);
            let _ = Launch::new(&module, kernel.name(), 1, 64).patience(10_000).run(&mut memory, &[Arg::U64(out)]);
        }
    }
    assert!(parsed > 100, "{parsed}");
}
