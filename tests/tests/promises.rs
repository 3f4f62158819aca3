//! What is promised about outputs (and about inputs that change meanwhile), through the real binary, as far as it can be shown
//! without root: O1, O4 to O11, O13 to O15 of the reliability notes. Full disks and power cuts need mounts; see `tests/peers`.

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

// ---- helpers ----

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

// ---- O9: an existing output ----

/// Arguments of a conversion of `m` to an output of each form.
const OUTPUTS: [&str; 3] = ["out.safetensors", "out.bqt", "out"];

/// What an earlier output may have left in a folder.
const OLD: &str = "model-00001-of-00002.safetensors";

/// Puts something in the way: a file, or for a folder a folder with a file in it.
fn put_in_the_way(dir: &Path, name: &str) {
    if name == "out" {
        fs::create_dir(dir.join(name)).expect("made");
        fs::write(dir.join(name).join(OLD), "old").expect("written");
    } else {
        fs::write(dir.join(name), "old").expect("written");
    }
}

#[test]
fn an_existing_output_is_kept_without_force_and_replaced_with_it() {
    let dir = dir();
    model(&dir.path().join("m"), false);
    for name in OUTPUTS {
        put_in_the_way(dir.path(), name);
        let before = state(dir.path());
        assert_refused(&run(dir.path(), &["convert", "m", name, "--type", "nf4"]), &[name, "exists; use --force"]);
        assert_eq!(state(dir.path()), before);
        assert!(run(dir.path(), &["convert", "m", name, "--type", "nf4", "--force"]).status.success());
        assert!(run(dir.path(), &["verify", name]).status.success(), "{name}");
        assert!(!dir.path().join(name).join(OLD).exists());
    }
    assert_eq!(listing(dir.path()), ["m", "out", "out.bqt", "out.safetensors"]);
}

/// A conversion with --force that fails keeps what was there: here a weight is NaN.
#[test]
fn a_failed_replacement_keeps_the_old_output() {
    let dir = dir();
    let mut values = vec![0.5; 4096];
    values[77] = f32::NAN;
    made::write(&dir.path().join("m.safetensors"), &[Made::f32("m.up_proj.weight", &[64, 64], &values)]);
    for name in OUTPUTS {
        put_in_the_way(dir.path(), name);
        let before = state(dir.path());
        assert_refused(&run(dir.path(), &["convert", "m.safetensors", name, "--type", "nf4", "--force"]), &["element 77 is NaN"]);
        assert_eq!(state(dir.path()), before);
    }
    assert_eq!(listing(dir.path()), ["m.safetensors", "out", "out.bqt", "out.safetensors"]);
}

/// The request is refused before the weights are looked at: of a sparse model of 4 TiB that would take hours.
#[test]
fn an_existing_output_is_refused_at_once() {
    let dir = dir();
    sparse(&dir.path().join("m.safetensors"), 2 << 30);
    fs::write(dir.path().join("out.bqt"), "old").unwrap();
    for scheme in ["nf4", "nf4-dq", "affine4:tensor"] {
        let child = quant_in(dir.path(), &["convert", "m.safetensors", "out.bqt", "--type", scheme]).spawn().unwrap();
        assert_refused(&ended(child, Duration::from_secs(30)), &["out.bqt", "exists; use --force"]);
    }
}

// ---- O11: free space ----

#[test]
fn a_full_disk_is_noticed_before_any_weight_is_read() {
    let dir = dir();
    sparse(&dir.path().join("m.safetensors"), 2 << 30);
    for (scheme, output) in [("f16", "out.bqt"), ("nf4", "out"), ("nf4", "out.safetensors"), ("nf4-dq", "out.bqt"), ("nf4-dq", "out")] {
        let child = quant_in(dir.path(), &["convert", "m.safetensors", output, "--type", scheme]).spawn().unwrap();
        assert_refused(&ended(child, Duration::from_secs(30)), &[output, "not enough space"]);
        assert_eq!(listing(dir.path()), ["m.safetensors"]);
    }
}

// ---- O7: an output that is an input ----

/// Input, output, and what the message says; `f` is a file, `s` a sharded folder, `b` a BQT file, the others are links.
const SAME: [(&str, &str, &str); 21] = [
    ("f/model.safetensors", "f/model.safetensors", "is an input"),
    ("f/model.safetensors", "f/./../f/model.safetensors", "is an input"),
    ("f/model.safetensors", "soft.safetensors", "is an input"),
    ("f/model.safetensors", "hard.safetensors", "is an input"),
    ("soft.safetensors", "f/model.safetensors", "is an input"),
    ("hard.safetensors", "soft.safetensors", "is an input"),
    ("f/model.safetensors", "f", "holds an input"),
    ("f", "f", "is an input"),
    ("f", "f/", "is an input"),
    ("f", "f/.", "is an input"),
    ("f", "f/model.safetensors", "is an input"),
    ("f", "f/config.json", "is an input"),
    ("f", "link", "is an input"),
    ("link", "f", "is an input"),
    ("s", "s", "is an input"),
    ("s", "s/model-00001-of-00002.safetensors", "is an input"),
    ("s", "s/model-00002-of-00002.safetensors", "is an input"),
    ("s", "s/model.safetensors.index.json", "is an input"),
    ("s/model.safetensors.index.json", "s/model-00002-of-00002.safetensors", "is an input"),
    ("b.bqt", "b.bqt", "is an input"),
    ("b.bqt", "soft.bqt", "is an input"),
];

#[test]
fn an_output_that_is_an_input_is_refused_and_the_input_stays() {
    let dir = dir();
    let at = |name: &str| dir.path().join(name);
    model(&at("f"), false);
    model(&at("s"), true);
    assert_eq!(listing(&at("s")).iter().filter(|n| n.starts_with("model-")).count(), 2);
    quant_ok(&["convert".as_ref(), at("f").as_os_str(), at("b.bqt").as_os_str()]);
    fs::hard_link(at("f/model.safetensors"), at("hard.safetensors")).unwrap();
    for (to, link) in [("f/model.safetensors", "soft.safetensors"), ("f", "link"), ("b.bqt", "soft.bqt")] {
        symlink(to, at(link)).unwrap();
    }
    let (before, names) = (state(dir.path()), listing(dir.path()));
    for (input, output, reason) in SAME {
        for force in [&[][..], &["--force"]] {
            let form: &[&str] = if output.ends_with(".json") { &["--to", "bqt"] } else { &[] };
            let args = [&["convert", input, output, "--type", "f16"], form, force].concat();
            let name = Path::new(output).file_name().expect("a name").to_string_lossy();
            assert_refused(&run(dir.path(), &args), &[&*name, reason]);
            assert_eq!((state(dir.path()), listing(dir.path())), (before.clone(), names.clone()), "{args:?}");
        }
    }
}

/// A link in place of the folder of an input is a name of its own: with --force the link goes, not what it leads to.
#[test]
fn inputs_are_never_changed() {
    let dir = dir();
    model(&dir.path().join("m"), true);
    let before = state(&dir.path().join("m"));
    for args in [
        &["inspect", "m"][..],
        &["verify", "m"],
        &["convert", "m", "a", "--type", "nf4-dq"],
        &["convert", "m", "b.bqt", "--io", "mmap"],
        &["convert", "m", "c.safetensors", "--type", "f16", "--io", "read"],
        &["convert", "m", "d", "--dry-run"],
    ] {
        assert!(run(dir.path(), args).status.success(), "{args:?}");
        assert_eq!(state(&dir.path().join("m")), before, "{args:?}");
    }
    assert_eq!(listing(dir.path()), ["a", "b.bqt", "c.safetensors", "m"]);
}

// ---- O5, O6: signals ----

/// Signals and the exit codes that shells know.
const SIGNALS: [(i32, i32); 3] = [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)];

/// Starts a conversion that takes many seconds, in a folder of its own.
fn long_conversion(dir: &Path, output: &str, scheme: &str) -> Child {
    fs::create_dir(dir.join("out")).expect("made");
    sparse(&dir.join("m.safetensors"), 1 << 19);
    let output = format!("out/{output}");
    quant_in(dir, &["convert", "m.safetensors", &output, "--type", scheme, "--threads", "1"]).spawn().expect("it starts")
}

fn assert_interrupted(child: Child, dir: &Path, code: i32) {
    let begin = Instant::now();
    let out = ended(child, LIMIT);
    assert!(begin.elapsed() < Duration::from_secs(10), "took {:?} to stop", begin.elapsed());
    assert_eq!((out.status.code(), out.status.signal()), (Some(code), None), "{}", message(&out));
    assert!(!message(&out).contains("panicked"), "{}", message(&out));
    assert_eq!(listing(&dir.join("out")), [""; 0]);
}

#[test]
fn a_signal_while_writing_stops_it_and_leaves_nothing() {
    for ((number, code), output) in SIGNALS.into_iter().zip(["o.bqt", "o.safetensors", "o"]) {
        let dir = dir();
        let child = long_conversion(dir.path(), output, "nf4");
        await_partial(&dir.path().join("out"), output);
        std::thread::sleep(Duration::from_millis(100));
        signal(&child, number);
        assert_interrupted(child, dir.path(), code);
    }
}

#[test]
fn a_signal_while_scanning_stops_it_and_leaves_nothing() {
    for (number, code) in SIGNALS {
        let dir = dir();
        let child = long_conversion(dir.path(), "o.bqt", "nf4-dq");
        std::thread::sleep(Duration::from_millis(200));
        signal(&child, number);
        assert_interrupted(child, dir.path(), code);
    }
}

#[test]
fn a_signal_keeps_what_was_to_be_replaced() {
    let dir = dir();
    sparse(&dir.path().join("m.safetensors"), 1 << 19);
    fs::create_dir(dir.path().join("out")).unwrap();
    fs::write(dir.path().join("out/o.bqt"), "old").unwrap();
    let args = ["convert", "m.safetensors", "out/o.bqt", "--type", "nf4", "--threads", "1", "--force"];
    let child = quant_in(dir.path(), &args).spawn().unwrap();
    await_partial(&dir.path().join("out"), "o.bqt");
    signal(&child, libc::SIGTERM);
    assert_eq!(ended(child, LIMIT).status.code(), Some(143));
    assert_eq!(listing(&dir.path().join("out")), ["o.bqt"]);
    assert_eq!(fs::read(dir.path().join("out/o.bqt")).unwrap(), b"old");
}

#[test]
fn what_a_kill_leaves_the_next_run_removes() {
    for output in ["o.bqt", "o.safetensors", "o"] {
        let dir = dir();
        let child = long_conversion(dir.path(), output, "nf4");
        await_partial(&dir.path().join("out"), output);
        std::thread::sleep(Duration::from_millis(100));
        signal(&child, libc::SIGKILL);
        assert_eq!(ended(child, LIMIT).status.signal(), Some(libc::SIGKILL));
        let left = listing(&dir.path().join("out"));
        assert!(left.len() == 1 && is_partial(&left[0], output), "{left:?}");
        dense(&dir.path().join("small.safetensors"), 64);
        let out = run(dir.path(), &["convert", "small.safetensors", &format!("out/{output}")]);
        assert!(out.status.success(), "{}", message(&out));
        assert_eq!(listing(&dir.path().join("out")), [output]);
    }
}

// ---- O8: many runs at once ----

#[test]
fn of_many_runs_to_one_name_one_wins_and_it_is_complete() {
    let dir = dir();
    model(&dir.path().join("m"), false);
    fs::create_dir(dir.path().join("out")).unwrap();
    for n in [2, 8, 8] {
        for output in ["out/o.bqt", "out/o"] {
            let outs = race(dir.path(), n, &["convert", "m", output, "--type", "nf4"]);
            let (won, lost): (Vec<_>, Vec<_>) = outs.into_iter().partition(|out| out.status.success());
            assert_eq!((won.len(), lost.len()), (1, n - 1), "{}", lost.iter().map(message).collect::<String>());
            lost.iter().for_each(|out| assert_refused(out, &[output, "exists; use --force"]));
            assert_complete(dir.path(), output);
        }
    }
}

#[test]
fn of_many_runs_with_force_the_last_stands_and_it_is_complete() {
    let dir = dir();
    model(&dir.path().join("m"), false);
    fs::create_dir(dir.path().join("out")).unwrap();
    for output in ["out/o.bqt", "out/o"] {
        let outs = race(dir.path(), 8, &["convert", "m", output, "--type", "nf4", "--force"]);
        assert!(outs.iter().any(|out| out.status.success()));
        outs.iter().filter(|out| !out.status.success()).for_each(|out| assert_refused(out, &[output]));
        assert_complete(dir.path(), output);
    }
}

fn race(dir: &Path, n: usize, args: &[&str]) -> Vec<Output> {
    let children: Vec<Child> = (0..n).map(|_| quant_in(dir, args).spawn().expect("it starts")).collect();
    children.into_iter().map(|child| ended(child, LIMIT)).collect()
}

/// Alone in its folder, equal to what one run alone makes, and sound. Removes it.
fn assert_complete(dir: &Path, output: &str) {
    let found = dir.join(output);
    assert_eq!(listing(&dir.join("out")), [found.file_name().expect("a name").to_string_lossy()]);
    assert!(run(dir, &["verify", output]).status.success());
    let alone = dir.join(format!("alone-{}", found.file_name().expect("a name").to_string_lossy()));
    assert!(run(dir, &["convert", "m", &alone.to_string_lossy(), "--type", "nf4", "--force"]).status.success());
    if found.is_dir() {
        assert_eq!(sha256_of_folder(&found), sha256_of_folder(&alone));
        fs::remove_dir_all(found).expect("removed");
    } else {
        assert_eq!(sha256(&found), sha256(&alone));
        fs::remove_file(found).expect("removed");
    }
}

// ---- O13: the same bytes ----

#[test]
fn threads_and_ways_of_reading_do_not_change_a_byte() {
    let dir = dir();
    model(&dir.path().join("m"), false);
    for scheme in ["nf4-dq", "int8", "affine4:32"] {
        let mut sums: Vec<String> = Vec::new();
        for (i, option) in ["--threads=1", "--threads=2", "--threads=4", "--threads=8", "--io=read", "--memory=32MiB"].iter().enumerate() {
            let name = format!("{}-{i}.bqt", &scheme[..3]);
            assert!(run(dir.path(), &["convert", "m", &name, "--type", scheme, option]).status.success(), "{option}");
            sums.push(sha256(&dir.path().join(name)));
        }
        sums.dedup();
        assert_eq!(sums.len(), 1, "{scheme}");
    }
}

// ---- O15: permissions ----

#[test]
fn the_umask_is_respected() {
    let dir = dir();
    model(&dir.path().join("m"), false);
    for (mask, file, folder) in [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775)] {
        for output in OUTPUTS {
            let name = format!("{mask:o}-{output}");
            let out = run_after(quant_in(dir.path(), &["convert", "m", &name]), move || umask(mask));
            assert!(out.status.success(), "{}", message(&out));
            let path = dir.path().join(&name);
            let files = if path.is_dir() { listing(&path).iter().map(|n| path.join(n)).collect() } else { vec![path.clone()] };
            files.iter().for_each(|f| assert_eq!(mode(f), file, "{f:?} under {mask:o}"));
            assert!(!path.is_dir() || mode(&path) == folder, "{:o} under {mask:o}", mode(&path));
        }
    }
}

fn umask(mask: libc::mode_t) {
    // SAFETY: the call only changes the process's mask.
    unsafe { libc::umask(mask) };
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

// ---- O14: stdout ----

/// Everything that prints to stdout.
const PRINTING: [&[&str]; 8] = [
    &["inspect", "m"],
    &["inspect", "m", "--json"],
    &["verify", "m"],
    &["convert", "m", "o", "--dry-run"],
    &["convert", "m", "o", "--dry-run", "--json"],
    &["convert", "m", "o.bqt", "--force"],
    &["--help"],
    &["--version"],
];

#[test]
fn a_full_stdout_is_a_failure_and_no_panic() {
    let dir = dir();
    model(&dir.path().join("m"), false);
    let mut wrong = Vec::new();
    for args in PRINTING {
        let mut command = quant_in(dir.path(), args);
        command.stdout(OpenOptions::new().write(true).open("/dev/full").unwrap());
        let out = run_with(command);
        let text = message(&out);
        if out.status.code() != Some(2) || !text.starts_with("error: ") || text.lines().count() != 1 || !text.contains("stdout") {
            wrong.push(format!("{args:?}: {} {text}", out.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_broken_pipe_is_success() {
    let dir = dir();
    model(&dir.path().join("m"), false);
    for args in PRINTING {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut command = quant_in(dir.path(), args);
        command.stdout(writer);
        let out = run_with(command);
        assert_eq!((out.status.code(), message(&out).as_str()), (Some(0), ""), "{args:?}");
    }
    assert!(run(dir.path(), &["verify", "o.bqt"]).status.success());
}

/// With a closed stdout a file that is opened next would get its number; nothing may be printed into it.
#[test]
fn closed_standard_files_harm_nothing() {
    let dir = dir();
    model(&dir.path().join("m"), false);
    let before = state(&dir.path().join("m"));
    for closed in [&[1][..], &[2], &[0, 1, 2]] {
        let close = move || closed.iter().for_each(|&fd| close(fd));
        let out = run_after(quant_in(dir.path(), &["convert", "m", "o.bqt", "--type", "nf4"]), close);
        assert_eq!((out.status.code(), message(&out).contains("panicked")), (Some(0), false), "{closed:?}");
        assert!(run(dir.path(), &["verify", "o.bqt"]).status.success());
        fs::remove_file(dir.path().join("o.bqt")).unwrap();
        assert_eq!(state(&dir.path().join("m")), before);
        let refused = run_after(quant_in(dir.path(), &["inspect", "none"]), close);
        assert_eq!(refused.status.code(), Some(2), "{closed:?}");
    }
}

fn close(fd: i32) {
    // SAFETY: called in a child that is about to become another program and uses no descriptor before that.
    unsafe { libc::close(fd) };
}

#[test]
fn a_full_stderr_does_not_change_the_exit_code() {
    let dir = dir();
    let mut command = quant_in(dir.path(), &["inspect", "none"]);
    command.stderr(OpenOptions::new().write(true).open("/dev/full").unwrap());
    assert_eq!(run_with(command).status.code(), Some(2));
}

// ---- O4: limits of the system ----

fn limit(resource: libc::__rlimit_resource_t, n: u64) {
    let limit = libc::rlimit { rlim_cur: n, rlim_max: n };
    // SAFETY: the struct lives until the call returns.
    unsafe { libc::setrlimit(resource, &raw const limit) };
}

#[test]
fn the_file_size_limit_is_an_error_that_leaves_nothing() {
    let dir = dir();
    dense(&dir.path().join("m.safetensors"), 4096);
    fs::create_dir(dir.path().join("out")).unwrap();
    for output in ["out/o.bqt", "out/o.safetensors", "out/o"] {
        for n in [0, 4096, 1 << 20, 4 << 20] {
            let command = quant_in(dir.path(), &["convert", "m.safetensors", output, "--type", "f16"]);
            let out = run_after(command, move || limit(libc::RLIMIT_FSIZE, n));
            assert_refused(&out, &[output, "large"]);
            assert_eq!(listing(&dir.path().join("out")), [""; 0]);
        }
    }
}

#[test]
fn few_descriptors_are_an_error_that_leaves_nothing_or_enough() {
    let dir = dir();
    model(&dir.path().join("m"), false);
    fs::create_dir(dir.path().join("out")).unwrap();
    let mut codes = Vec::new();
    for n in 3..40 {
        let command = quant_in(dir.path(), &["convert", "m", "out/o", "--type", "nf4", "--max-shard-size=100kB", "--threads=2"]);
        let out = run_after(command, move || limit(libc::RLIMIT_NOFILE, n));
        assert!(!message(&out).contains("panicked"), "{n}: {}", message(&out));
        codes.push(out.status.code());
        match out.status.code() {
            Some(0) => fs::remove_dir_all(dir.path().join("out/o")).unwrap(),
            code => assert!(matches!(code, Some(2 | 127)), "{n}: {} {}", out.status, message(&out)), // 127: not even the loader could open a library.
        }
        assert_eq!(listing(&dir.path().join("out")), [""; 0], "{n}");
    }
    assert!(codes.contains(&Some(2)), "the limit was never met");
}

// ---- O10: an input that changes ----

type Change = fn(&mut File);

/// What happens to a file of 16 MiB of weights.
const CHANGES: [(&str, Change); 5] = [
    ("cut to nothing", |f| f.set_len(0).expect("cut")),
    ("cut in the middle", |f| f.set_len(8 << 20).expect("cut")),
    ("cut by one byte", |f| f.set_len(f.metadata().expect("a length").len() - 1).expect("cut")),
    ("grown", |f| f.set_len(64 << 20).expect("grown")),
    ("rewritten", |f| {
        f.seek(SeekFrom::Start(12 << 20)).and_then(|_| f.write_all(&[0x3f; 1 << 20])).expect("rewritten");
    }),
];

#[test]
fn an_input_that_changes_is_an_error_or_was_read_before() {
    let dir = dir();
    let path = dir.path().join("m.safetensors");
    dense(&path, 8192);
    let original = fs::read(&path).unwrap();
    let begin = Instant::now();
    assert!(run(dir.path(), &["convert", "m.safetensors", "good.bqt", "--type", "nf4"]).status.success());
    let (usual, expected) = (begin.elapsed(), sha256(&dir.path().join("good.bqt")));
    let mut n_errors = 0;
    for i in 0..20 {
        fs::write(&path, &original).unwrap();
        let io = ["--io=mmap", "--io=read"][i as usize % 2];
        let child = quant_in(dir.path(), &["convert", "m.safetensors", "o.bqt", "--type", "nf4", io]).spawn().unwrap();
        std::thread::sleep(usual * i / 20);
        let (what, change) = CHANGES[i as usize % 5];
        change(&mut OpenOptions::new().write(true).open(&path).unwrap());
        let out = ended(child, LIMIT);
        let found = dir.path().join("o.bqt");
        match out.status.code() {
            Some(0) => assert_eq!(sha256(&found), expected, "{what}"),
            _ => {
                assert_refused(&out, &["m.safetensors"]);
                n_errors += 1;
            }
        }
        let _ = fs::remove_file(found);
        assert_eq!(listing(dir.path()), ["good.bqt", "m.safetensors"], "{what}");
    }
    assert!(n_errors > 0, "no change came in time");
}

// ---- numbers that no quantizing scheme holds ----

const QUANTIZING: [&str; 9] = ["nf4", "nf4-dq", "fp4", "fp4-dq", "int8", "int8-block", "affine4", "absmax8:row", "affine8:tensor"];

/// A model with two linear layers; in the second one elements `at` hold `value`.
fn unfit(path: &Path, at: &[usize], value: f32) {
    let good: Vec<f32> = numbers(1 << 18).collect();
    let mut bad = good.clone();
    at.iter().for_each(|&i| bad[i] = value);
    let shape = [1 << 8, 1 << 10];
    made::write(path, &[Made::f32("m.0.up_proj.weight", &shape, &good), Made::f32("m.1.up_proj.weight", &shape, &bad)]);
}

#[test]
fn what_is_not_finite_is_refused_by_tensor_and_first_element() {
    let dir = dir();
    for (value, shown) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        unfit(&dir.path().join("m.safetensors"), &[260_000, 131_077, 200_001], value);
        for scheme in QUANTIZING {
            let out = run(dir.path(), &["convert", "m.safetensors", "o.bqt", "--type", scheme, "--slab=4096"]);
            assert_refused(&out, &["tensor 'm.1.up_proj.weight'", &format!("element 131077 is {shown}"), "--non-finite keep"]);
            assert_eq!(listing(dir.path()), ["m.safetensors"]);
        }
    }
}

#[test]
fn what_is_not_finite_is_kept_on_demand_and_that_is_said() {
    let dir = dir();
    let path = dir.path().join("m.safetensors");
    unfit(&path, &[77], f32::NAN);
    let bytes = fs::read(&path).unwrap();
    let weights = &bytes[bytes.len() - (4 << 18)..];
    for scheme in QUANTIZING {
        let args = ["convert", "m.safetensors", "o.bqt", "--type", scheme, "--non-finite=keep", "--force"];
        let out = run(dir.path(), &args);
        assert!(out.status.success(), "{}", message(&out));
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(text.contains("element 77 is NaN") && text.contains("m.1.up_proj.weight"), "{text}");
        let schemes = schemes(dir.path(), "o.bqt");
        assert_ne!(schemes["m.0.up_proj.weight"], "f32");
        assert_eq!(schemes["m.1.up_proj.weight"], "f32");
        let found = fs::read(dir.path().join("o.bqt")).unwrap();
        assert!(found.windows(weights.len()).any(|w| w == weights), "{scheme}: the weights are not there as they were");
    }
}

/// The scheme of each tensor.
fn schemes(dir: &Path, name: &str) -> BTreeMap<String, String> {
    let shown: serde_json::Value = serde_json::from_slice(&run(dir, &["inspect", name, "--json"]).stdout).expect("JSON");
    let text = |v: &serde_json::Value| v.as_str().expect("text").to_owned();
    shown["tensors"].as_array().expect("a list").iter().map(|t| (text(&t["name"]), text(&t["scheme"]))).collect()
}
