//! The temporary file or folder beside the target: its name, its lock, and the removal of those that dead runs left.
//!
//! `NAME.partial.PID.RANDOM`, in the folder of the target, so that a rename can put it in place. A run holds a lock on its own.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use quant_core::{Error, Result};

use super::name_of;
use crate::input::{Identity, list};

/// The longest name in usual file systems.
const MAX_NAME: usize = 255;
/// Room for `.partial-old.`, the number of a process, a dot, and 16 hexadecimal digits.
const SUFFIX: usize = 13 + 10 + 1 + 16;

/// A path that is removed, with everything in it, when this is dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    armed: bool,
    /// Holds the lock that tells others that the owner lives. Always there, but while this is dropped.
    lock: Option<File>,
}

impl Temporary {
    /// Creates a file in `parent`, to become `target`.
    pub(super) fn file(parent: &Path, target: &Path) -> Result<(Temporary, File)> {
        let mut create = OpenOptions::new();
        create.read(true).write(true).create_new(true).mode(0o666).custom_flags(libc::O_CLOEXEC);
        let temporary = Temporary::create(parent, target, |path| create.open(path))?;
        let file = temporary.lock()?.try_clone().map_err(|e| Error::io("create", target, e))?;
        Ok((temporary, file))
    }

    /// Creates a folder in `parent`, to become `target`.
    pub(super) fn folder(parent: &Path, target: &Path) -> Result<Temporary> {
        Temporary::create(parent, target, |path| {
            fs::create_dir(path)?;
            open_to_lock(path).inspect_err(|_| drop(fs::remove_dir(path)))
        })
    }

    fn create(parent: &Path, target: &Path, create: impl Fn(&Path) -> io::Result<File>) -> Result<Temporary> {
        let failure = |e| Error::io("create a file beside", target, e);
        for _ in 0..16 {
            let path = parent.join(fresh_name(target, ".partial."));
            let lock = match create(&path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                result => result.map_err(failure)?,
            };
            let is_ours = is_ours(&lock, &path);
            let temporary = Temporary { path, armed: true, lock: Some(lock) };
            if is_ours {
                return Ok(temporary);
            }
        }
        Err(failure(ErrorKind::AlreadyExists.into()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the names in a folder durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.lock()?.sync_all().map_err(|e| Error::io("sync", &self.path, e))
    }

    fn lock(&self) -> Result<&File> {
        self.lock.as_ref().ok_or_else(|| Error::file(&self.path, "the lock is gone"))
    }

    /// Leaves alone what may come to be at the path: the output has moved to its place.
    pub(super) fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.armed {
            // First, because listing a folder takes a descriptor, and there may be none left.
            self.lock = None;
            remove(&self.path);
        }
    }
}

/// Removes a file, a link, or a folder with everything in it. A failure is tried again, then ignored: the next run may succeed.
pub(super) fn remove(path: &Path) {
    for _ in 0..3 {
        match try_remove(path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {}
            _ => return,
        }
    }
}

fn try_remove(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return fs::remove_file(path);
    }
    // Our own folders hold nothing but files. remove_dir_all, which panics if a folder cannot be closed, is left for the rest.
    for name in list(path)? {
        let _ = fs::remove_file(path.join(name));
    }
    match fs::remove_dir(path) {
        Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(path),
        result => result,
    }
}

/// A name beside `target` that nobody has.
pub(super) fn fresh_name(target: &Path, infix: &str) -> OsString {
    let mut name = prefix(name_of(target), infix);
    // Random, and different each time; falls back to /dev/urandom by itself.
    let random = RandomState::new().hash_one(std::thread::current().id());
    name.push(format!("{}.{random:016x}", std::process::id()));
    name
}

/// The name of the target, cut where the temporary name would be too long, and the infix.
fn prefix(name: &OsStr, infix: &str) -> OsString {
    let bytes = name.as_bytes();
    let mut len = bytes.len().min(MAX_NAME - SUFFIX);
    // Not within a character, which some file systems refuse.
    while len < bytes.len() && len > 0 && bytes[len] & 0xc0 == 0x80 && std::str::from_utf8(bytes).is_ok() {
        len -= 1;
    }
    let mut prefix = bytes[..len].to_vec();
    prefix.extend_from_slice(infix.as_bytes());
    OsString::from_vec(prefix)
}

/// Locks a new file, and tells whether it is still there: another run may have taken it for a leftover before it was locked.
/// A file system without locks is taken as it is; then the process number alone protects it.
fn is_ours(file: &File, path: &Path) -> bool {
    if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
        return false;
    }
    let Ok(opened) = file.metadata() else { return true }; // If it is not, the rename will tell.
    match fs::symlink_metadata(path) {
        Ok(named) => Identity::from(&named) == Identity::from(&opened),
        Err(e) => e.kind() != ErrorKind::NotFound,
    }
}

/// Removes the leftovers of runs to `target` whose process is gone. Errors are ignored: leftovers are not worth a failure.
pub(super) fn remove_stale(parent: &Path, target: &Path) {
    let prefix = prefix(name_of(target), ".partial.");
    for name in list(parent).into_iter().flatten() {
        if let Some(owner) = name.as_bytes().strip_prefix(prefix.as_bytes()).and_then(owner) {
            remove_if_stale(&parent.join(&name), owner);
        }
    }
}

/// The process number in `PID.RANDOM`, if that is what `rest` is.
fn owner(rest: &[u8]) -> Option<u32> {
    let (pid, random) = std::str::from_utf8(rest).ok()?.split_once('.')?;
    let is_ours = random.len() == 16 && random.bytes().all(|b| b.is_ascii_hexdigit());
    pid.parse().ok().filter(|_| is_ours)
}

fn remove_if_stale(path: &Path, owner: u32) {
    if is_alive(owner) {
        return;
    }
    let Ok(found) = fs::symlink_metadata(path) else { return };
    // A link, which a replaced target may have been, cannot be locked.
    if found.is_symlink() {
        return remove(path);
    }
    if let Ok(file) = open_to_lock(path)
        && file.try_lock().is_ok()
    {
        remove(path);
    }
}

/// Whether another process of that number lives. This one's number says nothing: in a container every run may have it. Then
/// the lock decides, which holds between threads too.
fn is_alive(pid: u32) -> bool {
    let proc = Path::new("/proc");
    pid != std::process::id() && (proc.join(pid.to_string()).exists() || !proc.join("self").exists())
}

/// For files and folders alike, and without waiting for anybody.
fn open_to_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of a process that has ended.
    fn dead() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        child.id()
    }

    fn leftover(dir: &Path, pid: u32) -> PathBuf {
        dir.join(format!("out.partial.{pid}.0123456789abcdef"))
    }

    #[test]
    fn leftovers_of_the_dead_go_and_all_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (dead, target) = (dead(), dir.path().join("out"));
        let gone = leftover(dir.path(), dead);
        let gone_folder = dir.path().join(format!("out.partial.{dead}.00000000000000ff"));
        fs::write(&gone, "x").unwrap();
        fs::create_dir(&gone_folder).unwrap();
        fs::write(gone_folder.join("shard"), "x").unwrap();
        let kept = [
            leftover(dir.path(), 1),
            dir.path().join(format!("out.partial.{dead}.mine")),
            dir.path().join(format!("out.partial-old.{dead}.0123456789abcdef")),
            dir.path().join(format!("other.partial.{dead}.0123456789abcdef")),
            dir.path().join("out"),
        ];
        kept.iter().for_each(|path| fs::write(path, "x").unwrap());
        remove_stale(dir.path(), &target);
        assert!(!gone.exists() && !gone_folder.exists());
        kept.iter().for_each(|path| assert!(path.exists(), "{path:?}"));
    }

    #[test]
    fn what_is_locked_stays() {
        let dir = tempfile::tempdir().unwrap();
        for pid in [dead(), std::process::id()] {
            let path = leftover(dir.path(), pid);
            let lock = File::create(&path).unwrap();
            lock.lock().unwrap();
            remove_stale(dir.path(), &dir.path().join("out"));
            assert!(path.exists());
            drop(lock);
            remove_stale(dir.path(), &dir.path().join("out"));
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_live_file_and_folder_are_locked() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let (file, _f) = Temporary::file(dir.path(), &target).unwrap();
        let folder = Temporary::folder(dir.path(), &target).unwrap();
        remove_stale(dir.path(), &target);
        assert!(file.path().exists() && folder.path().exists());
    }

    #[test]
    fn names_stay_within_255_bytes_and_whole_characters() {
        for name in ["x".repeat(255), "é".repeat(127), format!("a{}", "é".repeat(127))] {
            for infix in [".partial.", ".partial-old."] {
                let fresh = fresh_name(Path::new(&name), infix);
                assert!(fresh.len() <= 255 && fresh.to_str().is_some(), "{fresh:?}");
                assert!(fresh.as_bytes().starts_with(prefix(OsStr::new(&name), infix).as_bytes()));
            }
        }
        assert_eq!(prefix(OsStr::from_bytes(&[0x80; 255]), "").len(), MAX_NAME - SUFFIX);
        assert_ne!(fresh_name(Path::new("x"), ""), fresh_name(Path::new("x"), ""));
    }
}
