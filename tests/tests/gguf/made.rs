//! GGUF files and importance matrices made by hand, and what lies in a file.

use std::path::Path;

use quant_core::Scheme;
use quant_core::convert::decode;
use quant_core::source::Source;
use quant_formats::checkpoint::Checkpoint;

/// Types of values.
pub const U32: u32 = 4;
pub const F32: u32 = 6;
pub const STRING: u32 = 8;
pub const ARRAY: u32 = 9;

/// A file to be written. What it says need not be true.
pub struct Gguf {
    /// Key, type and bytes of each value.
    pub kv: Vec<(String, u32, Vec<u8>)>,
    /// Name, shape (row-major), type and bytes of each tensor.
    pub tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
    pub alignment: usize,
    /// The byte that fills the gaps, and the bytes after the last of them.
    pub padding: u8,
    pub trailing: Vec<u8>,
}

impl Gguf {
    /// A file without tensors, whose keys are those that a mix asks for: a model of one layer.
    pub fn llama() -> Gguf {
        let mut file = Gguf { kv: Vec::new(), tensors: Vec::new(), alignment: 32, padding: 0, trailing: Vec::new() };
        file.key("general.architecture", STRING, string("llama"));
        for (key, value) in [("block_count", 1), ("attention.head_count", 4), ("attention.head_count_kv", 2)] {
            file.key(&format!("llama.{key}"), U32, u32::to_le_bytes(value));
        }
        file
    }

    pub fn key(&mut self, key: &str, kind: u32, value: impl AsRef<[u8]>) {
        self.kv.push((key.into(), kind, value.as_ref().to_vec()));
    }

    pub fn tensor(&mut self, name: &str, shape: &[u64], type_id: u32, bytes: Vec<u8>) {
        self.tensors.push((name.into(), shape.into(), type_id, bytes));
    }

    pub fn f32(&mut self, name: &str, shape: &[u64], values: &[f32]) {
        self.tensor(name, shape, 0, values.iter().flat_map(|v| v.to_le_bytes()).collect());
    }

    pub fn write(&self, path: &Path) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.kv.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.kv {
            bytes.extend([&string(key), &kind.to_le_bytes()[..], value].concat());
        }
        let mut offset = 0u64;
        for (name, shape, type_id, data) in &self.tensors {
            bytes.extend([&string(name), &(shape.len() as u32).to_le_bytes()[..]].concat());
            bytes.extend(shape.iter().rev().flat_map(|n| n.to_le_bytes()));
            bytes.extend([&type_id.to_le_bytes()[..], &offset.to_le_bytes()].concat());
            offset = (offset + data.len() as u64).next_multiple_of(self.alignment as u64);
        }
        for (.., data) in [&(String::new(), vec![], 0, vec![])].into_iter().chain(&self.tensors) {
            bytes.extend(data);
            bytes.resize(bytes.len().next_multiple_of(self.alignment), self.padding);
        }
        bytes.extend(&self.trailing);
        std::fs::write(path, bytes).unwrap();
    }
}

/// A string as it stands in a file.
pub fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// An array as it stands in a file.
pub fn array(kind: u32, items: &[Vec<u8>]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes(), &items.concat()].concat()
}

/// An importance matrix in the old form, of one call: a value for each column of each tensor.
pub fn imatrix(path: &Path, entries: &[(&str, Vec<f32>)]) {
    let number = |n: usize| (n as i32).to_le_bytes();
    let mut bytes = number(entries.len()).to_vec();
    for (name, values) in entries {
        bytes.extend([&number(name.len())[..], name.as_bytes(), &number(1), &number(values.len())].concat());
        bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    }
    std::fs::write(path, bytes).unwrap();
}

/// Numbers as weights are: small, of both signs, of many sizes; the same for the same seed.
pub fn weights(n: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 - 0.5
    };
    (0..n).map(|_| (random() + random() + random()) * 0.05).collect()
}

/// Opens a model.
pub fn open(path: &Path) -> Checkpoint {
    quant_formats::open(path, quant_formats::Io::Read).unwrap()
}

/// A tensor of a model: its scheme, its shape and the bytes of its parts.
pub fn stored(checkpoint: &Checkpoint, name: &str) -> (Scheme, Vec<u64>, Vec<Vec<u8>>) {
    let (i, tensor) = checkpoint.tensors.iter().enumerate().find(|(_, t)| t.name == name).unwrap_or_else(|| panic!("{name} is there"));
    let n_parts = tensor.scheme.codec(&tensor.shape).unwrap().parts().len();
    let read = |part: usize| {
        let mut bytes = vec![0; tensor.parts[part].n_bytes as usize];
        checkpoint.read(i, part, 0, &mut bytes).unwrap();
        bytes
    };
    (tensor.scheme, tensor.shape.clone(), (0..n_parts).map(read).collect())
}

/// The numbers of a tensor.
pub fn numbers(checkpoint: &Checkpoint, name: &str) -> Vec<f32> {
    let (scheme, shape, parts) = stored(checkpoint, name);
    decode(scheme, &shape, &parts).unwrap()
}

/// The names of the tensors of a model, sorted.
pub fn names(checkpoint: &Checkpoint) -> Vec<&str> {
    let mut names: Vec<&str> = checkpoint.tensors.iter().map(|t| t.name.as_str()).collect();
    names.sort_unstable();
    names
}
