//! [`Map`]: a memory map that is copied from, and survives whatever happens to the file.
//!
//! No reference into the map exists, here or outside: another process may change these bytes at any time, which a `&[u8]`
//! promises not to happen. Bytes are copied out by pointer, under the guard of [`sigbus`], and only then looked at.

mod sigbus;

use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Mutex, PoisonError};

use memmap2::{MmapOptions, MmapRaw, UncheckedAdvice};

/// Copied before it is looked whether pages are to be given back.
const PIECE: usize = 4 << 20;
/// Bytes that are read before the pages they lie on are given back.
const RELEASE: usize = 16 << 20;
/// A fault maps the neighbours of a page too, at most the huge page around it, so this much is given back around what was read.
const AROUND: usize = 2 << 20;

/// A read-only map of a whole file.
#[derive(Debug)]
pub(crate) struct Map {
    raw: MmapRaw,
    /// Set once bytes of the map were not those of the file. It stays set: pages may have been replaced by zeros.
    faulted: AtomicBool,
    /// What was read and not yet given back.
    held: Mutex<Held>,
}

/// The stretch of a map that reads have touched, and how much of it they read.
#[derive(Debug, Default)]
struct Held {
    range: Range<usize>,
    n_bytes: usize,
}

impl Map {
    /// Maps `file`, whose length `fstat` of this descriptor gave. None if there is nothing to map or the system refuses:
    /// the file can still be read.
    pub(crate) fn new(file: &File, len: u64) -> Option<Map> {
        let len = usize::try_from(len).ok().filter(|&len| len > 0)?;
        if !sigbus::install() {
            return None;
        }
        let raw = MmapOptions::new().len(len).map_raw_read_only(file).ok()?;
        Some(Map { raw, faulted: AtomicBool::new(false), held: Mutex::default() })
    }

    /// Whether the file could not be read at some time, because it was cut or the disk is damaged.
    pub(crate) fn has_faulted(&self) -> bool {
        self.faulted.load(Ordering::SeqCst)
    }

    /// Copies the bytes from `offset` on into `out`. False if the range does not lie in the map, or if the map has faulted;
    /// then `out` holds nothing of use.
    pub(crate) fn read(&self, offset: usize, out: &mut [u8]) -> bool {
        if offset.checked_add(out.len()).is_none_or(|end| end > self.raw.len()) {
            return false;
        }
        let mut at = offset;
        for piece in out.chunks_mut(PIECE) {
            if self.has_faulted() {
                return false;
            }
            // SAFETY: `at..at + piece.len()` lies in the map, as checked above, and the map lives as long as `self`.
            unsafe { sigbus::copy(self.raw.as_ptr().add(at), piece, &self.faulted) };
            self.release(at, piece.len());
            at += piece.len();
        }
        // Another thread's fault may have put zeros where this one read; its flag was set before they were.
        fence(Ordering::SeqCst);
        !self.has_faulted()
    }

    /// Notes that a range was read, and gives pages back when enough was. A neighbour that still needs one faults it in
    /// again, from the page cache.
    fn release(&self, offset: usize, n_bytes: usize) {
        let Some(range) = self.held.lock().unwrap_or_else(PoisonError::into_inner).add(offset..offset + n_bytes) else { return };
        let (first, end) = (range.start.saturating_sub(AROUND), range.end.saturating_add(AROUND).min(self.raw.len()));
        // SAFETY: the pages of a read-only map of a file hold nothing that the file does not; the zeros that replace them
        // after a fault come back as zeros. A failure only leaves more memory in use.
        let _ = unsafe { self.raw.unchecked_advise_range(UncheckedAdvice::DontNeed, first, end - first) };
    }
}

impl Held {
    /// Adds what was read. Returns the whole stretch when it is time to give it back.
    fn add(&mut self, read: Range<usize>) -> Option<Range<usize>> {
        self.range = if self.n_bytes == 0 { read.clone() } else { self.range.start.min(read.start)..self.range.end.max(read.end) };
        self.n_bytes += read.len();
        (self.n_bytes >= RELEASE).then(|| std::mem::take(self).range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_outside_the_map_are_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        let map = Map::new(&file, 10).unwrap();
        assert!(map.read(0, &mut [0; 10]));
        assert!(!map.read(1, &mut [0; 10]));
        assert!(!map.read(usize::MAX, &mut [0; 10]));
        assert!(!map.has_faulted());
    }

    #[test]
    fn a_map_longer_than_its_file_faults_and_says_so() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let map = Map::new(&file, 9 << 20).unwrap();
        assert!(map.read(0, &mut vec![0; 1 << 20]));
        assert!(!map.read(0, &mut vec![0; 9 << 20]));
        assert!(map.has_faulted());
        assert!(!map.read(0, &mut vec![0; 1 << 20]));
    }

    #[test]
    fn nothing_to_map_is_no_map() {
        assert!(Map::new(&tempfile::tempfile().unwrap(), 0).is_none());
        assert!(Map::new(&File::open("/dev").unwrap(), 10).is_none());
    }
}
