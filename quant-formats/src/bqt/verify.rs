//! Verifying a BQT file: every chunk is read, and damage is named by tensor and rows.

use std::fmt;
use std::ops::Range;

use crc32fast::Hasher;
use quant_core::error::Printable;
use quant_core::sink::Observer;
use quant_core::source::Tensor;
use quant_core::{Error, Result};
use rayon::prelude::*;

use super::header::{HEADER, Header, SUMMED};
use super::index::{Extent, Index, Owner};
use super::{ALIGN, PIECE, affected};
use crate::input::Input;

/// What verifying found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Tensors in the file; 0 if its index cannot be trusted.
    pub tensors: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// What is damaged, in the order of the file. Empty for a sound file.
    pub damages: Vec<Damage>,
}

/// One damaged stretch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What it belongs to.
    pub spot: Spot,
    /// Where in the file the damage lies: whole chunks, so it may be smaller.
    pub bytes: Range<u64>,
    /// What was found and what was needed.
    pub problem: String,
}

/// What damaged bytes belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spot {
    /// The first 32 bytes, or the length of the file.
    Header,
    /// The index, or the lengths in the header, which are under the same checksum. Nothing else can be checked then.
    Index,
    /// A part of a tensor.
    Part {
        /// The tensor's name.
        tensor: String,
        /// The part's name.
        part: String,
        /// The rows, along the last dimension, that hold `elements`.
        rows: Option<Range<u64>>,
        /// The elements that are read with the damaged bytes; none for parts that only the original container needs.
        elements: Range<u64>,
    },
    /// A file carried along.
    File(String),
    /// The beginning or the index of one of the original files.
    Blob(usize),
    /// Zeros between two extents.
    Padding,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.spot {
            Spot::Header => write!(f, "the header")?,
            Spot::Index => write!(f, "the index")?,
            Spot::Part { tensor, part, rows, elements } => {
                write!(f, "tensor '{}', part '{}'", Printable(tensor), Printable(part))?;
                if let Some(rows) = rows {
                    write!(f, ", rows {} to {}", rows.start, rows.end - 1)?;
                }
                if !elements.is_empty() {
                    write!(f, ", elements {} to {}", elements.start, elements.end - 1)?;
                }
            }
            Spot::File(name) => write!(f, "file '{}'", Printable(name))?,
            Spot::Blob(i) => write!(f, "blob {i}")?,
            Spot::Padding => write!(f, "padding")?,
        }
        write!(f, " (bytes {} to {} of the file): {}", self.bytes.start, self.bytes.end.saturating_sub(1), self.problem)
    }
}

/// A stretch of one extent, or of the padding after it.
type Finding = (Range<u64>, Owner, bool);

/// Reads all of a BQT file and lists what is damaged. A file that is cut off or not BQT at all is reported as damage, too.
///
/// # Errors
/// Only if the system cannot read the file, or the observer asks to stop.
pub fn verify(input: &Input, observer: &dyn Observer) -> Result<Report> {
    observer.begin("verifying", input.len());
    let whole = |damage: Damage| Report { tensors: 0, bytes: input.len(), damages: vec![damage] };
    let header = match Header::read(input) {
        Err(Error::File(bad)) => return Ok(whole(Damage { spot: Spot::Header, bytes: 0..HEADER.min(input.len()), problem: bad.problem })),
        header => header?,
    };
    let data_len = header.file_len - header.data_start();
    let read = Index::read(input, &header).and_then(|index| Ok((index.check(input.path(), data_len)?, index)));
    let (tensors, index) = match read {
        Err(Error::File(bad)) => {
            let problem = bad.tensor.map(|tensor| format!("tensor '{tensor}': ")).unwrap_or_default() + &bad.problem;
            return Ok(whole(Damage { spot: Spot::Index, bytes: SUMMED..header.data_start(), problem }));
        }
        read => read?,
    };
    observer.advance(header.data_start());
    let base = header.data_start();
    let data = Data { input, index: &index, base, observer };
    let damages = data.findings()?.into_iter().map(|finding| damage(&index, &tensors, base, finding)).collect();
    Ok(Report { tensors: tensors.len(), bytes: input.len(), damages })
}

/// The data of a file whose index is sound.
struct Data<'a> {
    input: &'a Input,
    index: &'a Index,
    base: u64,
    observer: &'a dyn Observer,
}

impl Data<'_> {
    /// The damaged stretches of the file, in its order, neighbours joined.
    fn findings(&self) -> Result<Vec<Finding>> {
        let extents = self.index.extents();
        let chunks = extents.iter().flat_map(|&(owner, extent)| (0..extent.crc32.0.len()).map(move |chunk| (owner, extent, chunk)));
        let check = |buffer: &mut Vec<u8>, (owner, extent, chunk)| self.check(buffer, owner, extent, chunk);
        let found: Vec<Vec<Finding>> = chunks.par_bridge().map_init(Vec::new, check).collect::<Result<_>>()?;
        let mut found: Vec<Finding> = found.into_iter().flatten().collect();
        found.sort_unstable_by_key(|(bytes, _, _)| bytes.start);
        found.dedup_by(|next, last| {
            let joins = last.0.end == next.0.start && (last.1, last.2) == (next.1, next.2);
            last.0.end = if joins { next.0.end } else { last.0.end };
            joins
        });
        Ok(found)
    }

    /// Checks one chunk, and after the last one of an extent its padding.
    fn check(&self, buffer: &mut Vec<u8>, owner: Owner, extent: &Extent, chunk: usize) -> Result<Vec<Finding>> {
        let start = chunk as u64 * self.index.chunk_bytes;
        let end = extent.bytes.min(start + self.index.chunk_bytes);
        let bytes = self.base + extent.offset + start..self.base + extent.offset + end;
        let mut found = Vec::new();
        if self.checksum(buffer, bytes.clone())? != extent.crc32.0[chunk] {
            found.push((bytes.clone(), owner, false));
        }
        let padding = bytes.end..bytes.end.next_multiple_of(ALIGN).min(self.input.len());
        if end == extent.bytes && !padding.is_empty() {
            buffer.resize((padding.end - padding.start) as usize, 0);
            self.input.read_at(padding.start, buffer)?;
            if buffer.iter().any(|&byte| byte != 0) {
                found.push((padding, owner, true));
            }
        }
        Ok(found)
    }

    fn checksum(&self, buffer: &mut Vec<u8>, bytes: Range<u64>) -> Result<u32> {
        let mut sum = Hasher::new();
        for start in bytes.clone().step_by(PIECE as usize) {
            if self.observer.cancelled() {
                return Err(Error::Cancelled);
            }
            let len = PIECE.min(bytes.end - start);
            buffer.resize(len as usize, 0);
            self.input.read_at(start, buffer)?;
            sum.update(buffer);
            self.observer.advance(len);
        }
        Ok(sum.finalize())
    }
}

/// What a finding means to whoever reads the tensors.
fn damage(index: &Index, tensors: &[Tensor], base: u64, (bytes, owner, padding): Finding) -> Damage {
    if padding {
        return Damage { spot: Spot::Padding, bytes, problem: format!("the zeros after {} are not all zero", index.name_of(owner)) };
    }
    let spot = match owner {
        Owner::Part { tensor, part } => {
            let start = base + index.tensors[tensor].parts[part].at.offset;
            let elements = affected::elements(&tensors[tensor], part, &(bytes.start - start..bytes.end - start));
            let [name, part] = [&tensors[tensor].name, &tensors[tensor].parts[part].name].map(Clone::clone);
            Spot::Part { tensor: name, part, rows: affected::rows(&tensors[tensor], &elements), elements }
        }
        Owner::File(i) => Spot::File(index.files[i].name.clone()),
        Owner::Blob(i) => Spot::Blob(i),
    };
    Damage { spot, bytes, problem: "the checksum is wrong".into() }
}
