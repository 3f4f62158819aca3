//! [`Siblings`]: finding the physical tensors that belong together, and checking what they are.

use std::collections::HashMap;

use quant_core::dtype::n_elements;
use quant_core::source::Source;
use quant_core::{Dtype, Error, Result, Scheme};

use crate::Checkpoint;

/// The largest physical tensor, so that no product of a size and a few bits can overflow.
const MAX_BYTES: u64 = 1 << 56;

/// A physical tensor, known to hold as many bytes as its type and shape need, and at least one.
#[derive(Clone, Debug)]
pub(super) struct Sibling {
    pub(super) index: usize,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<u64>,
    pub(super) n_bytes: u64,
}

impl Sibling {
    /// Fills `out` with its bytes from `at` on.
    pub(super) fn read(&self, source: &Checkpoint, at: u64, out: &mut [u8]) -> Result<()> {
        source.read(self.index, 0, at, out)
    }

    pub(super) fn n_elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// The physical tensors of a checkpoint by name.
pub(super) struct Siblings<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    by_name: HashMap<&'a str, usize>,
}

impl<'a> Siblings<'a> {
    pub(super) fn new(checkpoint: &'a Checkpoint) -> Siblings<'a> {
        let by_name = checkpoint.tensors.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
        Siblings { checkpoint, by_name }
    }

    /// The names of all tensors, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = (usize, &'a str)> + use<'a> {
        self.checkpoint.tensors.iter().enumerate().map(|(i, t)| (i, t.name.as_str()))
    }

    /// The names that end in `ending`, without it, in order.
    pub(super) fn stems(&self, ending: &str) -> Vec<&'a str> {
        self.names().filter_map(|(_, name)| name.strip_suffix(ending)).collect()
    }

    /// The tensor called `name`, if there is one.
    ///
    /// # Errors
    /// If it is empty or not a plain array of a size that is read.
    pub(super) fn find(&self, name: &str) -> Result<Option<Sibling>> {
        let Some(&index) = self.by_name.get(name) else { return Ok(None) };
        let tensor = &self.checkpoint.tensors[index];
        let plain = match (tensor.scheme, tensor.parts.first()) {
            (Scheme::Dense(dtype), Some(part)) => Some(Sibling { index, dtype, shape: part.shape.clone(), n_bytes: part.n_bytes }),
            _ => None,
        };
        let sibling = plain.ok_or_else(|| self.bad_at(index, format!("found {}, needed a plain array", tensor.scheme)))?;
        let needed = n_elements(&sibling.shape).and_then(|n| sibling.dtype.n_bytes(n));
        if needed != Some(sibling.n_bytes) || sibling.n_bytes == 0 || sibling.n_bytes > MAX_BYTES {
            let problem = format!("found {} bytes of shape {:?}, needed at least one element and at most 2^56 bytes", sibling.n_bytes, sibling.shape);
            return Err(self.bad_at(index, problem));
        }
        Ok(Some(sibling))
    }

    /// The tensor called `name`, which the one called `beside` needs.
    ///
    /// # Errors
    /// If it is missing, or as [`Siblings::find`].
    pub(super) fn need(&self, beside: &str, name: &str) -> Result<Sibling> {
        let missing = || match self.by_name.get(beside) {
            Some(&index) => self.bad_at(index, format!("needs a tensor '{name}' beside it, which is missing; a shard may be lost")),
            None => Error::tensor(&self.checkpoint.path, name, format!("is missing, '{beside}' needs it; a shard may be lost")),
        };
        self.find(name)?.ok_or_else(missing)
    }

    /// The error of one tensor.
    pub(super) fn bad(&self, sibling: &Sibling, problem: impl Into<String>) -> Error {
        self.bad_at(sibling.index, problem)
    }

    /// The name of one tensor.
    pub(super) fn name(&self, sibling: &Sibling) -> &'a str {
        &self.checkpoint.tensors[sibling.index].name
    }

    fn bad_at(&self, index: usize, problem: impl Into<String>) -> Error {
        Error::tensor(self.checkpoint.file_of(index), &self.checkpoint.tensors[index].name, problem)
    }

    /// Refuses any other type.
    pub(super) fn check_dtype(&self, sibling: &Sibling, needed: &[Dtype]) -> Result<()> {
        if needed.contains(&sibling.dtype) {
            return Ok(());
        }
        let names: Vec<&str> = needed.iter().map(|d| d.name()).collect();
        Err(self.bad(sibling, format!("found the type {}, needed {}", sibling.dtype, names.join(" or "))))
    }

    /// Refuses any other shape; `why` says where the needed one comes from.
    pub(super) fn check_shape(&self, sibling: &Sibling, needed: &[u64], why: &str) -> Result<()> {
        if sibling.shape == needed {
            return Ok(());
        }
        Err(self.bad(sibling, format!("found the shape {:?}, needed {needed:?} {why}", sibling.shape)))
    }

    /// The two dimensions of a matrix.
    pub(super) fn matrix(&self, sibling: &Sibling) -> Result<(u64, u64)> {
        match sibling.shape[..] {
            [rows, columns] => Ok((rows, columns)),
            _ => Err(self.bad(sibling, format!("found the shape {:?}, needed two dimensions", sibling.shape))),
        }
    }

    /// All bytes of a small tensor.
    pub(super) fn bytes(&self, sibling: &Sibling, most: u64) -> Result<Vec<u8>> {
        if sibling.n_bytes > most {
            return Err(self.bad(sibling, format!("found {} bytes, at most {most} are read", sibling.n_bytes)));
        }
        let mut bytes = vec![0; sibling.n_bytes as usize];
        sibling.read(self.checkpoint, 0, &mut bytes)?;
        Ok(bytes)
    }
}
