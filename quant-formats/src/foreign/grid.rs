//! [`Grid`]: which scale belongs to which element of a matrix.

use std::ops::Range;
use std::sync::Arc;

use quant_core::Result;

use super::numbers::Numbers;
use super::pieces::{Extent, Piece};
use super::siblings::{Sibling, Siblings};
use crate::Checkpoint;

/// A grid of blocks over a matrix or a stack of them, with one number for each block.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    /// The matrix, and the rows and columns of a block.
    extent: Extent,
    block: [u64; 2],
    /// The rows of all matrices of the stack.
    n_rows: u64,
    /// The columns of the grid, and its rows from one matrix of the stack to the next: 0 if they share one grid.
    cols: u64,
    step: u64,
    /// The column of the grid for each column of the matrix, where blocks are not contiguous.
    order: Option<Arc<[u32]>>,
}

/// A part of a grid.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) rows: Range<u64>,
    pub(super) cols: Range<u64>,
}

impl Window {
    fn n_cols(&self) -> u64 {
        self.cols.end - self.cols.start
    }
}

impl Grid {
    /// The grid of `scale` over a tensor of `shape`.
    ///
    /// `block` are the sizes of blocks in the last dimensions; without it, each dimension of the grid is 1 or that of the
    /// tensor. Dimensions that the grid lacks at the end are 1: `[out]` is one number a row.
    ///
    /// # Errors
    /// If the shapes do not go together.
    pub(super) fn new(siblings: &Siblings<'_>, shape: &[u64], scale: &Sibling, block: Option<&[u64]>) -> Result<Grid> {
        let found = if scale.n_elements() == 1 { vec![1; shape.len()] } else { padded(&scale.shape, shape.len()) };
        let sizes = block.map_or_else(|| vec![None; shape.len()], |block| last(block, shape.len()));
        let blocks: Option<Vec<u64>> = (found.len() == shape.len())
            .then(|| shape.iter().zip(&found).zip(&sizes).map(|((&n, &found), &size)| block_of(n, found, size)).collect())
            .flatten();
        let problem = || {
            let blocks = block.map_or(String::new(), |b| format!(" in blocks of {b:?}"));
            format!("found the shape {:?}, which is no grid of scales for a weight of shape {shape:?}{blocks}", scale.shape)
        };
        let blocks = blocks.ok_or_else(|| siblings.bad(scale, problem()))?;
        Grid::of_blocks(shape, &found, &blocks).ok_or_else(|| siblings.bad(scale, problem()))
    }

    /// Reads the grid's last two dimensions as rows and columns, and those before as a stack.
    fn of_blocks(shape: &[u64], found: &[u64], blocks: &[u64]) -> Option<Grid> {
        let at = shape.len().saturating_sub(2);
        let (stack, matrix) = (found.get(..at)?, found.get(at..)?);
        let (rows, cols) = two(matrix)?;
        let (block_rows, block_cols) = two(blocks.get(at..)?)?;
        let shared = stack.iter().all(|&n| n == 1);
        let own = stack == shape.get(..at)?;
        (shared || own).then_some(())?;
        let step = if own { rows } else { 0 };
        let n_rows = shape.iter().rev().skip(1).try_fold(1u64, |n, &d| n.checked_mul(d))?;
        Some(Grid { extent: extent(shape)?, block: [block_rows, block_cols], n_rows, cols, step, order: None })
    }

    /// The same grid, with the block of each column given.
    pub(super) fn ordered(self, order: Option<Arc<[u32]>>) -> Grid {
        Grid { order, ..self }
    }

    /// The matrix that it covers.
    pub(super) fn extent(&self) -> Extent {
        self.extent
    }

    /// The rows of all matrices that it covers.
    pub(super) fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Rows and columns of a block.
    pub(super) fn block(&self) -> [u64; 2] {
        self.block
    }

    /// The numbers of the grid in each of its rows.
    pub(super) fn n_cols(&self) -> u64 {
        self.cols
    }

    /// The part that a piece of the matrix needs.
    pub(super) fn window(&self, piece: &Piece) -> Window {
        let cols = match self.order {
            Some(_) => 0..self.cols,
            None => piece.cols.start / self.block[1]..(piece.cols.end - 1) / self.block[1] + 1,
        };
        Window { rows: self.row(piece.rows.start)..self.row(piece.rows.end - 1) + 1, cols }
    }

    fn row(&self, row: u64) -> u64 {
        row / self.extent.rows * self.step + row % self.extent.rows / self.block[0]
    }

    /// The numbers of a window, row by row. A window of several rows is as wide as the grid.
    pub(super) fn read(&self, numbers: &Numbers, source: &Checkpoint, window: &Window) -> Result<Vec<f32>> {
        let n = (window.rows.end - window.rows.start) * window.n_cols();
        numbers.read(source, window.rows.start * self.cols + window.cols.start, n as usize)
    }

    /// Calls `f` for each run of a row of a piece that shares one number: its columns in the piece, and which number of the window.
    #[inline(always)]
    pub(super) fn runs(&self, piece: &Piece, window: &Window, row: usize, mut f: impl FnMut(Range<usize>, usize)) {
        let first = (self.row(piece.rows.start + row as u64) - window.rows.start) * window.n_cols();
        let mut col = piece.cols.start;
        while col < piece.cols.end {
            let (grid_col, end) = match &self.order {
                Some(order) => (order.get(col as usize).map_or(0, |&g| u64::from(g)), col + 1),
                None => (col / self.block[1], ((col / self.block[1] + 1) * self.block[1]).min(piece.cols.end)),
            };
            let start = (col - piece.cols.start) as usize;
            f(start..(end - piece.cols.start) as usize, (first + grid_col - window.cols.start) as usize);
            col = end;
        }
    }
}

/// The rows and columns of a tensor, all dimensions but the last two being a stack; a vector is one row.
pub(super) fn extent(shape: &[u64]) -> Option<Extent> {
    let (rows, cols) = two(shape.get(shape.len().saturating_sub(2)..)?)?;
    (rows > 0 && cols > 0).then_some(Extent { rows, cols })
}

/// Two dimensions; one alone is that of the columns.
fn two(dims: &[u64]) -> Option<(u64, u64)> {
    match *dims {
        [rows, cols] => Some((rows, cols)),
        [cols] => Some((1, cols)),
        _ => None,
    }
}

/// `shape` with ones at its end.
fn padded(shape: &[u64], n_dims: usize) -> Vec<u64> {
    let ones = n_dims.saturating_sub(shape.len());
    shape.iter().copied().chain(std::iter::repeat_n(1, ones)).collect()
}

/// The sizes of blocks, known for the last dimensions only.
fn last(block: &[u64], n_dims: usize) -> Vec<Option<u64>> {
    let unknown = n_dims.saturating_sub(block.len());
    let skipped = block.len().saturating_sub(n_dims);
    std::iter::repeat_n(None, unknown).chain(block.iter().skip(skipped).map(|&b| Some(b))).collect()
}

/// The size of blocks along a dimension of `n` elements, given how many there are and how long they should be.
fn block_of(n: u64, found: u64, size: Option<u64>) -> Option<u64> {
    match size {
        _ if found == 1 && size.is_none_or(|size| n <= size || n == 1) => Some(n),
        None | Some(0) => (found == n).then_some(1),
        Some(size) => (found == n.div_ceil(size)).then_some(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_follow_from_counts() {
        assert_eq!(block_of(576, 5, Some(128)), Some(128));
        assert_eq!(block_of(576, 4, Some(128)), None);
        assert_eq!(block_of(576, 576, None), Some(1));
        assert_eq!(block_of(576, 1, None), Some(576));
        assert_eq!(block_of(576, 1, Some(128)), None);
        assert_eq!(block_of(96, 1, Some(128)), Some(96));
        assert_eq!(block_of(7, 3, None), None);
        assert_eq!(block_of(7, 7, Some(0)), Some(1));
    }

    #[test]
    fn runs_cover_a_row() {
        let grid = Grid::of_blocks(&[2, 6, 10], &[2, 2, 4], &[1, 4, 3]).unwrap();
        let piece = Piece { rows: 9..10, cols: 2..10 };
        let window = grid.window(&piece);
        assert_eq!((window.rows.clone(), window.cols.clone()), (2..3, 0..4));
        let mut runs = Vec::new();
        grid.runs(&piece, &window, 0, |run, i| runs.push((run, i)));
        assert_eq!(runs, [(0..1, 0), (1..4, 1), (4..7, 2), (7..8, 3)]);
        let shared = Grid::of_blocks(&[2, 6, 10], &[1, 6, 1], &[2, 1, 10]).unwrap();
        assert_eq!(shared.window(&Piece { rows: 7..9, cols: 0..10 }).rows, 1..3);
    }
}
