//! Streams and events.

use std::ffi::{c_int, c_uint};

use super::{Handle, handle, put};
use crate::device::{always, call};
use crate::error::Error;
use crate::stream::{Event, Stream};

/// A flag: the event is not there to tell the time.
const NO_TIME: c_uint = 2;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut Handle, _flags: c_uint) -> c_int {
    call(|device| {
        let number = device.handle();
        device.stream_count += 1;
        device.streams.insert(number, Stream::new(device.stream_count));
        // SAFETY: the caller gives a pointer to a stream.
        unsafe { put(stream, handle(number)) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(stream: *mut Handle, flags: c_uint, _priority: c_int) -> c_int {
    // SAFETY: as for the function that does it.
    unsafe { cuStreamCreate(stream, flags) }
}

/// Its work is done first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamDestroy_v2(stream: Handle) -> c_int {
    call(|device| {
        if stream.is_null() {
            return Err(Error::InvalidHandle);
        }
        device.drain(stream.addr())?;
        device.streams.remove(&stream.addr());
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamSynchronize(stream: Handle) -> c_int {
    call(|device| device.drain(stream.addr()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamQuery(stream: Handle) -> c_int {
    call(|device| device.query_stream(stream.addr()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: c_uint) -> c_int {
    call(|device| device.wait(stream.addr(), event.addr()))
}

/// Nothing is ever captured.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamIsCapturing(_stream: Handle, status: *mut c_int) -> c_int {
    // SAFETY: the caller gives a pointer to an int.
    call(|_| unsafe { put(status, 0) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamBeginCapture_v2(_stream: Handle, _mode: c_int) -> c_int {
    call(|_| Err(Error::NotSupported))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut Handle, flags: c_uint) -> c_int {
    call(|device| {
        let number = device.handle();
        device.events.insert(number, Event::new(flags & NO_TIME == 0));
        // SAFETY: the caller gives a pointer to an event.
        unsafe { put(event, handle(number)) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventDestroy_v2(event: Handle) -> c_int {
    always(|device| device.events.remove(&event.addr()).map(drop).ok_or(Error::InvalidHandle))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventRecord(event: Handle, stream: Handle) -> c_int {
    call(|device| device.record(event.addr(), stream.addr()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventSynchronize(event: Handle) -> c_int {
    call(|device| device.synchronize_event(event.addr()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventQuery(event: Handle) -> c_int {
    call(|device| device.query_event(event.addr()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, from: Handle, to: Handle) -> c_int {
    // SAFETY: the caller gives a pointer to a float.
    call(|device| unsafe { put(milliseconds, device.elapsed(from.addr(), to.addr())?) })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime_v2(milliseconds: *mut f32, from: Handle, to: Handle) -> c_int {
    // SAFETY: as for the function that does it.
    unsafe { cuEventElapsedTime(milliseconds, from, to) }
}
