//! [`Fp4`]: MXFP4 and NVFP4 tensors, which ggml stores with their bytes in another order.
//!
//! ```text
//!          siblings                                                 a block of ggml
//! MXFP4    codes, 16 bytes for 32 elements; E8M0 scales, one byte    e, qs[16]                  17 bytes for 32
//! NVFP4    codes,  8 bytes for 16 elements; E4M3 scales, one byte    d[4], qs[32] = 4 × qs[8]   36 bytes for 64
//!
//! there    byte j holds elements 2j (low nibble) and 2j+1
//! here     byte j of n/2 holds elements j (low nibble) and j+n/2
//! ```
//!
//! No code and no scale changes, but that the sign of an E4M3 scale is cut: ggml's have none.
//!
//! Source: `repack_mxfp4_blocks` and `_nvfp4_pack` of conversion/base.py, `repack_mxfp4` of conversion/gpt_oss.py,
//! llama.cpp 0.5.0-dev.

use quant_core::{Result, ggml};

use super::rows::Rows;
use super::{Repack, Unpack};
use crate::Checkpoint;

/// Blocks that are put together at once.
const STEP: u64 = 1 << 11;

/// A tensor of four-bit floats with rows of whole blocks.
#[derive(Clone, Debug)]
pub(super) struct Fp4 {
    ty: ggml::Type,
    rows: Rows,
    beside: Vec<(&'static str, f32)>,
}

impl Fp4 {
    /// The tensor as blocks of `ty`, MXFP4 or NVFP4. Its codes and scales must be contiguous and cover whole blocks.
    pub(super) fn new(ty: ggml::Type, rows: Rows, beside: Vec<(&'static str, f32)>) -> Fp4 {
        Fp4 { ty, rows, beside }
    }

    fn fill_step(&self, source: &Checkpoint, first: u64, out: &mut [u8]) -> Result<()> {
        let block_bytes = self.ty.block_bytes() as usize;
        let (code_bytes, n_scales) = ((self.ty.block_len() / 2) as usize, if self.ty == ggml::Type::NVFP4 { 4 } else { 1 });
        let n = out.len() / block_bytes;
        let (mut codes, mut scales) = (vec![0; n * code_bytes], vec![0; n * n_scales]);
        self.rows.codes.sibling().read(source, first * code_bytes as u64, &mut codes)?;
        self.rows.scale.sibling.read(source, first * n_scales as u64, &mut scales)?;
        for ((block, codes), scales) in out.chunks_mut(block_bytes).zip(codes.chunks(code_bytes)).zip(scales.chunks(n_scales)) {
            let (head, qs) = block.split_at_mut(n_scales);
            let mask = if n_scales == 4 { 0x7F } else { 0xFF };
            head.iter_mut().zip(scales).for_each(|(d, s)| *d = s & mask);
            for (qs, codes) in qs.chunks_mut(code_bytes / n_scales).zip(codes.chunks(code_bytes / n_scales)) {
                reorder(codes, qs);
            }
        }
        Ok(())
    }
}

/// From neighbours in a byte to elements of two halves in a byte.
fn reorder(codes: &[u8], qs: &mut [u8]) {
    let nibble = |i: usize| codes[i / 2] >> (i % 2 * 4) & 15;
    for (j, q) in qs.iter_mut().enumerate() {
        *q = nibble(j) | nibble(j + codes.len()) << 4;
    }
}

impl Repack for Fp4 {
    fn fill(&self, source: &Checkpoint, first: u64, out: &mut [u8]) -> Result<()> {
        let step = (STEP * self.ty.block_bytes()) as usize;
        out.chunks_mut(step).enumerate().try_for_each(|(i, out)| self.fill_step(source, first + i as u64 * STEP, out))
    }

    fn beside(&self) -> &[(&'static str, f32)] {
        &self.beside
    }

    fn numbers(&self, source: &Checkpoint, at: u64, out: &mut [f32]) -> Result<()> {
        self.rows.fill(source, at, out)
    }
}
