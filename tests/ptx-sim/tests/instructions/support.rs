//! Kernels of one instruction, run on thousands of inputs and compared with plain Rust.

use std::collections::BTreeSet;

use ptx_sim::{Arg, Launch, Memory, Module};

/// The register of an operand or a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 16 bits.
    H,
    /// 32 bits.
    W,
    /// 64 bits.
    D,
    /// A predicate.
    P,
}

impl Class {
    fn register(self, name: char) -> String {
        let letter = match self {
            Self::H => 'h',
            Self::W => 'w',
            Self::D => 'd',
            Self::P => 'p',
        };
        format!("%{letter}{name}")
    }

    fn mask(self) -> u64 {
        match self {
            Self::H => 0xffff,
            Self::W => 0xffff_ffff,
            Self::D => u64::MAX,
            Self::P => 1,
        }
    }
}

/// What an instruction gives for the bits of its operands. Nothing: that is not defined.
type Reference = Box<dyn Fn([u64; 4]) -> Option<u64>>;

/// An instruction and its meaning.
pub struct Case {
    /// The instruction with its operands.
    pub text: String,
    pub from: Vec<Class>,
    pub to: Class,
    pub reference: Reference,
    /// Whether all NaNs count as the same double.
    pub nan: bool,
}

/// A case with the operands in the usual order.
pub fn case(opcode: &str, from: &[Class], to: Class, reference: impl Fn([u64; 4]) -> u64 + 'static) -> Case {
    partial(opcode, from, to, move |x| Some(reference(x)))
}

/// A case that is not defined for some inputs.
pub fn partial(opcode: &str, from: &[Class], to: Class, reference: impl Fn([u64; 4]) -> Option<u64> + 'static) -> Case {
    let operands: Vec<_> = from.iter().zip("abcd".chars()).map(|(class, name)| class.register(name)).collect();
    let text = format!("{opcode} {}, {};", to.register('y'), operands.join(", "));
    let nan = opcode.contains("f64") && to == Class::D;
    Case { text, from: from.to_vec(), to, reference: Box::new(reference), nan }
}

/// The result of an operation on floats: NaN is always the same.
pub fn single(x: f32) -> u64 {
    if x.is_nan() { 0x7fff_ffff } else { x.to_bits().into() }
}

pub fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// Numbers that are not random enough to matter, but always the same (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Four operands. In some the first two are equal, or equal but for the sign.
    fn operands(&mut self) -> [u64; 4] {
        let mut operands = std::array::from_fn(|_| self.bits());
        match self.below(8) {
            0 => operands[1] = operands[0],
            1 => operands[1] = operands[0] ^ 1 << 31,
            _ => {}
        }
        operands
    }

    /// Bits that are special for one type or another.
    pub fn bits(&mut self) -> u64 {
        let float = FLOATS[self.below(FLOATS.len() as u64) as usize];
        let near = self.below(3).wrapping_sub(1);
        match self.below(9) {
            0 => u64::from((float as f32).to_bits()).wrapping_add(near),
            1 => float.to_bits().wrapping_add(near),
            2 => INTEGERS[self.below(INTEGERS.len() as u64) as usize].wrapping_add(near),
            3 => self.below(72),
            4 => u64::from(((self.below(2001) as f32 - 1000.0) / 8.0).to_bits()),
            5 => ((self.below(2001) as f64 - 1000.0) / 8.0).to_bits(),
            6 => [0, 0x3c00, 0xbc00, 0x7bff, 0x7c00, 0xfc00, 0x7e00, 1, 0x8001, 0x3ff][self.below(10) as usize],
            _ => self.next() >> (self.below(2) * 32),
        }
    }
}

const INTEGERS: [u64; 14] = [0, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 1 << 62, 1 << 63, u64::MAX];

const FLOATS: [f64; 28] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    127.5,
    255.5,
    -128.5,
    32767.5,
    65503.0,
    65520.0,
    16777216.0,
    2147483648.0,
    4294967296.0,
    9223372036854775808.0,
    18446744073709551616.0,
    1e-45,
    1.2e-38,
    6e-8,
    3e38,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
    3.0,
];

const THREADS: u32 = 128;
/// Inputs of each case.
const INPUTS: usize = 32 * THREADS as usize;

/// A kernel for the case: it loads operands of 8 bytes, and stores the result.
pub fn kernel(case: &Case) -> String {
    let mut text = String::from(".version 7.8\n.target sm_80\n.address_size 64\n.visible .entry k(");
    text += ".param .u64 p_y, .param .u64 p_a, .param .u64 p_b, .param .u64 p_c, .param .u64 p_d)\n.maxntid 128, 1, 1\n{\n";
    text += ".reg .pred %pa, %pb, %pc, %pd, %py, %pz;\n.reg .b16 %ha, %hb, %hc, %hd, %hy;\n";
    text += ".reg .b32 %wa, %wb, %wc, %wd, %wy, %r<4>;\n.reg .b64 %da, %db, %dc, %dd, %dy, %rd<4>;\n";
    text += "mov.u32 %r0, %tid.x;\nmov.u32 %r1, %ctaid.x;\nmov.u32 %r2, %ntid.x;\nmad.lo.s32 %r0, %r1, %r2, %r0;\nmul.wide.u32 %rd0, %r0, 8;\n";
    for (class, name) in case.from.iter().zip("abcd".chars()) {
        text += &format!("ld.param.u64 %rd1, [p_{name}];\nadd.s64 %rd1, %rd1, %rd0;\n");
        match class {
            Class::H => text += &format!("ld.global.b16 %h{name}, [%rd1];\n"),
            Class::W => text += &format!("ld.global.b32 %w{name}, [%rd1];\n"),
            Class::D => text += &format!("ld.global.b64 %d{name}, [%rd1];\n"),
            Class::P => text += &format!("ld.global.b32 %r3, [%rd1];\nand.b32 %r3, %r3, 1;\nsetp.ne.s32 %p{name}, %r3, 0;\n"),
        }
    }
    text += &format!("{}\nld.param.u64 %rd1, [p_y];\nadd.s64 %rd1, %rd1, %rd0;\n", case.text);
    text += match case.to {
        Class::H => "st.global.b16 [%rd1], %hy;\n",
        Class::W => "st.global.b32 [%rd1], %wy;\n",
        Class::D => "st.global.b64 [%rd1], %dy;\n",
        Class::P => "selp.b32 %wy, 1, 0, %py;\nst.global.b32 [%rd1], %wy;\n",
    };
    text + "ret;\n}\n"
}

/// Runs cases on all inputs. The kernels' instructions are all executed.
pub fn check(cases: &[Case]) {
    for (seed, case) in cases.iter().enumerate() {
        let mut random = Random(seed as u64);
        let inputs: Vec<[u64; 4]> = (0..INPUTS).map(|_| random.operands()).collect();
        let module = Module::parse(&kernel(case)).unwrap_or_else(|error| panic!("{}: {error}", case.text));
        let mut memory = Memory::new();
        let y = memory.alloc(vec![0; 8 * INPUTS]);
        let operand = |index: usize| inputs.iter().flat_map(|x| x[index].to_le_bytes()).collect::<Vec<u8>>();
        let mut args = vec![Arg::U64(y)];
        args.extend((0..4).map(|index| Arg::U64(memory.alloc(operand(index)))));
        let launch = Launch::new(&module, "k", (INPUTS as u32).div_ceil(THREADS), THREADS);
        let expected = |x: [u64; 4]| {
            let x = std::array::from_fn(|index| x[index] & case.from.get(index).map_or(0, |class| class.mask()));
            (x, (case.reference)(x).map(|value| value & case.to.mask()))
        };
        let stats = match launch.run(&mut memory, &args) {
            Ok(stats) => stats,
            Err(fault) => panic!("{}: {fault}", case.text),
        };
        assert_eq!(stats.opcodes.keys().map(String::as_str).collect::<BTreeSet<_>>(), module.instructions());
        for (x, y) in inputs.iter().zip(memory.bytes(y, 8 * INPUTS).chunks_exact(8)) {
            let found = u64::from_le_bytes(y.try_into().unwrap());
            let (x, wanted) = expected(*x);
            let same_nan = case.nan && wanted.is_some_and(|wanted| f64::from_bits(wanted).is_nan()) && f64::from_bits(found).is_nan();
            if let Some(wanted) = wanted.filter(|wanted| *wanted != found && !same_nan) {
                panic!("{} of {x:x?} is {found:#x}, not {wanted:#x}", case.text);
            }
        }
    }
}

/// The instructions in the kernels of cases.
pub fn opcodes(cases: &[Case]) -> BTreeSet<String> {
    cases.iter().flat_map(|case| text_opcodes(&kernel(case))).collect()
}

/// The instructions in a text.
pub fn text_opcodes(text: &str) -> BTreeSet<String> {
    Module::parse(text).unwrap().instructions().into_iter().map(str::to_owned).collect()
}
