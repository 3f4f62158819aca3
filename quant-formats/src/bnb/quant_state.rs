//! The JSON text that bitsandbytes stores beside each 4-bit weight.

use quant_core::codec::nested::NESTED_BLOCK;
use quant_core::scheme::{BNB_BLOCKS, Book, Profile};
use quant_core::{Dtype, Scheme};
use serde::Deserialize;

use crate::python;

/// The highest rank of a 4-bit weight that is read.
const MAX_RANK: usize = 8;

/// What a quant_state says.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantState {
    /// The scheme.
    pub scheme: Scheme,
    /// The type of the numbers before.
    pub dtype: Dtype,
    /// The shape of the weight.
    pub shape: Vec<u64>,
    /// The mean of the scales, with double quantization.
    pub offset: Option<f32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    quant_type: String,
    blocksize: u64,
    dtype: String,
    shape: Vec<u64>,
    nested_blocksize: Option<u64>,
    nested_dtype: Option<String>,
    nested_offset: Option<f64>,
}

impl QuantState {
    /// Reads a quant_state, which must say `book`, as its tensor's name does.
    ///
    /// # Errors
    /// Says what is wrong: bitsandbytes itself checks nothing.
    pub fn parse(bytes: &[u8], book: &str) -> Result<QuantState, String> {
        if bytes.first() != Some(&b'{') {
            return Err("the quant_state is not a JSON object".into());
        }
        let text: Text = serde_json::from_slice(bytes).map_err(|e| format!("the quant_state is not valid: {e}"))?;
        if text.quant_type != book {
            return Err(format!("the quant_state has quant_type '{}', its name says '{book}'", text.quant_type));
        }
        let book = match book {
            "nf4" => Book::Nf4,
            "fp4" => Book::Fp4,
            other => return Err(format!("quant_type '{other}' is not known; known are nf4 and fp4")),
        };
        let block = u32::try_from(text.blocksize).ok().filter(|b| BNB_BLOCKS.contains(b));
        let block = block.ok_or_else(|| format!("found blocksize {}, needed one of {BNB_BLOCKS:?}", text.blocksize))?;
        let dtype = match text.dtype.as_str() {
            "float32" | "float16" | "bfloat16" => Dtype::from_torch_name(&text.dtype).unwrap_or(Dtype::F32),
            other => return Err(format!("found dtype '{other}', needed float32, float16 or bfloat16")),
        };
        if text.shape.len() > MAX_RANK {
            return Err(format!("found a shape of {} dimensions, at most {MAX_RANK} are read", text.shape.len()));
        }
        let offset = nested_offset(&text)?;
        let scheme = Scheme::FourBit { book, block, nested: offset.is_some(), profile: Profile::Cuda };
        Ok(QuantState { scheme, dtype, shape: text.shape, offset })
    }

    /// The text as bitsandbytes writes it; none if the scheme is not one of its 4-bit schemes.
    pub fn text(&self) -> Option<String> {
        let Scheme::FourBit { book, block, nested, .. } = self.scheme else { return None };
        let dtype = self.dtype.torch_name()?;
        let shape: Vec<String> = self.shape.iter().map(u64::to_string).collect();
        let shape = shape.join(", ");
        let mut text = format!(r#"{{"quant_type": "{}", "blocksize": {block}, "dtype": "{dtype}", "shape": [{shape}]"#, book.name());
        if nested {
            let offset = python::repr_f64(f64::from(self.offset.unwrap_or_default()));
            text += &format!(r#", "nested_blocksize": {NESTED_BLOCK}, "nested_dtype": "float32", "nested_offset": {offset}"#);
        }
        Some(text + "}")
    }
}

/// The offset of a double quantization, if the text describes one.
fn nested_offset(text: &Text) -> Result<Option<f32>, String> {
    let (block, dtype, offset) = match (text.nested_blocksize, &text.nested_dtype, text.nested_offset) {
        (None, None, None) => return Ok(None),
        (Some(block), Some(dtype), Some(offset)) => (block, dtype, offset),
        _ => return Err("the quant_state needs all of nested_blocksize, nested_dtype and nested_offset, or none".into()),
    };
    if block != NESTED_BLOCK {
        return Err(format!("found nested_blocksize {block}, needed {NESTED_BLOCK}"));
    }
    if dtype != "float32" {
        return Err(format!("found nested_dtype '{dtype}', needed float32"));
    }
    let offset = offset as f32;
    if offset.is_finite() { Ok(Some(offset)) } else { Err(format!("found nested_offset {offset}, needed a finite number")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As bitsandbytes 0.50.2 wrote it.
    const REAL: &str = r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [128, 128], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05199432373046875}"#;

    #[test]
    fn a_real_text_comes_back() {
        let state = QuantState::parse(REAL.as_bytes(), "nf4").unwrap();
        assert_eq!((state.scheme.to_string().as_str(), state.dtype, state.offset), ("nf4-dq", Dtype::BF16, Some(0.051_994_324)));
        assert_eq!(state.text().unwrap(), REAL);
    }

    #[test]
    fn wrong_texts_are_refused() {
        let changes = [
            ("64", "63"),
            ("64", "0"),
            ("64", "4611686018427387904"),
            ("\"nf4\"", "\"fp4\""),
            ("bfloat16", "__class__"),
            ("256", "1"),
            ("\"float32\"", "\"quaternion\""),
            ("0.05199432373046875", "NaN"),
            ("0.05199432373046875", "1e39"),
            ("\"nested_blocksize\": 256, ", ""),
            ("[128, 128]", "[-128, -128]"),
            ("\"blocksize\": 64", "\"blocksize\": 64, \"blocksize\": 64"),
            ("\"blocksize\": 64", "\"blocksize\": 64, \"more\": 1"),
            ("}", "} x"),
        ];
        for (from, to) in changes {
            let text = REAL.replacen(from, to, 1);
            assert_ne!(text, REAL);
            assert!(QuantState::parse(text.as_bytes(), "nf4").is_err(), "{text}");
        }
        assert!(QuantState::parse(REAL.as_bytes(), "int4").is_err());
    }
}
