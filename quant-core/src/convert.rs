//! The conversion loop: slabs of whole blocks, in parallel, in any order, in bounded memory.
//!
//! For each slab of each tensor: read the stored bytes, decode to f32, encode, write. No slab waits for another, so the
//! bytes of the output depend neither on threads nor on slab size.

mod work;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use crate::audit::{self, ErrorStats, Ordered};
use crate::backend::{Backend, Cpu, Failure, Target};
use crate::codec::{Fill, Known, Slab, Tally, Unfit, cut, slab_granule};
use crate::plan::{PartFill, Plan, Planned};
use crate::sink::{Observer, Sink};
use crate::source::{Source, is_unrounded};
use crate::{Error, Result, Scheme};
pub(crate) use work::{Scratch, Work};
use work::{TryScan, overflow};

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
    pub(crate) const LEAST: u64 = 1 << 20;
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
    /// Where the errors of what is encoded go, if they are measured.
    audit: Option<Audited<'a>>,
}

/// Errors that are measured while slabs are encoded.
struct Audited<'a> {
    /// The numbers that they are errors of, if not those that are encoded.
    original: Option<&'a dyn Source>,
    /// One for each planned tensor.
    stats: Vec<Mutex<Ordered>>,
}

/// What a pass did.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// For each planned tensor what encoding did beyond rounding.
    pub tallies: Vec<Tally>,
    /// For each planned tensor its errors, if they were measured and it was encoded.
    pub errors: Vec<Option<ErrorStats>>,
}

/// One step of the loop.
enum Job<'a> {
    Encode(Arc<Work<'a>>, Range<u64>),
    Copy { tensor: usize, source: usize, part: usize, bytes: Range<u64> },
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
        Ok(Pass { source, backend: &Cpu, slab, pool, audit: None })
    }

    /// The same pass, measuring the errors of what it encodes: against `original`, which has the same tensors in the same order
    /// as the source, or else against the numbers that are encoded.
    #[must_use]
    pub fn audited(self, plan: &Plan, original: Option<&'a dyn Source>) -> Pass<'a> {
        let stats = plan.tensors.iter().map(|planned| Mutex::new(Ordered::new(planned.n_elements()))).collect();
        Pass { audit: Some(Audited { original, stats }), ..self }
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
    pub fn run(&self, plan: &Plan, sink: &dyn Sink, observer: &dyn Observer) -> Result<Done> {
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
        let tallies = tallies.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let stats = |audit: &Audited<'_>, index: usize| {
            let found = lock(&audit.stats[index]).take();
            (!plan.tensors[index].copied).then_some(found)
        };
        let errors = (0..plan.tensors.len()).map(|index| self.audit.as_ref().and_then(|audit| stats(audit, index))).collect();
        Ok(Done { tallies, errors })
    }

    fn jobs<'p>(&self, index: usize, planned: &'p Planned) -> Box<dyn Iterator<Item = Result<Job<'p>>> + Send + 'p>
    where
        'a: 'p,
    {
        if planned.copied {
            let pieces = planned.parts.iter().enumerate().flat_map(|(part, p)| {
                let bytes = if p.fill == PartFill::Copied { p.n_bytes } else { 0 };
                cut(0..bytes, COPY).map(move |bytes| (part, bytes))
            });
            return Box::new(pieces.map(move |(part, bytes)| Ok(Job::Copy { tensor: index, source: planned.source, part, bytes })));
        }
        match Work::new(self.source, index, planned, self.backend) {
            Ok(work) => {
                let work = Arc::new(work);
                let slab = self.slab_of(&work);
                Box::new(cut(0..planned.n_elements(), slab).map(move |range| Ok(Job::Encode(work.clone(), range))))
            }
            Err(e) => Box::new(std::iter::once(Err(e))),
        }
    }

    /// The slab length for one tensor: whole granules, or whole bytes where the scan made groups divisible.
    fn slab_of(&self, work: &Work<'_>) -> u64 {
        let granule = slab_granule(work.to.granule());
        let granule = if granule > self.slab { work.to.least_slab() } else { granule };
        if self.audit.is_some() { audit::in_blocks(self.slab, granule) } else { (self.slab / granule).max(1) * granule }
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
                work.weigh(range.clone(), scratch)?;
                let tally = self.encode(work, range.clone(), scratch)?;
                work.write(sink, range.clone(), scratch)?;
                if let Some(audit) = &self.audit {
                    let stats = audit::of_encoded(work, range.clone(), scratch)?;
                    lock(&audit.stats[work.index]).add(range.clone(), stats);
                }
                if tally != Tally::default() {
                    lock(tallies)[work.index].merge(tally);
                }
                observer.advance(work.share(range.clone()));
            }
        }
        Ok(())
    }

    fn encode(&self, work: &Work<'_>, range: Range<u64>, scratch: &mut Scratch) -> Result<Tally> {
        if self.audit.is_none()
            && let Some(tally) = work.encode_stored(self.source, range.clone(), scratch)?
        {
            return Ok(tally);
        }
        work.decode(self.source, range.clone(), scratch)?;
        if let Some(audit) = &self.audit {
            audit.keep_numbers(self.source, work, range.clone(), scratch)?;
        }
        work.encode(range, scratch)
    }

    /// The first pass; see [`Plan::scan`].
    pub(crate) fn scan(&self, plan: &Plan, keep_unfit: bool, observer: &dyn Observer) -> Result<Vec<(usize, std::result::Result<Known, Unfit>)>> {
        let mut todo = Vec::new();
        for (index, planned) in plan.tensors.iter().enumerate().filter(|(_, t)| !t.copied) {
            let work = Work::new(self.source, index, planned, self.backend)?;
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
        let slabs: Vec<Range<u64>> = cut(0..work.planned.n_elements(), self.slab_of(work)).collect();
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

impl Audited<'_> {
    /// Keeps the numbers that a slab stands for, if they are others than those to be encoded or encoding may change these.
    fn keep_numbers(&self, source: &dyn Source, work: &Work<'_>, range: Range<u64>, scratch: &mut Scratch) -> Result<()> {
        let index = work.planned.source;
        match self.original.filter(|original| !is_unrounded(source, *original, index)) {
            Some(original) => {
                let planned = Planned::seen(index, &original.tensors()[index], work.planned.view);
                let before = Work::new(original, work.index, &planned, work.backend())?;
                before.decode(original, range, scratch.original.get_or_insert_default())?;
            }
            None if work.to.keeps_numbers() => scratch.original = None,
            None => scratch.original.get_or_insert_default().numbers.clone_from(&scratch.numbers),
        }
        Ok(())
    }
}

/// What a mutex holds, whatever happened to others who held it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The granule of a planned tensor's slabs.
pub(crate) fn granule_of(planned: &Planned) -> Result<u64> {
    Ok(slab_granule(planned.codec()?.granule()))
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
    encode_on(&Cpu, scheme, shape, x, importance)
}

/// [`encode_weighted`] by a backend.
///
/// # Errors
/// As [`encode_weighted`]; also if the device fails.
pub fn encode_on(backend: &dyn Backend, scheme: Scheme, shape: &[u64], x: &[f32], importance: Option<&[f32]>) -> Result<Vec<Vec<u8>>> {
    let codec = scheme.codec_of(shape, importance.is_some())?;
    if importance.is_some_and(|weights| weights.len() != x.len()) {
        return Err(Error::request("needs as many weights as elements"));
    }
    if crate::dtype::n_elements(shape) != Some(x.len() as u64) {
        return Err(Error::request(format!("shape {shape:?} does not have {} elements", x.len())));
    }
    let failed = |failure: Failure| failure.error("", scheme);
    let known = match codec.scan(u64::MAX) {
        None => Known::Nothing,
        Some(mut scan) => {
            scan.fold(scan.measure(0, &mut x.to_vec()).map_err(|unfit| failed(unfit.into()))?);
            scan.finish().ok_or_else(|| overflow("", scheme))?
        }
    };
    let mut out = vec![Vec::new(); codec.parts().len()];
    let target = Target { tensor: 0, scheme, shape, codec: &*codec };
    backend.encode(&target, &Slab { known: &known, at: 0, importance }, &mut x.to_vec(), &mut out).map_err(failed)?;
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
    decode_on(&Cpu, scheme, shape, parts)
}

/// [`decode`] by a backend.
///
/// # Errors
/// As [`decode`]; also if the device fails.
pub fn decode_on(backend: &dyn Backend, scheme: Scheme, shape: &[u64], parts: &[Vec<u8>]) -> Result<Vec<f32>> {
    let codec = scheme.codec(shape)?;
    let sizes_fit = codec.parts().len() == parts.len() && codec.parts().iter().zip(parts).all(|(p, b)| p.n_bytes() == b.len() as u64);
    if !sizes_fit {
        return Err(Error::request(format!("the parts are not those of {scheme} with shape {shape:?}")));
    }
    let mut out = vec![0.0; shape.iter().product::<u64>() as usize];
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let target = Target { tensor: 0, scheme, shape, codec: &*codec };
    backend.decode(&target, 0, &parts, &mut out).map_err(|failure| failure.error("", scheme))?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::Dtype;
    use crate::plan::{Decision, View};
    use crate::source::{Role, Stored, Tensor};

    #[test]
    fn a_mean_that_overflows_is_refused() {
        let x = vec![3e38; 4096];
        assert!(encode("nf4".parse().unwrap(), &[64, 64], &x).is_ok());
        let error = encode("nf4-dq".parse().unwrap(), &[64, 64], &x).unwrap_err();
        assert!(error.to_string().contains("overflows"), "{error}");
    }

    /// A tensor whose reads are counted.
    struct Counted {
        tensors: Vec<Tensor>,
        read: AtomicU64,
    }

    impl Counted {
        fn new(dtype: Dtype) -> Counted {
            let (scheme, shape) = (Scheme::Dense(dtype), vec![64, 256]);
            let parts = scheme.codec(&shape).unwrap();
            let part = |p: &crate::codec::Part| Stored { name: p.name.into(), dtype, shape: p.shape.clone(), n_bytes: p.n_bytes() };
            let parts = parts.parts().iter().map(part).collect();
            Counted {
                tensors: vec![Tensor { name: "w".into(), shape, dtype, scheme, role: Role::Linear, parts, packed: None }],
                read: AtomicU64::new(0),
            }
        }
    }

    impl Source for Counted {
        fn tensors(&self) -> &[Tensor] {
            &self.tensors
        }

        fn read(&self, _: usize, _: usize, _: u64, out: &mut [u8]) -> Result<()> {
            self.read.fetch_add(out.len() as u64, Ordering::Relaxed);
            out.fill(0);
            Ok(())
        }
    }

    struct Nowhere;

    impl Sink for Nowhere {
        fn write(&self, _: usize, _: usize, _: u64, _: &[u8]) -> Result<()> {
            Ok(())
        }
    }

    /// The bytes that an audited conversion, and one that is tried, read of a source and of its original.
    fn bytes_read(source: Dtype, original: Dtype) -> [u64; 4] {
        let [a, b, c, d] = [source, original, source, original].map(Counted::new);
        let decide = |_: &Tensor| Ok((Decision { scheme: Some("q4_0".parse().unwrap()), reason: String::new() }, View::Whole));
        let plan = Plan::new(&a, decide).unwrap();
        let pass = Pass::new(&a, &plan, &Budget::default()).unwrap().audited(&plan, Some(&b));
        assert_eq!(pass.run(&plan, &Nowhere, &()).unwrap().errors[0].as_ref().unwrap().n(), 64 * 256);
        let subject = audit::Subject {
            reference: audit::Seen::new(&d, 0, View::Whole),
            candidate: audit::Candidate::Encoded(&c, &plan.tensors[0]),
            importance: None,
            activations: None,
        };
        audit::Audit::new(&Budget::default(), false).unwrap().run(&[subject], &()).unwrap();
        [a, b, c, d].map(|source| source.read.into_inner())
    }

    /// Where nothing is rounded the numbers that are encoded are those that errors are measured from.
    #[test]
    fn what_is_not_rounded_is_read_once() {
        let n = 64 * 256;
        assert_eq!(bytes_read(Dtype::BF16, Dtype::BF16), [2 * n, 0, 0, 2 * n]);
        assert_eq!(bytes_read(Dtype::BF16, Dtype::F32), [2 * n, 4 * n, 2 * n, 4 * n]);
    }
}
