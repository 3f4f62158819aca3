//! Checkpoints that another tool has quantized already, in the layouts of Hugging Face.
//!
//! There, the weight of a layer is several *physical* tensors: packed codes, scales, zero points, an order of groups.
//! [`unpack`] finds which belong together and gives the *logical* tensors that they stand for, each with a way to compute its
//! numbers from the bytes of its siblings.
//!
//! | method | layouts | file |
//! |---|---|---|
//! | `gptq` | v1 and v2, 2, 3, 4 and 8 bits, in any order of groups | `gptq` |
//! | `awq` | `gemm`, 4 bits | `awq` |
//! | `compressed-tensors` | `pack-quantized`, `int-`, `float-` and `naive-quantized`, `nvfp4-`, `mxfp4-`, `mxfp6-pack-quantized`, `mxfp8-quantized` | `compressed` |
//! | `fp8`, `mxfp8`, `fbgemm_fp8` | blocks, rows, one scale; E8M0 scales; four-bit experts | `fp8` |
//! | `modelopt` | FP8, NVFP4, and both mixed | `fp8` |
//! | `mxfp4` | gpt-oss | `fp8` |
//! | `hqq` | 1, 2, 3, 4, 5, 6 and 8 bits, both axes | `hqq` |
//! | `torchao` | `Int8Tensor`, `Float8Tensor`, `IntxUnpackedToInt8Tensor` | `torchao` |
//! | `quanto` | 8 bits | `torchao` |
//!
//! Invariants: everything that a header can tell is checked in [`unpack`], so that reading can only fail where a file cannot be
//! read; memory does not grow with a tensor; numbers are those of the libraries' own dequantizers computed in f32, which is
//! also what convert_hf_to_gguf.py computes where it reads a layout. Nothing is rounded to the type of the model.
//!
//! Source: `dequant_model` of conversion/base.py, llama.cpp 0.5.0-dev; GPTQModel f4c327a, AutoAWQ 88e4c76, compressed-tensors
//! 0.20.0, transformers 5.23.0, HQQ 0.2.8, torchao 0.18.0, optimum-quanto 0.2.7.

mod awq;
mod blocks;
mod columns;
mod compressed;
mod fields;
mod fp8;
mod gptq;
mod grid;
mod hqq;
mod logical;
mod numbers;
mod panels;
mod pieces;
mod rows;
mod scaled;
mod settings;
mod siblings;
mod torchao;

#[cfg(test)]
mod tests;

pub use logical::{Form, logical};

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;

use quant_core::{Dtype, Error, Result, ggml};

use crate::Checkpoint;
use settings::Settings;
use siblings::{Sibling, Siblings};

/// Numbers of one logical tensor, unpacked from the bytes of its siblings. Row-major, `[out, in]` or `[experts, out, in]`.
pub(crate) trait Unpack: Send + Sync + Debug {
    /// Fills `out` with the numbers from element `at` on.
    ///
    /// # Errors
    /// If a file cannot be read.
    fn fill(&self, source: &Checkpoint, at: u64, out: &mut [f32]) -> Result<()>;
}

/// Blocks of a ggml type, put together from the bytes of siblings without a change of any code or scale.
pub(crate) trait Repack: Send + Sync + Debug {
    /// Fills `out` with blocks from number `first` on, row-major; its length is a multiple of a block's bytes.
    ///
    /// # Errors
    /// If a file cannot be read.
    fn fill(&self, source: &Checkpoint, first: u64, out: &mut [u8]) -> Result<()>;

    /// Numbers that multiply the whole tensor and stand beside it in GGUF, each with the ending of its name.
    ///
    /// They are given even if they are 1; the reference leaves out those that are within 10⁻⁶ of it.
    fn beside(&self) -> &[(&'static str, f32)] {
        &[]
    }

    /// Fills `out` with the numbers that the blocks stand for, those beside them included, from element `at` on.
    ///
    /// # Errors
    /// If a file cannot be read.
    fn numbers(&self, source: &Checkpoint, at: u64, out: &mut [f32]) -> Result<()>;
}

/// What a logical tensor is made from.
#[derive(Clone, Debug)]
pub(crate) enum How {
    /// Numbers that must be computed.
    Numbers(Arc<dyn Unpack>),
    /// Already blocks of a ggml type but for the order of their bytes.
    Blocks(ggml::Type, Arc<dyn Repack>),
}

/// One logical tensor of a quantized checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Unpacked {
    /// Its name, for example `model.layers.0.mlp.down_proj.weight`.
    pub(crate) name: String,
    /// Its shape, row-major.
    pub(crate) shape: Vec<u64>,
    /// The type that its numbers have in the library: that of the model, or else that of the scales.
    pub(crate) dtype: Dtype,
    /// How it is stored, for people: `gptq 4-bit, groups of 128`.
    pub(crate) label: String,
    /// Indices of the physical tensors that it is made of.
    pub(crate) used: Vec<usize>,
    /// What it is made from.
    pub(crate) how: How,
}

/// A quantized checkpoint, seen through.
#[derive(Debug)]
pub struct Unpacking {
    /// The logical tensors, in the order of their codes in the checkpoint.
    pub(crate) tensors: Vec<Unpacked>,
    /// Indices of physical tensors that only mean something to a quantized layer at run time, such as `input_scale`.
    pub(crate) dropped: Vec<usize>,
    /// What a user should know.
    pub(crate) notes: Vec<String>,
}

/// The logical tensors of a checkpoint that was quantized by a method that is read here; None if it was not quantized, or by
/// bitsandbytes. Physical tensors that are neither used nor dropped stay as they are.
///
/// # Errors
/// If the method or its variant is not read, or the tensors are not what it needs: which, what was found and what was needed.
pub fn unpack(checkpoint: &Checkpoint) -> Result<Option<Unpacking>> {
    let Some(settings) = Settings::find(checkpoint)? else { return Ok(None) };
    let mut found = Found::new(checkpoint, settings.dtype);
    match settings.method.as_str() {
        "bitsandbytes" => return Ok(None),
        "gptq" => gptq::find(&settings, &mut found)?,
        "awq" => awq::find(&settings, &mut found)?,
        "compressed-tensors" => compressed::find(&settings, &mut found)?,
        "fp8" | "mxfp8" => fp8::find(&settings, &mut found)?,
        "fbgemm_fp8" => fp8::find_fbgemm(&mut found)?,
        "modelopt" => fp8::find_modelopt(&mut found)?,
        "mxfp4" => fp8::find_gpt_oss(&mut found)?,
        "hqq" => hqq::find(&mut found)?,
        "torchao" => torchao::find(&settings, &mut found)?,
        "quanto" => torchao::find_quanto(&mut found)?,
        other => return Err(settings.refuse(other)),
    }
    found.finish(&settings.method).map(Some)
}

/// The logical tensors found so far.
struct Found<'a> {
    siblings: Siblings<'a>,
    dtype: Option<Dtype>,
    tensors: Vec<Unpacked>,
    dropped: Vec<usize>,
    notes: Vec<String>,
}

impl<'a> Found<'a> {
    fn new(checkpoint: &'a Checkpoint, dtype: Option<Dtype>) -> Found<'a> {
        Found { siblings: Siblings::new(checkpoint), dtype, tensors: Vec::new(), dropped: Vec::new(), notes: Vec::new() }
    }

    /// Adds a logical tensor made of `used`, the codes first. `scale` is the type of its scales.
    fn add(&mut self, name: String, shape: Vec<u64>, scale: Dtype, label: String, used: &[&Sibling], how: How) {
        let own = matches!(scale, Dtype::F32 | Dtype::F16 | Dtype::BF16).then_some(scale);
        let dtype = self.dtype.or(own).unwrap_or(Dtype::BF16);
        let used = used.iter().map(|s| s.index).collect();
        self.tensors.push(Unpacked { name, shape, dtype, label, used, how });
    }

    /// Drops every tensor that ends so, unless a logical tensor uses it.
    fn drop_ending(&mut self, endings: &[&str]) {
        let names = self.siblings.names();
        self.dropped.extend(names.filter(|(_, name)| endings.iter().any(|e| name.ends_with(e))).map(|(i, _)| i));
    }

    fn finish(mut self, method: &str) -> Result<Unpacking> {
        self.tensors.sort_by_key(|t| t.used.first().copied());
        let used: HashSet<usize> = self.tensors.iter().flat_map(|t| t.used.iter().copied()).collect();
        self.refuse_twice(&used)?;
        self.dropped.retain(|i| !used.contains(i));
        self.dropped.sort_unstable();
        self.dropped.dedup();
        if self.tensors.is_empty() {
            self.notes.push(format!("the configuration names the quantization method {method}, but no tensor is quantized that way"));
        }
        Ok(Unpacking { tensors: self.tensors, dropped: self.dropped, notes: self.notes })
    }

    /// Two tensors of one name: two logical ones, or a logical one beside a plain one.
    fn refuse_twice(&self, used: &HashSet<usize>) -> Result<()> {
        let mut names = HashSet::new();
        for t in &self.tensors {
            let plain = self.siblings.find(&t.name)?.is_some_and(|s| !used.contains(&s.index));
            if plain || !names.insert(t.name.as_str()) {
                let path = &self.siblings.checkpoint.path;
                return Err(Error::tensor(path, &t.name, "is there twice, as quantized parts and on its own; remove one of them"));
            }
        }
        Ok(())
    }
}
