//! [`Columns`]: weights that are stored transposed, `[in, out]`, with a scale for each column and group of rows.
//!
//! ```text
//!        codes                                           zero points
//! GPTQ   [in·b/32, out]   fields down the columns         [groups, out·b/32]   fields along the rows
//! AWQ    [in, out/8]      nibbles along the rows, whose order in a word is that of outputs 0 2 4 6 1 3 5 7: both
//! ```
//!
//! `w[n, k] = (q[k, n] − z[g, n])·s[g, n]`, g the group of row k, computed in f32.
//!
//! Source: `dequant_gptq` of conversion/base.py, llama.cpp 0.5.0-dev; `dequantize_weight` of GPTQModel f4c327a;
//! `dequantize_gemm` of AutoAWQ 88e4c76.

use std::ops::Range;
use std::sync::Arc;

use quant_core::Result;

use super::Unpack;
use super::fields::Fields;
use super::numbers::Numbers;
use super::panels::Panels;
use super::pieces::{Extent, Piece, in_pieces};
use super::siblings::Sibling;
use crate::Checkpoint;

/// For each output of eight, which nibble of a word of AWQ holds it.
const AWQ_NIBBLE: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// How codes and zero points are packed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Packing {
    /// Fields of this width, and whether zero points are stored less 1: in the first version of the format.
    Gptq { bits: u8, less_one: bool },
    /// Nibbles in the order of AutoAWQ.
    Awq,
}

/// Which group a row of the stored matrix belongs to.
#[derive(Clone, Debug)]
pub(super) enum Groups {
    /// Rows in groups of this many.
    Of(u64),
    /// The group of each row.
    Listed(Arc<[u32]>),
}

/// A weight that is stored transposed.
#[derive(Debug)]
pub(super) struct Columns {
    /// The weight: outputs and inputs.
    pub(super) extent: Extent,
    pub(super) packing: Packing,
    pub(super) codes: Sibling,
    pub(super) scales: Numbers,
    /// The zero points; none stand for the middle of the range.
    pub(super) zeros: Option<Sibling>,
    pub(super) groups: Groups,
    pub(super) n_groups: u64,
    pub(super) panels: Arc<Panels>,
}

/// Scales and zero points of some groups and outputs.
struct Params {
    first_group: u64,
    n_outputs: usize,
    scales: Vec<f32>,
    zeros: Vec<f32>,
}

impl Unpack for Columns {
    fn fill(&self, source: &Checkpoint, at: u64, out: &mut [f32]) -> Result<()> {
        in_pieces(self.extent, at, out, |piece, out| {
            self.read_codes(source, piece, out)?;
            let params = self.params(source, piece)?;
            for (n, row) in out.chunks_mut(piece.n_cols()).enumerate() {
                self.scale_row(&params, n, piece.cols.start, row);
            }
            Ok(())
        })
    }
}

impl Columns {
    fn read_codes(&self, source: &Checkpoint, piece: &Piece, out: &mut [f32]) -> Result<()> {
        match self.packing {
            Packing::Gptq { bits, .. } => self.read_fields(source, Fields::dense(bits), piece, out),
            Packing::Awq => self.read_nibbles(source, piece, out),
        }
    }

    /// Codes that are packed down the columns: each output's words are put behind each other and read as one stream.
    fn read_fields(&self, source: &Checkpoint, fields: Fields, piece: &Piece, out: &mut [f32]) -> Result<()> {
        // From a multiple of eight fields on, which begins a byte; `words` may begin before it.
        let words = fields.words(&(piece.cols.start / 32 * 32..piece.cols.end));
        let n_words = (words.end - words.start) as usize;
        let block = self.panels.read(source, &self.codes, self.extent.rows * 4, words, piece.rows.start * 4..piece.rows.end * 4)?;
        let (mut stream, mut codes) = (vec![0; n_words * 4], vec![0; piece.n_cols()]);
        let skip = (piece.cols.start % 32) as usize;
        for (n, out) in out.chunks_mut(piece.n_cols()).enumerate() {
            for (to, line) in stream.chunks_mut(4).zip(block.chunks(piece.n_rows() * 4)) {
                to.copy_from_slice(&line[n * 4..n * 4 + 4]);
            }
            fields.read(&stream, skip, &mut codes);
            out.iter_mut().zip(&codes).for_each(|(v, &q)| *v = f32::from(q));
        }
        Ok(())
    }

    /// Codes that lie as the outputs do: one stored row gives one input of each output.
    fn read_nibbles(&self, source: &Checkpoint, piece: &Piece, out: &mut [f32]) -> Result<()> {
        let words = piece.rows.start / 8..piece.rows.end.div_ceil(8);
        let width = (words.end - words.start) as usize * 4;
        let block = self.panels.read(source, &self.codes, self.extent.rows / 2, piece.cols.clone(), words.start * 4..words.end * 4)?;
        for (n, out) in out.chunks_mut(piece.n_cols()).enumerate() {
            let output = piece.rows.start + n as u64;
            let (at, shift) = nibble(output - words.start * 8);
            for (v, line) in out.iter_mut().zip(block.chunks(width)) {
                *v = f32::from(line[at] >> shift & 15);
            }
        }
        Ok(())
    }

    /// Scales and zero points that a piece needs.
    fn params(&self, source: &Checkpoint, piece: &Piece) -> Result<Params> {
        let groups = self.groups_of(&piece.cols);
        let outputs = &piece.rows;
        let item = self.scales.item_bytes();
        let bytes =
            self.panels.read(source, &self.scales.sibling, self.extent.rows * item, groups.clone(), outputs.start * item..outputs.end * item)?;
        let mut scales = vec![0.0; bytes.len() / item as usize];
        self.scales.decode(&bytes, &mut scales);
        let zeros = self.zeros(source, &groups, outputs, scales.len())?;
        Ok(Params { first_group: groups.start, n_outputs: piece.n_rows(), scales, zeros })
    }

    fn zeros(&self, source: &Checkpoint, groups: &Range<u64>, outputs: &Range<u64>, n: usize) -> Result<Vec<f32>> {
        let Some(zeros) = &self.zeros else { return Ok(vec![8.0; n]) };
        let (bits, less_one) = match self.packing {
            Packing::Gptq { bits, less_one } => (bits, less_one),
            Packing::Awq => (4, false),
        };
        let fields = Fields::dense(bits);
        let stride = zeros.n_bytes / self.n_groups;
        let words = fields.words(&(outputs.start / 32 * 32..outputs.end));
        let mut block = self.panels.read(source, zeros, stride, groups.clone(), words.start * 4..words.end * 4)?;
        if less_one {
            add_to_words(bits, &mut block);
        }
        let mut codes = vec![0; (outputs.end - outputs.start) as usize];
        let mut out = Vec::with_capacity(n);
        for line in block.chunks((words.end - words.start) as usize * 4) {
            match self.packing {
                Packing::Gptq { .. } => fields.read(line, (outputs.start % 32) as usize, &mut codes),
                Packing::Awq => codes.iter_mut().enumerate().for_each(|(i, code)| {
                    let (at, shift) = nibble(outputs.start % 32 + i as u64);
                    *code = line[at] >> shift & 15;
                }),
            }
            let plus = u8::from(less_one && bits == 3);
            out.extend(codes.iter().map(|&z| f32::from((z + plus) & mask(bits))));
        }
        Ok(out)
    }

    fn groups_of(&self, inputs: &Range<u64>) -> Range<u64> {
        match &self.groups {
            Groups::Of(size) => inputs.start / size..(inputs.end - 1) / size + 1,
            Groups::Listed(_) => 0..self.n_groups,
        }
    }

    /// Subtracts and scales the codes of one output, from input `first` on.
    fn scale_row(&self, params: &Params, n: usize, first: u64, row: &mut [f32]) {
        let at = |group: u64| (group - params.first_group) as usize * params.n_outputs + n;
        match &self.groups {
            Groups::Listed(list) => row.iter_mut().zip(list.iter().skip(first as usize)).for_each(|(v, &group)| {
                let i = at(u64::from(group));
                *v = (*v - params.zeros[i]) * params.scales[i];
            }),
            Groups::Of(size) => {
                let mut rest = row;
                let mut input = first;
                while !rest.is_empty() {
                    let n = (size - input % size).min(rest.len() as u64);
                    let (run, later) = rest.split_at_mut(n as usize);
                    let i = at(input / size);
                    let (zero, scale) = (params.zeros[i], params.scales[i]);
                    run.iter_mut().for_each(|v| *v = (*v - zero) * scale);
                    (rest, input) = (later, input + n);
                }
            }
        }
    }
}

/// Adds 1 to every field of whole words, carrying within a word: the inverse of what GPTQModel does when it saves. Fields of three
/// bits lie across words and are left to the caller.
fn add_to_words(bits: u8, bytes: &mut [u8]) {
    let ones: u32 = match bits {
        2 => 0x5555_5555,
        4 => 0x1111_1111,
        8 => 0x0101_0101,
        _ => 0,
    };
    bytes.as_chunks_mut::<4>().0.iter_mut().for_each(|word| *word = u32::from_le_bytes(*word).wrapping_add(ones).to_le_bytes());
}

/// All ones in a field.
fn mask(bits: u8) -> u8 {
    u8::MAX >> (8 - bits)
}

/// Where the nibble of an output lies in a row of words of AWQ: which byte, and by how much it is shifted.
fn nibble(output: u64) -> (usize, u32) {
    let bit = AWQ_NIBBLE[(output % 8) as usize] * 4;
    ((output / 8 * 4) as usize + (bit / 8) as usize, bit % 8)
}
