//! Checkpoints made for a test.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// A tensor to be written: name, dtype, shape, bytes.
pub struct Made {
    /// Its name.
    pub name: String,
    /// Its dtype as in a header.
    pub dtype: &'static str,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Made {
    /// A tensor from f32 numbers, stored as BF16 by cutting.
    pub fn bf16(name: &str, shape: &[u64], values: &[f32]) -> Made {
        let bytes = values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect();
        Made { name: name.into(), dtype: "BF16", shape: shape.into(), bytes }
    }

    /// A tensor from f32 numbers.
    pub fn f32(name: &str, shape: &[u64], values: &[f32]) -> Made {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Made { name: name.into(), dtype: "F32", shape: shape.into(), bytes }
    }

    /// A tensor of raw bytes.
    pub fn raw(name: &str, dtype: &'static str, shape: &[u64], bytes: Vec<u8>) -> Made {
        Made { name: name.into(), dtype, shape: shape.into(), bytes }
    }
}

/// Writes a safetensors file with the tensors in the given order.
pub fn write(path: &Path, tensors: &[Made]) {
    let mut next = 0;
    let entry = |t: &Made| {
        let begin = next;
        next += t.bytes.len();
        format!("{}:{{\"dtype\":\"{}\",\"shape\":{:?},\"data_offsets\":[{begin},{next}]}}", serde_json::json!(t.name), t.dtype, t.shape)
    };
    let entries: Vec<String> = tensors.iter().map(entry).collect();
    let header = format!("{{{}}}", entries.join(","));
    let mut file = BufWriter::new(File::create(path).expect("the file can be made"));
    file.write_all(&(header.len() as u64).to_le_bytes()).expect("written");
    file.write_all(header.as_bytes()).expect("written");
    tensors.iter().for_each(|t| file.write_all(&t.bytes).expect("written"));
    file.flush().expect("written");
}
