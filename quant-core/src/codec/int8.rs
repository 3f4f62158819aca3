//! `int8`: the weights of LLM.int8(), one scale a row.
//!
//! **Formula.** w is first rounded to f16; SCB\[r\] = max|w| of row r; s = 127 · (1 / SCB); q = round(w · s).
//! Decoded: ŵ = (q · SCB) · 7.874016e-3 (f32 of 1/127), two multiplications in f32.
//!
//! **Layout.** `weight`: I8, the tensor's own shape; `SCB`: F32, one a row. 8 + 32/columns bits a weight.
//! A row is the last dimension; a tensor without dimensions is one row.
//!
//! **Rounding.** To nearest, ties to even. The reciprocal is correctly rounded and then multiplied: 127/SCB would flip ties.
//! **Zero row.** SCB 0, codes 0. **NaN, ±Inf**, and magnitudes that f16 cannot hold (65 520 and more) are refused.
//!
//! **Outliers.** Columns with a weight of magnitude 6 or more are counted ([`Tally::outlier_columns`]). Nothing about them
//! is stored: LLM.int8() splits them off at run time, from the activations.
//!
//! **Source.** Dettmers et al., "LLM.int8()", 2022; `int8_vectorwise_quant` of bitsandbytes 0.50.2. Its CPU and CUDA
//! bytes agree as long as the GPU's approximate reciprocal is the correctly rounded one.

use super::groups::{Groups, Kernel, absmax};
use super::linear::ROUND;
use super::packing::Packing;
use super::{Tally, Unfit, dense, refuse_from};
use crate::Dtype;

/// Weights of this magnitude make their column an outlier column.
const OUTLIER: f32 = 6.0;
/// The least magnitude that rounds to infinity in f16.
const F16_OVERFLOW: f32 = 65_520.0;
/// 1/127 as bitsandbytes writes it.
const INV_127: f32 = 7.874_016e-3;

pub(super) fn codec(shape: &[u64], n: u64) -> Groups<Int8> {
    let columns = shape.last().copied().unwrap_or(1).max(1);
    Groups::new(Int8 { columns }, Packing::LowFirst { bits: 8 }, n, columns, ("weight", Dtype::I8, shape.to_vec()), &["SCB"], vec![])
}

pub(super) struct Int8 {
    columns: u64,
}

impl Kernel for Int8 {
    const PARAMS: usize = 1;

    #[inline(always)]
    fn prepare(&self, at: u64, x: &mut [f32], tally: &mut Tally) -> Result<(), Unfit> {
        refuse_from(F16_OVERFLOW, at, x)?;
        dense::round_to_f16(x);
        if absmax(x)[1] >= OUTLIER {
            let outliers = x.iter().enumerate().filter(|(_, w)| w.abs() >= OUTLIER);
            outliers.for_each(|(i, _)| tally.outlier_columns.insert((at + i as u64) % self.columns));
        }
        Ok(())
    }

    #[inline(always)]
    fn measure(&self, x: &[f32]) -> [f32; 2] {
        absmax(x)
    }

    #[inline(always)]
    fn params(&self, stats: [f32; 2], _full: bool) -> Result<[f32; 2], f32> {
        Ok([stats[1], 0.0])
    }

    #[inline(always)]
    fn quantize(&self, [scb, _]: [f32; 2], _full: bool, x: &[f32], codes: &mut [u8]) {
        if scb == 0.0 {
            return codes.fill(0);
        }
        let scale = 127.0 * (1.0 / scb);
        for (code, &w) in codes.iter_mut().zip(x) {
            *code = (w * scale + ROUND).to_bits() as u8;
        }
    }

    #[inline(always)]
    fn dequantize(&self, [scb, _]: [f32; 2], _tables: &[&[u8]], codes: &[u8], out: &mut [f32]) {
        for (w, &code) in out.iter_mut().zip(codes) {
            *w = f32::from(code as i8) * scb * INV_127;
        }
    }

    fn step(&self, [scb, _]: [f32; 2]) -> Option<f32> {
        Some(scb * INV_127)
    }
}
