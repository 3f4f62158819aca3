//! The loop of an audit: slabs of pairs, in parallel, merged in their order.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use rayon::prelude::*;

use super::measure::{Piece, measure_on};
use super::sketch::Counting;
use super::spectral::{self, Product};
use super::stats::{BLOCK, SlabStats};
use super::{Activations, ErrorStats};
use crate::backend::{Backend, Cpu};
use crate::codec::{cut, slab_granule};
use crate::convert::{Budget, Scratch, Work};
use crate::plan::{Planned, View};
use crate::sink::Observer;
use crate::source::{Importance, Source, is_unrounded};
use crate::{Error, Result};

/// The most elements of a slab of whole rows.
const MOST_ROWS: u64 = 1 << 21;

/// A tensor of a checkpoint, seen through a view.
pub struct Seen<'a> {
    source: &'a dyn Source,
    planned: Planned,
}

impl<'a> Seen<'a> {
    /// Tensor `index` of `source`.
    pub fn new(source: &'a dyn Source, index: usize, view: View) -> Seen<'a> {
        Seen { source, planned: Planned::seen(index, &source.tensors()[index], view) }
    }
}

/// What stands for a tensor.
pub enum Candidate<'a> {
    /// Itself: nothing differs.
    Same,
    /// A stored tensor with as many elements.
    Stored(Seen<'a>),
    /// What a planned tensor of a source will be. The plan is complete: [`crate::plan::Plan::scan`] was called. The reference is the same
    /// tensor, of that source or of one with the same tensors before some are rounded.
    Encoded(&'a dyn Source, &'a Planned),
}

/// Reads inputs of a layer, which are in memory only while it is measured.
pub type Inputs<'a> = Box<dyn Fn() -> Result<Activations> + Send + Sync + 'a>;

/// A tensor to be measured.
pub struct Subject<'a> {
    /// The weights that are taken for true.
    pub reference: Seen<'a>,
    /// What stands for them.
    pub candidate: Candidate<'a>,
    /// The importance of the columns.
    pub importance: Option<Arc<dyn Importance>>,
    /// A way to read inputs of the layer.
    pub activations: Option<Inputs<'a>>,
}

/// Measures tensors.
pub struct Audit<'a> {
    backend: &'a dyn Backend,
    pool: rayon::ThreadPool,
    slab: u64,
    spectral: bool,
    /// Buffers that no thread uses now.
    buffers: Mutex<Vec<Buffers>>,
}

/// A subject with its codecs.
struct Works<'s> {
    reference: Work<'s>,
    from: &'s dyn Source,
    candidate: Other<'s>,
    columns: u64,
}

enum Other<'s> {
    Same,
    Stored(Work<'s>, &'s dyn Source),
    Encoded(Work<'s>, &'s dyn Source),
}

/// Buffers of a thread.
struct Buffers {
    reference: Scratch,
    candidate: Scratch,
    decoded: Vec<f32>,
    counting: Counting,
}

impl Buffers {
    fn new() -> Buffers {
        Buffers { reference: Scratch::default(), candidate: Scratch::default(), decoded: Vec::new(), counting: Counting::new() }
    }
}

impl<'a> Audit<'a> {
    /// An audit that keeps to `budget`; with `spectral` it also finds ‖E‖₂ of matrices, which reads them many times.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn new(budget: &Budget, spectral: bool) -> Result<Audit<'a>> {
        let slab = (Budget::SLAB.min(budget.slab) / 8 * 8).max(8);
        // Two sides, each with what a conversion needs.
        let fitting = (budget.memory / (48 * slab)).max(1) as usize;
        let threads = budget.threads.clamp(1, fitting);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|e| Error::request(format!("cannot start {threads} threads: {e}")))?;
        Ok(Audit { backend: &Cpu, pool, slab, spectral, buffers: Mutex::default() })
    }

    /// The same audit with slabs decoded, and encoded where that is tried, by `backend`.
    #[must_use]
    pub fn on(self, backend: &'a dyn Backend) -> Audit<'a> {
        Audit { backend, ..self }
    }

    /// The errors of each subject, in order.
    ///
    /// # Errors
    /// If a tensor cannot be read or encoded, or the observer wants to stop.
    pub fn run(&self, subjects: &[Subject<'_>], observer: &dyn Observer) -> Result<Vec<ErrorStats>> {
        let n_bytes = |s: &Subject<'_>| s.reference.source.tensors()[s.reference.planned.source].n_bytes();
        observer.begin("measuring", subjects.iter().map(n_bytes).sum());
        self.pool.install(|| subjects.par_iter().map(|subject| self.one(subject, observer)).collect())
    }

    /// Completes errors that were measured while they were written: counts the outliers where that needs a second look at the weights.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    pub fn complete(&self, subjects: &[Subject<'_>], stats: &mut [ErrorStats]) -> Result<()> {
        let complete = |(subject, stats): (&Subject<'_>, &mut ErrorStats)| {
            let works = Works::new(subject, &subject.reference.planned, self.backend)?;
            self.count_outliers(&works, stats)
        };
        self.pool.install(|| subjects.par_iter().zip(stats.par_iter_mut()).map(complete).collect())
    }

    fn one(&self, subject: &Subject<'_>, observer: &dyn Observer) -> Result<ErrorStats> {
        let mut planned = subject.reference.planned.clone();
        planned.importance = subject.importance.clone();
        let works = Works::new(subject, &planned, self.backend)?;
        let rows = works.slab_of_rows(self.slab);
        let activations = subject.activations.as_ref().filter(|_| rows.is_some()).map(|read| read()).transpose()?;
        let activations = activations.as_ref();
        let slab = rows.filter(|_| activations.is_some()).unwrap_or_else(|| works.slab(self.slab));
        let mut stats = ErrorStats::default();
        let measured = |range: Range<u64>, buffers: &mut Buffers| {
            if observer.cancelled() {
                return Err(Error::Cancelled);
            }
            let found = works.measure(range.clone(), buffers, activations)?;
            observer.advance(works.reference.share(range));
            Ok(found)
        };
        self.fold(cut(0..works.reference.planned.n_elements(), slab), measured, |piece| stats.add(&piece))?;
        stats.count_outliers();
        self.count_outliers(&works, &mut stats)?;
        if let (true, Some(slab)) = (self.spectral && works.is_matrix() && stats.non_finite == 0, rows) {
            stats.spectral = Some(self.spectral(&works, slab, &stats)?);
        }
        Ok(stats)
    }

    /// Runs over slabs of a tensor in parallel; what they give is folded in their order.
    fn fold<T: Send>(
        &self,
        slabs: impl Iterator<Item = Range<u64>>,
        of_slab: impl Fn(Range<u64>, &mut Buffers) -> Result<T> + Sync,
        mut fold: impl FnMut(T),
    ) -> Result<()> {
        let slabs: Vec<Range<u64>> = slabs.collect();
        for batch in slabs.chunks(2 * self.pool.current_num_threads()) {
            let found: Vec<T> = batch.par_iter().map(|range| self.with_buffers(|buffers| of_slab(range.clone(), buffers))).collect::<Result<_>>()?;
            found.into_iter().for_each(&mut fold);
        }
        Ok(())
    }

    /// Lends buffers, which are kept from slab to slab and from tensor to tensor.
    fn with_buffers<T>(&self, work: impl FnOnce(&mut Buffers) -> T) -> T {
        let free = || self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = free().pop().unwrap_or_else(Buffers::new);
        let done = work(&mut buffers);
        free().push(buffers);
        done
    }

    /// Counts outliers where the first pass could not.
    fn count_outliers(&self, works: &Works<'_>, stats: &mut ErrorStats) -> Result<()> {
        let is_outlier = stats.is_outlier();
        let count = |range: Range<u64>, buffers: &mut Buffers| {
            if stats.non_finite > 0 {
                works.read(range, buffers)?;
                let pairs = buffers.reference.numbers.iter().zip(&buffers.decoded);
                return Ok(pairs.filter(|(w, q)| w.is_finite() && q.is_finite() && is_outlier(**w)).count() as u64);
            }
            works.reference.decode(works.from, range, &mut buffers.reference)?;
            Ok(buffers.reference.numbers.iter().filter(|w| is_outlier(**w)).count() as u64)
        };
        let mut outliers = 0;
        let uncounted = std::mem::take(&mut stats.uncounted);
        let slabs = uncounted.iter().flat_map(|range| cut(range.clone(), self.slab));
        self.fold(slabs, count, |n| outliers += n)?;
        stats.outliers += outliers;
        Ok(())
    }

    fn spectral(&self, works: &Works<'_>, slab: u64, stats: &ErrorStats) -> Result<f64> {
        if stats.is_exact() {
            return Ok(0.0);
        }
        let columns = works.columns as usize;
        spectral::norm(columns, |v| {
            let mut product = Product::new(columns);
            let rows = |range: Range<u64>, buffers: &mut Buffers| {
                works.read(range, buffers)?;
                let mut product = Product::new(columns);
                let mut e = vec![0.0; columns];
                for (w, q) in buffers.reference.numbers.chunks_exact(columns).zip(buffers.decoded.chunks_exact(columns)) {
                    e.iter_mut().zip(w.iter().zip(q)).for_each(|(e, (&w, &q))| *e = f64::from(q) - f64::from(w));
                    product.add_row(&e, v);
                }
                Ok(product)
            };
            self.fold(cut(0..works.reference.planned.n_elements(), slab), rows, |piece| product.merge(&piece))?;
            Ok(product)
        })
    }
}

impl<'s> Works<'s> {
    fn new(subject: &'s Subject<'_>, reference: &'s Planned, backend: &'s dyn Backend) -> Result<Works<'s>> {
        let from = subject.reference.source;
        let candidate = match &subject.candidate {
            Candidate::Same => Other::Same,
            Candidate::Stored(seen) => Other::Stored(Work::new(seen.source, 0, &seen.planned, backend)?, seen.source),
            Candidate::Encoded(source, planned) => Other::Encoded(Work::new(*source, 0, planned, backend)?, *source),
        };
        let columns = reference.shape.last().copied().unwrap_or(1).max(1);
        Ok(Works { reference: Work::new(from, 0, reference, backend)?, from, candidate, columns })
    }

    fn is_matrix(&self) -> bool {
        self.reference.planned.shape.len() >= 2
    }

    /// The elements that slabs must begin at multiples of.
    fn granule(&self, slab: u64) -> u64 {
        match &self.candidate {
            Other::Encoded(work, _) => match slab_granule(work.to.granule()) {
                granule if granule > slab.max(Budget::LEAST) => slab_granule(work.to.least_slab()),
                granule => granule,
            },
            _ => 8,
        }
    }

    /// Elements of a slab.
    fn slab(&self, slab: u64) -> u64 {
        in_blocks(slab, self.granule(slab))
    }

    /// Elements of a slab of whole rows; none if it would be very large.
    fn slab_of_rows(&self, slab: u64) -> Option<u64> {
        let least = least_common(self.columns, least_common(self.granule(slab), BLOCK as u64)?)?;
        (least <= MOST_ROWS).then(|| (slab / least).max(1) * least)
    }

    /// Reads the elements of `range` on both sides. Returns Σs²/12 over each block, if the candidate's values are evenly spaced.
    fn read(&self, range: Range<u64>, buffers: &mut Buffers) -> Result<Option<Vec<f64>>> {
        self.reference.decode(self.from, range.clone(), &mut buffers.reference)?;
        match &self.candidate {
            Other::Same => {
                buffers.decoded.clone_from(&buffers.reference.numbers);
                Ok(None)
            }
            Other::Stored(work, source) => {
                work.decode(*source, range.clone(), &mut buffers.candidate)?;
                std::mem::swap(&mut buffers.decoded, &mut buffers.candidate.numbers);
                Ok(work.noise(range, &buffers.candidate))
            }
            Other::Encoded(work, source) => {
                if is_unrounded(*source, self.from, work.planned.source) {
                    buffers.candidate.numbers.clone_from(&buffers.reference.numbers);
                } else {
                    work.decode(*source, range.clone(), &mut buffers.candidate)?;
                }
                work.weigh(range.clone(), &mut buffers.candidate)?;
                work.encode(range.clone(), &mut buffers.candidate)?;
                work.decode_encoded(range, &buffers.candidate, &mut buffers.decoded)
            }
        }
    }

    fn measure(&self, range: Range<u64>, buffers: &mut Buffers, activations: Option<&Activations>) -> Result<SlabStats> {
        let noise = self.read(range.clone(), buffers)?;
        self.reference.weigh(range.clone(), &mut buffers.reference)?;
        let (w, q) = (&buffers.reference.numbers[..], &buffers.decoded[..]);
        let importance = self.reference.planned.importance.is_some().then_some(&buffers.reference.importance[..]);
        let piece = Piece { at: range.start, columns: self.columns, w, q, importance, noise: noise.as_deref() };
        let mut stats = measure_on(self.reference.backend(), &piece, &mut buffers.counting)?;
        stats.others.activated = activations.map(|x| x.outputs(w, q));
        Ok(stats)
    }
}

/// Elements of a slab of whole granules and whole blocks, near `slab`. Where that would be very long, blocks are cut.
pub(crate) fn in_blocks(slab: u64, granule: u64) -> u64 {
    let whole = least_common(granule, BLOCK as u64).filter(|n| *n <= MOST_ROWS).unwrap_or(granule);
    (slab / whole).max(1) * whole
}

/// The least common multiple.
fn least_common(a: u64, b: u64) -> Option<u64> {
    a.checked_mul(b / common(a, b))
}

/// The greatest common divisor.
fn common(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common(b, a % b) }
}

/// The errors of a slab that was just encoded into `scratch`, against the numbers that it stands for.
pub(crate) fn of_encoded(work: &Work<'_>, range: Range<u64>, scratch: &mut Scratch) -> Result<SlabStats> {
    let mut decoded = std::mem::take(&mut scratch.decoded);
    let noise = work.decode_encoded(range.clone(), scratch, &mut decoded)?;
    scratch.decoded = decoded;
    let columns = work.planned.shape.last().copied().unwrap_or(1).max(1);
    let importance = work.planned.importance.is_some().then_some(&scratch.importance[..]);
    let w = scratch.original.as_ref().map_or(&scratch.numbers, |original| &original.numbers);
    let piece = Piece { at: range.start, columns, w, q: &scratch.decoded, importance, noise: noise.as_deref() };
    measure_on(work.backend(), &piece, scratch.counting.get_or_insert_with(Counting::new))
}
