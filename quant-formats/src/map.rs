//! [`Map`]: a memory map that is copied from, and survives whatever happens to the file.
//!
//! No reference into the map exists, here or outside: another process may change these bytes at any time, which a `&[u8]`
//! promises not to happen. Bytes are copied out by pointer, under the guard of [`sigbus`], and only then looked at.

mod sigbus;

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw, UncheckedAdvice};

/// Copied before the pages are given back; what a map holds resident is at most this for each thread that reads.
const PIECE: usize = 4 << 20;
/// A fault maps the neighbours of a page up to this alignment too (fault_around_bytes), so this much is given back around a read.
const FAULT_AROUND: usize = 64 << 10;

/// A read-only map of a whole file.
#[derive(Debug)]
pub(crate) struct Map {
    raw: MmapRaw,
    /// Set once bytes of the map were not those of the file. It stays set: pages may have been replaced by zeros.
    faulted: AtomicBool,
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
        Some(Map { raw, faulted: AtomicBool::new(false) })
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

    /// Gives back the pages of a range that was read, and those the kernel mapped around them. A neighbour that still needs
    /// one faults it in again, from the page cache.
    fn release(&self, offset: usize, n_bytes: usize) {
        let base = self.raw.as_ptr() as usize;
        let first = ((base + offset) & !(FAULT_AROUND - 1)).max(base) - base;
        let end = ((base + offset + n_bytes).saturating_add(FAULT_AROUND - 1) & !(FAULT_AROUND - 1)).min(base + self.raw.len()) - base;
        // SAFETY: the pages of a read-only map of a file hold nothing that the file does not; the zeros that replace them
        // after a fault come back as zeros. A failure only leaves more memory in use.
        let _ = unsafe { self.raw.unchecked_advise_range(UncheckedAdvice::DontNeed, first, end - first) };
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
