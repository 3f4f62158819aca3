//! Which tensor of one checkpoint stands for which of another, whatever formats they are in.
//!
//! A checkpoint of Hugging Face and one with the metadata of GGUF are brought together by showing the former as the GGUF model
//! that it becomes, without rounding a number ([`crate::model::to_gguf`]): names, permutations and stacks are undone there. What
//! another tool has quantized is shown by its numbers ([`crate::foreign`]).

mod place;
mod sensitivity;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use quant_core::audit::{Activations, Candidate, Inputs, Seen, Subject};
use quant_core::plan::{Plan, View};
use quant_core::source::{Importance, Role, Source, Tensor};
use quant_core::{Dtype, Error, Result, Scheme, convert};

pub use place::{Part, layer_of, part_of};
pub use sensitivity::{has_head, sensitivities};

use crate::Checkpoint;
use crate::foreign::{self, Form};
use crate::gguf::imatrix::ImportanceMatrix;
use crate::model::{self, Outtype, ToGguf};

/// Names of output heads, and of the embeddings that serve as one where there is none.
const HEADS: [(&str, &[&str]); 2] = [
    ("output.weight", &["token_embd.weight"]),
    ("lm_head.weight", &["model.embed_tokens.weight", "transformer.wte.weight", "embed_tokens.weight", "wte.weight"]),
];

/// Two checkpoints, and which tensors stand for which.
pub struct Pairing {
    /// The checkpoint that is taken for true.
    pub reference: Checkpoint,
    /// The one that is compared with it.
    pub candidate: Checkpoint,
    /// Whose names the tensors have.
    pub names: &'static str,
    /// Tensors that are compared.
    pub pairs: Vec<Pair>,
    /// Tensors of the reference that are not, and why.
    pub skipped: Vec<(String, String)>,
    /// Weights of the reference that the candidate lacks.
    pub missing: Vec<String>,
    /// Weights of the candidate that the reference lacks.
    pub extra: Vec<String>,
    /// Tensors whose shapes differ, with both.
    pub problems: Vec<String>,
}

/// Two tensors that should be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Index in the reference.
    pub reference: usize,
    /// Index in the candidate.
    pub candidate: usize,
    /// How the candidate's is seen.
    pub view: View,
}

/// Brings two checkpoints together. With `gguf_names` both are shown as GGUF.
///
/// # Errors
/// If they have no tensor in common, or one cannot be shown under the names of the other.
pub fn pair(reference: Checkpoint, candidate: Checkpoint, gguf_names: bool) -> Result<Pairing> {
    let is_gguf = |c: &Checkpoint| !c.kv.is_empty();
    let mixed = is_gguf(&reference) != is_gguf(&candidate);
    let (reference, candidate) = if (mixed || gguf_names) && !(mixed && shares_names(&reference, &candidate)) {
        (as_gguf(reference)?, as_gguf(candidate)?)
    } else {
        (by_numbers(reference, Form::Dense)?, by_numbers(candidate, Form::Dense)?)
    };
    let names = names_of(&reference);
    let mut pairing =
        Pairing { reference, candidate, names, pairs: Vec::new(), skipped: Vec::new(), missing: Vec::new(), extra: Vec::new(), problems: Vec::new() };
    pairing.fill();
    if pairing.pairs.is_empty() {
        return Err(pairing.nothing_in_common());
    }
    Ok(pairing)
}

/// The checkpoint as the GGUF model that it is or becomes, no number rounded.
///
/// # Errors
/// If it is neither, or its class is not known.
pub fn as_gguf(checkpoint: Checkpoint) -> Result<Checkpoint> {
    if !checkpoint.kv.is_empty() {
        return Ok(checkpoint);
    }
    if !model::is_mappable(&checkpoint) {
        return Err(Error::file(
            &checkpoint.path,
            "found no config.json, which says what the tensors are called in GGUF; give the folder of the model",
        ));
    }
    let wanted = ToGguf { outtype: Outtype::Is(Scheme::Dense(Dtype::F32)), tensors_only: true, ..ToGguf::default() };
    Ok(model::to_gguf(by_numbers(checkpoint, Form::Gguf)?, &wanted)?.checkpoint)
}

/// The checkpoint with the numbers of what another tool has quantized.
///
/// # Errors
/// If its layout is not read, or it is not what its configuration says.
pub fn by_numbers(checkpoint: Checkpoint, form: Form) -> Result<Checkpoint> {
    match foreign::unpack(&checkpoint)? {
        Some(unpacking) => foreign::logical(checkpoint, unpacking, form),
        None => Ok(checkpoint),
    }
}

/// Whose names the tensors of a checkpoint have, for people.
pub fn names_of(checkpoint: &Checkpoint) -> &'static str {
    match (checkpoint.kv.is_empty(), checkpoint.config()) {
        (false, _) => "GGUF",
        (true, Ok(Some(_))) => "Hugging Face",
        _ => "as stored",
    }
}

/// Whether most tensors of one have a namesake in the other, as after a conversion that keeps names.
fn shares_names(a: &Checkpoint, b: &Checkpoint) -> bool {
    let names: BTreeSet<&str> = a.tensors.iter().map(|t| t.name.as_str()).collect();
    2 * b.tensors.iter().filter(|t| names.contains(t.name.as_str())).count() > b.tensors.len()
}

impl Pairing {
    fn fill(&mut self) {
        let there: HashMap<&str, usize> = self.candidate.tensors.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
        let mut used = BTreeSet::new();
        for (i, tensor) in self.reference.tensors.iter().enumerate() {
            if !tensor.is_weight() {
                self.skipped.push((tensor.name.clone(), format!("{} is data, not weights", tensor.stored_as())));
                continue;
            }
            let Some(j) = there.get(tensor.name.as_str()).copied().or_else(|| serving_as_head(&there, &tensor.name)) else {
                self.missing.push(tensor.name.clone());
                continue;
            };
            used.insert(j);
            let other = &self.candidate.tensors[j];
            match seen_as(tensor, other) {
                _ if !other.is_weight() => self.problems.push(format!("'{}' is {} in the candidate, needed weights", tensor.name, other.stored_as())),
                Some(view) => self.pairs.push(Pair { reference: i, candidate: j, view }),
                None => self.problems.push(shapes_differ(tensor, other)),
            }
        }
        let here: BTreeSet<&str> = self.reference.tensors.iter().map(|t| t.name.as_str()).collect();
        let places: HashMap<&str, usize> = self.reference.tensors.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
        for (j, tensor) in self.candidate.tensors.iter().enumerate().filter(|(_, t)| t.is_weight() && !here.contains(t.name.as_str())) {
            let table = serving_as_head(&places, &tensor.name).map(|i| (i, &self.reference.tensors[i]));
            match table.map(|(i, table)| (i, seen_as(table, tensor))) {
                _ if used.contains(&j) => {}
                Some((reference, Some(view))) => self.pairs.push(Pair { reference, candidate: j, view }),
                Some((i, None)) => self.problems.push(shapes_differ(&self.reference.tensors[i], tensor)),
                None => self.extra.push(tensor.name.clone()),
            }
        }
    }

    /// What a pair is called: by the reference, but a head by its own name where the other side's embeddings serve as one.
    pub fn name_of(&self, pair: &Pair) -> &str {
        let (here, there) = (&self.reference.tensors[pair.reference].name, &self.candidate.tensors[pair.candidate].name);
        if HEADS.iter().any(|(head, _)| head == there) { there } else { here }
    }

    /// What a pair is in the model: a head where its name is one.
    pub fn role_of(&self, pair: &Pair) -> Role {
        let (here, there) = (&self.reference.tensors[pair.reference], &self.candidate.tensors[pair.candidate]);
        if self.name_of(pair) == here.name { here.role } else { there.role }
    }

    fn nothing_in_common(&self) -> Error {
        let first = |c: &Checkpoint| c.tensors.iter().find(|t| t.is_weight()).map_or("none".to_owned(), |t| format!("'{}'", t.name));
        let (here, there) = (first(&self.reference), first(&self.candidate));
        let path = self.candidate.path.display();
        let problem = match self.problems.first() {
            None => format!("is another model than {path}: no weight has the same name on both sides (first here: {here}, there: {there})"),
            Some(first) => format!("is another model than {path}: no weight has the same name and shape on both sides; {first}"),
        };
        Error::file(&self.reference.path, problem)
    }

    /// The pairs as they are measured.
    ///
    /// # Errors
    /// If importance or activations do not fit a tensor.
    pub fn subjects<'a>(&'a self, beside: &'a Beside) -> Result<Vec<Subject<'a>>> {
        let subject = |pair: &Pair| {
            let (tensor, name) = (&self.reference.tensors[pair.reference], self.name_of(pair));
            Ok(Subject {
                reference: Seen::new(&self.reference, pair.reference, View::Whole),
                candidate: Candidate::Stored(Seen::new(&self.candidate, pair.candidate, pair.view)),
                importance: beside.importance(name, &tensor.shape)?,
                activations: beside.activations(name, &tensor.shape)?,
            })
        };
        self.pairs.iter().map(subject).collect()
    }
}

/// What `plan` would make of the weights of `checkpoint`, to be measured without writing it. One subject for each planned weight.
///
/// # Errors
/// If importance or activations do not fit a tensor.
pub fn tried<'a>(checkpoint: &'a Checkpoint, plan: &'a Plan, beside: &'a Beside) -> Result<Vec<(usize, Subject<'a>)>> {
    let original: &Checkpoint = checkpoint.original.as_deref().unwrap_or(checkpoint);
    let weights = plan.tensors.iter().enumerate().filter(|(_, t)| checkpoint.tensors[t.source].is_weight());
    let subject = |(i, planned): (usize, &'a quant_core::plan::Planned)| {
        let is_same = planned.copied && checkpoint.original.is_none();
        let stored = || Candidate::Stored(Seen::new(checkpoint, planned.source, planned.view));
        let candidate = match planned.copied {
            true if is_same => Candidate::Same,
            true => stored(),
            false => Candidate::Encoded(checkpoint, planned),
        };
        let subject = Subject {
            reference: Seen::new(original, planned.source, planned.view),
            candidate,
            importance: beside.importance(&planned.name, &planned.shape)?,
            activations: beside.activations(&planned.name, &planned.shape)?,
        };
        Ok((i, subject))
    };
    weights.map(subject).collect()
}

/// The embeddings, if `name` is a head that is not there.
fn serving_as_head(there: &HashMap<&str, usize>, name: &str) -> Option<usize> {
    let (_, tables) = HEADS.iter().find(|(head, _)| *head == name)?;
    tables.iter().find_map(|table| there.get(table).copied())
}

/// How `other` must be seen to have the shape of `tensor`; none if it has not.
fn seen_as(tensor: &Tensor, other: &Tensor) -> Option<View> {
    let without_ones = |t: &Tensor| t.shape.iter().copied().filter(|&n| n != 1).collect::<Vec<u64>>();
    // bitsandbytes stores the weights of GPT-2's Conv1D the other way round.
    let is_turned = |t: &Tensor| matches!(t.scheme, Scheme::FourBit { .. } | Scheme::Int8);
    let conv1d = |t: &Tensor| t.role == quant_core::source::Role::Conv1d;
    let (a, b) = (without_ones(tensor), without_ones(other));
    let turned = (conv1d(tensor) || conv1d(other)) && is_turned(tensor) != is_turned(other) && tensor.shape.len() == 2;
    match turned {
        true if tensor.shape.iter().eq(other.shape.iter().rev()) => Some(View::Transposed),
        _ if a == b => Some(View::Whole),
        _ => None,
    }
}

fn shapes_differ(tensor: &Tensor, other: &Tensor) -> String {
    let turned = if tensor.shape.iter().eq(other.shape.iter().rev()) { "; it is transposed" } else { "" };
    format!("'{}' has the shape {:?} in the reference and {:?} in the candidate{turned}", tensor.name, tensor.shape, other.shape)
}

/// What weighs errors.
#[derive(Default)]
pub struct Beside {
    /// Importance of columns, by names of GGUF.
    pub importance: Option<Arc<ImportanceMatrix>>,
    /// Inputs of layers: tensors \[samples, columns\] named like the weights, with or without `.weight`.
    pub activations: Option<Checkpoint>,
}

impl Beside {
    /// The importance of a tensor's columns, if it is known.
    ///
    /// # Errors
    /// If there is another number of values than columns.
    pub fn importance(&self, name: &str, shape: &[u64]) -> Result<Option<Arc<dyn Importance>>> {
        let Some((matrix, found)) = self.importance.as_ref().and_then(|matrix| Some((matrix, matrix.n_values(name)?))) else { return Ok(None) };
        let dim = |i: usize| shape.iter().rev().nth(i).copied().unwrap_or(1);
        let needed = dim(0).saturating_mul(dim(2));
        if found == needed {
            return Ok(matrix.of(name));
        }
        // Looked up, not multiplied: what is there belongs to a tied output.
        if name == "token_embd.weight" {
            return Ok(None);
        }
        Err(matrix.of_other_model(name, found, needed))
    }

    fn activations(&self, name: &str, shape: &[u64]) -> Result<Option<Inputs<'_>>> {
        let Some(file) = &self.activations else { return Ok(None) };
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        let Some(i) = file.tensors.iter().position(|t| t.name == name || t.name == stem) else { return Ok(None) };
        let tensor = &file.tensors[i];
        let bad = |problem: String| Error::tensor(file.file_of(i), &tensor.name, problem);
        let columns = shape.last().copied().unwrap_or(1);
        if tensor.shape.last() != Some(&columns) || tensor.shape.len() < 2 || shape.len() != 2 {
            return Err(bad(format!("found activations of shape {:?}, needed [samples, {columns}] for a matrix {shape:?}", tensor.shape)));
        }
        let n = tensor.n_elements();
        if n > Activations::MOST || !matches!(tensor.scheme, Scheme::Dense(d) if d.is_weight()) {
            return Err(bad(format!("found {n} activations of type {}, needed floats, at most {} a layer", tensor.scheme, Activations::MOST)));
        }
        Ok(Some(Box::new(move || {
            let mut bytes = vec![0; tensor.n_bytes() as usize];
            file.read(i, 0, 0, &mut bytes)?;
            let values = convert::decode(tensor.scheme, &tensor.shape, &[bytes])?;
            Activations::new(columns as usize, values).map_err(|e| Error::tensor(file.file_of(i), &tensor.name, e.to_string()))
        })))
    }

    /// Tensors of the activations that stand for no tensor of these names.
    pub fn unused(&self, names: &BTreeSet<&str>) -> Vec<String> {
        let is_used = |t: &&Tensor| !names.contains(t.name.as_str()) && !names.contains(format!("{}.weight", t.name).as_str());
        self.activations.iter().flat_map(|file| &file.tensors).filter(is_used).map(|t| t.name.clone()).collect()
    }
}

/// Opens a file of activations.
///
/// # Errors
/// If it is not safetensors.
pub fn open_activations(path: &Path, io: crate::Io) -> Result<Checkpoint> {
    let file = crate::open(path, io)?;
    match file.format {
        crate::Format::Safetensors => Ok(file),
        other => Err(Error::file(path, format!("is {}, needed activations in a safetensors file", other.name()))),
    }
}
