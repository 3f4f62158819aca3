//! A Hugging Face checkpoint, shown as the GGUF model that convert_hf_to_gguf.py makes of it.
//!
//! Source: `ModelBase.index_tensors`, `prepare_tensors`, `write` of llama.cpp 0.5.0-dev.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use quant_core::source::{Packed, Role, Source, Stored, Tensor};
use quant_core::{Dtype, Error, Result, Scheme, ggml};

use super::families;
use super::family::{Change, Family, Numbers, Row};
use super::hparams::Hparams;
use super::keys::Keys;
use super::types::{self, Outtype};
use super::view::{Linked, Piece, Side};
use super::{metadata, tokenizer};
use crate::checkpoint::{At, Checkpoint, Format, Made};
use crate::gguf::Entry;

/// What is wanted of the conversion to GGUF.
#[derive(Clone, Debug, Default)]
pub struct ToGguf {
    /// The type of the model.
    pub outtype: Outtype,
    /// Whether numbers are rounded to that type already where they are read, because a mix quantizes them further.
    pub is_rounded: bool,
    /// No tensors.
    pub vocab_only: bool,
    /// No tokenizer: the tensors are to be looked at, not written.
    pub tensors_only: bool,
    /// `general.name`.
    pub model_name: Option<String>,
    /// A JSON file of metadata that comes before that of the model.
    pub metadata: Option<Vec<u8>>,
    /// The name of the pre-tokenizer.
    pub pre: Option<String>,
}

/// A model shown as another.
pub struct Mapped {
    /// Its tensors, metadata and files.
    pub checkpoint: Checkpoint,
    /// The scheme that each tensor is to have.
    pub schemes: Vec<Scheme>,
}

/// A tensor of the GGUF model.
struct Output {
    name: String,
    shape: Vec<u64>,
    source: From,
}

/// Where its numbers come from.
enum From {
    Pieces(Vec<Piece>),
    Numbers(Vec<f32>),
}

/// Whether a checkpoint is one that [`to_gguf`] may map: it has a configuration, and no metadata of GGUF.
pub fn is_mappable(checkpoint: &Checkpoint) -> bool {
    checkpoint.kv.is_empty() && checkpoint.side_files.iter().any(|f| f.name == "config.json")
}

/// Shows `base` as the GGUF model that it becomes.
///
/// # Errors
/// If its class is not known, or the configuration, a tensor or the tokenizer is not what the class has: what was found and
/// what is needed.
pub fn to_gguf(base: Checkpoint, wanted: &ToGguf) -> Result<Mapped> {
    let path = base.path.join("config.json");
    let bytes = base.config()?.ok_or_else(|| no_config(&base))?;
    let mut h = Hparams::parse(&bytes, &path)?;
    let family = family_of(&h)?;
    let base = Arc::new(base);
    super::check::settings(&h, family)?;
    (family.prepare)(&mut h)?;
    let mut notes = base.notes.clone();
    let outputs = if wanted.vocab_only { Vec::new() } else { outputs(&base, family, &h, &mut notes)? };
    let scheme = match wanted.outtype {
        Outtype::Is(scheme) => scheme,
        Outtype::Auto => auto(&base, family, &h),
    };
    let mut checkpoint = Checkpoint { notes, ..Checkpoint::empty(Format::Gguf, &base.path) };
    let counts = metadata::counts(outputs.iter().map(|o| (o.name.as_str(), &o.shape[..])));
    let wanted_of = |output: &Output| types::scheme_of(family, &output.name, &output.shape, scheme);
    let schemes = show(&mut checkpoint, &base, outputs, &wanted_of, wanted.is_rounded)?;
    if wanted.is_rounded {
        let mut original = Checkpoint { base: Some(base.clone()), ..Checkpoint::empty(Format::Gguf, &base.path) };
        show(&mut original, &base, self::outputs(&base, family, &h, &mut Vec::new())?, &wanted_of, false)?;
        let is_same = original.tensors.iter().zip(&checkpoint.tensors).all(|(a, b)| a.scheme == b.scheme);
        checkpoint.original = (!is_same).then(|| Arc::new(original));
    }
    let has = |ty| schemes.contains(&Scheme::Ggml(ty));
    let file_type = match scheme {
        Scheme::Dense(_) if has(ggml::Type::NVFP4) => NVFP4,
        Scheme::Dense(_) if has(ggml::Type::MXFP4) => MXFP4_MOE,
        scheme => types::file_type(scheme),
    };
    let (kv, mut more) = kv(&base, family, &h, wanted, &counts, file_type)?;
    checkpoint.kv = kv;
    if !wanted.vocab_only {
        super::check::model(&checkpoint, family, &h, super::check::Origin::hf(&base, family))?;
        more.extend(super::check::notes(&checkpoint, family, &h)?);
    }
    checkpoint.notes.append(&mut more);
    checkpoint.base = Some(base);
    crate::open::settle(&mut checkpoint)?;
    Ok(Mapped { checkpoint, schemes })
}

/// Shows the tensors of a model in `checkpoint`. Returns the scheme that each is to have.
fn show(
    checkpoint: &mut Checkpoint,
    base: &Arc<Checkpoint>,
    outputs: Vec<Output>,
    wanted: &dyn Fn(&Output) -> Scheme,
    is_rounded: bool,
) -> Result<Vec<Scheme>> {
    let mut schemes = Vec::with_capacity(outputs.len());
    for output in outputs {
        let scheme = wanted(&output);
        let (tensor, place, scheme) = shown(base, output, scheme, is_rounded)?;
        checkpoint.tensors.push(tensor);
        checkpoint.places.push(vec![place]);
        schemes.push(scheme);
    }
    Ok(schemes)
}

/// The error for a folder that has nothing to say what its tensors mean.
pub fn no_config(base: &Checkpoint) -> Error {
    Error::file(&base.path, "found no config.json, which says what the tensors mean; --generic converts with names unchanged")
}

/// The file type of models whose experts are MXFP4.
const MXFP4_MOE: u32 = 38;
/// The file type of models whose weights are NVFP4.
const NVFP4: u32 = 39;
/// The version of ggml's quantized types.
const QUANTIZATION_VERSION: u32 = 2;

/// The family of the class that config.json names.
fn family_of(h: &Hparams) -> Result<&'static Family> {
    let architectures = h.get("architectures").and_then(|v| v.as_array()).cloned().unwrap_or_default();
    let Some(class) = architectures.first().and_then(|v| v.as_str()) else { return Err(h.missing(&["architectures"])) };
    let found = families::ALL.iter().find(|f| f.classes.contains(&class));
    found.copied().ok_or_else(|| {
        let mut known: Vec<&str> = families::ALL.iter().flat_map(|f| f.classes.iter().copied()).collect();
        known.sort_unstable();
        known.dedup();
        let known = known.join(", ");
        Error::file(h.path(), format!("found the class '{class}', which is not known; --generic converts with names unchanged; known are {known}"))
    })
}

/// All metadata.
fn kv(
    base: &Checkpoint,
    family: &Family,
    h: &Hparams,
    wanted: &ToGguf,
    counts: &metadata::Counts,
    file_type: u32,
) -> Result<(Vec<Entry>, Vec<String>)> {
    let folder = std::fs::canonicalize(&base.path).unwrap_or_else(|_| base.path.clone());
    let folder = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let given = metadata::Given { model_name: wanted.model_name.as_deref(), overrides: wanted.metadata.as_deref(), folder: &folder };
    let mut keys = Keys::new(family.arch, file_type);
    keys.string("general.architecture", family.arch);
    (family.early)(h, &mut keys)?;
    let (general, mut notes) = metadata::entries(base, &given, counts)?;
    general.into_iter().for_each(|entry| keys.put(entry));
    (family.keys)(h, &mut keys)?;
    keys.u32("general.quantization_version", QUANTIZATION_VERSION);
    let options = tokenizer::Options { pre: wanted.pre.as_deref() };
    if !wanted.tensors_only {
        let (tokens, more) = tokenizer::entries(base, h, family.vocab, &options)?;
        tokens.into_iter().for_each(|entry| keys.put(entry));
        notes.extend(more);
    }
    Ok((keys.into_entries(), notes))
}

/// Endings of tensors that no runtime needs.
const NOT_NEEDED: [&str; 3] = [".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq"];
/// Beginnings of tensors that belong to other modalities than text.
const OTHER_MODALITIES: [&str; 10] =
    ["mlp", "vit.", "vpm.", "siglip2.", "conformer.", "merger.", "resampler.", "sound_encoder.", "sound_projection.", "speech_embeddings."];
/// What names of such tensors have anywhere.
const IN_OTHER_MODALITIES: [&str; 17] = [
    "visual.",
    "vision.",
    "audio.",
    "talker.",
    "vision_",
    "audio_",
    "token2wav.",
    "code2wav.",
    "projector.",
    "pre_mm_projector_norm",
    "image_newline",
    "view_seperator",
    "patch_embed",
    "patch_merger.",
    "patch_merge_mlp.",
    "model.connector.",
    "patch_embedding",
];

/// The name under which a tensor is looked up; none if it is left out.
fn looked_up(family: &Family, h: &Hparams, name: &str) -> Option<String> {
    let is_other = OTHER_MODALITIES.iter().any(|start| name.starts_with(start)) || IN_OTHER_MODALITIES.iter().any(|part| name.contains(part));
    if is_other || NOT_NEEDED.iter().any(|end| name.ends_with(end)) {
        return None;
    }
    let name = match name.strip_suffix("e_score_correction_bias") {
        Some(start) => format!("{start}e_score_correction.bias"),
        None => name.to_owned(),
    };
    (family.rename)(h, &name.replace("language_model.", ""))
}

/// The tensors in the order in which the reference visits them: files by name, tensors by name in each.
fn visiting_order(base: &Checkpoint) -> Vec<usize> {
    let mut order: Vec<usize> = (0..base.tensors.len()).collect();
    let file = |i: usize| -> PathBuf { base.file_of(i).to_path_buf() };
    let physical: HashSet<&str> = base.opened().tensors.iter().map(|t| t.name.as_str()).collect();
    order.sort_by_cached_key(|&i| (rank(&base.tensors[i], &physical), file(i), base.tensors[i].name.clone()));
    order
}

/// What the reference writes first, blocks that it only repacks, and last, weights that are called otherwise in their file.
fn rank(tensor: &Tensor, physical: &HashSet<&str>) -> u8 {
    match (&tensor.packed, tensor.scheme) {
        (Some(_), Scheme::Ggml(_)) => 0,
        (Some(_), _) if !physical.contains(tensor.name.as_str()) => 2,
        _ => 1,
    }
}

/// The type of the first matrix that is f16 or bf16.
fn auto(base: &Checkpoint, family: &Family, h: &Hparams) -> Scheme {
    let order = visiting_order(base);
    let matrices = order.iter().map(|&i| &base.tensors[i]).filter(|t| t.shape.len() >= 2 && looked_up(family, h, &t.name).is_some());
    let mut dtypes = matrices.map(|t| t.dtype).filter(|d| matches!(d, Dtype::BF16 | Dtype::F16));
    Scheme::Dense(dtypes.next().unwrap_or(Dtype::F16))
}

/// Endings of the factors beside weights of NVFP4.
const FACTORS: [&str; 2] = [".scale", ".input_scale"];

/// The factors beside weights of NVFP4, by name.
fn factors(base: &Checkpoint) -> Result<HashMap<&str, f32>> {
    let is_nvfp4 = |t: &&Tensor| t.scheme == Scheme::Ggml(ggml::Type::NVFP4);
    let stems: HashSet<&str> = base.tensors.iter().filter(is_nvfp4).filter_map(|t| t.name.strip_suffix(".weight")).collect();
    let mut factors = HashMap::new();
    for (i, tensor) in base.tensors.iter().enumerate() {
        let stem = FACTORS.iter().find_map(|ending| tensor.name.strip_suffix(ending));
        if stem.is_some_and(|stem| stems.contains(stem)) && tensor.scheme == Scheme::Dense(Dtype::F32) && tensor.n_elements() == 1 {
            let mut bytes = [0; 4];
            base.read(i, 0, 0, &mut bytes)?;
            factors.insert(tensor.name.as_str(), f32::from_le_bytes(bytes));
        }
    }
    Ok(factors)
}

/// Experts of one layer that were seen so far, by their row.
#[derive(Default)]
struct Stack {
    seen: u64,
    rows: BTreeMap<usize, Vec<(u64, usize)>>,
}

/// The walk over the tensors of a model.
struct Walk<'a> {
    base: &'a Checkpoint,
    family: &'static Family,
    h: &'a Hparams,
    stacks: BTreeMap<(Option<u64>, &'static str), Stack>,
    outputs: Vec<Output>,
    left: Vec<&'a str>,
    /// The factors beside weights of NVFP4, by name.
    factors: HashMap<&'a str, f32>,
}

/// Every tensor of the GGUF model, in order.
fn outputs(base: &Checkpoint, family: &'static Family, h: &Hparams, notes: &mut Vec<String>) -> Result<Vec<Output>> {
    let mut walk = Walk { base, family, h, stacks: BTreeMap::new(), outputs: Vec::new(), left: Vec::new(), factors: factors(base)? };
    for extra in (family.extra)(h)? {
        let shape = vec![extra.numbers.len() as u64];
        walk.outputs.push(Output { name: extra.name.into(), shape, source: From::Numbers(extra.numbers) });
    }
    for index in visiting_order(base) {
        walk.visit(index)?;
    }
    walk.refuse_missing_experts()?;
    if let Some(first) = walk.left.first() {
        let more = if walk.left.len() > 1 { format!(" and {} more", walk.left.len() - 1) } else { String::new() };
        notes.push(format!("{first}{more}: left out, as llama.cpp's {} has no such tensors", family.arch));
    }
    Ok(walk.outputs)
}

impl<'a> Walk<'a> {
    fn bad(&self, index: usize, problem: impl Into<String>) -> Error {
        Error::tensor(self.base.file_of(index), &self.base.tensors[index].name, problem)
    }

    fn visit(&mut self, index: usize) -> Result<()> {
        let tensor = &self.base.tensors[index];
        if self.factors.contains_key(tensor.name.as_str()) {
            return Ok(());
        }
        let Some(name) = looked_up(self.family, self.h, &tensor.name) else {
            self.left.push(&tensor.name);
            return Ok(());
        };
        let rows = self.family.rows_of_hf(&name);
        if rows.is_empty() {
            let problem = format!("has no place in llama.cpp's {}", self.family.arch);
            return Err(self.bad(index, format!("{problem}; --generic converts with names unchanged")));
        }
        if !tensor.is_weight() {
            return Err(self.bad(index, format!("found the type {}, needed weights", tensor.dtype)));
        }
        for (row, ending, numbers) in rows {
            match row.change {
                Change::Stacked => self.stack(index, row, ending, numbers)?,
                _ => {
                    let (shape, link) = row.change.to_gguf(self.h, &tensor.shape, 0).map_err(|e| self.bad(index, e.to_string()))?;
                    let name = super::family::filled(row.gguf, numbers) + ending;
                    self.outputs.push(Output { name: name.clone(), shape, source: From::Pieces(vec![Piece::new(index, &link, Side::Gguf)]) });
                    self.put_factors(&name, &[index]);
                }
            }
        }
        Ok(())
    }

    /// Puts an expert on its stack. When the last one of a layer was seen, its stacks follow in the order of the table.
    fn stack(&mut self, index: usize, row: &'static Row, ending: &'static str, numbers: Numbers) -> Result<()> {
        let n_experts: u64 = self.h.need(&super::family::EXPERTS)?.into();
        let expert = numbers.expert.unwrap_or(0);
        if expert >= n_experts {
            return Err(self.bad(index, format!("is expert {expert}, but config.json says that there are {n_experts}")));
        }
        let stacked = stacked_rows(self.family);
        let place = stacked.iter().position(|r| std::ptr::eq(*r, row)).unwrap_or_default();
        let stack = self.stacks.entry((numbers.layer, ending)).or_default();
        stack.rows.entry(place).or_default().push((expert, index));
        stack.seen += 1;
        if stack.seen < n_experts * stacked.len() as u64 {
            return Ok(());
        }
        let stack = self.stacks.remove(&(numbers.layer, ending)).unwrap_or_default();
        for (place, mut experts) in stack.rows {
            experts.sort_unstable();
            let row = stacked[place];
            let first = experts[0].1;
            let (shape, _) = row.change.to_gguf(self.h, &self.base.tensors[first].shape, 0)?;
            let mut pieces = Vec::with_capacity(experts.len());
            let indices: Vec<usize> = experts.iter().map(|e| e.1).collect();
            for (expert, index) in experts {
                let (found, link) = row.change.to_gguf(self.h, &self.base.tensors[index].shape, expert)?;
                if found != shape {
                    let (here, there) = (&self.base.tensors[index], &self.base.tensors[first]);
                    let other = format!("'{}' has {:?}", there.name, there.shape);
                    return Err(self.bad(index, format!("found the shape {:?}, but {other}; all experts of a layer need the same", here.shape)));
                }
                pieces.push(Piece::new(index, &link, Side::Gguf));
            }
            let name = super::family::filled(row.gguf, numbers) + ending;
            self.outputs.push(Output { name: name.clone(), shape, source: From::Pieces(pieces) });
            self.put_factors(&name, &indices);
        }
        Ok(())
    }

    /// Puts the factors that stand beside the weight `name`, one for each of the tensors that it is made of.
    fn put_factors(&mut self, name: &str, tensors: &[usize]) {
        for ending in FACTORS {
            let factor = |&i: &usize| {
                let stem = self.base.tensors[i].name.strip_suffix(".weight")?;
                self.factors.get(format!("{stem}{ending}").as_str()).copied()
            };
            let found: Vec<Option<f32>> = tensors.iter().map(factor).collect();
            if found.iter().any(Option::is_some) {
                let numbers: Vec<f32> = found.into_iter().map(|f| f.unwrap_or(1.0)).collect();
                let name = name.strip_suffix(".weight").unwrap_or(name).to_owned() + ending;
                self.outputs.push(Output { name, shape: vec![numbers.len() as u64], source: From::Numbers(numbers) });
            }
        }
    }

    fn refuse_missing_experts(&self) -> Result<()> {
        let Some(((layer, ending), stack)) = self.stacks.first_key_value() else { return Ok(()) };
        let n_experts: u64 = self.h.need(&super::family::EXPERTS)?.into();
        for (place, row) in stacked_rows(self.family).iter().enumerate() {
            let there = stack.rows.get(&place).map(Vec::as_slice).unwrap_or_default();
            if let Some(expert) = (0..n_experts).find(|e| !there.iter().any(|(found, _)| found == e)) {
                let name = row.hf_name(self.family.prefix, ending, Numbers { layer: *layer, expert: Some(expert) });
                let problem = format!("is missing; config.json says that each layer has {n_experts} experts");
                return Err(Error::tensor(&self.base.path, &name, problem));
            }
        }
        Ok(())
    }
}

/// The rows of stacks, in order.
fn stacked_rows(family: &'static Family) -> Vec<&'static Row> {
    family.tables.iter().flat_map(|table| table.iter()).filter(|row| matches!(row.change, Change::Stacked)).collect()
}

/// How the pieces of an output of `n` elements lie in their files, if that is not by their numbers.
fn packed_of(base: &Checkpoint, pieces: &[Piece], n: u64) -> Option<Packed> {
    let mut tensors: Vec<usize> = pieces.iter().map(|piece| piece.tensor).collect();
    tensors.dedup();
    let is_packed = |t: &&Tensor| t.packed.is_some() || (t.scheme.is_quantized() && !matches!(t.scheme, Scheme::Ggml(_)));
    let first = tensors.iter().map(|&i| &base.tensors[i]).find(is_packed)?;
    let (stored, elements) = tensors.iter().map(|&i| &base.tensors[i]).fold((0, 0), |(bytes, n), t| (bytes + t.stored_bytes(), n + t.n_elements()));
    let share = u128::from(stored) * u128::from(n) / u128::from(elements.max(1));
    Some(Packed { label: first.stored_as(), n_bytes: share as u64 })
}

/// How an output is seen in the mapped checkpoint, where its bytes are made, and the scheme it is to have.
fn shown(base: &Arc<Checkpoint>, output: Output, wanted: Scheme, is_rounded: bool) -> Result<(Tensor, At, Scheme)> {
    let Output { name, shape, source } = output;
    let n = shape.iter().product::<u64>();
    let packed = match &source {
        From::Pieces(pieces) => packed_of(base, pieces, n),
        From::Numbers(_) => None,
    };
    let (scheme, at) = match source {
        From::Numbers(numbers) => (Scheme::Dense(Dtype::F32), At::Bytes(numbers.iter().flat_map(|v| v.to_le_bytes()).collect())),
        From::Pieces(pieces) => {
            let rounded = match wanted {
                Scheme::Dense(dtype) if is_rounded => Some(dtype),
                _ => None,
            };
            let plain = Linked::scheme(base, &pieces, None);
            let scheme = if matches!(plain, Scheme::Ggml(_)) { plain } else { Linked::scheme(base, &pieces, rounded) };
            let linked = Linked::new(base.clone(), pieces, scheme, n).map_err(|problem| Error::tensor(&base.path, &name, problem))?;
            (scheme, At::Made(Made(Arc::new(linked))))
        }
    };
    let dtype = if let Scheme::Dense(dtype) = scheme { dtype } else { Dtype::F32 };
    // Blocks that only move stay what they are.
    let wanted = if matches!(scheme, Scheme::Ggml(_)) { scheme } else { wanted };
    let parts = scheme.codec(&shape).map_err(|e| Error::tensor(&base.path, &name, e.to_string()))?;
    let part = |p: &quant_core::codec::Part| Stored { name: p.name.into(), dtype: p.dtype, shape: p.shape.clone(), n_bytes: p.n_bytes() };
    let parts = parts.parts().iter().map(part).collect();
    Ok((Tensor { name, shape, dtype, scheme, role: Role::Other, parts, packed }, at, wanted))
}
