//! Cutting a range of elements into pieces of a matrix that are read at once.

use std::ops::Range;

use quant_core::Result;

/// The most elements of a piece, whatever the caller asks for: this bounds the memory of every unpacker.
pub(super) const MAX_PIECE: u64 = 1 << 16;

/// Some whole rows of a matrix, or columns of one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) rows: Range<u64>,
    pub(super) cols: Range<u64>,
}

impl Piece {
    pub(super) fn n_rows(&self) -> usize {
        (self.rows.end - self.rows.start) as usize
    }

    pub(super) fn n_cols(&self) -> usize {
        (self.cols.end - self.cols.start) as usize
    }
}

/// The size of a matrix, or of a stack of matrices whose rows follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// The rows of one matrix of the stack.
    pub(super) rows: u64,
    /// The columns, at least one.
    pub(super) cols: u64,
}

/// Calls `read` for one piece after the other of what `out` is to hold, the elements from `at` on.
///
/// No piece crosses from one matrix of the stack to the next.
pub(super) fn in_pieces(extent: Extent, at: u64, out: &mut [f32], mut read: impl FnMut(&Piece, &mut [f32]) -> Result<()>) -> Result<()> {
    let (mut at, mut rest) = (at, out);
    while !rest.is_empty() {
        let piece = first_piece(extent, at, rest.len() as u64);
        let n = piece.n_rows() * piece.n_cols();
        let (now, later) = rest.split_at_mut(n);
        read(&piece, now)?;
        (at, rest) = (at + n as u64, later);
    }
    Ok(())
}

fn first_piece(extent: Extent, at: u64, n: u64) -> Piece {
    let (row, col) = (at / extent.cols, at % extent.cols);
    let n = n.min(MAX_PIECE);
    if col == 0 && n >= extent.cols {
        let rows = (n / extent.cols).min(extent.rows - row % extent.rows);
        return Piece { rows: row..row + rows, cols: 0..extent.cols };
    }
    Piece { rows: row..row + 1, cols: col..extent.cols.min(col + n) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_a_range_in_order() {
        for (rows, cols) in [(1, 1), (3, 5), (7, 70_000), (1, 200_000), (5, 4096)] {
            let extent = Extent { rows, cols };
            for (at, n) in [(0u64, 3 * rows * cols), (cols / 2, rows * cols), (rows * cols - 1, cols + 1)] {
                let mut out = vec![-1.0; n as usize];
                in_pieces(extent, at, &mut out, |piece, out| {
                    assert_eq!(piece.rows.start / rows, (piece.rows.end - 1) / rows);
                    assert!(out.len() as u64 <= MAX_PIECE);
                    for (i, v) in out.iter_mut().enumerate() {
                        let (r, c) = (i / piece.n_cols(), i % piece.n_cols());
                        *v = ((piece.rows.start + r as u64) * cols + piece.cols.start + c as u64 - at) as f32;
                    }
                    Ok(())
                })
                .unwrap();
                assert!(out.iter().enumerate().all(|(i, v)| *v == i as f32));
            }
        }
    }
}
