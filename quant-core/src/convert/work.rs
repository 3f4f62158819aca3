//! [`Work`]: one tensor on its way through the loop.

use std::borrow::Cow;
use std::ops::Range;

use crate::audit::{BLOCK, Counting};
use crate::backend::{Backend, Failure, Target};
use crate::codec::{Codec, Fill, Known, Measured, Part, Scan, Slab, Tally, Unfit};
use crate::plan::{Planned, View};
use crate::sink::Sink;
use crate::source::{Source, Tensor};
use crate::{Dtype, Error, Result, Scheme};

/// One tensor to be encoded, with its codecs.
pub(crate) struct Work<'a> {
    pub(crate) index: usize,
    pub(crate) planned: &'a Planned,
    pub(crate) tensor: &'a Tensor,
    from: Box<dyn Codec>,
    pub(crate) to: Box<dyn Codec>,
    backend: &'a dyn Backend,
}

/// Buffers that a thread keeps from slab to slab.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) parts: Vec<Vec<u8>>,
    pub(crate) numbers: Vec<f32>,
    pub(crate) importance: Vec<f32>,
    pub(crate) out: Vec<Vec<u8>>,
    /// For an audit: what `numbers` stand for where they do not say it themselves any more, what they became, and counts.
    pub(crate) original: Option<Box<Scratch>>,
    pub(crate) decoded: Vec<f32>,
    pub(crate) counting: Option<Counting>,
}

impl<'a> Work<'a> {
    pub(crate) fn new(source: &'a dyn Source, index: usize, planned: &'a Planned, backend: &'a dyn Backend) -> Result<Work<'a>> {
        let tensor = &source.tensors()[planned.source];
        let from = tensor.scheme.codec(&tensor.shape)?;
        let to = planned.codec()?;
        Ok(Work { index, planned, tensor, from, to, backend })
    }

    /// The bytes of the source that a range of elements stands for, in reports of progress.
    pub(crate) fn share(&self, range: Range<u64>) -> u64 {
        let part = |element: u64| (u128::from(self.tensor.n_bytes()) * u128::from(element) / u128::from(self.tensor.n_elements().max(1))) as u64;
        part(range.end) - part(range.start)
    }

    /// Fills `scratch.numbers` with the elements of `range` of the view.
    pub(crate) fn decode(&self, source: &dyn Source, range: Range<u64>, scratch: &mut Scratch) -> Result<()> {
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
    pub(crate) fn decode_unaligned(&self, source: &dyn Source, at: u64, out: &mut [f32], buffers: &mut Vec<Vec<u8>>) -> Result<()> {
        let before = (at % 8) as usize;
        let mut whole = vec![0.0; before + out.len()];
        self.decode_run(source, at - before as u64, &mut whole, buffers)?;
        out.copy_from_slice(&whole[before..]);
        Ok(())
    }

    /// Decodes consecutive elements of the source tensor, from a multiple of 8 on.
    pub(crate) fn decode_run(&self, source: &dyn Source, at: u64, out: &mut [f32], buffers: &mut Vec<Vec<u8>>) -> Result<()> {
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
        let target = Target { tensor: self.index, scheme: self.tensor.scheme, shape: &self.tensor.shape, codec: &*self.from };
        self.backend.decode(&target, at, &slices, out).map_err(|failure| self.failed(failure))
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
    pub(crate) fn weigh(&self, range: Range<u64>, scratch: &mut Scratch) -> Result<()> {
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

    pub(crate) fn encode(&self, range: Range<u64>, scratch: &mut Scratch) -> Result<Tally> {
        scratch.out.resize_with(self.to.parts().len(), Vec::new);
        let slab = self.slab(range.start, &scratch.importance);
        self.backend.encode(&self.target(), &slab, &mut scratch.numbers, &mut scratch.out).map_err(|failure| self.failed(failure))
    }

    /// Encodes the elements of `range` from their stored bytes, if the backend can.
    pub(crate) fn encode_stored(&self, source: &dyn Source, range: Range<u64>, scratch: &mut Scratch) -> Result<Option<Tally>> {
        let Scheme::Dense(dtype @ (Dtype::F32 | Dtype::F16 | Dtype::BF16)) = self.tensor.scheme else { return Ok(None) };
        if !self.backend.takes_stored() || self.planned.view != View::Whole {
            return Ok(None);
        }
        scratch.out.resize_with(self.to.parts().len(), Vec::new);
        scratch.parts.resize_with(1, Vec::new);
        let bytes = self.from.parts()[0].decoded(range.clone());
        scratch.parts[0].resize((bytes.end - bytes.start) as usize, 0);
        source.read(self.planned.source, 0, bytes.start, &mut scratch.parts[0])?;
        let slab = self.slab(range.start, &scratch.importance);
        let done = self.backend.encode_stored(&self.target(), &slab, dtype, &scratch.parts[0], &mut scratch.out);
        done.map(Some).map_err(|failure| self.failed(failure))
    }

    pub(crate) fn backend(&self) -> &'a dyn Backend {
        self.backend
    }

    fn target(&self) -> Target<'_> {
        Target { tensor: self.index, scheme: self.planned.scheme, shape: &self.planned.shape, codec: &*self.to }
    }

    fn slab<'s>(&'s self, at: u64, importance: &'s [f32]) -> Slab<'s> {
        Slab { known: &self.planned.known, at, importance: self.planned.importance.is_some().then_some(importance) }
    }

    fn failed(&self, failure: Failure) -> Error {
        failure.error(&self.planned.name, self.planned.scheme)
    }

    pub(crate) fn write(&self, sink: &dyn Sink, range: Range<u64>, scratch: &Scratch) -> Result<()> {
        for (i, part) in self.to.parts().iter().enumerate() {
            if let Fill::Stream { .. } = part.fill {
                let bytes = part.encoded(range.clone());
                debug_assert_eq!(bytes.end - bytes.start, scratch.out[i].len() as u64, "{} {range:?}", part.name);
                sink.write(self.index, i, bytes.start, &scratch.out[i])?;
            }
        }
        Ok(())
    }

    /// Decodes what [`Work::encode`] has just left in `scratch` for the elements of `range`, with the code that any reader uses.
    /// Returns Σs²/12 over each block of them, if their values are evenly spaced.
    pub(crate) fn decode_encoded(&self, range: Range<u64>, scratch: &Scratch, out: &mut Vec<f32>) -> Result<Option<Vec<f64>>> {
        let n = (range.end - range.start) as usize;
        out.resize(n, 0.0);
        let bytes = |(i, part): (usize, &Part)| match part.fill {
            Fill::Whole { .. } => Ok(Cow::Owned(self.to.whole(i, &self.planned.known))),
            Fill::Stream { per, .. } if part.encoded(range.clone()).start > part.decoded(range.clone()).start => {
                let mut whole = self.item(i, range.start / per * per)?;
                whole.extend_from_slice(&scratch.out[i]);
                Ok(Cow::Owned(whole))
            }
            Fill::Stream { .. } => Ok(Cow::Borrowed(&scratch.out[i][..])),
        };
        let parts = self.to.parts().iter().enumerate().map(bytes).collect::<Result<Vec<Cow<'_, [u8]>>>>()?;
        let parts: Vec<&[u8]> = parts.iter().map(|part| &part[..]).collect();
        self.backend.decode(&self.target(), range.start, &parts, out).map_err(|failure| self.failed(failure))?;
        Ok(self.to.noise(range, BLOCK as u64, &parts))
    }

    /// The item of part `part` that begins at element `at`, in an earlier slab: all that it depends on is known from the scan.
    fn item(&self, part: usize, at: u64) -> Result<Vec<u8>> {
        let mut out = vec![Vec::new(); self.to.parts().len()];
        self.to.encode(&Slab::new(&self.planned.known, at), &mut [0.0], &mut out).map_err(|unfit| self.refused(unfit))?;
        Ok(std::mem::take(&mut out[part]))
    }

    /// Σs²/12 over each block of the elements that were just decoded with [`Work::decode`], if their values are evenly spaced.
    pub(crate) fn noise(&self, range: Range<u64>, scratch: &Scratch) -> Option<Vec<f64>> {
        if self.planned.view != View::Whole {
            return None;
        }
        let parts: Vec<&[u8]> = scratch.parts[..self.from.parts().len()].iter().map(Vec::as_slice).collect();
        self.from.noise(range, BLOCK as u64, &parts)
    }

    pub(crate) fn refused(&self, unfit: Unfit) -> Error {
        self.failed(Failure::Unfit(unfit))
    }
}

pub(super) fn overflow(tensor: &str, scheme: Scheme) -> Error {
    Error::request(format!("tensor '{tensor}': its numbers are so large that the mean of their scales overflows f32, which {scheme} stores"))
}

/// A scan for schemes that need none: whether every element can be encoded.
pub(super) struct TryScan<'a>(pub(super) &'a Work<'a>);

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
