//! The product's own hostile inputs; see the README beside this file.

pub mod accepted;
pub mod bnb;
pub mod bombs;
pub mod bqt;
pub mod folders;
pub mod requests;
pub mod run;
pub mod safetensors;

use std::path::{Path, PathBuf};

/// An input that must be refused.
pub struct Refused {
    /// Its name, which tells the defect.
    pub name: &'static str,
    /// The file that the message must name.
    pub file: &'static str,
    /// What the message must say about this defect, and about no other.
    pub reason: &'static str,
    /// Makes it in an empty folder, and gives the path to open.
    pub make: Box<dyn Fn(&Path) -> PathBuf>,
}

impl Refused {
    fn new(name: &'static str, file: &'static str, reason: &'static str, make: impl Fn(&Path) -> PathBuf + 'static) -> Refused {
        Refused { name, file, reason, make: Box::new(make) }
    }
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::write(path, bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn folder(path: &Path) {
    std::fs::create_dir_all(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn link(to: impl AsRef<Path>, path: &Path) {
    std::os::unix::fs::symlink(to, path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo is there").success());
}

fn socket(path: &Path) {
    std::os::unix::net::UnixListener::bind(path).expect("a socket");
}

/// A file of so many bytes that takes no room, and begins with `bytes`.
fn sparse(path: &Path, bytes: &[u8], n_bytes: u64) {
    write(path, bytes);
    std::fs::OpenOptions::new().write(true).open(path).and_then(|f| f.set_len(n_bytes)).expect("it can be made longer");
}
