//! The four system calls that neither std nor memmap2 has.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// How `rename` treats a target that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// It stays, and the rename fails with [`ErrorKind::AlreadyExists`].
    Keep,
    /// The two names change places.
    Exchange,
}

/// renameat2(2). Unsupported, says [`is_unsupported`] of the error, on old kernels and some file systems.
pub(super) fn rename(from: &Path, to: &Path, existing: Existing) -> io::Result<()> {
    let (from, to) = (c_path(from)?, c_path(to)?);
    let flags = match existing {
        Existing::Keep => libc::RENAME_NOREPLACE,
        Existing::Exchange => libc::RENAME_EXCHANGE,
    };
    // SAFETY: both are strings that end in NUL and live until the call returns.
    succeeded(unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) })
}

/// Whether `error` says that the system or file system does not have the call, or not with these flags.
pub(super) fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP))
}

/// fallocate(2): gives `file` its whole size, so that a full disk is an error now and not in an hour.
pub(super) fn allocate(file: &File, n_bytes: u64) -> io::Result<()> {
    let n_bytes = libc::off_t::try_from(n_bytes).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
    loop {
        // SAFETY: the descriptor is open as long as `file` is borrowed.
        match succeeded(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, n_bytes) }) {
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// sync_file_range(2): starts writing to disk what is in memory, without waiting. It is only a hint; errors come with fsync.
pub(super) fn start_writing(file: &File) {
    // SAFETY: the descriptor is open as long as `file` is borrowed.
    unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

/// statvfs(3): what may be written to the file system of `folder`. None if it does not tell.
pub(super) fn free_bytes(folder: &Path) -> Option<u64> {
    let folder = c_path(folder).ok()?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: a string that ends in NUL, and a place large enough to be written to.
    let status = unsafe { libc::statvfs(folder.as_ptr(), found.as_mut_ptr()) };
    // SAFETY: the system filled it in, as it says by returning 0.
    let found = (status == 0).then(|| unsafe { found.assume_init() })?;
    // Some network file systems report a size of 0, and mean that they do not know.
    (found.f_blocks > 0).then(|| found.f_bavail.saturating_mul(found.f_frsize))
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| ErrorKind::InvalidInput.into())
}

fn succeeded(status: libc::c_int) -> io::Result<()> {
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
