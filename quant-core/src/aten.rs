//! `torch.mean` of a contiguous float32 vector on the CPU, one thread, as a stream.
//!
//! A float sum depends on its order. bitsandbytes takes the mean of a tensor's scales with ATen, so double quantization
//! needs ATen's order: 8 lanes, 4 vectors side by side, and a cascade of 4 accumulators so that small numbers are not lost.
//! Source: `SumKernel.cpp` of PyTorch 2.15 (`cascade_sum`, `multi_row_sum`), checked against the library.

const LANES: usize = 8;
const ROWS: usize = 4;
const LEVELS: usize = 4;

/// A mean in ATen's order over a known number of values that arrive in pieces.
#[derive(Debug)]
pub struct Mean {
    n: u64,
    seen: u64,
    /// Lanes of one vector: 8, or 1 where the whole sum is shorter than a vector.
    lanes: usize,
    cascade: Cascade,
    tail: f32,
    pending: Vec<f32>,
}

impl Mean {
    /// A mean over exactly `n` values.
    pub fn new(n: u64) -> Mean {
        let lanes = if n < LANES as u64 { 1 } else { LANES };
        let rows = n / (lanes * ROWS) as u64;
        Mean { n, seen: 0, lanes, cascade: Cascade::new(rows), tail: 0.0, pending: Vec::new() }
    }

    /// Adds the next values.
    pub fn push(&mut self, values: &[f32]) {
        let row = self.lanes * ROWS;
        let mut values = values;
        if !self.pending.is_empty() {
            let (head, rest) = values.split_at(values.len().min(row - self.pending.len()));
            self.pending.extend_from_slice(head);
            values = rest;
            if self.pending.len() < row {
                return;
            }
            let full = std::mem::take(&mut self.pending);
            self.push_row(&full);
        }
        let mut rows = values.chunks_exact(row);
        rows.by_ref().for_each(|values| self.push_row(values));
        self.pending.extend_from_slice(rows.remainder());
    }

    fn push_row(&mut self, row: &[f32]) {
        self.seen += row.len() as u64;
        self.cascade.push(row);
    }

    /// The mean.
    pub fn finish(mut self) -> f32 {
        let mut sums = self.cascade.finish();
        let pending = std::mem::take(&mut self.pending);
        assert_eq!(self.seen + pending.len() as u64, self.n, "a mean over n values is given n values");
        let mut vectors = pending.chunks_exact(self.lanes);
        for vector in vectors.by_ref() {
            add(&mut sums[..self.lanes], vector);
        }
        let (first, others) = sums.split_at_mut(self.lanes);
        for other in others.chunks_exact(self.lanes).take(ROWS - 1) {
            add(first, other);
        }
        vectors.remainder().iter().for_each(|x| self.tail += x);
        first.iter().for_each(|x| self.tail += x);
        self.tail / self.n as f32
    }
}

fn add(sums: &mut [f32], values: &[f32]) {
    for (sum, x) in sums.iter_mut().zip(values) {
        *sum += x;
    }
}

/// ATen's `multi_row_sum`: four levels of accumulators, each emptied into the next every `2^power` steps.
#[derive(Debug)]
struct Cascade {
    levels: [[f32; LANES * ROWS]; LEVELS],
    rows: u64,
    pushed: u64,
    power: u32,
}

impl Cascade {
    fn new(rows: u64) -> Cascade {
        let ceil_log2 = if rows <= 1 { 0 } else { u64::BITS - (rows - 1).leading_zeros() };
        Cascade { levels: [[0.0; LANES * ROWS]; LEVELS], rows, pushed: 0, power: (ceil_log2 / LEVELS as u32).max(4) }
    }

    fn push(&mut self, row: &[f32]) {
        add(&mut self.levels[0], row);
        self.pushed += 1;
        let step = 1u64 << self.power;
        let whole_steps = self.rows / step * step;
        if !self.pushed.is_multiple_of(step) || self.pushed > whole_steps {
            return;
        }
        for level in 1..LEVELS {
            let below = std::mem::take(&mut self.levels[level - 1]);
            add(&mut self.levels[level], &below);
            if self.pushed & ((step - 1) << (level as u32 * self.power)) != 0 {
                break;
            }
        }
    }

    fn finish(self) -> [f32; LANES * ROWS] {
        let [mut sums, others @ ..] = self.levels;
        for other in &others {
            add(&mut sums, other);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_no_difference() {
        for n in [1u64, 3, 7, 8, 17, 31, 32, 33, 511, 4096, 70_001] {
            let values: Vec<f32> = (0..n).map(|i| ((i * 2_654_435_761) % 1009) as f32 * 0.37).collect();
            let mut whole = Mean::new(n);
            whole.push(&values);
            let whole = whole.finish();
            for piece in [1, 5, 32, 1000] {
                let mut mean = Mean::new(n);
                values.chunks(piece).for_each(|c| mean.push(c));
                assert_eq!(mean.finish().to_bits(), whole.to_bits(), "n {n}, pieces of {piece}");
            }
        }
    }
}
