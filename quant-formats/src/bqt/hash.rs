//! Provenance: a SHA-256 of what each tensor was made from.

use std::fmt;

use quant_core::plan::{Plan, Planned};
use quant_core::sink::Observer;
use quant_core::source::Source;
use quant_core::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

use super::{PIECE, json};
use crate::checkpoint::Checkpoint;

/// A SHA-256. Prints as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&json::hex(self.0))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let bytes = json::from_hex(&String::deserialize(from)?).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Digest).ok_or_else(|| de::Error::custom("sha256 needs 64 hexadecimal digits (0-9, a-f)"))
    }
}

/// For each planned tensor the SHA-256 of its source: the bytes of all its parts, one after the other.
///
/// Tensors are read in parallel, each from its first byte to its last in pieces of 1 MiB.
///
/// # Errors
/// If reading fails, or the observer asks to stop.
pub fn hash_sources(checkpoint: &Checkpoint, plan: &Plan, observer: &dyn Observer) -> Result<Vec<Digest>> {
    observer.begin("hashing", plan.tensors.iter().map(|t| checkpoint.tensors[t.source].n_bytes()).sum());
    let hash = |buffer: &mut Vec<u8>, planned: &Planned| hash_one(checkpoint, planned.source, buffer, observer);
    plan.tensors.par_iter().map_init(Vec::new, hash).collect()
}

fn hash_one(checkpoint: &Checkpoint, tensor: usize, buffer: &mut Vec<u8>, observer: &dyn Observer) -> Result<Digest> {
    let mut sum = Sha256::new();
    for (part, stored) in checkpoint.tensors[tensor].parts.iter().enumerate() {
        for at in (0..stored.n_bytes).step_by(PIECE as usize) {
            if observer.cancelled() {
                return Err(Error::Cancelled);
            }
            let len = PIECE.min(stored.n_bytes - at);
            buffer.resize(len as usize, 0);
            checkpoint.read(tensor, part, at, buffer)?;
            sum.update(&*buffer);
            observer.advance(len);
        }
    }
    Ok(Digest(sum.finalize().into()))
}
