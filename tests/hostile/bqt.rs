//! BQT files whose damage shows before any data is read.

use std::sync::LazyLock;

use quant_formats::convert::{self, Request, Target};

use super::Refused;
use super::safetensors::{TWO, file};

const FILE: &str = "x.bqt";

/// A sound file of two tensors.
pub static SOUND: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a folder");
    let (from, to) = (dir.path().join("x.safetensors"), dir.path().join(FILE));
    std::fs::write(&from, file(TWO.as_bytes(), 12)).expect("written");
    let (checkpoint, request) = (quant_formats::open(&from, quant_formats::Io::Auto).expect("sound"), Request::new(Target::Bqt));
    let mut plan = convert::plan(&checkpoint, &request).expect("a plan");
    convert::run(&checkpoint, &mut plan, &request, &to, &()).expect("converted");
    std::fs::read(&to).expect("read")
});

/// Every row of the table below.
pub fn cases() -> Vec<Refused> {
    let case = |&(name, damage, reason): &(&'static str, Damage, &'static str)| {
        Refused::new(name, FILE, reason, move |dir| {
            let mut bytes = SOUND.clone();
            damage(&mut bytes);
            std::fs::write(dir.join(FILE), bytes).expect("written");
            dir.join(FILE)
        })
    };
    CASES.iter().map(case).collect()
}

type Damage = fn(&mut Vec<u8>);

/// Name, damage, reason. The lengths of the index and of the file stand at bytes 16 and 24.
const CASES: [(&str, Damage, &str); 20] = [
    ("magic_first_byte", |b| b[0] ^= 1, "not a BQT file"),
    ("magic_high_bit_lost", |b| b[0] = 0x09, "not a BQT file"),
    ("magic_line_ends_of_text_mode", |b| b.retain(|&byte| byte != b'\r'), "not a BQT file"),
    ("magic_of_zeros", |b| b[..8].fill(0), "not a BQT file"),
    ("version_0", |b| number(b, 8, 0), "BQT version 0 is not known"),
    ("version_2", |b| b[8] = 2, "BQT version 2 is not known"),
    ("checksum_wrong", |b| b[12] ^= 1, "header or index is damaged: the checksum is"),
    ("index_length_0", |b| number(b, 16, 0), "does not end at a multiple of"),
    ("index_length_odd", |b| b[16] ^= 1, "does not end at a multiple of"),
    ("index_length_2_40", |b| number(b, 16, 1 << 40), "an index of 1099511627776 bytes does not fit a file of"),
    ("index_length_2_63", |b| number(b, 16, 1 << 63), "an index of 9223372036854775808 bytes does not fit a file of"),
    ("index_length_minus_1", |b| number(b, 16, u64::MAX), "an index of 18446744073709551615 bytes does not fit a file of"),
    ("index_name_changed", |b| rename(b), "header or index is damaged: the checksum is"),
    ("file_length_0", |b| number(b, 24, 0), "the header says 0 bytes, the file has"),
    ("file_length_minus_1", |b| number(b, 24, u64::MAX), "the header says 18446744073709551615 bytes, the file has"),
    ("last_byte_missing", |b| b.truncate(b.len() - 1), "cut off, or still being copied"),
    ("byte_appended", |b| b.push(0), "cut off, or still being copied"),
    ("header_alone", |b| b.truncate(32), "the header says"),
    ("header_cut", |b| b.truncate(31), "a BQT file begins with a header of 32 bytes, found 31 bytes"),
    ("no_bytes", Vec::clear, "found 0 bytes"),
];

/// Changes one bit of the index, which leaves it good JSON: tensor `a` is called `c`.
fn rename(bytes: &mut [u8]) {
    let at = bytes.windows(3).position(|w| w == b"\"a\"").expect("the name of a tensor");
    bytes[at + 1] ^= 2;
}

fn number(bytes: &mut [u8], at: usize, n: u64) {
    let width = if at == 8 { 4 } else { 8 };
    bytes[at..at + width].copy_from_slice(&n.to_le_bytes()[..width]);
}
