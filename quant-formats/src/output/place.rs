//! The last step: giving a finished, synced output its name.
//!
//! | target | without `--force` | with it |
//! |---|---|---|
//! | file | renameat2 NOREPLACE, or link and unlink | rename; where that cannot replace, exchange and remove the old |
//! | folder | rename, which replaces nothing but an empty folder | the same |

use std::fs::{self, File};
use std::io;
use std::path::Path;

use quant_core::{Error, Result};

use super::sys::{self, Existing};
use super::temporary::{Temporary, fresh_name, remove};
use super::{exists, parent_of, shown};

/// Where the temporary's content and the target's went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moved {
    /// The output is at the target, and nothing under the temporary name.
    Renamed,
    /// The output is at the target; under the temporary name is what has to go: the old target, or a second link.
    LeftBehind,
}

/// Puts `temporary` at `target`, durably.
pub(super) fn place(temporary: &mut Temporary, target: &Path, folder: bool, force: bool) -> Result<()> {
    let moved = match (force, folder) {
        (true, _) => replace(temporary.path(), target).map_err(|e| Error::io("replace", target, e))?,
        (false, true) => fs::rename(temporary.path(), target).map(|()| Moved::Renamed).map_err(|e| refusal(target, e))?,
        (false, false) => put_new(temporary.path(), target)?,
    };
    if moved == Moved::Renamed {
        temporary.disarm();
    }
    sync_parent(target).map_err(|e| {
        // The old one is still there to go back to; a plain rename cannot be undone.
        if force && moved == Moved::LeftBehind {
            let _ = sys::rename(temporary.path(), target, Existing::Exchange);
        }
        Error::io("sync the folder of", target, e)
    })
}

fn sync_parent(target: &Path) -> io::Result<()> {
    File::open(parent_of(target))?.sync_all()
}

fn refusal(target: &Path, error: io::Error) -> Error {
    if is_in_the_way(&error) { exists(target) } else { Error::io("create", target, error) }
}

/// Whether `error` says that the target exists, and cannot be replaced by a rename.
fn is_in_the_way(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOTEMPTY | libc::ENOTDIR | libc::EISDIR))
}

/// Gives a file its name if nobody has it.
fn put_new(from: &Path, target: &Path) -> Result<Moved> {
    match sys::rename(from, target, Existing::Keep) {
        Ok(()) => Ok(Moved::Renamed),
        Err(e) if sys::is_unsupported(&e) => link_new(from, target),
        Err(e) => Err(refusal(target, e)),
    }
}

/// The same with a link, which never replaces anything either.
fn link_new(from: &Path, target: &Path) -> Result<Moved> {
    match fs::hard_link(from, target) {
        Ok(()) => Ok(Moved::LeftBehind),
        Err(e) if sys::is_unsupported(&e) || e.raw_os_error() == Some(libc::EPERM) => Err(Error::request(format!(
            "{}: this file system cannot name a file without the risk of replacing another; use --force to take that risk",
            shown(target)
        ))),
        Err(e) => Err(refusal(target, e)),
    }
}

/// Puts `from` at `target`, whatever is there, so that at any instant one of the two is.
fn replace(from: &Path, target: &Path) -> io::Result<Moved> {
    for _ in 0..16 {
        match fs::rename(from, target) {
            Ok(()) => return Ok(Moved::Renamed),
            Err(e) if is_in_the_way(&e) => {}
            Err(e) => return Err(e),
        }
        match sys::rename(from, target, Existing::Exchange) {
            Ok(()) => return Ok(Moved::LeftBehind),
            Err(e) if sys::is_unsupported(&e) => return displace(from, target).map(|()| Moved::Renamed),
            // Someone removed the target in between; then a rename will do.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// For file systems that cannot exchange: moves the old aside. Not called `.partial.`: if the power fails between the two
/// renames, it is all the user has, and no later run must take it for a leftover.
fn displace(from: &Path, target: &Path) -> io::Result<()> {
    let aside = parent_of(target).join(fresh_name(target, ".partial-old."));
    fs::rename(target, &aside)?;
    // The old one goes only when the new one is sure to stay.
    let moved = fs::rename(from, target).and_then(|()| sync_parent(target).inspect_err(|_| drop(fs::rename(target, from))));
    match moved {
        Ok(()) => remove(&aside),
        Err(_) => drop(fs::rename(&aside, target)),
    }
    moved
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (from, target) = (dir.path().join("from"), dir.path().join("target"));
        fs::write(&from, "new").unwrap();
        (dir, from, target)
    }

    #[test]
    fn a_link_does_for_a_rename_that_keeps() {
        let (_dir, from, target) = fixture();
        assert_eq!(link_new(&from, &target).unwrap(), Moved::LeftBehind);
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert!(link_new(&from, &target).unwrap_err().to_string().contains("exists; use --force"));
    }

    #[test]
    fn moving_aside_does_for_an_exchange() {
        let (dir, from, target) = fixture();
        fs::create_dir(&target).unwrap();
        fs::write(target.join("old"), "old").unwrap();
        displace(&from, &target).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_move_puts_the_old_back() {
        let (dir, _from, target) = fixture();
        fs::write(&target, "old").unwrap();
        assert!(displace(&dir.path().join("none"), &target).is_err());
        assert_eq!(fs::read(&target).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_failed_replacement_leaves_the_target() {
        let (dir, _from, target) = fixture();
        fs::write(&target, "old").unwrap();
        assert!(replace(&dir.path().join("none"), &target).is_err());
        assert_eq!(fs::read(&target).unwrap(), b"old");
    }
}
