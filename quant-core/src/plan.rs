//! [`Plan`]: every decision before the first byte.
//!
//! A plan says for each tensor of the output where it comes from, under which scheme it is stored, why, and how large each
//! of its parts is. [`Plan::scan`] completes it with what only the numbers tell; after that it holds every size exactly.

use std::sync::Arc;

use crate::codec::{Codec, Fill, Known};
use crate::convert::{Budget, Pass};
use crate::sink::Observer;
use crate::source::{Importance, Role, Source, Tensor};
use crate::{Dtype, Error, Result, Scheme};

/// What a recipe wants for one tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The scheme, or none to keep the stored bytes.
    pub scheme: Option<Scheme>,
    /// Why, in a few words for people.
    pub reason: String,
}

/// A lazy tensor over a source tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As it is stored.
    Whole,
    /// A matrix with rows and columns exchanged.
    Transposed,
}

/// One tensor of the output.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The index of its source tensor.
    pub source: usize,
    /// How it is seen there.
    pub view: View,
    /// Its name.
    pub name: String,
    /// Its shape in the output.
    pub shape: Vec<u64>,
    /// The type of its numbers before quantization.
    pub dtype: Dtype,
    /// What it is in the model.
    pub role: Role,
    /// The scheme of the source tensor.
    pub from: Scheme,
    /// The scheme in the output.
    pub scheme: Scheme,
    /// Why this scheme.
    pub reason: String,
    /// Whether the stored bytes are copied.
    pub copied: bool,
    /// Its parts in the output.
    pub parts: Vec<PlannedPart>,
    /// What the first pass found out.
    pub known: Known,
    /// How much each column matters, if there is an importance matrix and the scheme asks.
    pub importance: Option<Arc<dyn Importance>>,
}

/// One part of an output tensor.
#[derive(Clone, Debug)]
pub struct PlannedPart {
    /// The part's name.
    pub name: String,
    /// The type of its items.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its size in bytes.
    pub n_bytes: u64,
    /// Where its bytes come from.
    pub fill: PartFill,
}

/// Where the bytes of a planned part come from.
#[derive(Clone, Debug, PartialEq)]
pub enum PartFill {
    /// The part of the same index in the source tensor.
    Copied,
    /// The part of the same index of the codec, slab by slab.
    Encoded,
    /// These bytes, known before the loop starts (after the scan, if the tensor needs one).
    Given(Vec<u8>),
}

impl Planned {
    /// The number of elements.
    pub fn n_elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// The bytes of all its parts.
    pub fn n_bytes(&self) -> u64 {
        self.parts.iter().map(|p| p.n_bytes).sum()
    }

    /// The part called `name`.
    pub fn part(&self, name: &str) -> Option<(usize, &PlannedPart)> {
        self.parts.iter().enumerate().find(|(_, p)| p.name == name)
    }

    /// Plans one tensor: copied if it is stored as decided already, or holds data.
    ///
    /// # Errors
    /// If the decision does not fit its shape.
    pub fn new(source: usize, tensor: &Tensor, decision: Decision, view: View) -> Result<Planned> {
        match decision.scheme {
            Some(scheme) if tensor.is_weight() && !(view == View::Whole && scheme.reads_like(tensor.scheme)) => {
                let planned = Planned::encoded(source, tensor, view, scheme, decision.reason);
                planned.map_err(|e| Error::request(format!("tensor '{}': {e}", tensor.name)))
            }
            Some(_) if !tensor.is_weight() => Ok(Planned::copied(source, tensor, format!("{} is data", shown_data(tensor)))),
            Some(_) => Ok(Planned::copied(source, tensor, format!("already {}", tensor.scheme))),
            None => Ok(Planned::copied(source, tensor, decision.reason)),
        }
    }

    /// A tensor as it is stored, seen through a view: to be read, not written.
    pub fn seen(source: usize, tensor: &Tensor, view: View) -> Planned {
        let mut planned = Planned::copied(source, tensor, String::new());
        if view == View::Transposed {
            planned.shape.reverse();
        }
        planned.view = view;
        planned
    }

    fn copied(source: usize, tensor: &Tensor, reason: String) -> Planned {
        let part = |p: &crate::source::Stored| PlannedPart {
            name: p.name.clone(),
            dtype: p.dtype,
            shape: p.shape.clone(),
            n_bytes: p.n_bytes,
            fill: PartFill::Copied,
        };
        Planned {
            source,
            view: View::Whole,
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            dtype: tensor.dtype,
            role: tensor.role,
            from: tensor.scheme,
            scheme: tensor.scheme,
            reason,
            copied: true,
            parts: tensor.parts.iter().map(part).collect(),
            known: Known::Nothing,
            importance: None,
        }
    }

    fn encoded(source: usize, tensor: &Tensor, view: View, scheme: Scheme, reason: String) -> Result<Planned> {
        let mut planned = Planned::copied(source, tensor, reason);
        if view == View::Transposed {
            planned.shape.reverse();
        }
        planned.view = view;
        planned.scheme = scheme;
        planned.copied = false;
        if let Scheme::Dense(dtype) = scheme {
            planned.dtype = dtype;
        }
        planned.parts = planned.encoded_parts()?;
        Ok(planned)
    }

    /// The codec that encodes it.
    pub(crate) fn codec(&self) -> Result<Box<dyn Codec>> {
        self.scheme.codec_of(&self.shape, self.importance.is_some())
    }

    fn encoded_parts(&self) -> Result<Vec<PlannedPart>> {
        let codec = self.codec()?;
        let fill = |i: usize, fill: Fill| match fill {
            Fill::Stream { .. } => PartFill::Encoded,
            Fill::Whole { .. } => PartFill::Given(codec.whole(i, &self.known)),
        };
        let part = |(i, p): (usize, &crate::codec::Part)| PlannedPart {
            name: p.name.into(),
            dtype: p.dtype,
            shape: p.shape.clone(),
            n_bytes: p.n_bytes(),
            fill: fill(i, p.fill),
        };
        Ok(codec.parts().iter().enumerate().map(part).collect())
    }
}

/// What a tensor of data is, for people.
fn shown_data(tensor: &Tensor) -> String {
    match tensor.scheme {
        Scheme::Opaque(_) => tensor.scheme.to_string(),
        _ => tensor.dtype.to_string(),
    }
}

/// Every tensor of the output, in order.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The tensors.
    pub tensors: Vec<Planned>,
}

impl Plan {
    /// Plans the conversion of `source`: `decide` says what each tensor becomes and through which view.
    ///
    /// A tensor that is already stored as decided is copied; one that holds data is copied whatever was decided.
    ///
    /// # Errors
    /// If a decision does not fit a tensor's shape.
    pub fn new(source: &dyn Source, mut decide: impl FnMut(&Tensor) -> Result<(Decision, View)>) -> Result<Plan> {
        let plan = |(i, tensor): (usize, &Tensor)| {
            let (decision, view) = decide(tensor)?;
            Planned::new(i, tensor, decision, view)
        };
        let tensors = source.tensors().iter().enumerate().map(plan).collect::<Result<_>>()?;
        Ok(Plan { tensors })
    }

    /// Completes the plan with what only the numbers tell: a first pass over the tensors that need one.
    ///
    /// With `keep_unfit`, every tensor to be quantized is looked at, and one that holds NaN or infinities is copied instead.
    ///
    /// # Errors
    /// If a weight cannot be expressed (without `keep_unfit`), or reading fails.
    pub fn scan(&mut self, source: &dyn Source, budget: &Budget, keep_unfit: bool, observer: &dyn Observer) -> Result<()> {
        let pass = Pass::new(source, self, budget)?;
        for (index, outcome) in pass.scan(self, keep_unfit, observer)? {
            let planned = &mut self.tensors[index];
            match outcome {
                Ok(known) => {
                    planned.known = known;
                    planned.parts = planned.encoded_parts()?;
                }
                Err(unfit) => {
                    let reason = format!("element {} is {}", unfit.index, unfit.value);
                    *planned = Planned::copied(planned.source, &source.tensors()[planned.source], reason);
                }
            }
        }
        Ok(())
    }

    /// The number of elements of all tensors.
    pub fn n_elements(&self) -> u64 {
        self.tensors.iter().map(Planned::n_elements).sum()
    }

    /// The bytes of all parts.
    pub fn n_bytes(&self) -> u64 {
        self.tensors.iter().map(Planned::n_bytes).sum()
    }

    /// Whether every tensor is copied as it is stored.
    pub fn is_copy(&self) -> bool {
        self.tensors.iter().all(|t| t.copied)
    }
}
