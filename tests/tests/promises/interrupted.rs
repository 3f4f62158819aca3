//! Signals, kills, and many runs at once.

use super::*;

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
