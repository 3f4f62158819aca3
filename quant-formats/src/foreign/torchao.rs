//! torchao and quanto.
//!
//! A safetensors file of torchao says in its metadata what each tensor is: under the tensor's name, a JSON object with the class
//! and its attributes. The data of `M.weight` lie in `M._weight_qdata`, `M._weight_scale`, `M._weight_zero_point`.
//!
//! | class | data | |
//! |---|---|---|
//! | `Int8Tensor`, `IntxUnpackedToInt8Tensor` | I8 | `(q − zero)·scale` in blocks of `block_size` |
//! | `Float8Tensor` | F8_E4M3, F8_E5M2 | `q·scale`, likewise |
//! | quanto, 8 bits | `M.weight._data`: I8, F8 | `q·M.weight._scale`, one a row |
//!
//! The other classes store the order of a GPU's tiles.
//!
//! Source: `dequantize_affine`, `_dequantize_affine_float8` and prototype/safetensors of torchao 0.18.0; optimum-quanto 0.2.7.
//! convert_hf_to_gguf.py reads neither.

use quant_core::{Dtype, Error, Result};
use serde_json::Value;

use super::Found;
use super::scaled::Pair;
use super::settings::{Settings, sizes};

/// Classes whose data are whole bytes in the order of the weight.
const READ: [&str; 3] = ["Int8Tensor", "Float8Tensor", "IntxUnpackedToInt8Tensor"];

/// Adds the weights of a torchao checkpoint.
pub(super) fn find(settings: &Settings, found: &mut Found<'_>) -> Result<()> {
    let metadata = &found.siblings.checkpoint.metadata;
    if !metadata.iter().any(|(key, _)| key == "tensor_names") {
        return Err(settings.error("torchao: found no 'tensor_names' in the metadata of the safetensors files, which say what each tensor is"));
    }
    for (name, text) in metadata {
        let described = serde_json::from_str::<Value>(text).ok().filter(|v| v.get("_type").is_some());
        if let Some(described) = described {
            add(name, &described, found)?;
        }
    }
    Ok(())
}

fn add(name: &str, described: &Value, found: &mut Found<'_>) -> Result<()> {
    let class = described.get("_type").and_then(Value::as_str).unwrap_or_default();
    if class == "Tensor" {
        return Ok(());
    }
    let bad = |problem: String| Error::tensor(&found.siblings.checkpoint.path, name, problem);
    if !READ.contains(&class) {
        return Err(bad(format!("found the torchao class '{class}', needed {}; start from the original checkpoint", READ.join(", "))));
    }
    let (module, parameter) = name.rsplit_once('.').ok_or_else(|| bad("needed a name with a module before its last dot".into()))?;
    let part = |part: &str| format!("{module}._{parameter}_{part}");
    let block = described.get("_data").and_then(|d| d.get("block_size")).and_then(sizes);
    let block = block.ok_or_else(|| bad("found no 'block_size' in its metadata, needed a list of positive integers".into()))?;
    if let Some(scale) = found.siblings.find(&part("act_pre_scale"))? {
        return Err(found.siblings.bad(&scale, "scales what goes into the layer, which is not read; start from the original checkpoint"));
    }
    let weight = found.siblings.need(&part("scale"), &part("qdata"))?;
    let scale = found.siblings.need(&part("qdata"), &part("scale"))?;
    let zero = found.siblings.find(&part("zero_point"))?;
    found.add_scaled("torchao", Pair { name: name.into(), weight, scale, zero }, &[block])?;
    let dtype = described.get("_data").and_then(|d| d.get("dtype")?.get("_data")?.as_str()).and_then(Dtype::from_torch_name);
    if let (Some(dtype), Some(tensor)) = (dtype, found.tensors.last_mut()) {
        tensor.dtype = dtype;
    }
    found.drop_ending(&[&part("act_quant_scale"), &part("act_quant_zero_point")]);
    Ok(())
}

/// Adds the weights of a quanto checkpoint.
pub(super) fn find_quanto(found: &mut Found<'_>) -> Result<()> {
    if let Some(stem) = found.siblings.stems("._data._data").first() {
        let packed = found.siblings.need(stem, &format!("{stem}._data._data"))?;
        return Err(found.siblings.bad(&packed, "weights of quanto below 8 bits are not read; start from the original checkpoint"));
    }
    for stem in found.siblings.stems("._data") {
        let (data, scale) = (format!("{stem}._data"), format!("{stem}._scale"));
        let (weight, scale) = (found.siblings.need(&scale, &data)?, found.siblings.need(&data, &scale)?);
        found.add_scaled("quanto", Pair { name: stem.into(), weight, scale, zero: None }, &[])?;
    }
    found.drop_ending(&[".input_scale", ".output_scale"]);
    Ok(())
}
