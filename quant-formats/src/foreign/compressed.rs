//! compressed-tensors, as llm-compressor saves it.
//!
//! | format | weight | beside it |
//! |---|---|---|
//! | `pack-quantized` | `weight_packed`, I32: fields of 1 to 8 bits, the code plus half the range | `weight_scale`; `weight_shape`; `weight_zero_point`, packed down the rows, or I8; `weight_g_idx` |
//! | `int-`, `float-`, `naive-quantized` | `weight`, I8 or F8_E4M3 | `weight_scale`; `weight_zero_point`, I8 |
//! | `mxfp8-quantized` | `weight`, F8_E4M3 | `weight_scale`, U8, one for 32 elements |
//! | `nvfp4-pack-quantized` | `weight_packed`, U8 | `weight_scale`, one for 16; `weight_global_scale`, which divides it |
//! | `mxfp4-`, `mxfp6-pack-quantized` | `weight_packed`, U8 | `weight_scale`, U8, one for 32 |
//!
//! A model may mix formats in groups of layers chosen by patterns. Which one a layer has, its tensors tell; the configuration
//! only says which widths and group sizes there are.
//!
//! Source: `dequant_packed`, `dequant_simple` of conversion/base.py, llama.cpp 0.5.0-dev; compressed-tensors 0.20.0.

use std::sync::Arc;

use quant_core::{Dtype, Result};
use serde_json::Value;

use super::fields::Fields;
use super::fp8::{only, refuse_unscaled};
use super::gptq::read_groups;
use super::grid::Grid;
use super::numbers::{FLOATS, Item, Numbers};
use super::rows::{Codes, Global, Rows, Zero};
use super::scaled::{Pair, Whole};
use super::settings::{Settings, sizes};
use super::siblings::Sibling;
use super::{Found, How};

/// Formats of sparse weights and of single kernels.
const REFUSED: [&str; 4] = ["sparse-bitmask", "sparse-24-bitmask", "marlin-24", "sparse-24"];
/// What quantized layers hold beside their weights.
const DROPPED: [&str; 9] = [
    ".input_scale",
    ".input_zero_point",
    ".input_global_scale",
    ".output_scale",
    ".output_zero_point",
    ".q_scale",
    ".k_scale",
    ".v_scale",
    ".weight_observer_step",
];
/// The largest list of sizes that is read.
const MAX_SHAPE: u64 = 64;

/// Adds the weights of a checkpoint of compressed-tensors.
pub(super) fn find(settings: &Settings, found: &mut Found<'_>) -> Result<()> {
    let groups = Groups::new(settings)?;
    for stem in found.siblings.stems(".weight_packed") {
        groups.add_packed(stem, found)?;
    }
    for stem in found.siblings.stems(".weight_scale") {
        if found.siblings.find(&format!("{stem}.weight_packed"))?.is_none() {
            groups.add_plain(stem, found)?;
        }
    }
    found.drop_ending(&DROPPED);
    refuse_unscaled(found)
}

/// What the groups of the configuration allow.
struct Groups {
    /// Widths of integers.
    bits: Vec<u8>,
    /// Blocks that share a scale, `[1, n]` being groups of n.
    blocks: Vec<Vec<u64>>,
}

impl Groups {
    fn new(settings: &Settings) -> Result<Groups> {
        let sparsity = settings.get("sparsity_config").and_then(|c| c.get("format")).and_then(Value::as_str);
        let formats = [settings.text("format"), sparsity];
        if let Some(format) = formats.into_iter().flatten().find(|f| REFUSED.contains(f)) {
            return Err(settings.error(format!("the compressed-tensors format '{format}' is not read; start from the original checkpoint instead")));
        }
        let groups = settings.get("config_groups").and_then(Value::as_object);
        let needed = || settings.error("quantization key 'config_groups': found none, needed a group of layers with its 'weights'");
        let weights: Vec<&Value> = groups.ok_or_else(needed)?.values().filter_map(|g| g.get("weights")).collect();
        let mut all = Groups { bits: Vec::new(), blocks: Vec::new() };
        for weights in weights {
            let bits = weights.get("num_bits").and_then(Value::as_u64).unwrap_or(8);
            if let Some(bits) = u8::try_from(bits).ok().filter(|b| (1..=8).contains(b)).filter(|b| !all.bits.contains(b)) {
                all.bits.push(bits);
            }
            let group = weights.get("group_size").and_then(Value::as_u64).filter(|&n| n > 0).map(|n| vec![1, n]);
            let block = weights.get("block_structure").and_then(sizes);
            all.blocks.extend(group.into_iter().chain(block));
        }
        Ok(all)
    }

    fn add_packed(&self, stem: &str, found: &mut Found<'_>) -> Result<()> {
        let name = format!("{stem}.weight_packed");
        let weight = found.siblings.need(&name, &name)?;
        let scale = found.siblings.need(&name, &format!("{stem}.weight_scale"))?;
        let zero = found.siblings.find(&format!("{stem}.weight_zero_point"))?;
        let pair = Pair { name: format!("{stem}.weight"), weight, scale, zero };
        let global = found.siblings.find(&format!("{stem}.weight_global_scale"))?;
        match (pair.weight.dtype, global) {
            (Dtype::I32, _) => self.add_integers(stem, pair, found),
            (_, Some(global)) => {
                let whole = whole(stem, global, found)?;
                found.add_fp4("compressed-tensors", pair, Some(whole))
            }
            _ if found.is_mxfp4(&pair) => found.add_fp4("compressed-tensors", pair, None),
            _ if pair.scale.dtype == Dtype::F8E4M3 => {
                let needed = format!("{stem}.weight_global_scale");
                found.siblings.need(&name, &needed).map(|_| ())
            }
            _ => found.add_fp6("compressed-tensors", pair),
        }
    }

    /// Integers of 1 to 8 bits.
    fn add_integers(&self, stem: &str, pair: Pair, found: &mut Found<'_>) -> Result<()> {
        let siblings = &found.siblings;
        siblings.check_dtype(&pair.scale, &FLOATS)?;
        let (shape_of, shape) = logical_shape(stem, &pair.weight, found)?;
        let fields = self.fields(&pair.weight, &shape, found)?;
        if fields.is_ambiguous(shape.last().copied().unwrap_or(0)) {
            found.notes.push(format!(
                "'{}' may be packed as compressed-tensors did before mid-2026 or after, its size does not tell; it is read as after",
                pair.name
            ));
        }
        let order = found.siblings.find(&format!("{stem}.weight_g_idx"))?;
        let grid = self.grid(&pair.scale, &shape, found)?.ordered(read_order(order.as_ref(), &pair, &shape, found)?);
        let zero = packed_zero(&pair, fields, &shape, &grid, found)?;
        let offset = if matches!(zero, Zero::Packed(..)) { 0.0 } else { f32::from(1u8 << (fields.bits - 1)) };
        let size = match grid.n_cols() {
            1 => "a scale a row".into(),
            n if order.is_some() => format!("{n} groups in any order"),
            _ => format!("groups of {}", grid.block()[1]),
        };
        let label = format!("compressed-tensors {}-bit, {size}", fields.bits);
        let codes = Codes::Fields(pair.weight.clone(), fields, offset);
        let scale = Numbers::new(&pair.scale, Item::Float(pair.scale.dtype));
        let rows = Rows { codes, grid, scale, zero, global: Global::None };
        let used: Vec<&Sibling> = [&pair.weight, &pair.scale, &shape_of].into_iter().chain(&pair.zero).chain(&order).collect();
        found.add(pair.name, shape, pair.scale.dtype, label, &used, How::Numbers(Arc::new(rows)));
        Ok(())
    }

    /// The width and packing that fit the words of a row.
    fn fields(&self, weight: &Sibling, shape: &[u64], found: &Found<'_>) -> Result<Fields> {
        let (words, cols) = (weight.shape.last().copied().unwrap_or(0), shape.last().copied().unwrap_or(0));
        let all = self.bits.iter().filter_map(|&bits| Fields::fitting(bits, cols, words));
        // 8-bit codes take as many words as loose 7-bit ones, which were only written for a short time.
        let (loose, dense): (Vec<Fields>, Vec<Fields>) = all.partition(|fields| fields.loose);
        let fitting = if dense.is_empty() { loose } else { dense };
        match fitting[..] {
            [only] => Ok(only),
            [] => Err(found.siblings.bad(weight, format!("found rows of {words} words for {cols} codes, which are of no width in {:?}", self.bits))),
            _ => Err(found
                .siblings
                .bad(weight, format!("found rows of {words} words for {cols} codes, which may be of several widths of {:?}", self.bits))),
        }
    }

    fn grid(&self, scale: &Sibling, shape: &[u64], found: &Found<'_>) -> Result<Grid> {
        let fitting = self.blocks.iter().find_map(|b| Grid::new(&found.siblings, shape, scale, Some(b)).ok());
        fitting.map_or_else(|| Grid::new(&found.siblings, shape, scale, None), Ok)
    }

    /// Codes that are whole bytes.
    fn add_plain(&self, stem: &str, found: &mut Found<'_>) -> Result<()> {
        let (name, scale) = (format!("{stem}.weight"), format!("{stem}.weight_scale"));
        let weight = found.siblings.need(&scale, &name)?;
        let scale = found.siblings.need(&name, &scale)?;
        let zero = found.siblings.find(&format!("{stem}.weight_zero_point"))?;
        // A scale for each row or for all is there whatever the groups of other layers are.
        let mut blocks: Vec<Vec<u64>> = self.blocks.clone();
        if let [.., rows, cols] = weight.shape[..] {
            blocks.extend([vec![1, cols], vec![rows, cols]]);
        }
        found.add_scaled("compressed-tensors", Pair { name, weight, scale, zero }, &blocks)
    }
}

fn whole(stem: &str, global: Sibling, found: &Found<'_>) -> Result<Whole> {
    let divisor = only(found, &global)?;
    let input = found.siblings.find(&format!("{stem}.input_global_scale"))?;
    let input_scale = input.as_ref().map_or(Ok(1.0), |s| only(found, s).map(|g| 1.0 / g))?;
    let beside = vec![("scale", 1.0 / divisor), ("input_scale", input_scale)];
    Ok(Whole { global: Global::Over(divisor), beside, from: [global].into_iter().chain(input).collect() })
}

/// The shape that was packed, from the tensor that holds it.
fn logical_shape(stem: &str, weight: &Sibling, found: &Found<'_>) -> Result<(Sibling, Vec<u64>)> {
    let siblings = &found.siblings;
    let sibling = siblings.need(siblings.name(weight), &format!("{stem}.weight_shape"))?;
    siblings.check_dtype(&sibling, &[Dtype::I64, Dtype::I32])?;
    let bytes = siblings.bytes(&sibling, MAX_SHAPE)?;
    let sizes: Vec<i64> = match sibling.dtype {
        Dtype::I64 => bytes.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect(),
        _ => bytes.as_chunks::<4>().0.iter().map(|b| i64::from(i32::from_le_bytes(*b))).collect(),
    };
    let shape: Option<Vec<u64>> = sizes.iter().map(|&n| u64::try_from(n).ok().filter(|&n| n > 0)).collect();
    let most = weight.shape.last().map_or(0, |words| words * 32);
    let fits = |shape: &Vec<u64>| {
        let (rows, packed) = (shape.split_last(), weight.shape.split_last());
        rows.zip(packed).is_some_and(|((&cols, rows), (_, packed))| rows == packed && cols <= most && shape.len() >= 2)
    };
    match shape.filter(fits) {
        Some(shape) => Ok((sibling, shape)),
        None => Err(siblings.bad(&sibling, format!("found {sizes:?}, which does not fit codes packed in words of shape {:?}", weight.shape))),
    }
}

fn packed_zero(pair: &Pair, codes: Fields, shape: &[u64], grid: &Grid, found: &Found<'_>) -> Result<Zero> {
    let Some(zero) = pair.zero.as_ref().filter(|z| z.dtype == Dtype::I32) else { return found.signed_zero(pair) };
    let problem =
        || found.siblings.bad(zero, format!("found the shape {:?}, needed zero points packed down the rows of {:?}", zero.shape, pair.scale.shape));
    let (&[rows, _], &[words, cols]) = (shape, &zero.shape[..]) else { return Err(problem()) };
    // As the codes are packed, where both packings take as many words.
    let fields = if codes.n_words(rows) == words { Some(codes) } else { Fields::fitting(codes.bits, rows, words) };
    let fields = fields.ok_or_else(problem)?;
    if cols != grid.n_cols() || grid.block()[0] != 1 {
        return Err(problem());
    }
    Ok(Zero::Packed(zero.clone(), fields))
}

/// The group of each column; −1 everywhere stands for groups that follow each other.
fn read_order(order: Option<&Sibling>, pair: &Pair, shape: &[u64], found: &Found<'_>) -> Result<Option<Arc<[u32]>>> {
    let Some(order) = order else { return Ok(None) };
    found.siblings.check_dtype(order, &[Dtype::I32])?;
    found.siblings.check_shape(order, shape.get(shape.len() - 1..).unwrap_or_default(), "one group a column")?;
    let n_groups = pair.scale.shape.last().copied().unwrap_or(1);
    let first = found.siblings.bytes(order, super::gptq::MAX_LISTED * 4)?;
    if first.iter().all(|&b| b == 0xFF) {
        return Ok(None);
    }
    read_groups(found, order, n_groups).map(|list| Some(list.into()))
}
