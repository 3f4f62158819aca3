//! [`DeviceSums`]: what a device says of a piece of a tensor, in place of [`measure`](super::measure).

/// The sums over a block of [`BLOCK`](super::BLOCK) pairs; w a weight, ŵ what stands for it, e = ŵ − w.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BlockSums {
    /// The mean of w.
    pub mean: f64,
    /// Σd², Σd³, Σd⁴, d = w − mean.
    pub m: [f64; 3],
    /// Σw².
    pub w2: f64,
    /// Σŵ².
    pub q2: f64,
    /// Σw·ŵ.
    pub wq: f64,
    /// Σe.
    pub e: f64,
    /// Σe².
    pub e2: f64,
    /// max|e|.
    pub greatest: f64,
    /// Σh·e² and Σh·w², h the importance; 0 without one.
    pub weighted: [f64; 2],
    /// The least w.
    pub min: f32,
    /// The greatest w.
    pub max: f32,
    /// How many w are 0.
    pub zeros: u32,
    /// Which pair of the block has the greatest error first.
    pub first: u32,
}

impl BlockSums {
    /// Bytes of a block on a device.
    pub const BYTES: usize = 12 * 8 + 4 * 4;

    /// From little-endian bytes, the fields in their order.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> BlockSums {
        let (doubles, rest) = bytes.as_chunks::<8>();
        debug_assert!(rest.is_empty());
        let double = |i: usize| f64::from_le_bytes(doubles[i]);
        let word = |i: usize| u64::from_le_bytes(doubles[12 + i / 2]) >> (i % 2 * 32);
        BlockSums {
            mean: double(0),
            m: [double(1), double(2), double(3)],
            w2: double(4),
            q2: double(5),
            wq: double(6),
            e: double(7),
            e2: double(8),
            greatest: double(9),
            weighted: [double(10), double(11)],
            min: f32::from_bits(word(0) as u32),
            max: f32::from_bits(word(1) as u32),
            zeros: word(2) as u32,
            first: word(3) as u32,
        }
    }
}

/// The sums over all blocks of a piece that begins at a block, all of its numbers finite.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceSums {
    /// One for each block.
    pub blocks: Vec<BlockSums>,
    /// How many |ŵ − w|, in f32, lie in each bin: floats with the same bits but for the sign and the last 19. [`DeviceSums::BINS`] of them.
    pub counts: Vec<u32>,
}

impl DeviceSums {
    /// Bins.
    pub const BINS: usize = 1 << 12;
}
