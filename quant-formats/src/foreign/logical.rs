//! A checkpoint with the logical tensors of [`super::unpack`] in the place of the physical ones.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use quant_core::source::{Packed, Role, Stored, Tensor};
use quant_core::{Dtype, Error, Result, Scheme, ggml};

use super::{How, Repack, Unpack, Unpacked, Unpacking};
use crate::checkpoint::{At, Checkpoint, Made, Make, SideFile};
use crate::hf::config::Config;
use crate::model::link::{Axis, Link};
use crate::model::view::{Linked, Piece, Side, read_blocks, read_numbers};

/// Files that describe how a checkpoint was quantized, beside config.json.
const DESCRIPTIONS: [&str; 3] = ["hf_quant_config.json", "quantize_config.json", "quant_config.json"];
/// How near to 1 a factor is that need not be stored. Source: `_scale_is_trivial` of the reference.
const TRIVIAL: f32 = 1e-6;

/// What the logical tensors are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Numbers, in the layout of the model's own classes.
    Dense,
    /// GGUF: blocks that ggml has stay blocks, with their factors in tensors beside them.
    Gguf,
}

/// `base` with logical tensors, and without the description of its quantization.
///
/// # Errors
/// If config.json cannot be read.
pub fn logical(base: Checkpoint, unpacking: Unpacking, form: Form) -> Result<Checkpoint> {
    let base = Arc::new(base);
    let mut notes = base.notes.clone();
    notes.extend(unpacking.notes);
    let mut replaced: HashSet<usize> = unpacking.dropped.into_iter().collect();
    replaced.extend(unpacking.tensors.iter().flat_map(|t| t.used.iter().copied()));
    let mut firsts: HashMap<usize, Unpacked> = unpacking.tensors.into_iter().filter_map(|t| Some((*t.used.first()?, t))).collect();
    let mut checkpoint = Checkpoint { side_files: side_files(&base)?, notes, ..Checkpoint::over(&base) };
    for (i, (tensor, places)) in base.tensors.iter().zip(&base.places).enumerate() {
        if let Some(unpacked) = firsts.remove(&i) {
            for (tensor, place) in shown(&base, unpacked, form)? {
                checkpoint.tensors.push(tensor);
                checkpoint.places.push(vec![place]);
            }
        } else if !replaced.contains(&i) {
            checkpoint.tensors.push(tensor.clone());
            checkpoint.places.push(places.clone());
        }
    }
    let mut checkpoint = match form {
        Form::Dense => input_major(checkpoint)?,
        Form::Gguf => marked(checkpoint),
    };
    crate::open::settle(&mut checkpoint)?;
    Ok(checkpoint)
}

/// Whether a tensor is a stack of gpt-oss's experts, whose packed form has outputs first, its dense form inputs.
fn is_gpt_oss_stack(tensor: &Tensor) -> bool {
    tensor.shape.len() == 3 && tensor.packed.as_ref().is_some_and(|packed| packed.label.starts_with("gpt-oss"))
}

/// The stacks of gpt-oss under names that tell their order from that of dense ones.
fn marked(mut checkpoint: Checkpoint) -> Checkpoint {
    checkpoint.tensors.iter_mut().filter(|t| is_gpt_oss_stack(t)).for_each(|t| t.name += "_blocks");
    checkpoint
}

/// The stacks of gpt-oss in the order of the model's own class, inputs first.
fn input_major(checkpoint: Checkpoint) -> Result<Checkpoint> {
    if !checkpoint.tensors.iter().any(is_gpt_oss_stack) {
        return Ok(checkpoint);
    }
    let inner = Arc::new(checkpoint);
    let mut outer = Checkpoint { tensors: inner.tensors.clone(), places: inner.places.clone(), ..Checkpoint::over(&inner) };
    for (i, tensor) in inner.tensors.iter().enumerate().filter(|(_, t)| is_gpt_oss_stack(t)) {
        let &[experts, rows, columns] = &tensor.shape[..] else { continue };
        let axes = vec![
            Axis { len: experts, hf: rows * columns, gguf: rows * columns },
            Axis { len: rows, hf: 1, gguf: columns },
            Axis { len: columns, hf: rows, gguf: 1 },
        ];
        let piece = Piece::new(i, &Link::of(axes), Side::Hf);
        let linked = Linked::new(inner.clone(), vec![piece], tensor.scheme, tensor.n_elements());
        let linked = linked.map_err(|problem| Error::tensor(inner.file_of(i), &tensor.name, problem))?;
        outer.places[i] = vec![At::Made(Made(Arc::new(linked)))];
        outer.tensors[i].shape = vec![experts, columns, rows];
        outer.tensors[i].parts.iter_mut().for_each(|part| part.shape = vec![experts, columns, rows]);
    }
    Ok(outer)
}

/// The files beside the weights, which no longer are quantized.
fn side_files(base: &Checkpoint) -> Result<Vec<SideFile>> {
    let mut files: Vec<SideFile> = base.side_files.iter().filter(|f| !DESCRIPTIONS.contains(&f.name.as_str())).cloned().collect();
    for file in files.iter_mut().filter(|f| f.name == "config.json") {
        let bytes = base.side_file(file)?;
        let config = Config::parse(&bytes).map_err(|problem| Error::file(&base.path.join("config.json"), problem))?;
        if config.quantization_config().is_some() {
            let bytes = config.without("quantization_config");
            *file = SideFile { name: file.name.clone(), n_bytes: bytes.len() as u64, at: At::Bytes(bytes) };
        }
    }
    Ok(files)
}

/// How a logical tensor is seen, with what stands beside it.
fn shown(base: &Arc<Checkpoint>, unpacked: Unpacked, form: Form) -> Result<Vec<(Tensor, At)>> {
    let n_bytes = unpacked.used.iter().map(|&i| base.tensors[i].n_bytes()).sum();
    let packed = Some(Packed { label: unpacked.label, n_bytes });
    let file = base.file_of(unpacked.used.first().copied().unwrap_or_default()).to_path_buf();
    let (scheme, make, beside): (Scheme, Arc<dyn Make>, Vec<(&'static str, f32)>) = match (unpacked.how, form) {
        (How::Numbers(unpack), _) => (Scheme::Dense(Dtype::F32), Arc::new(Numbers { from: Fill::Unpack(unpack), file }), Vec::new()),
        (How::Blocks(_, repack), Form::Dense) => (Scheme::Dense(Dtype::F32), Arc::new(Numbers { from: Fill::Repack(repack), file }), Vec::new()),
        (How::Blocks(ty, repack), Form::Gguf) => {
            let beside = repack.beside().to_vec();
            (Scheme::Ggml(ty), Arc::new(Blocks { ty, repack, file }), beside)
        }
    };
    let dtype = if let Scheme::Dense(dtype) = scheme { dtype } else { unpacked.dtype };
    let (name, shape) = (unpacked.name, unpacked.shape);
    let codec = scheme.codec(&shape).map_err(|e| Error::tensor(&base.path, &name, e.to_string()))?;
    let part = |p: &quant_core::codec::Part| Stored { name: p.name.into(), dtype: p.dtype, shape: p.shape.clone(), n_bytes: p.n_bytes() };
    let parts = codec.parts().iter().map(part).collect();
    let stem = name.strip_suffix(".weight").unwrap_or(&name).to_owned();
    let mut all = vec![(Tensor { name, shape, dtype, scheme, role: Role::Other, parts, packed }, At::Made(Made(make)))];
    for (ending, factor) in beside.into_iter().filter(|(_, factor)| (factor - 1.0).abs() >= TRIVIAL) {
        let part = Stored { name: "data".into(), dtype: Dtype::F32, shape: vec![1], n_bytes: 4 };
        let (name, scheme) = (format!("{stem}.{ending}"), Scheme::Dense(Dtype::F32));
        let tensor = Tensor { name, shape: vec![1], dtype: Dtype::F32, scheme, role: Role::Other, parts: vec![part], packed: None };
        all.push((tensor, At::Bytes(factor.to_le_bytes().to_vec())));
    }
    Ok(all)
}

/// The bytes of unpacked numbers, in f32.
#[derive(Debug)]
struct Numbers {
    from: Fill,
    file: std::path::PathBuf,
}

#[derive(Debug)]
enum Fill {
    Unpack(Arc<dyn Unpack>),
    Repack(Arc<dyn Repack>),
}

impl Make for Numbers {
    fn read(&self, from: &Checkpoint, offset: u64, out: &mut [u8]) -> Result<()> {
        read_numbers(Dtype::F32, offset, out, |at, numbers| match &self.from {
            Fill::Unpack(unpack) => unpack.fill(from, at, numbers),
            Fill::Repack(repack) => repack.numbers(from, at, numbers),
        })
    }

    fn file<'a>(&'a self, _: &'a Checkpoint) -> Option<&'a Path> {
        Some(&self.file)
    }
}

/// The bytes of repacked blocks.
#[derive(Debug)]
struct Blocks {
    ty: ggml::Type,
    repack: Arc<dyn Repack>,
    file: std::path::PathBuf,
}

impl Make for Blocks {
    fn read(&self, from: &Checkpoint, offset: u64, out: &mut [u8]) -> Result<()> {
        read_blocks(self.ty, offset, out, |first, blocks| self.repack.fill(from, first, blocks))
    }

    fn file<'a>(&'a self, _: &'a Checkpoint) -> Option<&'a Path> {
        Some(&self.file)
    }
}
