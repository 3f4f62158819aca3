//! The CUDA driver behind a safe face: one device, its kernels, and streams with memory of their own.
//!
//! All `unsafe` of this crate is here. The driver is loaded when it is asked for; without one everything else still works.

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use crate::queue::{Arg, Buffer, DeviceError, Kernel, Queue};
use crate::{Devices, Info, LEAST_CAPABILITY, ptx};

/// The oldest CUDA whose driver takes the PTX of this crate, version 7.0: times 1000.
const OLDEST: c_int = 11_000;
/// Buffers begin at multiples of this, which suits any access.
const ALIGNMENT: usize = 256;

/// What is called, which cudarc takes for granted.
const FUNCTIONS: [&str; 25] = [
    "cuDriverGetVersion",
    "cuInit",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuCtxSetCurrent",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemHostAlloc",
    "cuMemsetD8Async",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuLaunchKernel",
    "cuStreamCreate",
    "cuStreamSynchronize",
    "cuStreamDestroy_v2",
    "cuMemFree_v2",
    "cuMemFreeHost",
];

/// Whether the library has a function.
fn has(name: &str) -> bool {
    // SAFETY: the library is loaded, or cannot be, which would have been seen before; the symbol is only looked up.
    unsafe { sys::culib().get::<*const c_void>(name.as_bytes()) }.is_ok()
}

/// A failed call, in words.
fn failed(what: &str, error: DriverError) -> DeviceError {
    let text = |found: Result<&std::ffi::CStr, DriverError>| found.ok().and_then(|text| text.to_str().ok()).map(str::to_owned);
    let name = text(error.error_name()).unwrap_or_else(|| format!("CUDA error {}", error.0 as u32));
    DeviceError::Failed(match text(error.error_string()) {
        Some(about) => format!("the GPU cannot {what}: {about} ({name})"),
        None => format!("the GPU cannot {what}: {name}"),
    })
}

/// The newest CUDA that the driver knows, such as (12, 8), once a driver was found and started.
///
/// # Errors
/// If there is no driver, no device, or the driver is too old.
pub fn start() -> Result<(i32, i32), DeviceError> {
    // SAFETY: it only tries to load the library.
    if !unsafe { sys::is_culib_present() } {
        return Err(DeviceError::Failed("there is no CUDA driver (libcuda.so.1)".into()));
    }
    if let Some(missing) = FUNCTIONS.iter().find(|name| !has(name)) {
        return Err(DeviceError::Failed(format!("the library libcuda.so.1 is no CUDA driver: it has no {missing}")));
    }
    let mut version = 0;
    // SAFETY: the driver writes a number to where it is told.
    let answer = unsafe { sys::cuDriverGetVersion(&raw mut version) };
    answer.result().map_err(|e| failed("say its driver's version", e))?;
    let pair = (version / 1000, version % 1000 / 10);
    if version < OLDEST {
        let (major, minor) = pair;
        return Err(DeviceError::Failed(format!("the CUDA driver is too old: it is of CUDA {major}.{minor}, and 11.0 is needed")));
    }
    result::init().map_err(|e| failed("be used", e))?;
    Ok(pair)
}

/// The devices that there are, and the newest CUDA that the driver knows.
///
/// # Errors
/// As [`start`], and if the driver does not answer.
pub fn devices() -> Result<Devices, DeviceError> {
    let cuda = start()?;
    let count = result::device::get_count().map_err(|e| failed("be counted", e))?;
    let found = (0..count).map(|ordinal| info(ordinal).map_err(|e| failed("be described", e))).collect::<Result<_, _>>()?;
    Ok(Devices { cuda, found })
}

fn info(ordinal: c_int) -> Result<Info, DriverError> {
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as MULTIPROCESSORS,
    };
    let device = result::device::get(ordinal)?;
    // SAFETY: the device is one that the driver has just named.
    let attribute = |attribute| unsafe { result::device::get_attribute(device, attribute) };
    Ok(Info {
        ordinal: ordinal as u32,
        name: result::device::get_name(device)?,
        capability: (attribute(MAJOR)?, attribute(MINOR)?),
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(device)? } as u64,
        multiprocessors: attribute(MULTIPROCESSORS)?,
    })
}

/// A device that is in use, until the program ends.
pub struct Device {
    /// What is known of it.
    pub info: Info,
    context: sys::CUcontext,
    /// The functions that were looked up, by module and name.
    functions: Mutex<HashMap<Kernel, sys::CUfunction>>,
    modules: Mutex<HashMap<&'static str, sys::CUmodule>>,
}

// SAFETY: handles of the driver may be used from all threads; the driver locks what it must.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// Opens a device. It stays open.
    ///
    /// # Errors
    /// As [`start`]; if there is no such device, or it cannot be used.
    pub fn open(ordinal: u32) -> Result<Device, DeviceError> {
        start()?;
        let info = info(ordinal as c_int).map_err(|e| failed("be opened", e))?;
        if info.capability < LEAST_CAPABILITY {
            let (major, minor) = info.capability;
            return Err(DeviceError::Failed(format!("the GPU is too old: {} has compute capability {major}.{minor}, and 7.5 is needed", info.name)));
        }
        let device = result::device::get(ordinal as c_int).map_err(|e| failed("be opened", e))?;
        // SAFETY: the device exists. Its primary context is never released.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(|e| failed("be opened", e))?;
        let device = Device { info, context, functions: Mutex::default(), modules: Mutex::default() };
        device.bind()?;
        Ok(device)
    }

    /// Makes the device that of the calling thread.
    fn bind(&self) -> Result<(), DeviceError> {
        // SAFETY: the context was retained and is never released.
        unsafe { result::ctx::set_current(self.context) }.map_err(|e| failed("be used", e))
    }

    /// Bytes of its memory that are free.
    ///
    /// # Errors
    /// If the device does not answer.
    pub fn free(&self) -> Result<usize, DeviceError> {
        self.bind()?;
        Ok(result::mem_get_info().map_err(|e| failed("say how much memory is free", e))?.0)
    }

    /// Loads a module, if it is not loaded.
    ///
    /// # Errors
    /// If the driver does not take it.
    pub fn load(&self, module: &'static str) -> Result<(), DeviceError> {
        self.bind()?;
        self.module(module).map(|_| ())
    }

    fn module(&self, name: &'static str) -> Result<sys::CUmodule, DeviceError> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(name) {
            return Ok(*module);
        }
        let what = || format!("load the kernels of {name}");
        let text =
            ptx::text(name).and_then(|text| CString::new(text).ok()).ok_or_else(|| DeviceError::Failed(format!("there are no kernels of {name}")))?;
        // SAFETY: the image is a text that ends with a zero; a context is current.
        let module = unsafe { result::module::load_data(text.as_ptr().cast()) }.map_err(|e| failed(&what(), e))?;
        modules.insert(name, module);
        Ok(module)
    }

    fn function(&self, kernel: Kernel) -> Result<sys::CUfunction, DeviceError> {
        if let Some(function) = self.functions.lock().unwrap_or_else(PoisonError::into_inner).get(&kernel) {
            return Ok(*function);
        }
        let module = self.module(kernel.module)?;
        let what = || format!("find the kernel {}", kernel.name);
        let name = CString::new(kernel.name).map_err(|_| DeviceError::Failed(what()))?;
        // SAFETY: modules are never unloaded.
        let function = unsafe { result::module::get_function(module, name) }.map_err(|e| failed(&what(), e))?;
        self.functions.lock().unwrap_or_else(PoisonError::into_inner).insert(kernel, function);
        Ok(function)
    }
}

/// A stream with device memory of its own, and as much pinned memory that copies go through.
pub struct Lane<'d> {
    device: &'d Device,
    stream: sys::CUstream,
    arena: sys::CUdeviceptr,
    pinned: *mut u8,
    len: usize,
    /// Bytes of the arena in use.
    used: usize,
    /// Bytes of pinned memory whose copies may still run.
    staged: usize,
}

// SAFETY: a lane is used by one thread at a time, and handles of the driver do not belong to threads.
unsafe impl Send for Lane<'_> {}

impl<'d> Lane<'d> {
    /// A lane with `len` bytes on the device.
    ///
    /// # Errors
    /// If there is not so much memory.
    pub fn new(device: &'d Device, len: usize) -> Result<Lane<'d>, DeviceError> {
        device.bind()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(|e| failed("open a stream", e))?;
        let mut lane = Lane { device, stream, arena: 0, pinned: std::ptr::null_mut(), len, used: 0, staged: 0 };
        // SAFETY: the memory is written before it is read, by copies and by kernels.
        lane.arena = unsafe { result::malloc_sync(len) }.map_err(|e| failed(&format!("give {len} bytes of its memory"), e))?;
        // SAFETY: the memory is written before it is read, by copies.
        let pinned = unsafe { result::malloc_host(len, 0) }.map_err(|e| failed(&format!("pin {len} bytes of the host's memory"), e))?;
        lane.pinned = pinned.cast();
        Ok(lane)
    }

    /// Makes the lane that of the calling thread.
    ///
    /// # Errors
    /// If the device is lost.
    pub fn bind(&self) -> Result<(), DeviceError> {
        self.device.bind()
    }

    /// Waits until all is done.
    fn wait(&mut self) -> Result<(), DeviceError> {
        // SAFETY: the stream lives as long as the lane.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|e| failed("finish its work", e))?;
        self.staged = 0;
        Ok(())
    }

    /// A piece of pinned memory that no copy uses.
    fn stage(&mut self, len: usize) -> Result<&mut [u8], DeviceError> {
        if len > self.len - self.staged {
            self.wait()?;
        }
        let start = self.staged;
        self.staged = (start + len).next_multiple_of(ALIGNMENT).min(self.len);
        // SAFETY: `start + len` is at most `self.len`, all of it is pinned memory that was written before or is about to be (bytes have
        // no invalid values once the driver has handed them out), and no copy that is under way uses it.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.pinned.add(start), len) })
    }

    fn alloc(&mut self, len: usize) -> Result<Buffer, DeviceError> {
        if len > self.len - self.used {
            return Err(DeviceError::Full);
        }
        let buffer = Buffer { address: self.arena + self.used as u64, len };
        self.used = (self.used + len).next_multiple_of(ALIGNMENT).min(self.len);
        Ok(buffer)
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        // What fails here fails as the program ends; there is nobody to tell.
        let _ = self.bind();
        let _ = self.wait();
        // SAFETY: nothing uses the memory any more, and each piece came from the call that belongs to this one.
        unsafe {
            if !self.pinned.is_null() {
                let _ = result::free_host(self.pinned.cast());
            }
            if self.arena != 0 {
                let _ = result::free_sync(self.arena);
            }
            let _ = result::stream::destroy(self.stream);
        }
    }
}

impl Queue for Lane<'_> {
    fn room(&mut self, len: usize) -> Result<Buffer, DeviceError> {
        let buffer = self.alloc(len)?;
        if len > 0 {
            // SAFETY: the buffer is in the arena.
            unsafe { result::memset_d8_async(buffer.address, 0, len, self.stream) }.map_err(|e| failed("clear its memory", e))?;
        }
        Ok(buffer)
    }

    fn upload(&mut self, bytes: &[u8]) -> Result<Buffer, DeviceError> {
        let buffer = self.alloc(bytes.len())?;
        if !bytes.is_empty() {
            let stream = self.stream;
            let staged = self.stage(bytes.len())?;
            staged.copy_from_slice(bytes);
            // SAFETY: the buffer is in the arena and as long; the staged bytes stay until the copy is done, see `stage`.
            unsafe { result::memcpy_htod_async(buffer.address, staged, stream) }.map_err(|e| failed("take a copy", e))?;
        }
        Ok(buffer)
    }

    fn launch(&mut self, kernel: Kernel, grid: u32, threads: u32, args: &[Arg]) -> Result<(), DeviceError> {
        let function = self.device.function(kernel)?;
        let mut values: Vec<u64> = args.iter().map(value).collect();
        let mut params: Vec<*mut c_void> = values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        // SAFETY: the tests run each kernel with these very arguments in the interpreter, which holds their number and sizes against
        // the kernel's parameters; little-endian values are found at the start of 8 bytes. The driver copies them before it returns.
        let launched = unsafe { result::launch_kernel(function, (grid, 1, 1), (threads, 1, 1), 0, self.stream, &mut params) };
        launched.map_err(|e| failed(&format!("launch {}", kernel.name), e))
    }

    fn download(&mut self, buffer: Buffer, out: &mut [u8]) -> Result<(), DeviceError> {
        if out.is_empty() {
            return self.wait();
        }
        if out.len() > buffer.len {
            return Err(DeviceError::Failed(format!("{} bytes of a buffer of {}", out.len(), buffer.len)));
        }
        let stream = self.stream;
        let staged = self.stage(out.len())?;
        // SAFETY: the buffer is in the arena and as long as what is staged, which nobody touches before the copy is done.
        unsafe { result::memcpy_dtoh_async(staged, buffer.address, stream) }.map_err(|e| failed("give a copy", e))?;
        let staged = std::ptr::from_ref(staged).cast::<u8>();
        self.wait()?;
        // SAFETY: it is the piece of pinned memory from above, which the copy has filled.
        out.copy_from_slice(unsafe { std::slice::from_raw_parts(staged, out.len()) });
        Ok(())
    }

    fn reset(&mut self) {
        self.used = 0;
    }
}

/// The bytes of an argument, from the lowest on.
fn value(arg: &Arg) -> u64 {
    match *arg {
        Arg::Buffer(buffer) => buffer.address,
        Arg::Null => 0,
        Arg::U32(value) => value.into(),
        Arg::U64(value) => value,
        Arg::F32(value) => value.to_bits().into(),
    }
}
