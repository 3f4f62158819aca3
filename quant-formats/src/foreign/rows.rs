//! [`Rows`]: codes that lie row by row, times the numbers of a grid.
//!
//! `w = (q − z)·s`, computed in f32 in this order; q, z and their difference are exact.
//!
//! | codes | read as |
//! |---|---|
//! | numbers | what they are: I8, U8, F8_E4M3, F8_E5M2 |
//! | fields | unsigned integers minus half their range, or minus a zero point |
//! | E2M1 | two codes a byte, the first in the low nibble |
//! | E2M3 | four codes in three bytes, the first in the lowest bits, the sign in bit 5 of a code |
//!
//! Source: `dequant_simple` and `dequant_packed` of conversion/base.py, llama.cpp 0.5.0-dev; `_dequantize`,
//! `unpack_fp4_from_uint8` and `unpack_fp6_from_uint8` of compressed-tensors 0.20.0.

use std::ops::Range;

use quant_core::Result;

use super::Unpack;
use super::fields::Fields;
use super::grid::{Grid, Window};
use super::numbers::Numbers;
use super::pieces::{Piece, in_pieces};
use super::siblings::Sibling;
use crate::Checkpoint;

/// How codes become numbers.
#[derive(Clone, Debug)]
pub(super) enum Codes {
    /// One number after the other.
    Numbers(Numbers),
    /// Packed integers, from which this is subtracted.
    Fields(Sibling, Fields, f32),
    /// Four-bit floats.
    E2m1(Sibling),
    /// Six-bit floats.
    E2m3(Sibling),
}

/// What is subtracted from a code.
#[derive(Clone, Debug)]
pub(super) enum Zero {
    /// Nothing.
    None,
    /// A number of the grid.
    Grid(Numbers),
    /// A field of words that are packed down the rows of a grid of one row for each row of the matrix.
    Packed(Sibling, Fields),
}

/// A number that changes all scales of a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) enum Global {
    /// None.
    None,
    /// It multiplies them.
    Times(f32),
    /// It divides them.
    Over(f32),
}

/// A tensor of codes, row-major.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub(super) codes: Codes,
    pub(super) grid: Grid,
    pub(super) scale: Numbers,
    pub(super) zero: Zero,
    pub(super) global: Global,
}

impl Unpack for Rows {
    fn fill(&self, source: &Checkpoint, at: u64, out: &mut [f32]) -> Result<()> {
        in_pieces(self.grid.extent(), at, out, |piece, out| self.fill_piece(source, piece, out))
    }
}

impl Rows {
    fn fill_piece(&self, source: &Checkpoint, piece: &Piece, out: &mut [f32]) -> Result<()> {
        self.codes.read(source, piece, self.codes.sibling().n_bytes / self.grid.n_rows(), out)?;
        let window = self.grid.window(piece);
        let zeros = self.zeros(source, piece, &window)?;
        let mut scales = self.grid.read(&self.scale, source, &window)?;
        match self.global {
            Global::None => {}
            Global::Times(g) => scales.iter_mut().for_each(|s| *s *= g),
            Global::Over(g) => scales.iter_mut().for_each(|s| *s /= g),
        }
        for (row, out) in out.chunks_mut(piece.n_cols()).enumerate() {
            match &zeros {
                None => self.grid.runs(piece, &window, row, |run, i| out[run].iter_mut().for_each(|v| *v *= scales[i])),
                Some(zeros) => self.grid.runs(piece, &window, row, |run, i| out[run].iter_mut().for_each(|v| *v = (*v - zeros[i]) * scales[i])),
            }
        }
        Ok(())
    }

    /// The zero points of a window, if there are any.
    fn zeros(&self, source: &Checkpoint, piece: &Piece, window: &Window) -> Result<Option<Vec<f32>>> {
        match &self.zero {
            Zero::None => Ok(None),
            Zero::Grid(numbers) => self.grid.read(numbers, source, window).map(Some),
            Zero::Packed(sibling, fields) => self.packed_zeros(source, sibling, *fields, &piece.rows, window).map(Some),
        }
    }

    fn packed_zeros(&self, source: &Checkpoint, sibling: &Sibling, fields: Fields, rows: &Range<u64>, window: &Window) -> Result<Vec<f32>> {
        let words = fields.words(rows);
        let n_cols = (window.cols.end - window.cols.start) as usize;
        let mut bytes = vec![0; (words.end - words.start) as usize * n_cols * 4];
        for (line, word) in bytes.chunks_mut(n_cols * 4).zip(words.clone()) {
            sibling.read(source, (word * self.grid.n_cols() + window.cols.start) * 4, line)?;
        }
        let word = |row: u64, col: usize| {
            let at = (row - words.start) as usize * n_cols + col;
            bytes.as_chunks::<4>().0.get(at).map_or(0, |b| u32::from_le_bytes(*b))
        };
        let zero = |row: u64, col: usize| f32::from(fields.one(row, |w| word(w, col)));
        Ok(rows.clone().flat_map(|row| (0..n_cols).map(move |col| (row, col))).map(|(row, col)| zero(row, col)).collect())
    }
}

impl Codes {
    /// The tensor that holds them.
    pub(super) fn sibling(&self) -> &Sibling {
        match self {
            Codes::Numbers(numbers) => &numbers.sibling,
            Codes::Fields(sibling, ..) | Codes::E2m1(sibling) | Codes::E2m3(sibling) => sibling,
        }
    }

    /// Where the bytes of some columns lie in a row of `n_bytes` bytes, and how many codes come before them there.
    fn span(&self, cols: &Range<u64>, n_bytes: u64) -> (Range<u64>, usize) {
        match self {
            Codes::Numbers(numbers) => (cols.start * numbers.item_bytes()..cols.end * numbers.item_bytes(), 0),
            Codes::Fields(_, fields, _) => fields.span(cols, n_bytes),
            Codes::E2m1(_) => Fields::dense(4).span(cols, n_bytes),
            Codes::E2m3(_) => Fields::dense(6).span(cols, n_bytes),
        }
    }

    /// Fills `out` with the codes of a piece of a matrix with rows of `row_bytes` bytes.
    fn read(&self, source: &Checkpoint, piece: &Piece, row_bytes: u64, out: &mut [f32]) -> Result<()> {
        let (first, skip) = self.span(&piece.cols, row_bytes);
        let width = (first.end - first.start) as usize;
        let stride = if piece.n_rows() == 1 { width } else { row_bytes as usize };
        let mut bytes = vec![0; stride * (piece.n_rows() - 1) + width];
        self.sibling().read(source, piece.rows.start * row_bytes + first.start, &mut bytes)?;
        let mut codes = vec![0; if matches!(self, Codes::Numbers(_)) { 0 } else { piece.n_cols() }];
        for (row, out) in bytes.chunks(stride.max(1)).zip(out.chunks_mut(piece.n_cols())) {
            match self {
                Codes::Numbers(numbers) => numbers.decode(row, out),
                Codes::Fields(_, fields, offset) => {
                    fields.read(row, skip, &mut codes);
                    out.iter_mut().zip(&codes).for_each(|(v, &q)| *v = f32::from(q) - offset);
                }
                Codes::E2m1(_) => {
                    Fields::dense(4).read(row, skip, &mut codes);
                    out.iter_mut().zip(&codes).for_each(|(v, &q)| *v = E2M1[usize::from(q & 15)]);
                }
                Codes::E2m3(_) => {
                    Fields::dense(6).read(row, skip, &mut codes);
                    out.iter_mut().zip(&codes).for_each(|(v, &q)| *v = e2m3(q));
                }
            }
        }
        Ok(())
    }
}

/// The values of E2M1: sign, two bits of exponent, one of mantissa.
const E2M1: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// The value of an E2M3 code: sign, two bits of exponent, three of mantissa.
fn e2m3(code: u8) -> f32 {
    let (exponent, mantissa) = (code >> 3 & 3, f32::from(code & 7) / 8.0);
    let magnitude = match exponent {
        0 => mantissa,
        e => (1.0 + mantissa) * f32::from(1u8 << (e - 1)),
    };
    if code & 0x20 == 0 { magnitude } else { -magnitude }
}
