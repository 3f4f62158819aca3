//! How tests get at the library.

use std::env::{self, consts};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Set in processes that [`again`] has started.
const AGAIN: &str = "FAKE_CUDA_AGAIN";
const LOG: &str = "FAKE_CUDA_LOG";

/// The library that cargo has built beside the running test.
///
/// # Panics
/// If there is none.
#[track_caller]
pub fn library() -> PathBuf {
    // Cargo gives libraries of this kind no hash, so there is one only.
    let name = format!("{}fake_cuda{}", consts::DLL_PREFIX, consts::DLL_SUFFIX);
    let program = env::current_exe().expect("the running program has no path");
    let folders = program.ancestors().skip(1).take(2);
    let mut places = folders.flat_map(|folder| [folder.join(&name), folder.join("deps").join(&name)]);
    places.find(|place| place.is_file()).unwrap_or_else(|| panic!("there is no {name} beside {}", program.display()))
}

/// Copies the library to a folder, by the names that programs know the driver by.
///
/// # Panics
/// If it cannot be copied.
#[track_caller]
pub fn install(folder: &Path) {
    for name in ["libcuda.so.1", "libcuda.so"] {
        let to = folder.join(name);
        if let Err(error) = fs::copy(library(), &to) {
            panic!("{}: {error}", to.display());
        }
    }
}

/// What a process did that [`again`] has started.
#[derive(Debug)]
pub struct Ran {
    /// The lines of the log.
    pub log: Vec<String>,
    /// What it printed to stderr.
    pub stderr: String,
}

/// Runs a test of the running test binary once more, in a process that has the library for a driver, and these variables.
///
/// None in that process, where the test has to do its work. `test` is the test's name, with its modules.
///
/// # Panics
/// If the test fails there, or there is no such test.
#[track_caller]
pub fn again(test: &str, variables: &[(&str, &str)]) -> Option<Ran> {
    if env::var_os(AGAIN).is_some() {
        return None;
    }
    let folder = tempfile::tempdir().expect("there is no room for the driver");
    install(folder.path());
    let log = folder.path().join("log");
    let mut command = Command::new(env::current_exe().expect("the running program has no path"));
    command.args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"]);
    for (name, _) in env::vars_os().filter(|(name, _)| is_ours(name)) {
        command.env_remove(name);
    }
    command.env("LD_LIBRARY_PATH", folder.path()).env(LOG, &log).env(AGAIN, "1").envs(variables.iter().copied());
    let output = command.output().expect("the test cannot be started again");
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    let passed = output.status.success() && stdout.contains("test result: ok. 1 passed");
    assert!(passed, "{test} in a process of its own: {}\n{stdout}{stderr}", output.status);
    let log = fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect();
    Some(Ran { log, stderr })
}

fn is_ours(variable: &OsStr) -> bool {
    variable.to_str().is_some_and(|name| name.starts_with("FAKE_CUDA"))
}
