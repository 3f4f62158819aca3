//! The committed PTX: that its instructions are tested ones, that no result is left to a GPU, that host code knows each kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ptx_sim::Module;

/// Modules whose kernels may multiply and add in one step, because quant-core does so, too (`mul_add`).
const FUSED: [&str; 1] = ["error_stats"];

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The files of a folder, and of those in it, that end so, with their names without the ending.
fn files(folder: &Path, extension: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.append(&mut self::files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            let name = path.file_stem().unwrap().to_str().unwrap();
            files.insert(name.into(), std::fs::read_to_string(&path).unwrap());
        }
    }
    files
}

/// All PTX by the names of the modules.
fn modules() -> BTreeMap<String, String> {
    let modules = files(&here("ptx"), "ptx");
    assert!(!modules.is_empty());
    modules
}

/// The instructions that no test of the interpreter knows.
fn unknown(ptx: &str) -> BTreeSet<String> {
    let (module, covered) = (Module::parse(ptx).unwrap(), ptx_sim::covered());
    module.instructions().into_iter().filter(|instruction| !covered.contains(instruction)).map(str::to_owned).collect()
}

/// What is wrong with an instruction, if anything.
fn instruction_fault(instruction: &str, may_fuse: bool) -> Option<&'static str> {
    let words: Vec<&str> = instruction.split('.').collect();
    let has = |wanted: &[&str]| words.iter().any(|word| wanted.contains(word));
    let is_float = has(&["f16", "f16x2", "bf16", "bf16x2", "f32", "f64"]);
    match words[0] {
        _ if has(&["approx", "full", "ftz"]) => Some("is not exact"),
        "atom" | "red" if is_float => Some("adds in any order"),
        "add" | "sub" | "mul" | "div" | "rcp" | "sqrt" if is_float && !has(&["rn"]) => Some("leaves its rounding open"),
        "fma" | "mad" if is_float && !may_fuse => Some("is fused"),
        "call" => Some("is a call"),
        _ => None,
    }
}

/// What is wrong with a PTX file.
fn faults(ptx: &str, may_fuse: bool) -> Vec<String> {
    let module = Module::parse(ptx).unwrap();
    let instructions = module.instructions();
    let mut faults: Vec<String> = instructions.iter().filter_map(|i| Some(format!("{i} {}", instruction_fault(i, may_fuse)?))).collect();
    faults.extend([".func", ".local", "__local_depot"].into_iter().filter(|text| ptx.contains(text)).map(|text| format!("{text} is there")));
    for kernel in ptx.split(".entry ").skip(1) {
        let (head, _) = kernel.split_once('{').unwrap();
        let (name, _) = head.split_once('(').unwrap_or((head, ""));
        if !head.contains(".maxntid") {
            faults.push(format!("{} has no .maxntid", name.trim()));
        }
    }
    faults
}

#[test]
fn all_instructions_are_tested_ones() {
    let unknown: BTreeMap<_, _> = modules().into_iter().map(|(name, ptx)| (name, unknown(&ptx))).filter(|(_, unknown)| !unknown.is_empty()).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
}

#[test]
fn no_result_is_left_to_a_gpu() {
    let faults: BTreeMap<_, _> = modules().into_iter().map(|(name, ptx)| (faults(&ptx, FUSED.contains(&&*name)), name)).collect();
    let faults: Vec<_> = faults.iter().filter(|(faults, _)| !faults.is_empty()).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn faults_are_found() {
    let bugs = std::fs::read_to_string(here("tests/bugs/bugs.ptx")).unwrap();
    let expected = ["atom.shared.add.f32 adds in any order", "div.approx.f32 is not exact", "fma.rn.f32 is fused"];
    assert_eq!(faults(&bugs, false), expected);
    assert_eq!(faults(&bugs, true), expected[..2]);
    let bad = "
        .version 7.0 .target sm_75 .address_size 64
        .visible .entry bad() {
            .local .align 4 .b8 __local_depot0[4];
            .reg .f32 %f<2>; .reg .f64 %fd<2>; .reg .b32 %r<2>;
            add.f32 %f0, %f1, %f1;
            mul.ftz.f32 %f0, %f1, %f1;
            sqrt.rn.f64 %fd0, %fd1;
            mad.lo.s32 %r0, %r1, %r1, %r1;
            ret;
        }";
    let expected =
        ["add.f32 leaves its rounding open", "mul.ftz.f32 is not exact", ".local is there", "__local_depot is there", "bad has no .maxntid"];
    assert_eq!(faults(bad, false), expected);
    assert_eq!(unknown(bad), BTreeSet::from(["add.f32".into(), "mul.ftz.f32".into()]));
}

#[test]
fn each_source_has_its_ptx() {
    // And the program has them all.
    let built_in: BTreeMap<String, String> = quant_cuda::ptx::MODULES.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
    assert!(built_in == modules(), "src/ptx.rs has {:?}", built_in.keys());
    assert_eq!(files(&here("kernels"), "cu").into_keys().collect::<Vec<_>>(), modules().into_keys().collect::<Vec<_>>());
}

/// The string literals of Rust code that could be names of kernels or modules: those with `_`, in small letters.
fn names(code: &str) -> impl Iterator<Item = &str> {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let literals = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    literals.filter(move |literal| literal.contains('_') && literal.bytes().all(is_part))
}

/// Host code writes names as literals, whole; other literals of `src/run` do not look like names. Whether a kernel is in the module
/// that it is asked of, the tests that launch it show.
#[test]
fn host_code_names_all_kernels_and_no_others() {
    let mut kernels = BTreeSet::new();
    let modules = modules();
    for (name, ptx) in &modules {
        for kernel in Module::parse(ptx).unwrap().kernels() {
            assert!(kernels.insert(kernel.name().to_owned()), "{} of {name} is in another module, too", kernel.name());
        }
    }
    let code = files(&here("src/run"), "rs");
    let named: BTreeSet<String> = code.values().flat_map(|code| names(code)).map(str::to_owned).collect();
    let unnamed: Vec<_> = kernels.difference(&named).collect();
    assert!(unnamed.is_empty(), "host code does not name {unnamed:?}");
    let missing: Vec<_> = named.difference(&kernels).filter(|name| !modules.contains_key(*name)).collect();
    assert!(missing.is_empty(), "no PTX has {missing:?}");
}
