//! From sibling tensors to logical tensors.

use std::collections::HashMap;
use std::path::Path;

use quant_core::codec::four_bit::book_values;
use quant_core::source::{Role, Stored, Tensor};
use quant_core::{Dtype, Error, Result, Scheme};

use super::quant_state::QuantState;
use super::{QUANT_STATE, QUANT_STATE_PART};
use crate::checkpoint::At;
use crate::input::Input;
use crate::safetensors::read::Physical;

/// The longest quant_state that is read.
const MAX_QUANT_STATE: u64 = 1 << 16;
/// Endings of the tensors that only make sense beside a 4-bit weight.
const FOUR_BIT_PARTS: [&str; 4] = [".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map"];

/// A logical tensor and where its parts lie.
pub(crate) type Located = (Tensor, Vec<At>);

/// Joins the tensors of quantized weights; all others stay as they are. The order is that of the weights.
pub(crate) fn join(inputs: &[Input], physical: Vec<Physical>, int8_dtype: Dtype) -> Result<Vec<Located>> {
    let by_name: HashMap<&str, usize> = physical.iter().enumerate().map(|(i, p)| (p.name.as_str(), i)).collect();
    let files = Files { inputs, physical: &physical, by_name, int8_dtype };
    let mut taken = vec![false; physical.len()];
    let mut joined: HashMap<usize, Located> = HashMap::new();
    for p in &physical {
        let found = if let Some((weight, book)) = p.name.split_once(QUANT_STATE) {
            Some(files.four_bit(p, weight, book)?)
        } else if let Some(module) = p.name.strip_suffix(".SCB") {
            Some(files.int8(p, module)?)
        } else {
            None
        };
        if let Some((used, located)) = found {
            used.iter().for_each(|&i| taken[i] = true);
            joined.insert(used[0], located);
        }
    }
    for (p, _) in physical.iter().zip(&taken).filter(|(_, taken)| !**taken) {
        files.refuse_orphan(p)?;
    }
    let mut tensors = Vec::with_capacity(physical.len());
    for (i, p) in physical.iter().enumerate() {
        match joined.remove(&i) {
            Some(located) => tensors.push(located),
            None if taken[i] => {}
            None => tensors.push(p.as_dense()),
        }
    }
    Ok(tensors)
}

struct Files<'a> {
    inputs: &'a [Input],
    physical: &'a [Physical],
    by_name: HashMap<&'a str, usize>,
    int8_dtype: Dtype,
}

impl Files<'_> {
    fn path(&self, p: &Physical) -> &Path {
        self.inputs[p.input].path()
    }

    fn find(&self, beside: &Physical, name: &str) -> Result<usize> {
        self.by_name.get(name).copied().ok_or_else(|| Error::tensor(self.path(beside), &beside.name, format!("needs a tensor '{name}' beside it")))
    }

    fn bytes(&self, p: &Physical, most: u64) -> Result<Vec<u8>> {
        if p.n_bytes > most {
            return Err(Error::tensor(self.path(p), &p.name, format!("found {} bytes, at most {most} are read", p.n_bytes)));
        }
        let mut bytes = vec![0; p.n_bytes as usize];
        self.inputs[p.input].read_at(p.offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Joins the tensors of a 4-bit weight. Returns which they are, the weight first.
    fn four_bit(&self, state: &Physical, weight: &str, book: &str) -> Result<(Vec<usize>, Located)> {
        let bad = |p: &Physical, problem: String| Error::tensor(self.path(p), &p.name, problem).at(p.offset);
        if state.dtype != Dtype::U8 {
            return Err(bad(state, format!("found a quant_state of type {}, needed U8", state.dtype)));
        }
        let text = self.bytes(state, MAX_QUANT_STATE)?;
        let parsed = QuantState::parse(&text, book).map_err(|problem| bad(state, problem))?;
        let codec = parsed.scheme.codec(&parsed.shape).map_err(|e| bad(state, e.to_string()))?;
        let (mut used, mut parts, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for part in codec.parts() {
            if part.name == "offset" {
                parts.push(Stored { name: part.name.into(), dtype: part.dtype, shape: part.shape.clone(), n_bytes: 4 });
                places.push(At::Bytes(parsed.offset.unwrap_or_default().to_le_bytes().to_vec()));
                continue;
            }
            let name = if part.name == "codes" { weight.to_owned() } else { format!("{weight}.{}", part.name) };
            let index = self.find(state, &name)?;
            let p = &self.physical[index];
            let right_type = part.name == "codes" || p.dtype == part.dtype;
            if !right_type || p.n_bytes != part.n_bytes() {
                let (found, needed) = (p.n_bytes, part.n_bytes());
                let shape = &parsed.shape;
                return Err(bad(
                    p,
                    format!("found {found} bytes of {}, needed {needed} of {} for {} of shape {shape:?}", p.dtype, part.dtype, parsed.scheme),
                ));
            }
            if p.dtype == Dtype::F32 && part.name.ends_with("quant_map") {
                self.check_map(p, parsed.scheme)?;
            }
            used.push(index);
            parts.push(p.stored(part.name));
            places.push(p.at());
        }
        let nested = matches!(parsed.scheme, Scheme::FourBit { nested: true, .. });
        if !nested && let Some(&extra) = self.by_name.get(format!("{weight}.nested_absmax").as_str()) {
            return Err(bad(&self.physical[extra], "its weight's quant_state knows nothing of double quantization".into()));
        }
        used.push(self.by_name[state.name.as_str()]);
        parts.push(state.stored(QUANT_STATE_PART));
        places.push(state.at());
        let tensor =
            Tensor { name: weight.into(), shape: parsed.shape, dtype: parsed.dtype, scheme: parsed.scheme, role: Role::Other, parts, packed: None };
        Ok((used, (tensor, places)))
    }

    /// A codebook must be the book that its scheme names; a nested map, which older versions wrote differently, must be finite.
    fn check_map(&self, p: &Physical, scheme: Scheme) -> Result<()> {
        let bytes = self.bytes(p, 1024)?;
        let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        let Scheme::FourBit { book, .. } = scheme else { return Ok(()) };
        let fits = if p.name.ends_with("nested_quant_map") { values.clone().all(f32::is_finite) } else { values.eq(book_values(book)) };
        if fits { Ok(()) } else { Err(Error::tensor(self.path(p), &p.name, format!("its values are not those of {}", book.name())).at(p.offset)) }
    }

    /// Joins the tensors of an LLM.int8() weight. Returns which they are, the weight first.
    fn int8(&self, scb: &Physical, module: &str) -> Result<(Vec<usize>, Located)> {
        let bad = |p: &Physical, problem: String| Err(Error::tensor(self.path(p), &p.name, problem).at(p.offset));
        let index = self.find(scb, &format!("{module}.weight"))?;
        let weight = &self.physical[index];
        let &[rows, _] = &weight.shape[..] else {
            return bad(weight, format!("found the shape {:?} beside an SCB, needed a matrix", weight.shape));
        };
        if weight.dtype != Dtype::I8 {
            return bad(weight, format!("found the type {} beside an SCB, needed I8", weight.dtype));
        }
        if scb.dtype != Dtype::F32 || scb.shape != [rows] {
            return bad(scb, format!("found {} of shape {:?}, needed F32 of shape [{rows}], one scale a row", scb.dtype, scb.shape));
        }
        let mut used = vec![index, self.by_name[scb.name.as_str()]];
        let (mut parts, mut places) = (vec![weight.stored("weight"), scb.stored("SCB")], vec![weight.at(), scb.at()]);
        if let Some(&format) = self.by_name.get(format!("{module}.weight_format").as_str()) {
            let p = &self.physical[format];
            if p.dtype != Dtype::U8 || self.bytes(p, 8)? != [0] {
                return bad(p, "found a weight_format other than 0 (rows); permuted layouts are not read".into());
            }
            used.push(format);
            parts.push(p.stored("weight_format"));
            places.push(p.at());
        }
        let (name, shape) = (weight.name.clone(), weight.shape.clone());
        let tensor = Tensor { name, shape, dtype: self.int8_dtype, scheme: Scheme::Int8, role: Role::Other, parts, packed: None };
        Ok((used, (tensor, places)))
    }

    /// Refuses a tensor that only makes sense beside a quantized weight.
    fn refuse_orphan(&self, p: &Physical) -> Result<()> {
        let four_bit = FOUR_BIT_PARTS.iter().any(|end| p.name.strip_suffix(end).is_some_and(|weight| weight.ends_with(".weight")));
        let needed = if four_bit {
            "a quant_state"
        } else if p.name.ends_with(".weight_format") {
            "an SCB"
        } else {
            return Ok(());
        };
        Err(Error::tensor(self.path(p), &p.name, format!("belongs to a quantized weight, but {needed} is missing beside it")))
    }
}
