//! [`Cuda`]: the backend that encodes and decodes slabs on a GPU.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use quant_core::Dtype;
use quant_core::audit::DeviceSums;
use quant_core::backend::{Backend, Encoded, Failure, Target, numbers};
use quant_core::codec::{Slab, Tally};
use zerocopy::IntoBytes;

use super::driver::{Device, Lane};
use crate::queue::{DeviceError, Queue};
use crate::run::{self, Decode, Encode, Outcome};
use crate::{LEAST_MEMORY, Settings};

/// Bytes of device memory that an element of a slab may need: as f32, its importance, codes, and what else there is.
const PER_ELEMENT: usize = 16;
/// Elements of the longest slab.
const LONGEST_SLAB: u64 = 1 << 20;
/// Bytes that no slab needs more of, with room for what begins at multiples of 256.
const LONGEST: usize = LONGEST_SLAB as usize * PER_ELEMENT + (1 << 16);

/// A GPU, in the place of the CPU.
pub struct Cuda<'d> {
    device: &'d Device,
    lanes: Mutex<Vec<Lane<'d>>>,
    returned: Condvar,
    slab: u64,
    falls_back: bool,
    /// Why the GPU is not used any more.
    lost: OnceLock<String>,
    on_device: AtomicU64,
    /// Slabs that the CPU did: without a kernel, or with numbers that kernels leave to it; and those too large for the memory.
    on_cpu: AtomicU64,
    too_large: AtomicU64,
}

impl<'d> Cuda<'d> {
    /// Streams and memory on a device.
    ///
    /// # Errors
    /// If the device has not so much memory, or fails.
    pub fn new(device: &'d Device, settings: &Settings) -> Result<Cuda<'d>, DeviceError> {
        let streams = settings.streams.max(1);
        let free = device.free()?;
        let len = (settings.memory.min(free / 2) / streams / 256 * 256).min(LONGEST);
        let slab = (len / PER_ELEMENT) as u64;
        if len < LEAST_MEMORY {
            let needed = LEAST_MEMORY * streams;
            return Err(DeviceError::Failed(format!(
                "the GPU is out of memory: {free} bytes are free, and {streams} streams need half of that to be {needed}"
            )));
        }
        let lanes = (0..streams).map(|_| Lane::new(device, len)).collect::<Result<Vec<_>, _>>()?;
        Ok(Cuda {
            device,
            lanes: Mutex::new(lanes),
            returned: Condvar::new(),
            // A power of two, so that most schemes' blocks fill it.
            slab: (1 << slab.ilog2()).min(LONGEST_SLAB),
            falls_back: settings.falls_back,
            lost: OnceLock::new(),
            on_device: AtomicU64::new(0),
            on_cpu: AtomicU64::new(0),
            too_large: AtomicU64::new(0),
        })
    }

    /// Runs work on a lane, waiting for one to be free. None: the CPU has to do it.
    fn on_lane<T>(&self, work: impl FnOnce(&mut Lane<'d>) -> Result<Option<T>, DeviceError>) -> Result<Option<T>, String> {
        if self.lost.get().is_some() {
            return Ok(None);
        }
        let mut lane = self.lane();
        let done = lane.bind().and_then(|()| work(&mut lane));
        lane.reset();
        self.free().push(lane);
        self.returned.notify_one();
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match done {
            Ok(done) => {
                count(if done.is_some() { &self.on_device } else { &self.on_cpu });
                Ok(done)
            }
            Err(DeviceError::Full) => {
                count(&self.too_large);
                Ok(None)
            }
            Err(DeviceError::Failed(message)) if self.falls_back => {
                let _ = self.lost.set(message);
                Ok(None)
            }
            Err(DeviceError::Failed(message)) => Err(format!("{message}; --device cpu does without it")),
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<Lane<'d>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lane(&self) -> Lane<'d> {
        let mut lanes = self.free();
        loop {
            match lanes.pop() {
                Some(lane) => return lane,
                None => lanes = self.returned.wait(lanes).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn encode_bytes(&self, target: &Target<'_>, slab: &Slab<'_>, dtype: Dtype, x: &[u8], out: &mut [Vec<u8>]) -> Result<Option<Tally>, Failure> {
        if !run::encodes(target.scheme) {
            self.on_cpu.fetch_add(1, Ordering::Relaxed);
            return Ok(None);
        }
        let job = Encode { scheme: target.scheme, shape: target.shape, codec: target.codec, slab, dtype, x };
        let done = self.on_lane(|lane| match run::encode(lane, &job, out)? {
            Outcome::Done(tally) => Ok(Some(tally)),
            Outcome::Refused => Ok(None),
        });
        done.map_err(Failure::Device)
    }
}

impl Backend for Cuda<'_> {
    fn name(&self) -> &str {
        &self.device.info.name
    }

    fn slab(&self) -> u64 {
        self.slab
    }

    fn takes_stored(&self) -> bool {
        self.lost.get().is_none()
    }

    fn encode(&self, target: &Target<'_>, slab: &Slab<'_>, x: &mut [f32], out: &mut [Vec<u8>]) -> Encoded {
        match self.encode_bytes(target, slab, Dtype::F32, x.as_bytes(), out)? {
            Some(tally) => Ok(tally),
            None => Ok(target.codec.encode(slab, x, out)?),
        }
    }

    fn encode_stored(&self, target: &Target<'_>, slab: &Slab<'_>, dtype: Dtype, x: &[u8], out: &mut [Vec<u8>]) -> Encoded {
        match self.encode_bytes(target, slab, dtype, x, out)? {
            Some(tally) => Ok(tally),
            None => Ok(target.codec.encode(slab, &mut numbers(dtype, x), out)?),
        }
    }

    fn decode(&self, target: &Target<'_>, at: u64, parts: &[&[u8]], out: &mut [f32]) -> Result<(), Failure> {
        let job = Decode { scheme: target.scheme, shape: target.shape, codec: target.codec, at, parts };
        let on_lane = |out: &mut [f32]| self.on_lane(|lane| Ok(run::decode(lane, &job, out)?.then_some(()))).map_err(Failure::Device);
        let done = run::decodes(target.scheme) && on_lane(out)?.is_some();
        // A GPU has one NaN, and the CPU keeps what a NaN says.
        if !done || out.iter().any(|v| v.is_nan()) {
            target.codec.decode(at, parts, out);
        }
        Ok(())
    }

    fn measure(&self, w: &[f32], q: &[f32], importance: Option<&[f32]>) -> Result<Option<DeviceSums>, String> {
        self.on_lane(|lane| run::measure::measure(lane, w.as_bytes(), q.as_bytes(), importance.map(IntoBytes::as_bytes)))
    }

    fn remarks(&self) -> Vec<String> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (on_device, on_cpu, too_large) = (count(&self.on_device), count(&self.on_cpu), count(&self.too_large));
        let all = on_device + on_cpu + too_large;
        let mut remarks = Vec::new();
        if on_cpu > 0 {
            remarks.push(format!("{on_cpu} of {all} slabs were left to the CPU: no kernel encodes their scheme, or they hold what kernels refuse"));
        }
        if too_large > 0 {
            remarks.push(format!("{too_large} of {all} slabs were left to the CPU: they are too large for the memory of a stream"));
        }
        if let Some(message) = self.lost.get() {
            remarks.push(format!("{message}; the CPU did the rest"));
        }
        remarks
    }
}
