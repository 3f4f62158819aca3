//! Memory of the device, and pinned memory of the host.

use std::alloc::Layout;
use std::collections::BTreeMap;

use ptx_sim::Memory;

use crate::error::{Error, Result};

/// What new memory is full of.
const NEW: u8 = 0xa5;
/// Device memory is given out in pieces of so many bytes.
const PIECE: usize = 512;

#[derive(Default)]
pub(crate) struct DeviceMemory {
    pub memory: Memory,
    pub used: usize,
    pub peak: usize,
    /// Pinned memory of the host: addresses and lengths.
    pinned: BTreeMap<usize, usize>,
}

impl DeviceMemory {
    /// Device memory within a limit.
    pub fn alloc(&mut self, len: usize, limit: usize) -> Result<u64> {
        if len == 0 {
            return Err(Error::InvalidValue);
        }
        let used = len.checked_next_multiple_of(PIECE).and_then(|len| len.checked_add(self.used)).filter(|used| *used <= limit);
        self.used = used.ok_or(Error::OutOfMemory)?;
        self.peak = self.peak.max(self.used);
        Ok(self.memory.alloc(vec![NEW; len]))
    }

    /// Whether the address is that of a piece of memory.
    pub fn is_allocated(&self, address: u64) -> bool {
        self.memory.buffer(address).is_some_and(|(base, _)| base == address)
    }

    pub fn free(&mut self, address: u64) -> Result<()> {
        let (base, len) = self.memory.buffer(address).ok_or(Error::InvalidValue)?;
        if base != address || !self.memory.free(address) {
            return Err(Error::InvalidValue);
        }
        self.used -= len.next_multiple_of(PIECE);
        Ok(())
    }

    /// Whether the device has all these bytes.
    pub fn check(&self, address: u64, len: usize) -> Result<()> {
        self.memory.get(address, len).map(|_| ()).ok_or(Error::InvalidValue)
    }

    /// Pinned memory. It stays where it is until it is freed.
    pub fn alloc_host(&mut self, len: usize) -> Result<*mut u8> {
        let layout = layout(len)?;
        // SAFETY: the layout is not empty.
        let pointer = unsafe { std::alloc::alloc(layout) };
        if pointer.is_null() {
            return Err(Error::OutOfMemory);
        }
        // SAFETY: so many bytes have just been allocated.
        unsafe { pointer.write_bytes(NEW, len) };
        self.pinned.insert(pointer as usize, len);
        Ok(pointer)
    }

    /// Frees pinned memory: its length.
    pub fn free_host(&mut self, pointer: *mut u8) -> Result<usize> {
        let len = self.pinned.remove(&(pointer as usize)).ok_or(Error::InvalidValue)?;
        // SAFETY: it was in the list, so it was allocated with this layout, and not freed since.
        unsafe { std::alloc::dealloc(pointer, layout(len)?) };
        Ok(len)
    }

    /// Whether all these bytes of the host are pinned.
    pub fn is_pinned(&self, pointer: *const u8, len: usize) -> bool {
        let before = self.pinned.range(..=pointer as usize).next_back();
        before.is_some_and(|(start, all)| pointer as usize - start <= *all && *all - (pointer as usize - start) >= len)
    }
}

fn layout(len: usize) -> Result<Layout> {
    Layout::from_size_align(len, 4096).ok().filter(|_| len > 0).ok_or(Error::InvalidValue)
}
