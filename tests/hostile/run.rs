//! A process with a deadline, and its peak memory.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

/// What a process did.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
    /// The most memory it had at once, in bytes.
    pub peak: u64,
}

impl Ran {
    /// The exit code; none if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// What is wrong with it as a refusal: exit code 2 and one line that begins with `error: ` and holds every one of `parts`.
    pub fn flaws(&self, parts: &[&str]) -> Vec<String> {
        let mut flaws = Vec::new();
        let mut flaw = |is: bool, what: String| {
            if is {
                flaws.push(what)
            }
        };
        flaw(self.code() != Some(2), format!("ended with {}", self.status));
        flaw(self.stderr.lines().count() != 1, format!("{} lines on stderr", self.stderr.lines().count()));
        flaw(!self.stderr.starts_with("error: "), "the message does not begin with 'error: '".into());
        flaw(!self.stdout.is_empty(), "something on stdout".into());
        parts.iter().for_each(|part| flaw(!self.stderr.contains(part), format!("the message lacks '{part}'")));
        flaw(self.stderr.contains("\\u{a}"), "the message is several lines in one".into());
        flaw(self.stderr.len() > 10_000, format!("a message of {} bytes", self.stderr.len()));
        flaws
    }
}

/// Runs a command to its end, which must come within `limit`.
#[expect(clippy::zombie_processes, reason = "wait4 reaps it, which std does not call and which alone tells its memory")]
pub fn run(command: &mut Command, limit: Duration) -> Ran {
    let (mut out, mut err) = (temporary(), temporary());
    let clone = |file: &File| file.try_clone().expect("a descriptor");
    let child = command.stdin(std::process::Stdio::null()).stdout(clone(&out)).stderr(clone(&err)).spawn().expect("it starts");
    let (status, peak) = wait(child.id(), limit).unwrap_or_else(|| panic!("{command:?} did not end within {limit:?}"));
    Ran { status, stdout: content(&mut out), stderr: content(&mut err), peak }
}

/// Waits for a child, which is killed when its time is over. Its status, and its peak memory in bytes.
pub fn wait(pid: u32, limit: Duration) -> Option<(ExitStatus, u64)> {
    let begin = Instant::now();
    loop {
        if let Some(ended) = reap(pid, libc::WNOHANG) {
            return Some(ended);
        }
        if begin.elapsed() > limit {
            send(pid, libc::SIGKILL);
            reap(pid, 0);
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn reap(pid: u32, flags: i32) -> Option<(ExitStatus, u64)> {
    let mut status = 0;
    // SAFETY: all zeros is a value of this plain struct.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both places live until the call returns.
    let found = unsafe { libc::wait4(pid as i32, &raw mut status, flags, &raw mut usage) };
    assert!(found >= 0, "the child is ours to wait for");
    (found > 0).then(|| (ExitStatus::from_raw(status), usage.ru_maxrss as u64 * 1024))
}

/// Sends a signal to a child that was not waited for.
pub fn send(pid: u32, signal: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(pid as i32, signal) };
}

fn temporary() -> File {
    tempfile::tempfile().expect("a temporary file")
}

fn content(file: &mut File) -> String {
    let mut text = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut text)).expect("it can be read back");
    String::from_utf8(text).expect("output is UTF-8")
}
