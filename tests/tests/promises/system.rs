//! A full stdout, closed files, limits of the system.

use super::*;

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
        let start = if args.contains(&"--json") { "{\"error\":" } else { "error: " };
        if out.status.code() != Some(2) || !text.starts_with(start) || text.lines().count() != 1 || !text.contains("stdout") {
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
