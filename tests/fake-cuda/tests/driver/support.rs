//! The functions of the driver that the tests call, as cudarc has them, without `unsafe`.
//!
//! That is sound on the stand-in: it copies from and to pinned memory while somebody waits in it, so never beside a test.

use std::ffi::{CString, c_int, c_uint, c_void};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUevent_flags as Flags, CUresult};

pub type Result<T, E = CUresult> = std::result::Result<T, E>;

fn code<T>(result: std::result::Result<T, DriverError>) -> Result<T> {
    result.map_err(|error| error.0)
}

/// The device's primary context is that of the thread.
pub fn start() -> Result<()> {
    code(result::init())?;
    let device = code(result::device::get(0))?;
    // SAFETY: the device exists.
    let context = code(unsafe { result::primary_ctx::retain(device) })?;
    // SAFETY: the context is never released.
    code(unsafe { result::ctx::set_current(context) })
}

pub fn attribute(attribute: Attribute) -> Result<i32> {
    // SAFETY: 0 is a device.
    code(unsafe { result::device::get_attribute(0, attribute) })
}

pub fn total_memory() -> Result<usize> {
    // SAFETY: 0 is a device.
    code(unsafe { result::device::total_mem(0) })
}

pub fn driver_version() -> c_int {
    let mut version = 0;
    // SAFETY: the driver writes a number to where it is told.
    assert_eq!(unsafe { sys::cuDriverGetVersion(&raw mut version) }, CUresult::CUDA_SUCCESS);
    version
}

pub fn device_name() -> Result<String> {
    code(result::device::get_name(0))
}

/// Bytes that are free, and all.
pub fn free_memory() -> Result<(usize, usize)> {
    code(result::mem_get_info())
}

pub fn synchronize() -> Result<()> {
    code(result::ctx::synchronize())
}

/// The name and the description of an error.
pub fn described(error: CUresult) -> [String; 2] {
    let error = DriverError(error);
    [error.error_name(), error.error_string()].map(|text| text.unwrap().to_str().unwrap().to_owned())
}

pub fn alloc(len: usize) -> Result<u64> {
    // SAFETY: nobody reads what the memory held.
    code(unsafe { result::malloc_sync(len) })
}

pub fn free(address: u64) -> Result<()> {
    // SAFETY: what is no memory is refused, and nobody reads from an address.
    code(unsafe { result::free_sync(address) })
}

/// A copy from the host, on the null stream.
pub fn write(to: u64, bytes: &[u8]) -> Result<()> {
    // SAFETY: what is no memory is refused.
    code(unsafe { result::memcpy_htod_sync(to, bytes) })
}

/// A copy to the host, on the null stream.
pub fn read(from: u64, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    // SAFETY: what is no memory is refused.
    code(unsafe { result::memcpy_dtoh_sync(&mut bytes, from) })?;
    Ok(bytes)
}

/// Pinned memory.
pub struct Pinned {
    pointer: *mut u8,
    len: usize,
}

impl Pinned {
    pub fn new(len: usize) -> Result<Self> {
        // SAFETY: the stand-in fills the memory, so all of it can be read.
        let pointer = code(unsafe { result::malloc_host(len, 0) })?;
        Ok(Self { pointer: pointer.cast(), len })
    }

    pub fn of(bytes: &[u8]) -> Result<Self> {
        let mut pinned = Self::new(bytes.len())?;
        pinned.bytes_mut().copy_from_slice(bytes);
        Ok(pinned)
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: it is so long, it is freed with `self` only, and see above.
        unsafe { std::slice::from_raw_parts(self.pointer, self.len) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.len) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: it came from the call that belongs to this one.
        code(unsafe { result::free_host(self.pointer.cast()) }).unwrap();
    }
}

#[derive(Clone, Copy)]
pub struct Event(sys::CUevent);

impl Event {
    pub fn new() -> Result<Self> {
        code(result::event::create(Flags::CU_EVENT_DISABLE_TIMING)).map(Self)
    }

    pub fn timed() -> Result<Self> {
        code(result::event::create(Flags::CU_EVENT_DEFAULT)).map(Self)
    }

    pub fn query(self) -> Result<()> {
        // SAFETY: handles that are none are refused, here and below.
        code(unsafe { result::event::query(self.0) })
    }

    pub fn synchronize(self) -> Result<()> {
        // SAFETY: as above.
        code(unsafe { result::event::synchronize(self.0) })
    }

    pub fn since(self, earlier: Self) -> Result<f32> {
        // SAFETY: as above.
        code(unsafe { result::event::elapsed(earlier.0, self.0) })
    }

    pub fn destroy(self) -> Result<()> {
        // SAFETY: as above.
        code(unsafe { result::event::destroy(self.0) })
    }
}

#[derive(Clone, Copy)]
pub struct Stream(sys::CUstream);

impl Stream {
    pub const NULL: Self = Self(std::ptr::null_mut());

    pub fn new() -> Result<Self> {
        code(result::stream::create(result::stream::StreamKind::NonBlocking)).map(Self)
    }

    pub fn upload(self, to: u64, from: &[u8]) -> Result<()> {
        // SAFETY: pinned memory may change or go, see above; the stand-in waits for copies from other memory.
        code(unsafe { result::memcpy_htod_async(to, from, self.0) })
    }

    pub fn download(self, to: &mut [u8], from: u64) -> Result<()> {
        // SAFETY: as above.
        code(unsafe { result::memcpy_dtoh_async(to, from, self.0) })
    }

    pub fn copy(self, to: u64, from: u64, len: usize) -> Result<()> {
        // SAFETY: what is no memory is refused, here and below.
        code(unsafe { result::memcpy_dtod_async(to, from, len, self.0) })
    }

    pub fn fill(self, to: u64, value: u8, len: usize) -> Result<()> {
        // SAFETY: as above.
        code(unsafe { result::memset_d8_async(to, value, len, self.0) })
    }

    pub fn alloc(self, len: usize) -> Result<u64> {
        // SAFETY: nobody reads what the memory held.
        code(unsafe { result::malloc_async(self.0, len) })
    }

    pub fn free(self, address: u64) -> Result<()> {
        // SAFETY: what is no memory is refused.
        code(unsafe { result::free_async(address, self.0) })
    }

    pub fn record(self, event: Event) -> Result<()> {
        // SAFETY: handles that are none are refused, here and below.
        code(unsafe { result::event::record(event.0, self.0) })
    }

    pub fn wait(self, event: Event) -> Result<()> {
        // SAFETY: as above.
        code(unsafe { result::stream::wait_event(self.0, event.0, sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT) })
    }

    pub fn query(self) -> Result<()> {
        // SAFETY: as above.
        match unsafe { sys::cuStreamQuery(self.0) } {
            CUresult::CUDA_SUCCESS => Ok(()),
            error => Err(error),
        }
    }

    pub fn synchronize(self) -> Result<()> {
        // SAFETY: as above.
        code(unsafe { result::stream::synchronize(self.0) })
    }

    pub fn destroy(self) -> Result<()> {
        // SAFETY: as above.
        code(unsafe { result::stream::destroy(self.0) })
    }

    /// Runs a kernel whose parameters are 8 bytes each, or fewer. None is a parameter that is not given.
    pub fn launch(self, kernel: Kernel, grid: c_uint, threads: c_uint, params: &[Option<u64>]) -> Result<()> {
        let pointer = |param: &Option<u64>| param.as_ref().map_or(std::ptr::null_mut(), |value| std::ptr::from_ref(value).cast_mut().cast());
        let mut params: Vec<*mut c_void> = params.iter().map(pointer).collect();
        // SAFETY: the tests give as many parameters as the kernel has, and the stand-in writes to none.
        code(unsafe { result::launch_kernel(kernel.0, (grid, 1, 1), (threads, 1, 1), 0, self.0, &mut params) })
    }
}

#[derive(Clone, Copy)]
pub struct Module(sys::CUmodule);

#[derive(Clone, Copy)]
pub struct Kernel(sys::CUfunction);

impl Module {
    pub fn load(text: &str) -> Result<Self> {
        let text = CString::new(text).unwrap();
        // SAFETY: it ends with a zero.
        code(unsafe { result::module::load_data(text.as_ptr().cast()) }).map(Self)
    }

    pub fn kernel(self, name: &str) -> Result<Kernel> {
        // SAFETY: handles that are none are refused.
        code(unsafe { result::module::get_function(self.0, CString::new(name).unwrap()) }).map(Kernel)
    }

    pub fn unload(self) -> Result<()> {
        // SAFETY: as above.
        code(unsafe { result::module::unload(self.0) })
    }
}
