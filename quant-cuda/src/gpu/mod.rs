//! A GPU through the CUDA driver.

mod backend;
mod driver;

use backend::Cuda;
pub(crate) use driver::devices;

use crate::queue::DeviceError;
use crate::{Backend, Settings, ptx};

/// A GPU whose driver takes the kernels. It stays open.
///
/// # Errors
/// If there is none.
pub(crate) fn open(settings: &Settings) -> Result<&'static dyn Backend, DeviceError> {
    let device: &'static driver::Device = Box::leak(Box::new(driver::Device::open(settings.ordinal)?));
    // The others are loaded when they are needed: what could keep them from that keeps the first, too.
    if let Some((first, _)) = ptx::MODULES.first() {
        device.load(first)?;
    }
    Ok(Box::leak(Box::new(Cuda::new(device, settings)?)))
}
