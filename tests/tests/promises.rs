//! What is promised about outputs, and about inputs that change meanwhile, through the real binary, as far as it can be shown
//! without root. Full disks and power cuts need mounts.

#[path = "promises/inputs.rs"]
mod inputs;
#[path = "promises/interrupted.rs"]
mod interrupted;
#[path = "promises/outputs.rs"]
mod outputs;
#[path = "promises/system.rs"]
mod system;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use quant_tests::made::{self, Made};
use quant_tests::{binary, quant_ok, sha256, sha256_of_folder, tiny_llama};

/// Long enough for everything here on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

/// `quant ARGS…` in `folder`, yet to start, with its output kept.
fn quant_in(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(args).env("NO_COLOR", "1").current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for a child to end by itself.
fn ended(mut child: Child, limit: Duration) -> Output {
    let begin = Instant::now();
    while child.try_wait().expect("it can be waited for").is_none() {
        if begin.elapsed() > limit {
            child.kill().expect("killed");
            panic!("did not end within {limit:?}: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.wait_with_output().expect("its output")
}

fn run(folder: &Path, args: &[&str]) -> Output {
    ended(quant_in(folder, args).spawn().expect("it starts"), LIMIT)
}

fn run_with(mut command: Command) -> Output {
    ended(command.spawn().expect("it starts"), LIMIT)
}

/// Runs `before` in the child, between fork and exec.
fn run_after(mut command: Command, before: impl Fn() + Send + Sync + 'static) -> Output {
    let before = move || {
        before();
        Ok(())
    };
    // SAFETY: every `before` below makes plain system calls and touches no memory but its own stack.
    unsafe { command.pre_exec(before) };
    run_with(command)
}

fn message(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Exit code 2, and one line with all `parts`.
fn assert_refused(out: &Output, parts: &[&str]) {
    let text = message(out);
    assert_eq!(out.status.code(), Some(2), "{} {text}", out.status);
    assert!(text.starts_with("error: ") && text.lines().count() == 1, "{text}");
    parts.iter().for_each(|part| assert!(text.contains(part), "'{part}' is not in: {text}"));
}

fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).expect("listed").map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Content and time of every file below a folder.
fn state(folder: &Path) -> BTreeMap<PathBuf, (String, SystemTime)> {
    let mut found = BTreeMap::new();
    for name in listing(folder) {
        let path = folder.join(name);
        let metadata = fs::symlink_metadata(&path).expect("it is there");
        if metadata.is_dir() {
            found.extend(state(&path));
        } else if metadata.is_file() {
            found.insert(path.clone(), (sha256(&path), metadata.modified().expect("a time")));
        }
    }
    found
}

/// A small model in a folder, in one file or in two shards.
fn model(path: &Path, sharded: bool) {
    let from = tiny_llama();
    let mut args: Vec<&OsStr> = vec!["convert".as_ref(), from.as_os_str(), path.as_os_str()];
    args.extend(sharded.then_some(OsStr::new("--max-shard-size=4MB")));
    quant_ok(&args);
}

/// A file with one linear layer of `rows` × 1024 zeros in BF16, which takes no room.
fn sparse(path: &Path, rows: u64) {
    let n_bytes = rows * 2048;
    let header = format!("{{\"m.up_proj.weight\":{{\"dtype\":\"BF16\",\"shape\":[{rows},1024],\"data_offsets\":[0,{n_bytes}]}}}}");
    let mut file = File::create(path).expect("created");
    file.write_all(&(header.len() as u64).to_le_bytes()).and_then(|()| file.write_all(header.as_bytes())).expect("written");
    file.set_len(8 + header.len() as u64 + n_bytes).expect("made longer");
}

/// Numbers that are all different from their neighbours, and finite.
fn numbers(n: u32) -> impl Iterator<Item = f32> {
    (0..n).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 16_777_216.0 - 0.5)
}

/// A file with one linear layer of `rows` × 1024 numbers in BF16.
fn dense(path: &Path, rows: u32) {
    made::write(path, &[Made::bf16("m.up_proj.weight", &[rows.into(), 1024], &numbers(rows * 1024).collect::<Vec<_>>())]);
}

/// Whether a name is that of the unfinished output `name`: `NAME.partial.PID.RANDOM`.
fn is_partial(found: &str, name: &str) -> bool {
    let Some(rest) = found.strip_prefix(&format!("{name}.partial.")) else { return false };
    rest.split_once('.')
        .is_some_and(|(pid, random)| pid.parse::<u32>().is_ok() && random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Waits until an unfinished output lies in `folder`.
fn await_partial(folder: &Path, name: &str) {
    let begin = Instant::now();
    while !listing(folder).iter().any(|found| is_partial(found, name)) {
        assert!(begin.elapsed() < LIMIT, "no unfinished output appeared");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn signal(child: &Child, signal: i32) {
    // SAFETY: no memory is involved, and the child was not waited for.
    unsafe { libc::kill(child.id() as i32, signal) };
}
