//! [`Panels`]: reading columns of matrices that are stored by rows.
//!
//! GPTQ and AWQ store a weight as `[in, out]`, so a few rows of `[out, in]` are a few bytes of every stored row. A file is read in
//! panels of 128 bytes of at most 8,192 rows, and the last few are kept: the next rows that are asked for mostly lie there.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use quant_core::Result;

use super::siblings::Sibling;
use crate::Checkpoint;

/// The bytes of a row of a panel, and its most rows.
const WIDTH: u64 = 128;
const ROWS: u64 = 1 << 13;
/// Panels that are kept, of all tensors of a checkpoint together: at most 32 MiB.
const KEPT: usize = 32;

/// Which panel of which tensor.
type Key = (usize, u64, u64);
type Slot = Arc<Mutex<Option<Arc<[u8]>>>>;

/// The panels that were read last.
#[derive(Debug, Default)]
pub(super) struct Panels {
    slots: Mutex<VecDeque<(Key, Slot)>>,
}

impl Panels {
    /// The bytes `cols` of each of the rows `rows` of a matrix with rows of `stride` bytes, row by row.
    pub(super) fn read(&self, source: &Checkpoint, matrix: &Sibling, stride: u64, rows: Range<u64>, cols: Range<u64>) -> Result<Vec<u8>> {
        let width = (cols.end - cols.start) as usize;
        let mut out = vec![0; (rows.end - rows.start) as usize * width];
        let n_rows = matrix.n_bytes / stride;
        for band in rows.start / ROWS..rows.end.div_ceil(ROWS) {
            for column in cols.start / WIDTH..cols.end.div_ceil(WIDTH) {
                let panel_rows = band * ROWS..n_rows.min((band + 1) * ROWS);
                let panel_cols = column * WIDTH..stride.min((column + 1) * WIDTH);
                let panel = self.panel(source, matrix, (matrix.index, band, column), stride, &panel_rows, &panel_cols)?;
                let shared_rows = panel_rows.start.max(rows.start)..panel_rows.end.min(rows.end);
                let shared_cols = panel_cols.start.max(cols.start)..panel_cols.end.min(cols.end);
                let n = (shared_cols.end - shared_cols.start) as usize;
                let panel_width = (panel_cols.end - panel_cols.start) as usize;
                for row in shared_rows {
                    let from = (row - panel_rows.start) as usize * panel_width + (shared_cols.start - panel_cols.start) as usize;
                    let to = (row - rows.start) as usize * width + (shared_cols.start - cols.start) as usize;
                    out[to..to + n].copy_from_slice(&panel[from..from + n]);
                }
            }
        }
        Ok(out)
    }

    /// One panel; whoever asks for it first reads it, the others wait.
    fn panel(&self, source: &Checkpoint, matrix: &Sibling, key: Key, stride: u64, rows: &Range<u64>, cols: &Range<u64>) -> Result<Arc<[u8]>> {
        let slot = self.slot(key);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(panel) = &*slot {
            return Ok(Arc::clone(panel));
        }
        let width = (cols.end - cols.start) as usize;
        let mut bytes = vec![0; (rows.end - rows.start) as usize * width];
        if width as u64 == stride {
            matrix.read(source, rows.start * stride, &mut bytes)?;
        } else {
            for (line, row) in bytes.chunks_mut(width).zip(rows.clone()) {
                matrix.read(source, row * stride + cols.start, line)?;
            }
        }
        let panel: Arc<[u8]> = bytes.into();
        *slot = Some(Arc::clone(&panel));
        Ok(panel)
    }

    fn slot(&self, key: Key) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = slots.iter().position(|(k, _)| *k == key)
            && let Some(entry) = slots.remove(at)
        {
            let slot = Arc::clone(&entry.1);
            slots.push_back(entry);
            return slot;
        }
        if slots.len() >= KEPT {
            slots.pop_front();
        }
        let slot = Slot::default();
        slots.push_back((key, Arc::clone(&slot)));
        slot
    }
}
