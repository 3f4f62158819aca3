//! The device and its context.

use std::ffi::{c_char, c_int, c_uint};

use super::{Handle, handle, put};
use crate::device::{always, call, first, is_current, set_current};
use crate::error::{Error, code, describe};
use crate::settings::CAPABILITY;

/// What the one context is known by.
const CONTEXT: usize = 0xc0;

const NAME: &[u8] = b"ptx-sim, no GPU\0";

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuInit(_flags: c_uint) -> c_int {
    first(|device| {
        device.initialized = !device.settings.no_device;
        if device.initialized { Ok(()) } else { Err(Error::NoDevice) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    // SAFETY: the caller gives a pointer to an int.
    first(|device| unsafe { put(version, device.settings.driver) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    // SAFETY: the caller gives a pointer to an int.
    always(|_| unsafe { put(count, 1) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    always(|_| match ordinal {
        // SAFETY: the caller gives a pointer to an int.
        0 => unsafe { put(device, 0) },
        _ => Err(Error::InvalidDevice),
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, _device: c_int) -> c_int {
    always(|_| {
        let len = usize::try_from(len).map_err(|_| Error::InvalidValue)?;
        for (index, byte) in NAME.iter().take(len).enumerate() {
            // SAFETY: the caller gives room for `len` bytes.
            unsafe { put(name.wrapping_add(index), *byte as c_char)? };
        }
        // A name that is cut off ends with a zero, too.
        let last = len.checked_sub(1).ok_or(Error::InvalidValue)?.min(NAME.len() - 1);
        // SAFETY: as above.
        unsafe { put(name.wrapping_add(last), 0) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], _device: c_int) -> c_int {
    // SAFETY: the caller gives a pointer to 16 bytes.
    always(|_| unsafe { put(uuid, *b"ptx-sim: no GPU.") })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) -> c_int {
    // SAFETY: as for the function that does it.
    unsafe { cuDeviceGetUuid_v2(uuid, device) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _device: c_int) -> c_int {
    // SAFETY: the caller gives a pointer to a size.
    always(|device| unsafe { put(bytes, device.settings.memory) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) -> c_int {
    let found = match attribute {
        // Threads of a block, and of a block along each axis.
        1..=3 => 1024,
        4 => 64,
        // Blocks of a grid along each axis.
        5 => c_int::MAX,
        6 | 7 => 65_535,
        // Bytes of shared memory of a block.
        8 | 97 => 49_152,
        // Lanes of a warp.
        10 => 32,
        // Registers of a block.
        12 | 82 => 65_536,
        // Kilohertz, multiprocessors, and threads of one.
        13 => 1_000_000,
        16 => 4,
        39 => 1024,
        // Copies beside kernels, and kernels beside kernels.
        15 | 31 | 40 => 1,
        // Compute capability.
        75 => (CAPABILITY / 10) as c_int,
        76 => (CAPABILITY % 10) as c_int,
        81 => 65_536,
        // Memory pools, so `cuMemAllocAsync`.
        115 => 1,
        _ => 0,
    };
    always(|device| {
        let found = if attribute == 76 && device.settings.old_device { 0 } else { found };
        // SAFETY: the caller gives a pointer to an int.
        unsafe { put(value, found) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut Handle, _device: c_int) -> c_int {
    // SAFETY: the caller gives a pointer to a context.
    always(|_| unsafe { put(context, handle(CONTEXT)) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRelease_v2(_device: c_int) -> c_int {
    always(|_| Ok(()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetCurrent(context: Handle) -> c_int {
    always(|_| {
        if !context.is_null() && context.addr() != CONTEXT {
            return Err(Error::InvalidContext);
        }
        set_current(!context.is_null());
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetCurrent(context: *mut Handle) -> c_int {
    let current = handle(if is_current() { CONTEXT } else { 0 });
    // SAFETY: the caller gives a pointer to a context.
    always(|_| unsafe { put(context, current) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetDevice(device: *mut c_int) -> c_int {
    // SAFETY: the caller gives a pointer to an int.
    call(|_| unsafe { put(device, 0) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSetFlags(_flags: c_uint) -> c_int {
    call(|_| Ok(()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxSynchronize() -> c_int {
    call(|device| device.drain_all())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(error: c_int, name: *mut *const c_char) -> c_int {
    // SAFETY: the caller gives a pointer to a string.
    code(describe(error).ok_or(Error::InvalidValue).and_then(|(found, _)| unsafe { put(name, found.as_ptr()) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(error: c_int, text: *mut *const c_char) -> c_int {
    // SAFETY: the caller gives a pointer to a string.
    code(describe(error).ok_or(Error::InvalidValue).and_then(|(_, found)| unsafe { put(text, found.as_ptr()) }))
}
