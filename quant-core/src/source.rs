//! [`Source`]: an opened checkpoint, as the conversion loop sees it.

use crate::{Dtype, Result, Scheme};

/// A tensor of an opened checkpoint.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name, unique in the checkpoint.
    pub name: String,
    /// Its logical shape: row-major, last dimension contiguous.
    pub shape: Vec<u64>,
    /// The type of the numbers before they were quantized; for dense tensors the stored type.
    pub dtype: Dtype,
    /// How its bytes are to be read.
    pub scheme: Scheme,
    /// What it is in the model.
    pub role: Role,
    /// Its stored parts: those of `scheme.codec(shape)`, in that order, then any that only its container needs.
    pub parts: Vec<Stored>,
    /// How it lies in its file, if its parts are made from that while they are read.
    pub packed: Option<Packed>,
}

/// How a tensor lies in its file that is unpacked while it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The scheme, in the words of its library.
    pub label: String,
    /// Its size in bytes.
    pub n_bytes: u64,
}

/// One stored part of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The part's name, as in [`crate::codec::Part::name`].
    pub name: String,
    /// The type of its items as stored.
    pub dtype: Dtype,
    /// Its shape as stored.
    pub shape: Vec<u64>,
    /// Its size in bytes.
    pub n_bytes: u64,
}

impl Tensor {
    /// The number of elements.
    pub fn n_elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// The bytes of all its parts.
    pub fn n_bytes(&self) -> u64 {
        self.parts.iter().map(|p| p.n_bytes).sum()
    }

    /// The scheme as it lies in its file, for people.
    pub fn stored_as(&self) -> String {
        self.packed.as_ref().map_or_else(|| self.scheme.to_string(), |packed| packed.label.clone())
    }

    /// The bytes that it has in its file.
    pub fn stored_bytes(&self) -> u64 {
        self.packed.as_ref().map_or_else(|| self.n_bytes(), |packed| packed.n_bytes)
    }

    /// Whether its numbers are weights, which can be decoded to f32.
    pub fn is_weight(&self) -> bool {
        match self.scheme {
            Scheme::Dense(dtype) => dtype.is_weight(),
            Scheme::Opaque(_) => false,
            _ => true,
        }
    }

    /// Checks that the stored parts have the sizes that the scheme needs for the shape; says what is wrong.
    ///
    /// A reader calls this once for each tensor; after it, decoding cannot meet a part that is too short.
    pub fn check_parts(&self) -> std::result::Result<(), String> {
        if !self.is_weight() {
            return Ok(());
        }
        let codec = self.scheme.codec(&self.shape).map_err(|e| e.to_string())?;
        for (i, needed) in codec.parts().iter().enumerate() {
            let Some(found) = self.parts.get(i).filter(|p| p.name == needed.name) else {
                return Err(format!("{} needs a part '{}'", self.scheme, needed.name));
            };
            if found.n_bytes != needed.n_bytes() {
                let (found, needed, name) = (found.n_bytes, needed.n_bytes(), needed.name);
                return Err(format!("{} of shape {:?} needs {needed} bytes of '{name}', found {found}", self.scheme, self.shape));
            }
        }
        Ok(())
    }
}

/// What a tensor is in its model, as far as names and shapes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The weight of a linear layer.
    Linear,
    /// The weight of GPT-2's Conv1D: linear, stored as \[in, out\].
    Conv1d,
    /// A table of embeddings.
    Embedding,
    /// The output head.
    Head,
    /// A mixture-of-experts expert.
    Expert,
    /// A mixture-of-experts router.
    Router,
    /// A normalisation.
    Norm,
    /// A bias.
    Bias,
    /// Numbers that are none of these.
    Other,
    /// Integers, booleans and other data.
    Data,
}

impl Role {
    /// The word shown to people.
    pub fn name(self) -> &'static str {
        match self {
            Role::Linear | Role::Conv1d => "linear",
            Role::Embedding => "embedding",
            Role::Head => "head",
            Role::Expert => "expert",
            Role::Router => "router",
            Role::Norm => "norm",
            Role::Bias => "bias",
            Role::Other => "other",
            Role::Data => "data",
        }
    }
}

/// How much each column of a tensor matters, read as it is needed. From an importance matrix.
pub trait Importance: Send + Sync + std::fmt::Debug {
    /// Fills `out` with the importance of the columns from `at` on; those of expert `e` of a stack begin at `e * row length`.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read(&self, at: u64, out: &mut [f32]) -> Result<()>;
}

/// An opened checkpoint: names, shapes, schemes, and a way to read bytes.
pub trait Source: Send + Sync {
    /// The tensors, in the order in which they are stored.
    fn tensors(&self) -> &[Tensor];

    /// Fills `out` with the bytes of part `part` of tensor `tensor` from `offset` on.
    ///
    /// # Errors
    /// If the file cannot be read or is no longer what it was when it was opened.
    fn read(&self, tensor: usize, part: usize, offset: u64, out: &mut [u8]) -> Result<()>;
}

/// Whether tensor `index` of a source has the numbers that it has in `original`, which has the same tensors before some are rounded
/// to another type.
pub(crate) fn is_unrounded(source: &dyn Source, original: &dyn Source, index: usize) -> bool {
    source.tensors()[index].scheme == original.tensors()[index].scheme
}
