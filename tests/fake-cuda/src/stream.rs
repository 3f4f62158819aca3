//! Streams: work that waits until somebody waits for it.

use std::collections::VecDeque;
use std::time::Instant;

use ptx_sim::{Launch, Shape};

use crate::device::{Device, Function};
use crate::error::{Error, Result};

/// What copies give that come from pinned memory which is freed already.
const FREED: u8 = 0xdb;

pub(crate) struct Stream {
    /// For the log.
    number: usize,
    work: VecDeque<Work>,
    /// The ticket of the event that was reached last.
    done: u64,
}

impl Stream {
    pub fn new(number: usize) -> Self {
        Self { number, work: VecDeque::new(), done: 0 }
    }
}

/// A point in the work of a stream.
#[derive(Default)]
pub(crate) struct Event {
    /// The stream that it was recorded in last, and its ticket there. Tickets rise with time.
    stream: usize,
    ticket: u64,
    /// Whether it is there to tell the time.
    timed: bool,
    time: Option<Instant>,
}

impl Event {
    pub fn new(timed: bool) -> Self {
        Self { timed, ..Self::default() }
    }
}

/// Memory of the host.
#[derive(Clone, Copy)]
pub(crate) struct Host(pub *mut u8);

// SAFETY: a pointer is a number; who uses it says why that is sound.
unsafe impl Send for Host {}

pub(crate) enum Work {
    Upload {
        to: u64,
        from: Host,
        len: usize,
    },
    Download {
        to: Host,
        from: u64,
        len: usize,
    },
    Fill {
        to: u64,
        value: u8,
        len: usize,
    },
    Copy {
        to: u64,
        from: u64,
        len: usize,
    },
    Launch(Box<Start>),
    Record {
        event: usize,
        ticket: u64,
    },
    /// For a ticket of another stream.
    Wait {
        stream: usize,
        ticket: u64,
    },
    Free(u64),
}

/// A kernel with its arguments.
pub(crate) struct Start {
    pub function: Function,
    pub grid: Shape,
    pub threads: Shape,
    pub shared: usize,
    pub params: Vec<u8>,
}

impl Start {
    pub fn launch(&self) -> Launch<'_> {
        Launch::new(&self.function.module, &self.function.name, self.grid, self.threads).dynamic_shared(self.shared)
    }
}

impl Device {
    /// Adds work to a stream.
    pub fn push(&mut self, stream: usize, work: Work) -> Result<()> {
        self.streams.get_mut(&stream).ok_or(Error::InvalidHandle)?.work.push_back(work);
        Ok(())
    }

    /// Does all work of a stream.
    pub fn drain(&mut self, stream: usize) -> Result<()> {
        while self.step(stream)? {}
        Ok(())
    }

    pub fn drain_all(&mut self) -> Result<()> {
        let streams: Vec<_> = self.streams.keys().copied().collect();
        streams.into_iter().try_for_each(|stream| self.drain(stream))
    }

    /// Does the next piece of work of a stream: whether there was one.
    fn step(&mut self, stream: usize) -> Result<bool> {
        let queue = self.streams.get_mut(&stream).ok_or(Error::InvalidHandle)?;
        let number = queue.number;
        let Some(work) = queue.work.pop_front() else { return Ok(false) };
        let done = self.perform(work, stream, number);
        if let Err(error) = done {
            // The device is lost. What was to be done is never done: no call comes so far.
            self.failed = Some(error);
        }
        done.map(|()| true)
    }

    fn perform(&mut self, work: Work, handle: usize, stream: usize) -> Result<()> {
        match work {
            Work::Upload { to, from, len } => {
                self.settings.log(&format!("upload {len} stream {stream}"));
                let place = self.memory.memory.get_mut(to, len).ok_or(Error::IllegalAddress)?;
                if from.0.is_null() {
                    place.fill(FREED);
                } else {
                    // SAFETY: pinned memory is not freed while work names it (see `forget`), and the caller keeps other memory until
                    // this is done, which it waits for.
                    unsafe { std::ptr::copy_nonoverlapping(from.0, place.as_mut_ptr(), len) };
                }
            }
            Work::Download { to, from, len } => self.download(to, from, len, stream)?,
            Work::Fill { to, value, len } => self.memory.memory.get_mut(to, len).ok_or(Error::IllegalAddress)?.fill(value),
            Work::Copy { to, from, len } => {
                let bytes = self.memory.memory.get(from, len).ok_or(Error::IllegalAddress)?.to_vec();
                self.memory.memory.get_mut(to, len).ok_or(Error::IllegalAddress)?.copy_from_slice(&bytes);
            }
            Work::Launch(start) => self.start(&start, stream)?,
            Work::Record { event, ticket } => {
                if let Some(place) = self.streams.get_mut(&handle) {
                    place.done = ticket;
                }
                // An event that is destroyed meanwhile, or recorded again, is of no interest.
                if let Some(event) = self.events.get_mut(&event).filter(|event| event.ticket == ticket) {
                    event.time = Some(Instant::now());
                }
            }
            Work::Wait { stream, ticket } => self.reach(stream, ticket)?,
            Work::Free(address) => self.memory.free(address)?,
        }
        Ok(())
    }

    fn download(&mut self, to: Host, from: u64, len: usize, stream: usize) -> Result<()> {
        self.settings.log(&format!("download {len} stream {stream}"));
        self.downloads += 1;
        let mut bytes = self.memory.memory.get(from, len).ok_or(Error::IllegalAddress)?.to_vec();
        if self.settings.wrong_download == Some(self.downloads)
            && let Some(middle) = bytes.get_mut(len / 2)
        {
            *middle ^= 1;
        }
        if !to.0.is_null() {
            // SAFETY: as for uploads. Nobody else may look at the memory before the copy is done.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.0, len) };
        }
        Ok(())
    }

    fn start(&mut self, start: &Start, stream: usize) -> Result<()> {
        let list = |Shape([x, y, z]): Shape| format!("{x},{y},{z}");
        let (name, grid, threads) = (&start.function.name, list(start.grid), list(start.threads));
        self.settings.log(&format!("launch {name} grid {grid} threads {threads} stream {stream}"));
        self.launches += 1;
        if self.settings.failing_launch == Some(self.launches) {
            self.settings.log(&format!("fault kernel {name}: FAKE_CUDA asks for it"));
            return Err(Error::LaunchFailed);
        }
        let done = start.launch().run_with(&mut self.memory.memory, start.params.clone());
        done.map(drop).map_err(|fault| {
            eprintln!("fake-cuda: {fault}");
            self.settings.log(&format!("fault {fault}"));
            match fault.message {
                message if message.contains("out of bounds") => Error::IllegalAddress,
                message if message.contains("misaligned") => Error::MisalignedAddress,
                _ => Error::LaunchFailed,
            }
        })
    }

    /// Pinned memory is freed: work must not touch it any more.
    pub fn forget(&mut self, memory: *const u8, len: usize) {
        let freed = memory as usize..memory as usize + len;
        for work in self.streams.values_mut().flat_map(|stream| &mut stream.work) {
            if let Work::Upload { from: host, .. } | Work::Download { to: host, .. } = work
                && freed.contains(&(host.0 as usize))
            {
                host.0 = std::ptr::null_mut();
            }
        }
    }

    /// Records an event in a stream.
    pub fn record(&mut self, event: usize, stream: usize) -> Result<()> {
        if !self.streams.contains_key(&stream) {
            return Err(Error::InvalidHandle);
        }
        self.tickets += 1;
        let ticket = self.tickets;
        let recorded = self.events.get_mut(&event).ok_or(Error::InvalidHandle)?;
        (recorded.stream, recorded.ticket, recorded.time) = (stream, ticket, None);
        self.push(stream, Work::Record { event, ticket })
    }

    /// Where and when an event was recorded last.
    fn recorded(&self, event: usize) -> Result<(usize, u64)> {
        self.events.get(&event).map(|event| (event.stream, event.ticket)).ok_or(Error::InvalidHandle)
    }

    /// Whether a stream is so far. The work of streams that are gone was done before.
    fn is_reached(&self, stream: usize, ticket: u64) -> bool {
        self.streams.get(&stream).is_none_or(|stream| stream.done >= ticket)
    }

    /// Lets a stream wait for what was recorded last.
    pub fn wait(&mut self, stream: usize, event: usize) -> Result<()> {
        let (recorded, ticket) = self.recorded(event)?;
        // What was recorded in the stream itself comes before this anyway.
        if recorded == stream { Ok(()) } else { self.push(stream, Work::Wait { stream: recorded, ticket }) }
    }

    /// Works on a stream until it is so far. It waits only for what was asked for before, so this ends.
    fn reach(&mut self, stream: usize, ticket: u64) -> Result<()> {
        while !self.is_reached(stream, ticket) && self.step(stream)? {}
        Ok(())
    }

    pub fn synchronize_event(&mut self, event: usize) -> Result<()> {
        let (stream, ticket) = self.recorded(event)?;
        self.reach(stream, ticket)
    }

    /// Whether an event is reached. If not, a piece of work is done.
    pub fn query_event(&mut self, event: usize) -> Result<()> {
        let (stream, ticket) = self.recorded(event)?;
        if self.is_reached(stream, ticket) {
            return Ok(());
        }
        self.step(stream)?;
        if self.is_reached(stream, ticket) { Ok(()) } else { Err(Error::NotReady) }
    }

    /// Whether a stream has nothing to do. If it has, a piece of it is done.
    pub fn query_stream(&mut self, stream: usize) -> Result<()> {
        self.step(stream)?;
        let idle = self.streams.get(&stream).is_none_or(|stream| stream.work.is_empty());
        if idle { Ok(()) } else { Err(Error::NotReady) }
    }

    /// Milliseconds between two events.
    pub fn elapsed(&self, from: usize, to: usize) -> Result<f32> {
        let time = |event: usize| {
            let event = self.events.get(&event).filter(|event| event.timed && event.ticket > 0).ok_or(Error::InvalidHandle)?;
            event.time.ok_or(Error::NotReady)
        };
        let (from, to) = (time(from)?, time(to)?);
        Ok(to.saturating_duration_since(from).as_secs_f32() * 1e3)
    }
}
