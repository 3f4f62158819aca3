//! The functions of the driver, by their names. What they do, and what callers owe them, is in NVIDIA's manual of the driver API.
#![allow(non_snake_case, reason = "the names are the driver's")]
#![allow(clippy::missing_safety_doc, reason = "the driver's manual says what callers owe")]

mod context;
mod memory;
mod module;
mod stream;

use std::ffi::{CStr, c_char, c_void};

use crate::error::{Error, Result};

/// A context, stream, event, module or function.
type Handle = *mut c_void;

fn handle(number: usize) -> Handle {
    std::ptr::without_provenance_mut(number)
}

/// Writes a result to where the caller wants it.
///
/// # Safety
/// The pointer must be null, or one to which a `T` may be written.
unsafe fn put<T>(to: *mut T, value: T) -> Result<()> {
    if to.is_null() {
        return Err(Error::InvalidValue);
    }
    // SAFETY: as for this function.
    unsafe { to.write(value) };
    Ok(())
}

/// Reads a string.
///
/// # Safety
/// The pointer must be null, or point to a string that ends with a zero byte and lives as long as the result.
unsafe fn text<'a>(from: *const c_char) -> Result<&'a str> {
    if from.is_null() {
        return Err(Error::InvalidValue);
    }
    // SAFETY: as for this function.
    let text = unsafe { CStr::from_ptr(from) };
    text.to_str().map_err(|_| Error::InvalidValue)
}
