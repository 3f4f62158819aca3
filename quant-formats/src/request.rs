//! What is wanted of a conversion.

use std::path::Path;

use quant_core::backend::{Backend, Cpu};
use quant_core::convert::Budget;
use quant_core::recipe::Recipe;
use quant_core::{Error, Result, Scheme};

use crate::gguf::{Edit, Mix};

/// Endings that would be strange for a folder.
const NOT_WRITTEN: [&str; 10] = ["bin", "pt", "pth", "ckpt", "onnx", "h5", "npz", "json", "zip", "tar"];

/// The form of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A folder in the layout of Hugging Face.
    Hf,
    /// One safetensors file.
    Safetensors,
    /// A BQT file.
    Bqt,
    /// A GGUF file.
    Gguf,
    /// A folder with a set of GGUF shards.
    GgufSet,
}

impl Target {
    /// Whether the output is a folder.
    pub fn is_folder(self) -> bool {
        matches!(self, Target::Hf | Target::GgufSet)
    }

    /// Whether the output is GGUF.
    pub(crate) fn is_gguf(self) -> bool {
        matches!(self, Target::Gguf | Target::GgufSet)
    }

    /// The form that the name of an output asks for: by its ending, else a folder.
    ///
    /// # Errors
    /// If the ending is that of a format that is not written.
    pub fn of(path: &Path) -> Result<Target> {
        let ending = path.extension().map(|e| e.to_ascii_lowercase());
        match ending.as_ref().and_then(|e| e.to_str()) {
            Some("safetensors") => Ok(Target::Safetensors),
            Some("bqt") => Ok(Target::Bqt),
            Some("gguf") => Ok(Target::Gguf),
            Some(other) if NOT_WRITTEN.contains(&other) => {
                Err(Error::request(format!("{}: .{other} is not written; name a .gguf, .safetensors or .bqt file, or a folder", path.display())))
            }
            _ => Ok(Target::Hf),
        }
    }
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which scheme for which tensor.
    pub recipe: Recipe,
    /// The recipe in the user's words, for the record that BQT keeps.
    pub recipe_text: Option<String>,
    /// The form of the output.
    pub target: Target,
    /// Types in the terms of llama-quantize. Then the recipe only says what is kept.
    pub mix: Option<Mix>,
    /// The scheme of each tensor that the recipe says nothing about; as they are, if this is empty.
    pub schemes: Vec<Scheme>,
    /// Whether what is quantized already may be quantized again.
    pub allow_requantize: bool,
    /// Changes to the metadata of GGUF, in order.
    pub edits: Vec<Edit>,
    /// Bytes of tensor data in one file of a folder; by default those of transformers, or the files as they were.
    pub max_shard: Option<u64>,
    /// Tensors in one file of a set of GGUF shards.
    pub max_shard_tensors: Option<u64>,
    /// Whether a set of GGUF shards keeps the tensors of each shard.
    pub keep_split: bool,
    /// Whether an existing output is replaced.
    pub force: bool,
    /// Whether tensors with NaN or infinities are kept as they are instead of refused.
    pub keep_unfit: bool,
    /// Whether the errors of what is encoded are measured.
    pub audit: bool,
    /// Memory and threads.
    pub budget: Budget,
    /// Where numbers are encoded.
    pub backend: &'static dyn Backend,
}

impl Request {
    /// A request that changes nothing but the form.
    pub fn new(target: Target) -> Request {
        Request {
            recipe: Recipe::default(),
            recipe_text: None,
            target,
            mix: None,
            schemes: Vec::new(),
            allow_requantize: false,
            edits: Vec::new(),
            max_shard: None,
            max_shard_tensors: None,
            keep_split: false,
            force: false,
            keep_unfit: false,
            audit: false,
            budget: Budget::default(),
            backend: &Cpu,
        }
    }
}
