//! Codes of 2 to 8 bits, to bytes and back.

/// How codes lie in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Code `i` takes the bits from `i * bits` on of a stream whose bit 0 is the lowest of byte 0.
    LowFirst {
        /// Bits a code.
        bits: u32,
    },
    /// Two codes a byte, the first in the high nibble; an odd last one is paired with `filler`.
    HighNibbleFirst {
        /// The code that pads an odd number of codes.
        filler: u8,
    },
}

impl Packing {
    /// The bytes of `n` codes.
    pub(crate) fn n_bytes(self, n: u64) -> u64 {
        match self {
            Packing::LowFirst { bits } => (u128::from(n) * u128::from(bits)).div_ceil(8) as u64,
            Packing::HighNibbleFirst { .. } => n.div_ceil(2),
        }
    }

    /// Elements and bytes of the smallest run of codes that ends with a byte.
    pub(crate) fn item(self) -> (u64, u64) {
        match self {
            Packing::LowFirst { bits: 8 } => (1, 1),
            Packing::LowFirst { bits: 4 } | Packing::HighNibbleFirst { .. } => (2, 1),
            Packing::LowFirst { bits: 2 } => (4, 1),
            Packing::LowFirst { bits } => (8, bits.into()),
        }
    }

    pub(crate) fn pack(self, codes: &[u8], out: &mut Vec<u8>) {
        out.clear();
        match self {
            Packing::LowFirst { bits: 8 } => out.extend_from_slice(codes),
            Packing::LowFirst { bits } => codes.chunks(8).for_each(|eight| {
                let word = eight.iter().enumerate().fold(0u64, |word, (i, &code)| word | u64::from(code) << (i as u32 * bits));
                let n_bytes = (eight.len() * bits as usize).div_ceil(8);
                out.extend_from_slice(&word.to_le_bytes()[..n_bytes]);
            }),
            Packing::HighNibbleFirst { filler } => {
                let pairs = codes.chunks_exact(2);
                let odd = pairs.remainder();
                out.extend(pairs.map(|pair| pair[0] << 4 | pair[1]));
                out.extend(odd.iter().map(|code| code << 4 | filler));
            }
        }
    }

    /// Fills `codes`; codes beyond the end of `bytes` are 0.
    #[inline(always)]
    pub(crate) fn unpack(self, bytes: &[u8], codes: &mut [u8]) {
        match self {
            Packing::LowFirst { bits: 8 } => {
                let n = codes.len().min(bytes.len());
                codes[..n].copy_from_slice(&bytes[..n]);
            }
            Packing::LowFirst { bits: 4 } => {
                let (pairs, odd) = codes.as_chunks_mut::<2>();
                pairs.iter_mut().zip(bytes).for_each(|(pair, byte)| *pair = [byte & 15, byte >> 4]);
                odd.iter_mut().zip(bytes.iter().skip(pairs.len())).for_each(|(code, byte)| *code = byte & 15);
            }
            Packing::LowFirst { bits } => {
                let mask = (1u64 << bits) - 1;
                for (eight, bytes) in codes.chunks_mut(8).zip(bytes.chunks(bits as usize)) {
                    let mut word = [0; 8];
                    word[..bytes.len()].copy_from_slice(bytes);
                    let word = u64::from_le_bytes(word);
                    for (i, code) in eight.iter_mut().enumerate() {
                        *code = (word >> (i as u32 * bits) & mask) as u8;
                    }
                }
            }
            Packing::HighNibbleFirst { .. } => {
                let (pairs, odd) = codes.as_chunks_mut::<2>();
                pairs.iter_mut().zip(bytes).for_each(|(pair, byte)| *pair = [byte >> 4, byte & 15]);
                odd.iter_mut().zip(bytes.iter().skip(pairs.len())).for_each(|(code, byte)| *code = byte >> 4);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_are_the_documented_ones() {
        let mut out = Vec::new();
        Packing::LowFirst { bits: 3 }.pack(&[1, 2, 3, 4, 5, 6, 7, 0, 5], &mut out);
        // Lowest bits first: 1, 2 and the low two bits of 3; then its high bit, 4, 5 and the lowest bit of 6; and so on.
        assert_eq!(out, [0b1101_0001, 0b0101_1000, 0b0001_1111, 0b0000_0101]);
        Packing::HighNibbleFirst { filler: 7 }.pack(&[1, 2, 3], &mut out);
        assert_eq!(out, [0x12, 0x37]);
    }

    #[test]
    fn every_width_and_length_comes_back() {
        let all = (2..=8).map(|bits| Packing::LowFirst { bits }).chain([Packing::HighNibbleFirst { filler: 7 }]);
        for packing in all {
            let bits = if let Packing::LowFirst { bits } = packing { bits } else { 4 };
            for n in 0..40usize {
                let codes: Vec<u8> = (0..n).map(|i| (i * 37 + 11) as u8 & ((1u16 << bits) - 1) as u8).collect();
                let mut packed = Vec::new();
                packing.pack(&codes, &mut packed);
                assert_eq!(packed.len() as u64, packing.n_bytes(n as u64));
                let mut back = vec![0; n];
                packing.unpack(&packed, &mut back);
                assert_eq!(back, codes, "{packing:?} {n}");
            }
        }
    }
}
