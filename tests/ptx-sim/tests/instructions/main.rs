//! Every instruction that kernels may use, against plain Rust.

mod convert;
mod float;
mod integer;
mod memory;
mod select;
mod support;
mod texts;

use std::collections::BTreeSet;
use std::path::Path;

/// `src/covered.txt` lists what the tests here execute and check. `UPDATE=1 cargo test -p ptx-sim` writes it again.
#[test]
fn the_list_of_covered_instructions_is_true() {
    let cases = [convert::cases(), float::cases(), integer::cases(), memory::cases(), select::cases()];
    let of_cases = cases.iter().flat_map(|cases| support::opcodes(cases));
    let executed: BTreeSet<String> = of_cases.chain(texts::ALL.iter().flat_map(|text| support::text_opcodes(text))).collect();
    if std::env::var_os("UPDATE").is_some() {
        let text: String = executed.iter().map(|opcode| format!("{opcode}\n")).collect();
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/covered.txt"), text).unwrap();
    }
    let listed: BTreeSet<String> = ptx_sim::covered().into_iter().map(str::to_owned).collect();
    assert_eq!(listed.symmetric_difference(&executed).collect::<Vec<_>>(), Vec::<&String>::new());
}
