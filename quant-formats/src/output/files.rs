//! The files of an output, of which only so many are open at a time.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quant_core::{Error, Result};

use super::{NewFile, checks, shown, sys};

/// Descriptors that one output keeps; the usual limit for a process is 1024.
const MAX_OPEN: usize = 64;
/// Bytes written to a file before the disk is told to begin, so that little is left for fsync.
const WRITEBACK: u64 = 64 << 20;

/// What of a file may not be on disk yet.
const CREATED: u8 = 0;
const WRITTEN: u8 = 1;
const SYNCED: u8 = 2;

/// Files that exist with their whole size from the start.
pub(super) struct Files {
    target: PathBuf,
    temporary: PathBuf,
    files: Vec<Staging>,
    open: Mutex<VecDeque<(usize, Arc<File>)>>,
    /// Set by any failed write or sync. The kernel reports such a failure once, so it must not be forgotten.
    failed: AtomicBool,
}

struct Staging {
    /// None for the single file that the temporary itself is.
    name: Option<String>,
    n_bytes: u64,
    state: AtomicU8,
    n_bytes_pending: AtomicU64,
}

impl Files {
    /// The output that consists of the one file `file`, which is empty so far.
    pub(super) fn single(target: &Path, temporary: &Path, file: File, n_bytes: u64) -> Result<Files> {
        let files = Files::new(target, temporary, vec![Staging::new(None, n_bytes)]);
        files.allocate(0, &file)?;
        files.lock().push_back((0, Arc::new(file)));
        Ok(files)
    }

    /// Creates files in the folder `temporary`.
    pub(super) fn create(target: &Path, temporary: &Path, files: Vec<NewFile>) -> Result<Files> {
        let files = files.into_iter().map(|f| Staging::new(Some(f.name), f.n_bytes)).collect();
        let files = Files::new(target, temporary, files);
        for i in 0..files.files.len() {
            let file = opening().create_new(true).open(files.path(i)).map_err(|e| Error::io("create", &files.shown_path(i), e))?;
            files.allocate(i, &file)?;
            files.keep(i, Arc::new(file))?;
        }
        Ok(files)
    }

    fn new(target: &Path, temporary: &Path, files: Vec<Staging>) -> Files {
        Files { target: target.into(), temporary: temporary.into(), files, open: Mutex::default(), failed: AtomicBool::new(false) }
    }

    pub(super) fn write_at(&self, i: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let staging = self.checked(i, offset, bytes.len() as u64)?;
        let file = self.opened(i)?;
        file.write_all_at(bytes, offset).map_err(|e| self.failure("write to", i, e))?;
        // After the write, so that a sync in between does not count for it.
        staging.state.store(WRITTEN, Ordering::SeqCst);
        let pending = staging.n_bytes_pending.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
        if pending >= WRITEBACK {
            staging.n_bytes_pending.store(0, Ordering::Relaxed);
            sys::start_writing(&file);
        }
        Ok(())
    }

    pub(super) fn read_at(&self, i: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        self.checked(i, offset, out.len() as u64)?;
        self.opened(i)?.read_exact_at(out, offset).map_err(|e| Error::io("read back", &self.shown_path(i), e))
    }

    /// Checks that every file has its length, and puts it on disk.
    pub(super) fn sync(&self) -> Result<()> {
        for (i, staging) in self.files.iter().enumerate() {
            if self.failed.load(Ordering::SeqCst) {
                return Err(Error::file(&self.target, "an earlier write failed; nothing was put in place"));
            }
            let file = self.opened(i)?;
            let found = file.metadata().map_err(|e| self.failure("look at", i, e))?.len();
            if found != staging.n_bytes {
                return Err(Error::file(
                    &self.shown_path(i),
                    format!("someone changed it while it was being written: found {found} bytes, needed {}", staging.n_bytes),
                ));
            }
            if staging.state.swap(SYNCED, Ordering::SeqCst) != SYNCED {
                file.sync_all().map_err(|e| self.failure("sync", i, e))?;
            }
        }
        Ok(())
    }

    fn checked(&self, i: usize, offset: u64, n_bytes: u64) -> Result<&Staging> {
        let staging = self.files.get(i).ok_or_else(|| Error::request(format!("{}: has no file number {i}", shown(&self.target))))?;
        match offset.checked_add(n_bytes) {
            Some(end) if end <= staging.n_bytes => Ok(staging),
            end => {
                let needed = end.map_or("more than a file can have".into(), |end| end.to_string());
                Err(Error::file(&self.shown_path(i), format!("outside the declared size: found {} bytes, needed {needed}", staging.n_bytes))
                    .at(offset))
            }
        }
    }

    fn allocate(&self, i: usize, file: &File) -> Result<()> {
        let n_bytes = self.files[i].n_bytes;
        // fallocate refuses a length of 0, and not every file system has it; the size is set either way.
        let result = match sys::allocate(file, n_bytes) {
            Err(e) if sys::is_unsupported(&e) => file.set_len(n_bytes),
            result => result,
        };
        result.map_err(|e| match e.kind() {
            io::ErrorKind::StorageFull => checks::no_space(&self.shown_path(i), sys::free_bytes(super::parent_of(&self.target)), n_bytes),
            _ => Error::io("allocate", &self.shown_path(i), e),
        })
    }

    /// File `i`, opened again if it was closed meanwhile; never created again.
    fn opened(&self, i: usize) -> Result<Arc<File>> {
        {
            let mut open = self.lock();
            if let Some(at) = open.iter().position(|(file, _)| *file == i)
                && let Some(entry) = open.remove(at)
            {
                let file = entry.1.clone();
                open.push_back(entry);
                return Ok(file);
            }
        }
        let file = opening().open(self.path(i)).map_err(|e| self.failure("open again", i, e))?;
        let file = Arc::new(file);
        self.keep(i, file.clone())?;
        Ok(file)
    }

    /// Keeps a descriptor, in place of the one not used for longest. What was written through that is synced first: with
    /// the last descriptor closed, the kernel may forget that it could not write.
    fn keep(&self, i: usize, file: Arc<File>) -> Result<()> {
        let evicted = {
            let mut open = self.lock();
            open.push_back((i, file));
            if open.len() > MAX_OPEN { open.pop_front() } else { None }
        };
        let Some((old, file)) = evicted else { return Ok(()) };
        // Changed before the sync: a write that comes during it changes it back.
        match self.files[old].state.compare_exchange(WRITTEN, SYNCED, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => file.sync_all().map_err(|e| self.failure("sync", old, e)),
            Err(_) => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(usize, Arc<File>)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, i: usize) -> PathBuf {
        self.files[i].name.as_ref().map_or_else(|| self.temporary.clone(), |name| self.temporary.join(name))
    }

    /// The name it is going to have: the temporary one means nothing to a user.
    fn shown_path(&self, i: usize) -> PathBuf {
        self.files[i].name.as_ref().map_or_else(|| self.target.clone(), |name| self.target.join(name))
    }

    fn failure(&self, action: &'static str, i: usize, error: io::Error) -> Error {
        self.failed.store(true, Ordering::SeqCst);
        Error::io(action, &self.shown_path(i), error)
    }
}

impl Staging {
    fn new(name: Option<String>, n_bytes: u64) -> Staging {
        Staging { name, n_bytes, state: AtomicU8::new(CREATED), n_bytes_pending: AtomicU64::new(0) }
    }
}

/// For reading too, because what was written is read back. A link in place of a file is not followed.
fn opening() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o666).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    options
}
