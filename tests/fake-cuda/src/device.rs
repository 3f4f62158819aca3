//! The one device: its state, and who may call.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use ptx_sim::Module;

use crate::error::{Error, Result, code};
use crate::memory::DeviceMemory;
use crate::settings::Settings;
use crate::stream::{Event, Stream};

pub(crate) struct Device {
    pub settings: Settings,
    pub memory: DeviceMemory,
    /// By their handles. The null stream is 0.
    pub streams: BTreeMap<usize, Stream>,
    pub events: BTreeMap<usize, Event>,
    pub modules: BTreeMap<usize, Arc<Module>>,
    pub functions: BTreeMap<usize, Function>,
    /// Whether `cuInit` was called, and found the device.
    pub initialized: bool,
    /// What all calls give once a kernel has failed.
    pub failed: Option<Error>,
    pub launches: u64,
    pub downloads: u64,
    /// Pieces of work that were asked for.
    pub tickets: u64,
    /// Streams that were made.
    pub stream_count: usize,
    next_handle: usize,
}

/// A kernel of a module.
#[derive(Clone)]
pub(crate) struct Function {
    pub module: Arc<Module>,
    pub name: String,
}

thread_local! {
    /// Whether the context is the thread's current one.
    static CURRENT: Cell<bool> = const { Cell::new(false) };
}

static DEVICE: LazyLock<Mutex<Device>> = LazyLock::new(|| {
    Mutex::new(Device {
        settings: Settings::read(),
        memory: DeviceMemory::default(),
        streams: BTreeMap::from([(0, Stream::new(0))]),
        events: BTreeMap::new(),
        modules: BTreeMap::new(),
        functions: BTreeMap::new(),
        initialized: false,
        failed: None,
        launches: 0,
        downloads: 0,
        tickets: 0,
        stream_count: 0,
        next_handle: 0x1000,
    })
});

impl Device {
    /// A number for something new.
    pub fn handle(&mut self) -> usize {
        // Like a pointer, and never one of the small numbers that name special streams.
        self.next_handle += 16;
        self.next_handle
    }
}

/// Makes the context the thread's current one, or none.
pub(crate) fn set_current(current: bool) {
    CURRENT.set(current);
}

pub(crate) fn is_current() -> bool {
    CURRENT.get()
}

/// A call that is the first one, or may be.
pub(crate) fn first(work: impl FnOnce(&mut Device) -> Result<()>) -> i32 {
    code(work(&mut DEVICE.lock().unwrap_or_else(PoisonError::into_inner)))
}

/// A call that needs no context, and works when a kernel has failed, too.
pub(crate) fn always(work: impl FnOnce(&mut Device) -> Result<()>) -> i32 {
    first(|device| if device.initialized { work(device) } else { Err(Error::NotInitialized) })
}

/// A call that needs the context, on a device that works.
pub(crate) fn call(work: impl FnOnce(&mut Device) -> Result<()>) -> i32 {
    always(|device| {
        if !is_current() {
            return Err(Error::InvalidContext);
        }
        device.failed.map_or(Ok(()), Err)?;
        work(device)
    })
}
