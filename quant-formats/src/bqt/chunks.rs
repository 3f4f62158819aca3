//! [`Chunks`]: the CRC-32 of each chunk of an extent, from pieces that arrive in any order.
//!
//! Neighbouring runs within a chunk are joined as soon as both are there, by CRC arithmetic and without their bytes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use crc32fast::Hasher;

/// What is known of an extent of `len` bytes. Each byte comes exactly once.
pub(super) struct Chunks {
    len: u64,
    chunk_bytes: u64,
    /// By first byte. No run crosses the end of a chunk.
    runs: Mutex<BTreeMap<u64, Run>>,
}

struct Run {
    end: u64,
    sum: Hasher,
}

impl Chunks {
    pub(super) fn new(len: u64, chunk_bytes: u64) -> Chunks {
        Chunks { len, chunk_bytes, runs: Mutex::default() }
    }

    /// Whether `n` bytes from `offset` on lie inside the extent.
    pub(super) fn holds(&self, offset: u64, n: u64) -> bool {
        offset.checked_add(n).is_some_and(|end| end <= self.len)
    }

    /// Adds the bytes from `offset` on, which must lie inside. Fails, naming the range, if one of them came before.
    pub(super) fn add(&self, offset: u64, bytes: &[u8]) -> Result<(), Range<u64>> {
        let (mut start, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let room = self.chunk_bytes - start % self.chunk_bytes;
            let (piece, after) = rest.split_at(rest.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            let mut sum = Hasher::new();
            sum.update(piece);
            let end = start + piece.len() as u64;
            self.insert(start, Run { end, sum })?;
            (start, rest) = (end, after);
        }
        Ok(())
    }

    fn insert(&self, start: u64, mut run: Run) -> Result<(), Range<u64>> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let before = runs.range(..=start).next_back().map(|(&first, run)| (first, run.end));
        let after = runs.range(start..).next().map(|(&first, _)| first);
        if before.is_some_and(|(_, end)| end > start) || after.is_some_and(|first| first < run.end) {
            return Err(start..run.end);
        }
        let inside = |at: u64| !at.is_multiple_of(self.chunk_bytes);
        if after == Some(run.end)
            && inside(run.end)
            && let Some(next) = runs.remove(&run.end)
        {
            run.sum.combine(&next.sum);
            run.end = next.end;
        }
        match before {
            Some((first, end))
                if end == start
                    && inside(start)
                    && let Some(before) = runs.get_mut(&first) =>
            {
                before.sum.combine(&run.sum);
                before.end = run.end;
            }
            _ => drop(runs.insert(start, run)),
        }
        Ok(())
    }

    /// The checksum of each chunk. Fails, naming the first byte that never came.
    pub(super) fn finish(self) -> Result<Vec<u32>, u64> {
        let runs = self.runs.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut sums = Vec::with_capacity(runs.len());
        let mut next = 0;
        for (start, run) in runs {
            if start != next {
                return Err(next);
            }
            next = run.end;
            if next != self.len && !next.is_multiple_of(self.chunk_bytes) {
                return Err(next);
            }
            sums.push(run.sum.finalize());
        }
        if next == self.len { Ok(sums) } else { Err(next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// CRC-32 as the zlib documentation defines it, bit by bit.
    fn crc32_by_definition(bytes: &[u8]) -> u32 {
        !bytes
            .iter()
            .fold(!0u32, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }))
    }

    #[test]
    fn the_definition_has_the_check_value_of_the_catalogue() {
        assert_eq!(crc32_by_definition(b"123456789"), 0xcbf4_3926);
    }

    proptest! {
        #[test]
        fn any_order_of_any_pieces_gives_the_same_sums(
            bytes in prop::collection::vec(any::<u8>(), 0..2000), cuts in prop::collection::vec(0usize..2000, 0..20), seed: u64,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|&c| c < bytes.len()).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            cuts.dedup();
            let mut pieces: Vec<Range<usize>> = cuts.windows(2).map(|w| w[0]..w[1]).collect();
            pieces.sort_by_key(|p| (p.start as u64 + 1).wrapping_mul(seed | 1));
            let chunks = Chunks::new(bytes.len() as u64, 256);
            for piece in &pieces {
                prop_assert_eq!(chunks.add(piece.start as u64, &bytes[piece.clone()]), Ok(()));
            }
            for piece in &pieces {
                prop_assert!(chunks.add(piece.start as u64, &bytes[piece.clone()]).is_err());
            }
            let expected: Vec<u32> = bytes.chunks(256).map(crc32_by_definition).collect();
            prop_assert_eq!(chunks.finish(), Ok(expected));
        }
    }

    #[test]
    fn a_missing_byte_is_named() {
        for missing in [0, 1, 255, 256, 300, 599] {
            let chunks = Chunks::new(600, 256);
            chunks.add(missing + 1, &vec![1; 599 - missing as usize]).unwrap();
            chunks.add(0, &vec![1; missing as usize]).unwrap();
            assert_eq!(chunks.finish(), Err(missing));
        }
    }
}
