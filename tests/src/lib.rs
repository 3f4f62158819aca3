//! What the whole-program tests share: the binary, the fixtures, files as tensors.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};

pub mod made;

/// A path below this crate.
pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The committed model.
pub fn tiny_llama() -> PathBuf {
    here("data/tiny-llama")
}

/// The binary under test, which `cargo test` builds for the whole workspace beside this one.
pub fn binary() -> PathBuf {
    let mut path = std::env::current_exe().expect("the test has a path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let path = path.join(format!("quant{}", std::env::consts::EXE_SUFFIX));
    assert!(path.is_file(), "{} is missing: run `cargo xtask test`, or `cargo build` first", path.display());
    path
}

/// A run of the binary that is yet to start, without colours.
pub fn command<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).env("NO_COLOR", "1").env_remove("CLICOLOR_FORCE");
    command
}

/// Runs the binary.
pub fn quant<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Output {
    command(args).output().expect("the binary starts")
}

/// Runs a command and returns its peak resident set in bytes, as the system accounts for it.
pub fn peak(mut command: Command) -> u64 {
    let mut child = command.stdout(std::process::Stdio::null()).spawn().expect("the program starts");
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    let mut status = 0;
    // SAFETY: the child is ours and not yet waited for; both pointers are to memory of the right size.
    let pid = unsafe { libc::wait4(child.id() as i32, &mut status, 0, usage.as_mut_ptr()) };
    assert_eq!(pid, child.id() as i32);
    assert_eq!(std::process::ExitStatus::from_raw(status).code(), Some(0));
    let _ = child.try_wait();
    // SAFETY: wait4 filled it in, as its answer says.
    unsafe { usage.assume_init() }.ru_maxrss as u64 * 1024
}

/// Runs the binary, which must succeed. Returns its stdout.
pub fn quant_ok<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> String {
    let out = quant(args);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("output is UTF-8")
}

/// Runs the binary, which must refuse with exit code 2 and one line. Returns the line.
pub fn refused<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> String {
    let out = quant(args);
    let text = String::from_utf8(out.stderr).expect("messages are UTF-8");
    assert_eq!(out.status.code(), Some(2), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// `quant convert FROM TO OPTIONS…`, which must succeed.
pub fn convert(from: &Path, to: &Path, options: &[&str]) -> String {
    let mut args = vec!["convert".as_ref(), from.as_os_str(), to.as_os_str()];
    args.extend(options.iter().map(|o| std::ffi::OsStr::new(*o)));
    quant_ok(&args)
}

/// The SHA-256 of a file in hexadecimal.
pub fn sha256(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// The SHA-256 of every file of a folder, by name.
pub fn sha256_of_folder(folder: &Path) -> BTreeMap<String, String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|e| e.expect("the folder can be listed").path());
    paths.map(|p| (p.file_name().expect("a name").to_string_lossy().into_owned(), sha256(&p))).collect()
}

/// A JSON file.
pub fn json(path: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Asserts that two folders hold the same files, byte for byte.
pub fn assert_same_folders(found: &Path, expected: &Path) {
    assert_eq!(sha256_of_folder(found), sha256_of_folder(expected), "{} against {}", found.display(), expected.display());
}
