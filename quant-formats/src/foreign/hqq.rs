//! HQQ.
//!
//! | tensor | |
//! |---|---|
//! | `M.W_q` | codes of a matrix of groups, packed in equal parts of its first dimension, the first part in the highest bits |
//! | `M.scale`, `M.zero` | one number a group |
//! | `M.shape`, `M.nbits`, `M.axis` | of the weight |
//!
//! The matrix is `[groups, n]` for axis 1 and `[n, groups]` for axis 0. Flat, element i of part p lies at i of the packed bytes,
//! so that a range of elements is a range of bytes.
//!
//! ```text
//! bits      8, 6, 5   4      3               2            1
//! stored    U8        U8     I32             U8           U8
//! parts     1         2      10, padded      4            8
//! shifts    0         4 0    27 24 … 3 0     6 4 2 0      7 6 … 1 0
//! ```
//!
//! `w = (q − zero)·scale`, here in f32; the library computes it in its `compute_dtype`, mostly f16.
//!
//! Source: `Quantizer.dequantize` and `BitPack` of HQQ 0.2.8. convert_hf_to_gguf.py does not read it.

use std::sync::Arc;

use quant_core::{Dtype, Result};

use super::numbers::{FLOATS, Item, Numbers};
use super::siblings::{Sibling, Siblings};
use super::{Found, How, Unpack};
use crate::Checkpoint;

/// What a layer holds beside codes, scales, zero points and its bias.
const META: &[&str] = &[
    "shape",
    "nbits",
    "group_size",
    "axis",
    "packing",
    "unpack_view_dtype",
    "compute_dtype",
    "view_as_float",
    "encoded_state_dict",
    "stores_quant_config",
    "channel_wise",
    "optimize",
    "round_zero",
    "quant_zero",
    "quant_scale",
    "offload_meta",
];
/// Elements that are read at once.
const STEP: u64 = 1 << 16;

/// Adds the weights of an HQQ checkpoint.
pub(super) fn find(found: &mut Found<'_>) -> Result<()> {
    for stem in found.siblings.stems(".W_q") {
        add(stem, found)?;
        let endings: Vec<String> = META.iter().map(|m| format!("{stem}.{m}")).collect();
        let dropped = found.siblings.names().filter(|(_, name)| endings.iter().any(|e| e == name)).map(|(i, _)| i);
        found.dropped.extend(dropped);
    }
    Ok(())
}

/// How codes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packing {
    bits: u32,
    parts: u64,
    is_word: bool,
}

/// A weight of HQQ.
#[derive(Debug)]
struct Split {
    codes: Sibling,
    packing: Packing,
    /// Codes of one part.
    part: u64,
    scale: Numbers,
    zero: Numbers,
    /// Codes of a row of the matrix of groups, and whether the row is a group.
    row: u64,
    rows_are_groups: bool,
}

fn add(stem: &str, found: &mut Found<'_>) -> Result<()> {
    let siblings = &found.siblings;
    let name = format!("{stem}.W_q");
    let codes = siblings.need(&name, &name)?;
    if let Some(nested) = ["zero_q", "scale_q", "zero_scale"].iter().find_map(|part| siblings.find(&format!("{stem}.{part}")).transpose()) {
        return Err(siblings.bad(&nested?, "scales or zero points that are quantized themselves are not read; start from the original checkpoint"));
    }
    let (scale, zero) = (siblings.need(&name, &format!("{stem}.scale"))?, siblings.need(&name, &format!("{stem}.zero"))?);
    siblings.check_dtype(&scale, &FLOATS)?;
    siblings.check_dtype(&zero, &FLOATS)?;
    siblings.check_shape(&zero, &scale.shape, "as the scales have")?;
    let [bits, axis] = ["nbits", "axis"].map(|part| integers(siblings, &name, &format!("{stem}.{part}")));
    let (bits, axis) = (only(siblings, bits?)?, only(siblings, axis?)?);
    let (shape_of, shape) = integers(siblings, &name, &format!("{stem}.shape"))?;
    let shape: Option<Vec<u64>> = shape.iter().map(|&n| u64::try_from(n).ok().filter(|&n| n > 0)).collect();
    let shape = shape.filter(|s| s.len() == 2).ok_or_else(|| siblings.bad(&shape_of, "needed two positive sizes"))?;
    let split = split(siblings, &codes, &shape, (bits, axis), &scale, &zero)?;
    let label = format!("hqq {bits}-bit, {} groups along axis {axis}", scale.n_elements());
    found.add(format!("{stem}.weight"), shape, scale.dtype, label, &[&codes, &scale, &zero], How::Numbers(Arc::new(split)));
    Ok(())
}

/// Checks that codes and scales have the sizes that shape, width and axis need.
fn split(siblings: &Siblings<'_>, codes: &Sibling, shape: &[u64], (bits, axis): (i64, i64), scale: &Sibling, zero: &Sibling) -> Result<Split> {
    let bad = |problem: String| siblings.bad(codes, problem);
    let packing = packing(bits).ok_or_else(|| bad(format!("found codes of {bits} bits, needed 1, 2, 3, 4, 5, 6 or 8")))?;
    let n = quant_core::dtype::n_elements(shape).filter(|&n| n <= codes.n_bytes.saturating_mul(8));
    let n = n.ok_or_else(|| bad(format!("found {} bytes, which are too few for the shape {shape:?}", codes.n_bytes)))?;
    let groups = scale.n_elements();
    if !n.is_multiple_of(groups) {
        return Err(siblings.bad(scale, format!("found {groups} scales, needed one for each group of {n} elements")));
    }
    let (rows, row, rows_are_groups) = match axis {
        1 => (groups, n / groups, true),
        0 => (n / groups, groups, false),
        _ => return Err(bad(format!("found the axis {axis}, needed 0 or 1"))),
    };
    let part = rows.div_ceil(packing.parts) * row;
    let needed = part * if packing.is_word { 4 } else { 1 };
    let whole = packing.is_word || rows.is_multiple_of(packing.parts);
    if codes.n_bytes != needed || !whole {
        let found = codes.n_bytes;
        return Err(bad(format!(
            "found {found} bytes, needed {needed} for {rows} rows of {row} codes of {bits} bits in {} equal parts",
            packing.parts
        )));
    }
    let numbers = |s: &Sibling| Numbers::new(s, Item::Float(s.dtype));
    Ok(Split { codes: codes.clone(), packing, part, scale: numbers(scale), zero: numbers(zero), row, rows_are_groups })
}

fn packing(bits: i64) -> Option<Packing> {
    let (bits, parts, is_word) = match bits {
        8 | 6 | 5 => (8, 1, false),
        4 => (4, 2, false),
        3 => (3, 10, true),
        2 => (2, 4, false),
        1 => (1, 8, false),
        _ => return None,
    };
    Some(Packing { bits, parts, is_word })
}

/// A tensor of a few integers.
fn integers(siblings: &Siblings<'_>, beside: &str, name: &str) -> Result<(Sibling, Vec<i64>)> {
    let sibling = siblings.need(beside, name)?;
    siblings.check_dtype(&sibling, &[Dtype::I64, Dtype::I32, Dtype::U8])?;
    let bytes = siblings.bytes(&sibling, 64)?;
    let list = match sibling.dtype {
        Dtype::I64 => bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
        Dtype::I32 => bytes.as_chunks::<4>().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
        _ => bytes.iter().map(|&b| i64::from(b)).collect(),
    };
    Ok((sibling, list))
}

fn only(siblings: &Siblings<'_>, (sibling, list): (Sibling, Vec<i64>)) -> Result<i64> {
    match list[..] {
        [n] => Ok(n),
        _ => Err(siblings.bad(&sibling, format!("found {} integers, needed one", list.len()))),
    }
}

impl Unpack for Split {
    fn fill(&self, source: &Checkpoint, at: u64, out: &mut [f32]) -> Result<()> {
        let (mut at, mut rest) = (at, out);
        while !rest.is_empty() {
            // Up to the end of a part, and of a row where each column has its own scale.
            let end = if self.rows_are_groups { self.part } else { self.row };
            let n = STEP.min(rest.len() as u64).min(self.part - at % self.part).min(end - at % end);
            let (now, later) = rest.split_at_mut(n as usize);
            self.read_codes(source, at, now)?;
            self.scale(source, at, now)?;
            (at, rest) = (at + n, later);
        }
        Ok(())
    }
}

impl Split {
    /// Codes that lie in one part.
    fn read_codes(&self, source: &Checkpoint, at: u64, out: &mut [f32]) -> Result<()> {
        let Packing { bits, parts, is_word } = self.packing;
        let item = if is_word { 4 } else { 1 };
        let mut bytes = vec![0; out.len() * item];
        self.codes.read(source, at % self.part * item as u64, &mut bytes)?;
        let shift = (parts - 1 - at / self.part) as u32 * bits;
        let mask = (1u32 << bits) - 1;
        if is_word {
            let words = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b));
            out.iter_mut().zip(words).for_each(|(v, word)| *v = (word >> shift & mask) as f32);
        } else {
            out.iter_mut().zip(&bytes).for_each(|(v, &b)| *v = (u32::from(b) >> shift & mask) as f32);
        }
        Ok(())
    }

    /// Subtracts zero points and multiplies scales, of groups that are rows or columns.
    fn scale(&self, source: &Checkpoint, at: u64, out: &mut [f32]) -> Result<()> {
        let (first, n) = if self.rows_are_groups {
            (at / self.row, ((at + out.len() as u64 - 1) / self.row - at / self.row + 1) as usize)
        } else {
            (at % self.row, out.len())
        };
        let (scales, zeros) = (self.scale.read(source, first, n)?, self.zero.read(source, first, n)?);
        for (i, v) in out.iter_mut().enumerate() {
            let group = if self.rows_are_groups { ((at + i as u64) / self.row - first) as usize } else { i };
            *v = (*v - zeros[group]) * scales[group];
        }
        Ok(())
    }
}
