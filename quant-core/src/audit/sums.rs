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
