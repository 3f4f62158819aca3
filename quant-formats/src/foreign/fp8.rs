//! Eight-bit floats with scales, and the four-bit ones that the same methods mix with them.
//!
//! | method | weight | scales |
//! |---|---|---|
//! | `fp8` (DeepSeek and others) | `X`, F8_E4M3 | `X_scale_inv`: blocks of `weight_block_size`, or one. They multiply, whatever their name says |
//! | `fp8` (DeepSeek V4) | `M.weight`, F8_E4M3, or I8 holding E2M1 | `M.scale`, F8_E8M0: blocks of 128×128, or one for 32 elements |
//! | `fp8` (Mistral's own files) | `M.weight` | `M.qscale_weight` |
//! | `fp8` with `store_dtype: mxfp4` (MiMo) | `M.weight`, U8 holding E2M1 | `M.weight_scale`, U8 |
//! | `mxfp8` | `M.weight` | `M.weight_scale_inv`, U8, one for 32 elements |
//! | `fbgemm_fp8` | `X` | `X_scale`, one a row |
//! | `modelopt` FP8 | `M.weight` | `M.weight_scale`, one |
//! | `modelopt` NVFP4 | `M.weight`, U8 holding E2M1 | `M.weight_scale`, one for 16 elements, times `M.weight_scale_2` |
//! | `mxfp4` (gpt-oss) | `X_blocks`, U8 `[experts, out, in/32, 16]` | `X_scales`, U8 `[experts, out, in/32]` |
//!
//! The logical tensor of gpt-oss is `X` as it is stored, `[experts, out, in]`; transformers holds its transpose.
//!
//! Source: `dequant_model`, `_generate_nvfp4_tensors` of conversion/base.py, conversion/deepseek.py, conversion/gpt_oss.py of
//! llama.cpp 0.5.0-dev; `Fp8Dequantize` and `convert_moe_packed_tensors` of transformers 5.23.0.

use quant_core::{Dtype, Result};

use super::Found;
use super::numbers::{FLOATS, Item, Numbers};
use super::rows::Global;
use super::scaled::{Pair, Whole};
use super::settings::Settings;
use super::siblings::Sibling;

/// The blocks of DeepSeek V4, which its configuration need not name.
const DEEPSEEK_BLOCK: [u64; 2] = [128, 128];
/// Scales of activations, of no use in a file of weights.
const ACTIVATIONS: [&str; 4] = [".activation_scale", "_activation_scale", ".qscale_act", ".input_scale"];

/// Adds the weights of `fp8` and `mxfp8`.
pub(super) fn find(settings: &Settings, found: &mut Found<'_>) -> Result<()> {
    let block = settings.sizes("weight_block_size")?;
    let is_mx = settings.method == "mxfp8";
    let blocks: Vec<Vec<u64>> = block.clone().or(is_mx.then(|| vec![1, 32])).into_iter().collect();
    let deepseek = vec![block.unwrap_or(DEEPSEEK_BLOCK.to_vec())];
    let (endings, method) = ([("_scale_inv", ""), (".qscale_weight", ".weight"), (".weight_scale", ".weight")], settings.method.as_str());
    for (ending, weight) in endings {
        for stem in found.siblings.stems(ending) {
            let name = format!("{stem}{weight}");
            add(method, name, &format!("{stem}{ending}"), &blocks, found)?;
        }
    }
    for stem in found.siblings.stems(".scale") {
        let name = format!("{stem}.weight");
        let weight = found.siblings.find(&name)?;
        if weight.is_some_and(|w| matches!(w.dtype, Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::I8 | Dtype::U8)) {
            add(method, name, &format!("{stem}.scale"), &deepseek, found)?;
        }
    }
    found.drop_ending(&ACTIVATIONS);
    refuse_unscaled(found)
}

fn add(method: &str, name: String, scale: &str, blocks: &[Vec<u64>], found: &mut Found<'_>) -> Result<()> {
    let weight = found.siblings.need(scale, &name)?;
    let scale = found.siblings.need(&name, scale)?;
    found.add_scaled(method, Pair { name, weight, scale, zero: None }, blocks)
}

/// Adds the weights of `fbgemm_fp8`.
pub(super) fn find_fbgemm(found: &mut Found<'_>) -> Result<()> {
    for stem in found.siblings.stems("_scale") {
        if found.siblings.find(stem)?.is_some() {
            add("fbgemm", stem.into(), &format!("{stem}_scale"), &[], found)?;
        }
    }
    found.drop_ending(&[".input_scale_ub", ".input_scale"]);
    refuse_unscaled(found)
}

/// Adds the weights of ModelOpt.
pub(super) fn find_modelopt(found: &mut Found<'_>) -> Result<()> {
    if let Some((_, name)) = found.siblings.names().find(|(_, name)| name.ends_with(".pre_quant_scale")) {
        let sibling = found.siblings.need(name, name)?;
        return Err(found.siblings.bad(&sibling, "scales what goes into the layer, which is not read; start from the original checkpoint"));
    }
    for stem in found.siblings.stems(".weight_scale") {
        let Some(weight) = found.siblings.find(&format!("{stem}.weight"))? else { continue };
        let scale = found.siblings.need(stem, &format!("{stem}.weight_scale"))?;
        let pair = Pair { name: format!("{stem}.weight"), weight, scale, zero: None };
        if pair.weight.dtype == Dtype::U8 && pair.scale.shape.len() >= 2 {
            let whole = modelopt_whole(stem, found)?;
            found.add_fp4("modelopt", pair, Some(whole))?;
        } else {
            found.add_scaled("modelopt", pair, &[])?;
        }
    }
    found.drop_ending(&[".input_scale", ".k_scale", ".v_scale", ".weight_scale"]);
    refuse_unscaled(found)
}

fn modelopt_whole(stem: &str, found: &Found<'_>) -> Result<Whole> {
    let scale = found.siblings.find(&format!("{stem}.weight_scale_2"))?;
    let input = found.siblings.find(&format!("{stem}.input_scale"))?;
    let number = |sibling: &Option<Sibling>| sibling.as_ref().map_or(Ok(1.0), |s| only(found, s));
    let (times, input_scale) = (number(&scale)?, number(&input)?);
    let beside = vec![("scale", times), ("input_scale", input_scale)];
    Ok(Whole { global: Global::Times(times), beside, from: scale.into_iter().chain(input).collect() })
}

/// The only number of a tensor.
pub(super) fn only(found: &Found<'_>, sibling: &Sibling) -> Result<f32> {
    found.siblings.check_dtype(sibling, &FLOATS)?;
    Numbers::new(sibling, Item::Float(sibling.dtype)).only(&found.siblings)
}

/// Adds the experts of gpt-oss.
pub(super) fn find_gpt_oss(found: &mut Found<'_>) -> Result<()> {
    for stem in found.siblings.stems("_blocks") {
        let name = format!("{stem}_blocks");
        let (mut weight, scale) = (found.siblings.need(&name, &name)?, found.siblings.need(&name, &format!("{stem}_scales"))?);
        match weight.shape[..] {
            [experts, outputs, groups, 16] => weight.shape = vec![experts, outputs, groups * 16],
            _ => return Err(found.siblings.bad(&weight, format!("found the shape {:?}, needed [experts, out, in/32, 16]", weight.shape))),
        }
        found.add_fp4("gpt-oss", Pair { name: stem.into(), weight, scale, zero: None }, None)?;
    }
    Ok(())
}

/// Refuses an eight-bit weight that nothing scales: its scales are lost, or called what is not known.
pub(super) fn refuse_unscaled(found: &Found<'_>) -> Result<()> {
    let used: std::collections::HashSet<usize> = found.tensors.iter().flat_map(|t| t.used.iter().copied()).collect();
    let tensors = found.siblings.checkpoint.tensors.iter().enumerate();
    let mut unscaled = tensors.filter(|(i, t)| !used.contains(i) && t.shape.len() > 1 && matches!(t.dtype, Dtype::F8E4M3 | Dtype::F8E5M2));
    let Some((_, tensor)) = unscaled.next() else { return Ok(()) };
    let sibling = found.siblings.need(&tensor.name, &tensor.name)?;
    Err(found.siblings.bad(&sibling, format!("found {} without scales beside it; a shard may be lost", tensor.dtype)))
}
