//! The conversion loop: slabs of whole blocks, in parallel, in any order, in bounded memory.
//!
//! For each slab of each tensor: read the stored bytes, decode to f32, encode, write. No slab waits for another, so the
//! bytes of the output depend neither on threads nor on slab size.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use crate::backend::{Backend, Cpu};
use crate::codec::{Codec, Fill, Known, Measured, Scan, Slab, Tally, Unfit, slab_granule};
use crate::plan::{PartFill, Plan, Planned, View};
use crate::sink::{Observer, Sink};
use crate::source::{Source, Tensor};
use crate::{Error, Result, Scheme};

/// How much memory and how many threads a pass may use.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Bytes for the slabs of all threads together.
    pub memory: u64,
    /// Threads.
    pub threads: usize,
    /// Elements of a slab, before rounding to what the schemes need; smaller if memory is short.
    pub slab: u64,
}

impl Budget {
    /// Elements of a slab that stays in a core's cache.
    pub const SLAB: u64 = 1 << 16;
    /// Memory by default.
    pub const MEMORY: u64 = 256 << 20;
    /// Bytes of scratch an element needs at most: source and output parts, codes, its importance, and the number itself.
    const PER_ELEMENT: u64 = 8 + 8 + 4 + 4 + 4;
    /// Elements that may have to be together whatever the budget: a nested block of blocks of 4096.
    const LEAST: u64 = 1 << 20;
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { memory: Budget::MEMORY, threads: rayon::current_num_threads(), slab: Budget::SLAB }
    }
}

/// Bytes of a piece of a part that is copied as it is.
const COPY: u64 = 1 << 18;

/// A pass over the source under a plan.
pub struct Pass<'a> {
    source: &'a dyn Source,
    backend: &'a dyn Backend,
    slab: u64,
    pool: rayon::ThreadPool,
}

/// One tensor to be encoded, with its codecs.
struct Work<'a> {
    index: usize,
    planned: &'a Planned,
    tensor: &'a Tensor,
    from: Box<dyn Codec>,
    to: Box<dyn Codec>,
}

/// One step of the loop.
enum Job<'a> {
    Encode(Arc<Work<'a>>, Range<u64>),
    Copy { tensor: usize, source: usize, part: usize, bytes: Range<u64> },
}

/// Buffers that a thread keeps from slab to slab.
#[derive(Default)]
struct Scratch {
    parts: Vec<Vec<u8>>,
    numbers: Vec<f32>,
    importance: Vec<f32>,
    out: Vec<Vec<u8>>,
}

impl<'a> Pass<'a> {
    /// Prepares a pass that keeps to `budget`.
    ///
    /// # Errors
    /// If the budget is too small for one slab, or threads cannot be started.
    pub fn new(source: &'a dyn Source, plan: &Plan, budget: &Budget) -> Result<Pass<'a>> {
        let limit = budget.memory / Budget::PER_ELEMENT;
        let granules = plan.tensors.iter().filter(|t| !t.copied).map(granule_of).collect::<Result<Vec<u64>>>()?;
        // Groups too long for a slab are scanned first, so only those that are never scanned bound the slab from below.
        let needed = granules.into_iter().filter(|&g| g <= Budget::LEAST).max().unwrap_or(1);
        if limit < needed {
            let needed = (needed * Budget::PER_ELEMENT).div_ceil(1 << 10);
            return Err(Error::request(format!("the memory budget is too small: one block of this plan needs {needed} KiB (--memory)")));
        }
        let slab = budget.slab.clamp(8, limit.max(8)).max(needed);
        let threads = ((limit / slab) as usize).clamp(1, budget.threads.max(1));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::request(format!("cannot start {threads} threads: {e}")))?;
        Ok(Pass { source, backend: &Cpu, slab, pool })
    }

    /// The same pass with slabs encoded by `backend`.
    #[must_use]
    pub fn on(self, backend: &'a dyn Backend) -> Pass<'a> {
        Pass { backend, ..self }
    }

    /// Runs other work on the threads of the pass.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    /// Runs the plan into `sink`. Returns what happened to each tensor.
    ///
    /// # Errors
    /// The first error of any slab; the observer's wish to stop is one.
    pub fn run(&self, plan: &Plan, sink: &dyn Sink, observer: &dyn Observer) -> Result<Vec<Tally>> {
        let total = plan.tensors.iter().map(|t| self.source.tensors()[t.source].n_bytes()).sum();
        observer.begin("converting", total);
        let tallies = Mutex::new(vec![Tally::default(); plan.tensors.len()]);
        let stop = AtomicBool::new(false);
        let jobs = plan.tensors.iter().enumerate().flat_map(|(index, planned)| self.jobs(index, planned));
        let step = |scratch: &mut Scratch, job: Result<Job<'_>>| {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let done = job.and_then(|job| self.step(scratch, &job, sink, observer, &tallies));
            stop.fetch_or(done.is_err(), Ordering::Relaxed);
            done
        };
        self.pool.install(|| jobs.par_bridge().try_for_each_init(Scratch::default, step))?;
        Ok(tallies.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn jobs<'p>(&self, index: usize, planned: &'p Planned) -> Box<dyn Iterator<Item = Result<Job<'p>>> + Send + 'p>
    where
        'a: 'p,
    {
        if planned.copied {
            let pieces = planned.parts.iter().enumerate().flat_map(|(part, p)| {
                let bytes = if p.fill == PartFill::Copied { p.n_bytes } else { 0 };
                steps(bytes, COPY).map(move |bytes| (part, bytes))
            });
            return Box::new(pieces.map(move |(part, bytes)| Ok(Job::Copy { tensor: index, source: planned.source, part, bytes })));
        }
        match Work::new(self.source, index, planned) {
            Ok(work) => {
                let work = Arc::new(work);
                let slab = self.slab_of(&work);
                Box::new(steps(planned.n_elements(), slab).map(move |range| Ok(Job::Encode(work.clone(), range))))
            }
            Err(e) => Box::new(std::iter::once(Err(e))),
        }
    }

    /// The slab length for one tensor: whole granules, or whole bytes where the scan made groups divisible.
    fn slab_of(&self, work: &Work<'_>) -> u64 {
        let granule = slab_granule(work.to.granule());
        let granule = if granule > self.slab { work.to.least_slab() } else { granule };
        (self.slab / granule).max(1) * granule
    }

    fn step(&self, scratch: &mut Scratch, job: &Job<'_>, sink: &dyn Sink, observer: &dyn Observer, tallies: &Mutex<Vec<Tally>>) -> Result<()> {
        if observer.cancelled() {
            return Err(Error::Cancelled);
        }
        match job {
            Job::Copy { tensor, source, part, bytes } => {
                scratch.parts.resize_with(1, Vec::new);
                let buffer = &mut scratch.parts[0];
                buffer.resize((bytes.end - bytes.start) as usize, 0);
                self.source.read(*source, *part, bytes.start, buffer)?;
                sink.write(*tensor, *part, bytes.start, buffer)?;
                observer.advance(bytes.end - bytes.start);
            }
            Job::Encode(work, range) => {
                work.decode(self.source, range.clone(), scratch)?;
                work.weigh(range.clone(), scratch)?;
                let tally = work.encode(self.backend, range.clone(), scratch)?;
                work.write(sink, range.clone(), scratch)?;
                if tally != Tally::default() {
                    tallies.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[work.index].merge(tally);
                }
                observer.advance(work.share(range.clone()));
            }
        }
        Ok(())
    }

    /// The first pass; see [`Plan::scan`].
    pub(crate) fn scan(&self, plan: &Plan, keep_unfit: bool, observer: &dyn Observer) -> Result<Vec<(usize, std::result::Result<Known, Unfit>)>> {
        let mut todo = Vec::new();
        for (index, planned) in plan.tensors.iter().enumerate().filter(|(_, t)| !t.copied) {
            let work = Work::new(self.source, index, planned)?;
            if work.to.scan(self.slab).is_some() || (keep_unfit && planned.scheme.is_quantized()) {
                todo.push(work);
            }
        }
        if todo.is_empty() {
            return Ok(Vec::new());
        }
        observer.begin("scanning", todo.iter().map(|w| w.tensor.n_bytes()).sum());
        let scan = |work: &Work<'_>| Ok((work.index, self.scan_one(work, keep_unfit, observer)?));
        self.pool.install(|| todo.par_iter().map(scan).collect())
    }

    fn scan_one(&self, work: &Work<'_>, keep_unfit: bool, observer: &dyn Observer) -> Result<std::result::Result<Known, Unfit>> {
        let mut scan = work.to.scan(self.slab).unwrap_or_else(|| Box::new(TryScan(work)));
        let slabs: Vec<Range<u64>> = steps(work.planned.n_elements(), self.slab_of(work)).collect();
        for batch in slabs.chunks(self.pool.current_num_threads()) {
            let measure = |range: &Range<u64>| {
                if observer.cancelled() {
                    return Err(Error::Cancelled);
                }
                let mut scratch = Scratch::default();
                work.decode(self.source, range.clone(), &mut scratch)?;
                observer.advance(work.share(range.clone()));
                Ok(scan.measure(range.start, &mut scratch.numbers))
            };
            let measured: Vec<_> = batch.par_iter().map(measure).collect::<Result<_>>()?;
            for measured in measured {
                match measured {
                    Ok(measured) => scan.fold(measured),
                    Err(unfit) if keep_unfit => return Ok(Err(unfit)),
                    Err(unfit) => return Err(work.refused(unfit)),
                }
            }
        }
        match scan.finish() {
            Some(known) => Ok(Ok(known)),
            None if keep_unfit => Ok(Err(Unfit { index: 0, value: f32::INFINITY })),
            None => Err(overflow(&work.planned.name, work.planned.scheme)),
        }
    }
}

/// The granule of a planned tensor's slabs.
fn granule_of(planned: &Planned) -> Result<u64> {
    Ok(slab_granule(planned.codec()?.granule()))
}

/// Cuts `0..n` into pieces of `step`.
fn steps(n: u64, step: u64) -> impl Iterator<Item = Range<u64>> + Send {
    (0..n.div_ceil(step)).map(move |i| i * step..((i + 1) * step).min(n))
}

impl<'a> Work<'a> {
    fn new(source: &'a dyn Source, index: usize, planned: &'a Planned) -> Result<Work<'a>> {
        let tensor = &source.tensors()[planned.source];
        let from = tensor.scheme.codec(&tensor.shape)?;
        let to = planned.codec()?;
        Ok(Work { index, planned, tensor, from, to })
    }

    /// The bytes of the source that a range of elements stands for, in reports of progress.
    fn share(&self, range: Range<u64>) -> u64 {
        let part = |element: u64| (u128::from(self.tensor.n_bytes()) * u128::from(element) / u128::from(self.tensor.n_elements().max(1))) as u64;
        part(range.end) - part(range.start)
    }

    /// Fills `scratch.numbers` with the elements of `range` of the view.
    fn decode(&self, source: &dyn Source, range: Range<u64>, scratch: &mut Scratch) -> Result<()> {
        scratch.numbers.resize((range.end - range.start) as usize, 0.0);
        match self.planned.view {
            View::Whole => {
                let mut numbers = std::mem::take(&mut scratch.numbers);
                let done = self.decode_run(source, range.start, &mut numbers, &mut scratch.parts);
                scratch.numbers = numbers;
                done
            }
            View::Transposed => self.decode_transposed(source, range, scratch),
        }
    }

    /// Decodes consecutive elements of the source tensor, wherever they start: codes are unpacked from whole bytes on.
    fn decode_unaligned(&self, source: &dyn Source, at: u64, out: &mut [f32], buffers: &mut Vec<Vec<u8>>) -> Result<()> {
        let before = (at % 8) as usize;
        let mut whole = vec![0.0; before + out.len()];
        self.decode_run(source, at - before as u64, &mut whole, buffers)?;
        out.copy_from_slice(&whole[before..]);
        Ok(())
    }

    /// Decodes consecutive elements of the source tensor, from a multiple of 8 on.
    fn decode_run(&self, source: &dyn Source, at: u64, out: &mut [f32], buffers: &mut Vec<Vec<u8>>) -> Result<()> {
        let parts = self.from.parts();
        if buffers.len() < parts.len() {
            buffers.resize_with(parts.len(), Vec::new);
        }
        for (i, (part, buffer)) in parts.iter().zip(&mut *buffers).enumerate() {
            let bytes = part.decoded(at..at + out.len() as u64);
            buffer.resize((bytes.end - bytes.start) as usize, 0);
            source.read(self.planned.source, i, bytes.start, buffer)?;
        }
        let slices: Vec<&[u8]> = buffers[..parts.len()].iter().map(Vec::as_slice).collect();
        self.from.decode(at, &slices, out);
        Ok(())
    }

    /// Decodes a range of the transpose of a matrix: for each row of the source the columns that the range needs.
    fn decode_transposed(&self, source: &dyn Source, range: Range<u64>, scratch: &mut Scratch) -> Result<()> {
        let &[rows, columns] = &self.tensor.shape[..] else {
            return Err(Error::request(format!("tensor '{}': only a matrix can be transposed", self.tensor.name)));
        };
        if range.is_empty() {
            return Ok(());
        }
        let (first, last) = (range.start / rows, (range.end - 1) / rows);
        let mut run = vec![0.0; (last - first + 1) as usize];
        for row in 0..rows {
            self.decode_unaligned(source, row * columns + first, &mut run, &mut scratch.parts)?;
            for (column, &value) in (first..).zip(&run) {
                let element = column * rows + row;
                if range.contains(&element) {
                    scratch.numbers[(element - range.start) as usize] = value;
                }
            }
        }
        Ok(())
    }

    /// Fills `scratch.importance` with the importance of each element of `range`.
    fn weigh(&self, range: Range<u64>, scratch: &mut Scratch) -> Result<()> {
        let Some(importance) = &self.planned.importance else { return Ok(()) };
        let out = &mut scratch.importance;
        out.resize((range.end - range.start) as usize, 0.0);
        let columns = self.planned.shape.last().copied().unwrap_or(1).max(1);
        let rows = self.planned.shape.iter().rev().nth(1).copied().unwrap_or(1).max(1);
        let mut done = 0;
        while done < out.len() {
            let element = range.start + done as u64;
            let (expert, column) = (element / (columns * rows), element % columns);
            let n = ((columns - column) as usize).min(out.len() - done);
            let above = done.checked_sub(columns as usize).filter(|_| element - columns >= expert * columns * rows);
            match above {
                Some(above) => out.copy_within(above..above + n, done),
                None => importance.read(expert * columns + column, &mut out[done..done + n])?,
            }
            done += n;
        }
        Ok(())
    }

    fn encode(&self, backend: &dyn Backend, range: Range<u64>, scratch: &mut Scratch) -> Result<Tally> {
        scratch.out.resize_with(self.to.parts().len(), Vec::new);
        let importance = self.planned.importance.is_some().then_some(&scratch.importance[..]);
        let slab = Slab { known: &self.planned.known, at: range.start, importance };
        let tally = backend.encode(&*self.to, &slab, &mut scratch.numbers, &mut scratch.out);
        tally.map_err(|unfit| self.refused(unfit))
    }

    fn write(&self, sink: &dyn Sink, range: Range<u64>, scratch: &Scratch) -> Result<()> {
        for (i, part) in self.to.parts().iter().enumerate() {
            if let Fill::Stream { .. } = part.fill {
                let bytes = part.encoded(range.clone());
                debug_assert_eq!(bytes.end - bytes.start, scratch.out[i].len() as u64, "{} {range:?}", part.name);
                sink.write(self.index, i, bytes.start, &scratch.out[i])?;
            }
        }
        Ok(())
    }

    fn refused(&self, unfit: Unfit) -> Error {
        let Unfit { index, value } = unfit;
        Error::NonFinite { tensor: self.planned.name.clone(), index, value, scheme: self.planned.scheme.to_string() }
    }
}

fn overflow(tensor: &str, scheme: Scheme) -> Error {
    Error::request(format!("tensor '{tensor}': its numbers are so large that the mean of their scales overflows f32, which {scheme} stores"))
}

/// A scan for schemes that need none: whether every element can be encoded.
struct TryScan<'a>(&'a Work<'a>);

impl Scan for TryScan<'_> {
    fn measure(&self, at: u64, x: &mut [f32]) -> std::result::Result<Measured, Unfit> {
        let mut out = vec![Vec::new(); self.0.to.parts().len()];
        self.0.to.encode(&Slab::new(&Known::Nothing, at), x, &mut out)?;
        Ok(Measured::default())
    }

    fn fold(&mut self, _measured: Measured) {}

    fn finish(self: Box<Self>) -> Option<Known> {
        Some(Known::Nothing)
    }
}

/// Encodes a whole tensor that is in memory: its parts, in order. For tests, tools and small tensors.
///
/// # Errors
/// If a number cannot be expressed, or `x` does not have the elements of `shape`.
///
/// ```
/// use quant_core::Scheme;
/// use quant_core::convert::{decode, encode};
///
/// let scheme: Scheme = "nf4".parse()?;
/// let parts = encode(scheme, &[2, 2], &[-1.0, 0.0, 0.5, 1.0])?;
/// assert_eq!(parts[0], [0x07, 0xcf]); // four codes: 0, 7, 12, 15
/// assert_eq!(decode(scheme, &[2, 2], &parts)?[3], 1.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn encode(scheme: Scheme, shape: &[u64], x: &[f32]) -> Result<Vec<Vec<u8>>> {
    encode_weighted(scheme, shape, x, None)
}

/// [`encode`] with the importance of each element, if there is any.
///
/// # Errors
/// As [`encode`]; also if there are not as many weights as elements.
pub fn encode_weighted(scheme: Scheme, shape: &[u64], x: &[f32], importance: Option<&[f32]>) -> Result<Vec<Vec<u8>>> {
    let codec = scheme.codec_of(shape, importance.is_some())?;
    if importance.is_some_and(|weights| weights.len() != x.len()) {
        return Err(Error::request("needs as many weights as elements"));
    }
    if crate::dtype::n_elements(shape) != Some(x.len() as u64) {
        return Err(Error::request(format!("shape {shape:?} does not have {} elements", x.len())));
    }
    let refused = |Unfit { index, value }| Error::NonFinite { tensor: String::new(), index, value, scheme: scheme.to_string() };
    let known = match codec.scan(u64::MAX) {
        None => Known::Nothing,
        Some(mut scan) => {
            scan.fold(scan.measure(0, &mut x.to_vec()).map_err(refused)?);
            scan.finish().ok_or_else(|| overflow("", scheme))?
        }
    };
    let mut out = vec![Vec::new(); codec.parts().len()];
    codec.encode(&Slab { known: &known, at: 0, importance }, &mut x.to_vec(), &mut out).map_err(refused)?;
    for (i, part) in codec.parts().iter().enumerate() {
        if let Fill::Whole { .. } = part.fill {
            out[i] = codec.whole(i, &known);
        }
    }
    Ok(out)
}

/// Decodes a whole tensor from its parts; the reverse of [`encode`].
///
/// # Errors
/// If a part is missing or does not have the size that the shape needs.
pub fn decode(scheme: Scheme, shape: &[u64], parts: &[Vec<u8>]) -> Result<Vec<f32>> {
    let codec = scheme.codec(shape)?;
    let sizes_fit = codec.parts().len() == parts.len() && codec.parts().iter().zip(parts).all(|(p, b)| p.n_bytes() == b.len() as u64);
    if !sizes_fit {
        return Err(Error::request(format!("the parts are not those of {scheme} with shape {shape:?}")));
    }
    let mut out = vec![0.0; shape.iter().product::<u64>() as usize];
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    codec.decode(0, &parts, &mut out);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_that_overflows_is_refused() {
        let x = vec![3e38; 4096];
        assert!(encode("nf4".parse().unwrap(), &[64, 64], &x).is_ok());
        let error = encode("nf4-dq".parse().unwrap(), &[64, 64], &x).unwrap_err();
        assert!(error.to_string().contains("overflows"), "{error}");
    }
}
