//! Unsigned fields of one to eight bits, packed into little-endian words of 32 bits.
//!
//! ```text
//! dense   field i at bit i·b of the stream; it may lie across two words       (GPTQ, compressed-tensors since mid-2026)
//! loose   ⌊32/b⌋ fields a word, the first in the lowest bits, the rest unused  (compressed-tensors before; the same for 1, 2, 4, 8)
//! ```
//!
//! A stream of little-endian words is a stream of bytes, so dense fields are read eight at a time from `b` bytes.
//!
//! Source: `pack_to_int32` of compressed-tensors 0.20.0 and of 0.15; `dequant_packed` of conversion/base.py, llama.cpp 0.5.0-dev.

use std::ops::Range;

/// How fields of one width are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    /// The width, from 1 to 8.
    pub(super) bits: u8,
    /// Whether no field lies across two words.
    pub(super) loose: bool,
}

impl Fields {
    pub(super) fn dense(bits: u8) -> Fields {
        Fields { bits, loose: false }
    }

    /// The words that `n` fields take.
    pub(super) fn n_words(self, n: u64) -> u64 {
        if self.loose { n.div_ceil(self.per_word()) } else { (n * u64::from(self.bits)).div_ceil(32) }
    }

    /// The packing that gives `n_words` words for `n` fields, dense if both do.
    pub(super) fn fitting(bits: u8, n: u64, n_words: u64) -> Option<Fields> {
        [false, true].map(|loose| Fields { bits, loose }).into_iter().find(|f| f.n_words(n) == n_words)
    }

    /// Whether `n` fields take as many words in the other packing, and others: the number of words does not tell which it is.
    pub(super) fn is_ambiguous(self, n: u64) -> bool {
        let other = Fields { loose: !self.loose, ..self };
        !32u8.is_multiple_of(self.bits) && n > self.per_word() && other.n_words(n) == self.n_words(n)
    }

    fn per_word(self) -> u64 {
        32 / u64::from(self.bits)
    }

    /// Where the bytes lie that hold a range of fields of a stream of `n` bytes, and how many fields come before it there.
    pub(super) fn span(self, fields: &Range<u64>, n_bytes: u64) -> (Range<u64>, usize) {
        let (unit, unit_bytes) = if self.loose { (self.per_word(), 4) } else { (8, u64::from(self.bits)) };
        let bytes = fields.start / unit * unit_bytes..(fields.end.div_ceil(unit) * unit_bytes).min(n_bytes);
        (bytes, (fields.start % unit) as usize)
    }

    /// The words that hold a range of fields, at least one.
    pub(super) fn words(self, fields: &Range<u64>) -> Range<u64> {
        let last = self.bit(fields.end - 1) + u64::from(self.bits) - 1;
        self.bit(fields.start) / 32..last / 32 + 1
    }

    /// Field `i` of a stream whose words `word` gives.
    pub(super) fn one(self, i: u64, word: impl Fn(u64) -> u32) -> u8 {
        let (at, shift) = (self.bit(i) / 32, self.bit(i) % 32);
        let high = if shift + u64::from(self.bits) > 32 { u64::from(word(at + 1)) << 32 } else { 0 };
        ((high | u64::from(word(at))) >> shift & ((1 << self.bits) - 1)) as u8
    }

    /// The bit at which field `i` begins.
    fn bit(self, i: u64) -> u64 {
        let bits = u64::from(self.bits);
        if self.loose { i / self.per_word() * 32 + i % self.per_word() * bits } else { i * bits }
    }

    /// Fills `out` with the fields of `bytes` but the first `skip`. What the bytes do not hold is zero.
    pub(super) fn read(self, bytes: &[u8], skip: usize, out: &mut [u8]) {
        if self.loose {
            return self.read_loose(bytes, skip, out);
        }
        match self.bits {
            1 => read_dense::<1>(bytes, skip, out),
            2 => read_dense::<2>(bytes, skip, out),
            3 => read_dense::<3>(bytes, skip, out),
            4 => read_dense::<4>(bytes, skip, out),
            5 => read_dense::<5>(bytes, skip, out),
            6 => read_dense::<6>(bytes, skip, out),
            7 => read_dense::<7>(bytes, skip, out),
            _ => read_dense::<8>(bytes, skip, out),
        }
    }

    fn read_loose(self, bytes: &[u8], skip: usize, out: &mut [u8]) {
        let mask = (1u32 << self.bits) - 1;
        let words = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b));
        let fields = words.flat_map(|word| (0..self.per_word() as u32).map(move |i| (word >> (i * u32::from(self.bits)) & mask) as u8));
        out.iter_mut().zip(fields.skip(skip).chain(std::iter::repeat(0))).for_each(|(v, field)| *v = field);
    }
}

/// Eight fields from `BITS` bytes; missing bytes are zero.
fn eight<const BITS: usize>(bytes: &[u8]) -> [u8; 8] {
    let mut window = [0; 8];
    let n = bytes.len().min(BITS);
    window[..n].copy_from_slice(&bytes[..n]);
    let window = u64::from_le_bytes(window);
    std::array::from_fn(|i| (window >> (i * BITS) & ((1 << BITS) - 1)) as u8)
}

fn read_dense<const BITS: usize>(bytes: &[u8], skip: usize, out: &mut [u8]) {
    let bytes = bytes.get(skip / 8 * BITS..).unwrap_or_default();
    let skip = skip % 8;
    let head = if skip == 0 { 0 } else { out.len().min(8 - skip) };
    let (first, rest) = out.split_at_mut(head);
    first.copy_from_slice(&eight::<BITS>(bytes)[skip..skip + head]);
    let bytes = if head == 0 { bytes } else { bytes.get(BITS..).unwrap_or_default() };
    let (whole, tail) = rest.as_chunks_mut::<8>();
    let mut groups = bytes.chunks(BITS).chain(std::iter::repeat(&[][..]));
    for (fields, group) in whole.iter_mut().zip(&mut groups) {
        *fields = eight::<BITS>(group);
    }
    let last = eight::<BITS>(groups.next().unwrap_or_default());
    tail.copy_from_slice(&last[..tail.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs by definition, one bit at a time.
    fn pack(fields: Fields, values: &[u8]) -> Vec<u8> {
        let mut words = vec![0u32; fields.n_words(values.len() as u64) as usize];
        for (i, v) in values.iter().enumerate() {
            for bit in 0..usize::from(fields.bits) {
                let per = fields.per_word() as usize;
                let at = if fields.loose { i / per * 32 + i % per * usize::from(fields.bits) } else { i * usize::from(fields.bits) };
                words[(at + bit) / 32] |= u32::from(v >> bit & 1) << ((at + bit) % 32);
            }
        }
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    #[test]
    fn every_range_of_every_width_is_read() {
        for bits in 1..=8u8 {
            for loose in [false, true] {
                let fields = Fields { bits, loose };
                for n in [1usize, 7, 33, 70] {
                    let values: Vec<u8> = (0..n).map(|i| (i * 37 + 11) as u8 & ((1u16 << bits) - 1) as u8).collect();
                    let bytes = pack(fields, &values);
                    let word = |i: u64| u32::from_le_bytes(bytes[i as usize * 4..][..4].try_into().unwrap());
                    assert!((0..n).all(|i| fields.one(i as u64, word) == values[i]));
                    assert_eq!(fields.words(&(0..n as u64)), 0..fields.n_words(n as u64));
                    for start in 0..n {
                        for end in start + 1..=n {
                            let (at, skip) = fields.span(&(start as u64..end as u64), bytes.len() as u64);
                            let mut out = vec![0xAA; end - start];
                            fields.read(&bytes[at.start as usize..at.end as usize], skip, &mut out);
                            assert_eq!(out, values[start..end], "{bits} bits, loose {loose}, {start}..{end} of {n}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn bytes_that_are_missing_are_zero() {
        let mut out = [9; 20];
        Fields::dense(3).read(&[0xFF], 0, &mut out);
        assert_eq!(out[..3], [7, 7, 3]);
        assert_eq!(out[3..], [0; 17]);
        Fields::dense(5).read(&[], 3, &mut out);
        assert_eq!(out, [0; 20]);
    }
}
