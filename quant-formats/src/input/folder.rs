//! Listing a folder without std's `ReadDir`, whose destructor panics if the system cannot close the folder.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{self, NonNull};

/// The names in `folder`, sorted by their bytes, without `.` and `..`.
///
/// # Errors
/// If it is not a folder that can be read, to its end.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut stream = Stream::open(folder)?;
    let mut names = Vec::new();
    while let Some(name) = stream.next_name()? {
        if name != "." && name != ".." {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// An open folder, used by one thread.
struct Stream(NonNull<libc::DIR>);

impl Stream {
    fn open(folder: &Path) -> io::Result<Stream> {
        let folder = CString::new(folder.as_os_str().as_bytes()).map_err(|_| ErrorKind::InvalidInput)?;
        // SAFETY: a string that ends in NUL and lives until the call returns.
        NonNull::new(unsafe { libc::opendir(folder.as_ptr()) }).map(Stream).ok_or_else(io::Error::last_os_error)
    }

    fn next_name(&mut self) -> io::Result<Option<OsString>> {
        // SAFETY: errno is this thread's. The call tells its failure from the end of the folder by nothing else.
        unsafe { *libc::__errno_location() = 0 };
        // SAFETY: the stream is open, and nobody else uses it.
        let entry = unsafe { libc::readdir64(self.0.as_ptr()) };
        if entry.is_null() {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(0) { Ok(None) } else { Err(error) };
        }
        // SAFETY: the entry is valid until the next call, and its name ends in NUL. No reference to the whole entry is made:
        // it may be shorter than its type says.
        let name = unsafe { CStr::from_ptr(ptr::addr_of!((*entry).d_name).cast()) };
        Ok(Some(OsStr::from_bytes(name.to_bytes()).to_owned()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: it was open and is not used again. Nothing was written, so a failure loses nothing.
        unsafe { libc::closedir(self.0.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_come_sorted_whatever_their_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let mut expected: Vec<OsString> = (0..500).map(|i| format!("f{i:03}").into()).collect();
        expected.insert(0, "..x".into());
        expected.push(OsStr::from_bytes(b"\xff\n").to_owned());
        for name in expected.iter().rev() {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(list(dir.path()).unwrap(), expected);
    }

    #[test]
    fn what_is_no_folder_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(list(&dir.path().join("file")).unwrap_err().kind(), ErrorKind::NotADirectory);
        assert_eq!(list(&dir.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(list(Path::new("a\0b")).is_err());
    }
}
