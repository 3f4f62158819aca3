//! Memory and copies.

use std::ffi::{c_int, c_uint, c_void};

use super::{Handle, put};
use crate::device::{Device, always, call};
use crate::error::{Error, Result};
use crate::stream::{Host, Work};

impl Device {
    fn alloc(&mut self, len: usize) -> Result<u64> {
        let address = self.memory.alloc(len, self.settings.memory)?;
        let (used, peak) = (self.memory.used, self.memory.peak);
        self.settings.log(&format!("alloc {len} used {used} peak {peak}"));
        Ok(address)
    }

    /// A copy from the host. Only pinned memory is read later.
    fn upload(&mut self, to: u64, from: *const c_void, len: usize, stream: usize, wait: bool) -> Result<()> {
        self.memory.check(to, len)?;
        if from.is_null() {
            return Err(Error::InvalidValue);
        }
        let from = Host(from.cast::<u8>().cast_mut());
        let wait = wait || !self.memory.is_pinned(from.0, len);
        self.push(stream, Work::Upload { to, from, len })?;
        if wait { self.drain(stream) } else { Ok(()) }
    }

    /// A copy to the host. Only pinned memory is written later.
    fn download_to(&mut self, to: *mut c_void, from: u64, len: usize, stream: usize, wait: bool) -> Result<()> {
        self.memory.check(from, len)?;
        if to.is_null() {
            return Err(Error::InvalidValue);
        }
        let to = Host(to.cast());
        let wait = wait || !self.memory.is_pinned(to.0, len);
        self.push(stream, Work::Download { to, from, len })?;
        if wait { self.drain(stream) } else { Ok(()) }
    }

    fn fill(&mut self, to: u64, value: u8, len: usize, stream: usize) -> Result<()> {
        self.memory.check(to, len)?;
        self.push(stream, Work::Fill { to, value, len })
    }

    fn copy(&mut self, to: u64, from: u64, len: usize, stream: usize) -> Result<()> {
        self.memory.check(to, len)?;
        self.memory.check(from, len)?;
        self.push(stream, Work::Copy { to, from, len })
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    call(|device| {
        let all = device.settings.memory;
        // SAFETY: the caller gives pointers to sizes.
        unsafe {
            put(free, all - device.memory.used)?;
            put(total, all)
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, len: usize) -> c_int {
    // SAFETY: the caller gives a pointer to an address.
    call(|device| unsafe { put(address, device.alloc(len)?) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(address: *mut u64, len: usize, _stream: Handle) -> c_int {
    call(|device| {
        let allocated = device.alloc(len).or_else(|error| {
            // What is to be freed may make room.
            device.drain_all()?;
            if error == Error::OutOfMemory { device.alloc(len) } else { Err(error) }
        });
        // SAFETY: the caller gives a pointer to an address.
        unsafe { put(address, allocated?) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    call(|device| {
        if address == 0 {
            return Ok(());
        }
        device.drain_all()?;
        device.memory.free(address)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeAsync(address: u64, stream: Handle) -> c_int {
    call(|device| {
        if !device.memory.is_allocated(address) {
            return Err(Error::InvalidValue);
        }
        device.push(stream.addr(), Work::Free(address))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(pointer: *mut *mut c_void, len: usize, _flags: c_uint) -> c_int {
    // SAFETY: the caller gives a pointer to a pointer.
    call(|device| unsafe { put(pointer, device.memory.alloc_host(len)?.cast()) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocHost_v2(pointer: *mut *mut c_void, len: usize) -> c_int {
    // SAFETY: as for the function that does it.
    unsafe { cuMemHostAlloc(pointer, len, 0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(pointer: *mut c_void) -> c_int {
    always(|device| {
        let len = device.memory.free_host(pointer.cast())?;
        device.forget(pointer.cast(), len);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, len: usize) -> c_int {
    call(|device| device.upload(to, from, len, 0, true))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, len: usize, stream: Handle) -> c_int {
    call(|device| device.upload(to, from, len, stream.addr(), false))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, len: usize) -> c_int {
    call(|device| device.download_to(to, from, len, 0, true))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, len: usize, stream: Handle) -> c_int {
    call(|device| device.download_to(to, from, len, stream.addr(), false))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, len: usize) -> c_int {
    call(|device| device.copy(to, from, len, 0))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, len: usize, stream: Handle) -> c_int {
    call(|device| device.copy(to, from, len, stream.addr()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8_v2(to: u64, value: u8, len: usize) -> c_int {
    call(|device| device.fill(to, value, len, 0))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8Async(to: u64, value: u8, len: usize, stream: Handle) -> c_int {
    call(|device| device.fill(to, value, len, stream.addr()))
}
