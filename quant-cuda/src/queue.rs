//! [`Queue`]: what a kernel needs of a device. A GPU's stream is one, and so is the interpreter of the tests.

use std::fmt;

/// Bytes on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// The device's address.
    pub address: u64,
    /// Its length in bytes.
    pub len: usize,
}

impl Buffer {
    /// The buffer from byte `offset` on.
    pub fn from(self, offset: usize) -> Buffer {
        Buffer { address: self.address + offset as u64, len: self.len - offset }
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Arg {
    /// A pointer to a buffer.
    Buffer(Buffer),
    /// A null pointer.
    Null,
    /// An unsigned int.
    U32(u32),
    /// An unsigned long long.
    U64(u64),
    /// A float.
    F32(f32),
}

/// A kernel: the module (the name of the `.cu` file, without its ending) and the function in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// The module.
    pub module: &'static str,
    /// The function.
    pub name: &'static str,
}

/// Why a device did not do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceError {
    /// There is no room for what is to be done.
    Full,
    /// It failed; what happened.
    Failed(String),
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceError::Full => f.write_str("there is no room left in the memory of the device"),
            DeviceError::Failed(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for DeviceError {}

/// What is done on a device, one after the other.
pub trait Queue {
    /// Room for `len` bytes, zeroed, until [`Queue::reset`].
    ///
    /// # Errors
    /// If there is no room.
    fn room(&mut self, len: usize) -> Result<Buffer, DeviceError>;

    /// Bytes on the device, until [`Queue::reset`].
    ///
    /// # Errors
    /// If there is no room, or the device fails.
    fn upload(&mut self, bytes: &[u8]) -> Result<Buffer, DeviceError>;

    /// Runs a kernel over `grid` thread blocks of `threads` threads.
    ///
    /// # Errors
    /// If the device fails.
    fn launch(&mut self, kernel: Kernel, grid: u32, threads: u32, args: &[Arg]) -> Result<(), DeviceError>;

    /// The first `out.len()` bytes of a buffer, when all that was asked for before is done.
    ///
    /// # Errors
    /// If the device fails, or failed before.
    fn download(&mut self, buffer: Buffer, out: &mut [u8]) -> Result<(), DeviceError>;

    /// Frees all buffers.
    fn reset(&mut self);
}
