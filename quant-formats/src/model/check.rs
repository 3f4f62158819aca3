//! Whether the tensors of a model are those that its configuration promises.

use quant_core::{Error, Result};

use super::family::Family;
use super::hparams::Hparams;
use super::keys::LAYERS;

/// Checks that there are embeddings of the right width, and tensors for every layer and no other.
///
/// # Errors
/// Naming the key of config.json, what was found and what is needed.
pub(crate) fn layers<'a>(h: &Hparams, family: &Family, tensors: impl Iterator<Item = (&'a str, &'a [u64])>) -> Result<()> {
    let n_layers: u64 = h.need(&LAYERS)?.into();
    let bad = |problem: String| Err(Error::file(h.path(), problem));
    let mut has = std::collections::BTreeSet::new();
    let mut has_embeddings = false;
    for (name, shape) in tensors {
        if name == "token_embd.weight" {
            has_embeddings = true;
            embeddings(h, name, shape)?;
        }
        let number = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next()?.parse::<u64>().ok());
        if let Some(layer) = number {
            if layer >= n_layers {
                return bad(format!("says that there are {n_layers} layers, but there is a tensor '{name}'"));
            }
            has.insert(layer);
        }
    }
    if !has_embeddings {
        return bad(format!("is of {}, but the model has no token embeddings", family.arch));
    }
    match (0..n_layers).find(|layer| !has.contains(layer)) {
        Some(layer) => bad(format!("says that there are {n_layers} layers, but there are no tensors of layer {layer}")),
        None => Ok(()),
    }
}

fn embeddings(h: &Hparams, name: &str, shape: &[u64]) -> Result<()> {
    let width = h.u32(&["hidden_size", "n_embd", "dim"])?;
    match (width, shape) {
        (Some(width), [_, columns]) if *columns == u64::from(width) => Ok(()),
        (Some(width), _) => Err(Error::tensor(
            h.path(),
            name,
            format!("found the shape {shape:?}, needed [vocabulary, {width}]: config.json has hidden_size {width}"),
        )),
        (None, _) => Ok(()),
    }
}
