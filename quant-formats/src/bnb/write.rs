//! From logical tensors to the sibling tensors of bitsandbytes.

use quant_core::codec::Known;
use quant_core::plan::{PartFill, Planned};
use quant_core::source::Source;
use quant_core::{Dtype, Error, Result, Scheme};

use super::quant_state::QuantState;
use super::{QUANT_STATE, QUANT_STATE_PART};
use crate::checkpoint::Checkpoint;
use crate::safetensors::layout::{Filled, Laid};

/// Stands for an offset that is not known before the scan; its text has a usual length.
const USUAL_OFFSET: f32 = 0.051_994_324;

/// The tensors of a weight in a 4-bit scheme, in the order of bitsandbytes' state dict.
pub(crate) fn four_bit(index: usize, t: &Planned, checkpoint: &Checkpoint, out: &mut Vec<Laid>) -> Result<()> {
    let Scheme::FourBit { book, .. } = t.scheme else { return Ok(()) };
    for (i, part) in t.parts.iter().enumerate() {
        let name = match part.name.as_str() {
            "codes" => t.name.clone(),
            "offset" => continue,
            QUANT_STATE_PART => format!("{}{QUANT_STATE}{}", t.name, book.name()),
            other => format!("{}.{other}", t.name),
        };
        // transformers counts the packed bytes twice, so an odd weight counts one more.
        let parameters = if part.name == "codes" { part.n_bytes * 2 } else { 0 };
        out.push(Laid::part(name, index, i, part, parameters));
    }
    if t.part(QUANT_STATE_PART).is_none() {
        let text = quant_state(t, checkpoint)?.into_bytes();
        let name = format!("{}{QUANT_STATE}{}", t.name, book.name());
        out.push(Laid {
            name,
            dtype: Dtype::U8,
            shape: vec![text.len() as u64],
            n_bytes: text.len() as u64,
            filled: Filled::Bytes(text),
            parameters: 0,
        });
    }
    Ok(())
}

/// The quant_state of a weight. Its length depends on the offset, which is only known after the scan.
fn quant_state(t: &Planned, checkpoint: &Checkpoint) -> Result<String> {
    let offset = match t.part("offset").map(|(i, p)| (i, &p.fill)) {
        Some((part, PartFill::Copied)) => {
            let mut bytes = [0; 4];
            checkpoint.read(t.source, part, 0, &mut bytes)?;
            Some(f32::from_le_bytes(bytes))
        }
        _ => Some(if let Known::Offset(offset) = t.known { offset } else { USUAL_OFFSET }),
    };
    let dtype = match t.dtype {
        Dtype::F16 | Dtype::BF16 => t.dtype,
        Dtype::F8E4M3 | Dtype::F8E5M2 => Dtype::BF16,
        _ => Dtype::F32,
    };
    let state = QuantState { scheme: t.scheme, dtype, shape: t.shape.clone(), offset };
    state.text().ok_or_else(|| Error::request(format!("tensor '{}': {} is not a scheme of bitsandbytes", t.name, t.scheme)))
}

/// The tensors of an LLM.int8() weight, in the order of bitsandbytes' state dict.
pub(crate) fn int8(index: usize, t: &Planned, out: &mut Vec<Laid>) -> Result<()> {
    let Some(module) = t.name.strip_suffix(".weight") else {
        return Err(Error::request(format!("tensor '{}': int8 in safetensors needs a name that ends in '.weight'", t.name)));
    };
    if t.shape.len() != 2 {
        return Err(Error::request(format!("tensor '{}': int8 in safetensors needs a matrix, got shape {:?}", t.name, t.shape)));
    }
    for (i, part) in t.parts.iter().enumerate() {
        let name = format!("{module}.{}", part.name);
        out.push(Laid::part(name, index, i, part, if part.name == "weight" { t.n_elements() } else { 0 }));
    }
    if t.part("weight_format").is_none() {
        let name = format!("{module}.weight_format");
        out.push(Laid { name, dtype: Dtype::U8, shape: vec![], n_bytes: 1, filled: Filled::Bytes(vec![0]), parameters: 0 });
    }
    Ok(())
}
