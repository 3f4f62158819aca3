//! Modules, kernels and launches.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

use ptx_sim::{Module, Shape};

use super::{Handle, handle, put, text};
use crate::device::{Device, Function, always, call};
use crate::error::{Error, Result};
use crate::settings::CAPABILITY;
use crate::stream::{Start, Work};

/// How compiled code begins, which cannot run here: ELF, and NVIDIA's container.
const COMPILED: [&[u8]; 2] = [b"\x7fELF", b"\x50\xed\x55\xba"];

impl Device {
    /// A module of an image: its handle.
    fn load(&mut self, image: &[u8]) -> Result<usize> {
        if COMPILED.iter().any(|start| image.starts_with(start)) {
            eprintln!("fake-cuda: compiled code cannot run here, only PTX");
            return Err(Error::InvalidImage);
        }
        if self.settings.bad_image {
            return Err(Error::InvalidImage);
        }
        let newest = self.settings.newest_ptx;
        let text = std::str::from_utf8(image).map_err(|_| Error::InvalidImage)?;
        // What has no version is no PTX.
        if newest < version(text).ok_or(Error::InvalidImage)? {
            return Err(Error::UnsupportedPtxVersion);
        }
        let module = Module::parse(text).map_err(|error| {
            eprintln!("fake-cuda: {error}");
            Error::InvalidPtx
        })?;
        if capability(module.target()).is_none_or(|needed| needed > CAPABILITY) {
            eprintln!("fake-cuda: the device is of sm_{CAPABILITY}, the module of {}", module.target());
            return Err(Error::InvalidPtx);
        }
        let number = self.handle();
        self.modules.insert(number, Arc::new(module));
        Ok(number)
    }
}

/// The version that a text of PTX says it is of.
fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(".version")?.1.split_whitespace().next()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The compute capability, times 10, that a target such as `sm_75` needs.
fn capability(target: &str) -> Option<u32> {
    target.strip_prefix("sm_")?.parse().ok()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut Handle, image: *const c_void) -> c_int {
    if image.is_null() {
        return Error::InvalidValue as c_int;
    }
    // SAFETY: PTX ends with a zero byte, and compiled code has one.
    let image = unsafe { CStr::from_ptr(image.cast()) };
    // SAFETY: the caller gives a pointer to a module.
    call(|device| unsafe { put(module, handle(device.load(image.to_bytes())?)) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut Handle,
    image: *const c_void,
    _count: c_uint,
    _options: *mut c_int,
    _values: *mut *mut c_void,
) -> c_int {
    // SAFETY: as for the function that does it.
    unsafe { cuModuleLoadData(module, image) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoad(module: *mut Handle, path: *const c_char) -> c_int {
    call(|device| {
        // SAFETY: the caller gives a string.
        let image = std::fs::read(unsafe { text(path)? }).map_err(|_| Error::FileNotFound)?;
        // SAFETY: the caller gives a pointer to a module.
        unsafe { put(module, handle(device.load(&image)?)) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleUnload(module: Handle) -> c_int {
    always(|device| device.modules.remove(&module.addr()).map(drop).ok_or(Error::InvalidHandle))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) -> c_int {
    call(|device| {
        let module = device.modules.get(&module.addr()).ok_or(Error::InvalidHandle)?.clone();
        // SAFETY: the caller gives a string.
        let name = unsafe { text(name)? }.to_owned();
        module.kernel(&name).ok_or(Error::NotFound)?;
        let number = device.handle();
        device.functions.insert(number, Function { module, name });
        // SAFETY: the caller gives a pointer to a function.
        unsafe { put(function, handle(number)) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: Handle) -> c_int {
    call(|device| {
        let function = device.functions.get(&function.addr()).ok_or(Error::InvalidHandle)?;
        let kernel = function.module.kernel(&function.name).ok_or(Error::NotFound)?;
        let found = match attribute {
            0 => kernel.max_threads(),
            1 => kernel.shared_bytes(),
            3 => kernel.local_bytes(),
            5 | 6 => CAPABILITY as usize,
            _ => 0,
        };
        // SAFETY: the caller gives a pointer to an int.
        unsafe { put(value, found as c_int) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncSetAttribute(_function: Handle, _attribute: c_int, _value: c_int) -> c_int {
    call(|_| Ok(()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: Handle,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    threads_x: c_uint,
    threads_y: c_uint,
    threads_z: c_uint,
    shared: c_uint,
    stream: Handle,
    params: *const *const u8,
    _extra: *mut *mut c_void,
) -> c_int {
    call(|device| {
        let function = device.functions.get(&function.addr()).ok_or(Error::InvalidHandle)?.clone();
        let kernel = function.module.kernel(&function.name).ok_or(Error::NotFound)?;
        let mut bytes = vec![0; kernel.param_bytes()];
        for (index, param) in kernel.params().iter().enumerate() {
            if params.is_null() {
                return Err(Error::InvalidValue);
            }
            // SAFETY: the caller gives a pointer for each parameter.
            let from = unsafe { *params.add(index) };
            if from.is_null() {
                return Err(Error::InvalidValue);
            }
            // SAFETY: it is a pointer to as many bytes as the parameter has.
            bytes[param.offset..][..param.bytes].copy_from_slice(unsafe { std::slice::from_raw_parts(from, param.bytes) });
        }
        let (grid, threads) = (Shape([grid_x, grid_y, grid_z]), Shape([threads_x, threads_y, threads_z]));
        let start = Start { function, grid, threads, shared: shared as usize, params: bytes };
        start.launch().check().map_err(|fault| {
            eprintln!("fake-cuda: {fault}");
            Error::InvalidValue
        })?;
        device.push(stream.addr(), Work::Launch(Box::new(start)))
    })
}
