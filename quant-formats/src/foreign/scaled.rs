//! Weights of which one tensor holds the codes and another the scales, told apart by their types and shapes.
//!
//! | weight | scales | is |
//! |---|---|---|
//! | F8_E4M3, F8_E5M2, I8 | numbers in any grid | numbers times scales |
//! | the same | U8, F8_E8M0 | the same, scales being powers of two |
//! | U8, I8: half as many bytes | U8, F8_E8M0, one for 32 | MXFP4 |
//! | U8: half as many bytes | F8_E4M3, one for 16, and one number for the tensor | NVFP4 |
//! | U8: three quarters as many bytes | U8, one for 32 | MXFP6 |

use std::sync::Arc;

use quant_core::{Dtype, Result, ggml};

use super::blocks::Fp4;
use super::grid::Grid;
use super::numbers::Numbers;
use super::rows::{Codes, Global, Rows, Zero};
use super::siblings::Sibling;
use super::{Found, How};

/// Types of codes that stand for themselves.
const CODES: [Dtype; 3] = [Dtype::F8E4M3, Dtype::F8E5M2, Dtype::I8];
/// Elements that share a scale in the microscaling formats, and in NVFP4.
const MX_GROUP: u64 = 32;
const NVFP4_GROUP: u64 = 16;

/// A weight and its scales.
pub(super) struct Pair {
    /// The name of the logical tensor.
    pub(super) name: String,
    pub(super) weight: Sibling,
    pub(super) scale: Sibling,
    pub(super) zero: Option<Sibling>,
}

/// The scales of an NVFP4 tensor as a whole.
pub(super) struct Whole {
    /// The number that multiplies or divides all scales.
    pub(super) global: Global,
    /// The numbers that GGUF stores beside it, and the tensors that they are from.
    pub(super) beside: Vec<(&'static str, f32)>,
    pub(super) from: Vec<Sibling>,
}

impl Found<'_> {
    /// Adds numbers times scales, or MXFP4. `blocks` are sizes of blocks that the grid of scales may have; the first that fits
    /// is taken, and where there is none, each dimension of the grid is 1 or that of the weight.
    pub(super) fn add_scaled(&mut self, method: &str, pair: Pair, blocks: &[Vec<u64>]) -> Result<()> {
        if self.is_mxfp4(&pair) {
            return self.add_fp4(method, pair, None);
        }
        let siblings = &self.siblings;
        siblings.check_dtype(&pair.weight, &CODES)?;
        let shape = pair.weight.shape.clone();
        let scale = Numbers::scales(siblings, &pair.scale)?;
        let fitting = blocks.iter().find_map(|b| Grid::new(siblings, &shape, &pair.scale, Some(b)).ok());
        let grid = match (fitting, blocks.first()) {
            (Some(grid), _) => grid,
            (None, first) => Grid::new(siblings, &shape, &pair.scale, first.map(Vec::as_slice))?,
        };
        let zero = self.signed_zero(&pair)?;
        let code = code_name(pair.weight.dtype);
        let kind = if method.ends_with(code) { method.into() } else { format!("{method} {code}") };
        let label = format!("{kind}, {}", scale_name(&grid, &shape));
        let codes = Codes::Numbers(Numbers::plain(siblings, &pair.weight)?);
        let rows = Rows { codes, grid, scale, zero, global: Global::None };
        let used: Vec<&Sibling> = [&pair.weight, &pair.scale].into_iter().chain(&pair.zero).collect();
        self.add(pair.name, shape, pair.scale.dtype, label, &used, How::Numbers(Arc::new(rows)));
        Ok(())
    }

    /// Zero points in the shape of the scales.
    pub(super) fn signed_zero(&self, pair: &Pair) -> Result<Zero> {
        let Some(zero) = &pair.zero else { return Ok(Zero::None) };
        if zero.n_elements() != pair.scale.n_elements() {
            self.siblings.check_shape(zero, &pair.scale.shape, "as the scales have")?;
        }
        Ok(Zero::Grid(Numbers::plain(&self.siblings, zero)?))
    }

    /// Whether bytes hold two codes each, and 32 of them share a power of two.
    pub(super) fn is_mxfp4(&self, pair: &Pair) -> bool {
        let is_power = matches!(pair.scale.dtype, Dtype::U8 | Dtype::F8E8M0);
        let is_packed = matches!(pair.weight.dtype, Dtype::U8 | Dtype::I8);
        let halves = pair.weight.shape.last().zip(pair.scale.shape.last()).is_some_and(|(&w, &s)| w * 2 == s * MX_GROUP);
        is_power && is_packed && halves && pair.weight.shape.len() > 1
    }

    /// Adds MXFP4, or NVFP4 if there is a scale for the tensor as a whole.
    pub(super) fn add_fp4(&mut self, method: &str, pair: Pair, whole: Option<Whole>) -> Result<()> {
        let siblings = &self.siblings;
        let (ty, group) = if whole.is_some() { (ggml::Type::NVFP4, NVFP4_GROUP) } else { (ggml::Type::MXFP4, MX_GROUP) };
        siblings.check_dtype(&pair.weight, &[Dtype::U8, Dtype::I8])?;
        siblings.check_dtype(&pair.scale, if whole.is_some() { &[Dtype::F8E4M3] } else { &[Dtype::U8, Dtype::F8E8M0] })?;
        let mut shape = pair.weight.shape.clone();
        let cols = shape.last_mut().map_or(0, |d| {
            *d *= 2;
            *d
        });
        let ty_of_rows = cols.is_multiple_of(ty.block_len()).then_some(ty);
        self.add_packed_floats(method, pair, shape, (ty.name(), group), Codes::E2m1, whole, ty_of_rows)
    }

    /// Adds MXFP6.
    pub(super) fn add_fp6(&mut self, method: &str, pair: Pair) -> Result<()> {
        let siblings = &self.siblings;
        siblings.check_dtype(&pair.weight, &[Dtype::U8])?;
        siblings.check_dtype(&pair.scale, &[Dtype::U8, Dtype::F8E8M0])?;
        let mut shape = pair.weight.shape.clone();
        if let Some(cols) = shape.last_mut() {
            if !cols.is_multiple_of(3) {
                return Err(siblings.bad(&pair.weight, format!("found rows of {cols} bytes, needed a multiple of 3 for six-bit codes")));
            }
            *cols = *cols / 3 * 4;
        }
        self.add_packed_floats(method, pair, shape, ("mxfp6", MX_GROUP), Codes::E2m3, None, None)
    }

    #[allow(clippy::too_many_arguments, reason = "one call for each format")]
    fn add_packed_floats(
        &mut self,
        method: &str,
        pair: Pair,
        shape: Vec<u64>,
        (name, group): (&str, u64),
        codes: fn(Sibling) -> Codes,
        whole: Option<Whole>,
        ty: Option<ggml::Type>,
    ) -> Result<()> {
        let siblings = &self.siblings;
        let mut scales = shape.clone();
        if let Some(last) = scales.last_mut() {
            *last = last.div_ceil(group);
        }
        siblings.check_shape(&pair.scale, &scales, &format!("for this weight, a scale for each {group} elements of a row"))?;
        let grid = Grid::new(siblings, &shape, &pair.scale, Some(&[group]))?;
        let scale = Numbers::scales(siblings, &pair.scale)?;
        let Whole { global, beside, from } = whole.unwrap_or(Whole { global: Global::None, beside: Vec::new(), from: Vec::new() });
        let rows = Rows { codes: codes(pair.weight.clone()), grid, scale, zero: Zero::None, global };
        let how = match ty {
            Some(ty) => How::Blocks(ty, Arc::new(Fp4::new(ty, rows, beside))),
            None => How::Numbers(Arc::new(rows)),
        };
        let used: Vec<&Sibling> = [&pair.weight, &pair.scale].into_iter().chain(&from).collect();
        let label = format!("{method} {name}, groups of {group}");
        self.add(pair.name, shape, pair.scale.dtype, label, &used, how);
        Ok(())
    }
}

fn code_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::I8 => "int8",
        Dtype::F8E5M2 => "fp8 (e5m2)",
        _ => "fp8",
    }
}

/// How scales are laid out, for people.
fn scale_name(grid: &Grid, shape: &[u64]) -> String {
    let extent = grid.extent();
    match grid.block() {
        [rows, cols] if rows == extent.rows && cols == extent.cols => if shape.len() > 2 { "a scale a matrix" } else { "one scale" }.into(),
        [1, cols] if cols == extent.cols => "a scale a row".into(),
        [1, cols] => format!("groups of {cols}"),
        [rows, cols] => format!("blocks of {rows}×{cols}"),
    }
}
