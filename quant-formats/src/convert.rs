//! From an opened model to another one: decide, scan, lay out, write, commit.

use std::path::Path;

use quant_core::audit::ErrorStats;
use quant_core::codec::Tally;
use quant_core::convert::{Done, Pass};
use quant_core::plan::{Decision, Plan, Planned, View};
use quant_core::recipe::NOT_ASKED;
use quant_core::sink::Observer;
use quant_core::source::{Role, Source, Tensor};
use quant_core::{Dtype, Error, Result, Scheme};

use crate::checkpoint::{At, Checkpoint, Origin, OriginFormat, SideFile};
use crate::gguf::{self, Entry, Shards};
use crate::hf::config::{self, Bnb, Config};
use crate::hf::roles::{Layer, skip_modules};
use crate::input::Identity;
use crate::output::Staged;
use crate::placed::{self, Placed};
pub use crate::request::{Request, Target};
use crate::safetensors::layout::Layout;
use crate::safetensors::read::MODEL;
use crate::safetensors::write::{self as st, MAX_SHARD};
use crate::{Format, bqt};

/// Decides what each tensor becomes. Reads no weight.
///
/// # Errors
/// If the request does not fit the model or the form of the output.
pub fn plan(checkpoint: &Checkpoint, request: &Request) -> Result<Plan> {
    refuse_contradictions(request)?;
    let config = config_of(checkpoint);
    let foreign = foreign_method(config.as_ref());
    let mut mapped = request.schemes.iter();
    let decide = |tensor: &Tensor| {
        let decision = request.recipe.decide(tensor);
        let decision = match mapped.next() {
            Some(&scheme) if decision.scheme.is_none() && decision.reason == NOT_ASKED => {
                Decision { scheme: Some(scheme), reason: "the type of the model".into() }
            }
            _ => decision,
        };
        let view = decision.scheme.map_or(View::Whole, |scheme| view(tensor, scheme));
        Ok((decision, view))
    };
    let plan = match &request.mix {
        Some(mix) => gguf::quantize::plan(checkpoint, mix, &|name| request.recipe.kept(name))?,
        None => Plan::new(checkpoint, decide)?,
    };
    refuse_unweighted(&plan)?;
    refuse_requantizing(checkpoint, &plan, request)?;
    if let (Some(method), Some(t)) = (foreign, plan.tensors.iter().find(|t| !t.copied)) {
        let name = &t.name;
        return Err(Error::file(
            &checkpoint.path,
            format!("is quantized with '{method}', which can be copied but not decoded; '{name}' would change"),
        ));
    }
    match request.target {
        Target::Bqt => {}
        Target::Gguf | Target::GgufSet => drop(gguf_layout(checkpoint, &plan, request, "")?),
        Target::Safetensors | Target::Hf => drop(Layout::new(&plan, checkpoint, MAX_SHARD)?),
    }
    if request.target == Target::Hf {
        fit_transformers(&plan)?;
        edited_config(checkpoint, &plan, request.target)?;
    }
    Ok(plan)
}

/// Refuses types whose quantizer does not work without an importance matrix.
fn refuse_unweighted(plan: &Plan) -> Result<()> {
    let lacks = |t: &&Planned| !t.copied && t.importance.is_none() && matches!(t.scheme, Scheme::Ggml(ty) if ty.needs_importance());
    match plan.tensors.iter().find(lacks) {
        Some(t) => {
            let what = format!("tensor '{}': {} needs the importance of its columns", t.name, t.scheme);
            Err(Error::request(format!("{what}; give --type with a mix and --imatrix")))
        }
        None => Ok(()),
    }
}

/// Refuses to quantize again what is quantized, which loses twice, unless that is asked for: by a mix, and of what ggml
/// quantized.
fn refuse_requantizing(checkpoint: &Checkpoint, plan: &Plan, request: &Request) -> Result<()> {
    let is_mapped_gguf = checkpoint.base.is_some() && checkpoint.opened().format == Format::Gguf;
    let source = |t: &Planned| &checkpoint.tensors[t.source];
    let was_ggml = |t: &Planned| matches!(t.from, Scheme::Ggml(_)) || is_mapped_gguf && source(t).packed.is_some();
    let again = |t: &&Planned| !t.copied && (t.from.is_quantized() || was_ggml(t)) && t.scheme.is_quantized();
    let counts = |t: &&Planned| request.mix.is_some() || was_ggml(t);
    match plan.tensors.iter().filter(again).find(counts) {
        Some(t) if !request.allow_requantize => {
            let what = format!("tensor '{}': is {} and would become {}, losing a second time", t.name, source(t).stored_as(), t.scheme);
            Err(Error::request(format!("{what}; --allow-requantize does it, a source in f16 or bf16 is better")))
        }
        _ => Ok(()),
    }
}

/// Refuses options that do not fit the form of the output.
fn refuse_contradictions(request: &Request) -> Result<()> {
    let is_set = request.target == Target::GgufSet;
    if request.max_shard.is_some() && !(is_set || request.target == Target::Hf) {
        return Err(Error::request("--max-shard-size needs a folder as output (for GGUF shards: a folder and --to gguf)"));
    }
    if (request.max_shard_tensors.is_some() || request.keep_split) && !is_set {
        return Err(Error::request("several GGUF shards need a folder as output: name one, and give --to gguf"));
    }
    if !request.edits.is_empty() && !request.target.is_gguf() {
        return Err(Error::request("--set and --remove change the metadata of GGUF; name a .gguf file as output"));
    }
    Ok(())
}

/// The layout of a GGUF output, whose shards are named after `stem`.
fn gguf_layout(checkpoint: &Checkpoint, plan: &Plan, request: &Request, stem: &str) -> Result<gguf::Layout> {
    let kv = gguf_kv(checkpoint, plan, request)?;
    let shards = match request.target {
        Target::GgufSet if request.max_shard.is_none() && request.max_shard_tensors.is_none() => {
            let (files, n) = gguf::quantize::shards_of(checkpoint, plan);
            Shards::Given(files, n)
        }
        Target::GgufSet => {
            Shards::Limits { n_bytes: request.max_shard.unwrap_or(u64::MAX), n_tensors: request.max_shard_tensors.unwrap_or(u64::MAX) }
        }
        _ => Shards::One,
    };
    // Editing metadata leaves everything else as it is; what is laid out anew is written as llama.cpp does.
    let keep_dims = request.mix.is_none() && matches!(shards, Shards::One);
    gguf::Layout::new(plan, &kv, &shards, stem, keep_dims)
}

/// The metadata of a GGUF output.
fn gguf_kv(checkpoint: &Checkpoint, plan: &Plan, request: &Request) -> Result<Vec<Entry>> {
    let mut kv = match &request.mix {
        Some(mix) => gguf::quantize::kv(checkpoint, mix, plan),
        None => checkpoint.kv.clone(),
    };
    if request.mix.is_none() && request.target == Target::Gguf {
        gguf::layout::merged(&mut kv);
    }
    request.edits.iter().try_for_each(|edit| edit.apply(&mut kv))?;
    Ok(kv)
}

/// bitsandbytes stores linear layers as \[out, in\], so Conv1D weights are turned on the way there and back.
fn view(tensor: &Tensor, to: Scheme) -> View {
    let turned = |s: Scheme| matches!(s, Scheme::FourBit { .. } | Scheme::Int8);
    if tensor.role == Role::Conv1d && turned(to) != turned(tensor.scheme) { View::Transposed } else { View::Whole }
}

/// The method by which a model is quantized that is not read here.
fn foreign_method(config: Option<&Config>) -> Option<String> {
    let object = config?.quantization_config()?;
    let method = Config::parse(object.as_bytes()).ok()?.text("quant_method")?;
    (method != "bitsandbytes").then_some(method)
}

/// config.json, if it is there and can be read.
fn config_of(checkpoint: &Checkpoint) -> Option<Config> {
    checkpoint.config().ok().flatten().and_then(|bytes| Config::parse(&bytes).ok())
}

/// Refuses what transformers cannot load: quantized tensors that are no linear layers, and a mixture of 4 and 8 bits.
fn fit_transformers(plan: &Plan) -> Result<()> {
    for t in plan.tensors.iter().filter(|t| t.scheme.is_quantized() && !t.copied) {
        let is_linear = matches!(t.role, Role::Linear | Role::Conv1d | Role::Head) && t.shape.len() == 2 && t.name.ends_with(".weight");
        if !is_linear {
            let (name, role, scheme) = (&t.name, t.role.name(), t.scheme);
            let problem = format!("tensor '{name}' ({role}, shape {:?}): transformers loads {scheme} only in linear layers", t.shape);
            return Err(Error::request(format!("{problem}; write a .bqt or .safetensors file, or keep it")));
        }
    }
    let four = plan.tensors.iter().find(|t| matches!(t.scheme, Scheme::FourBit { .. }));
    let eight = plan.tensors.iter().find(|t| t.scheme == Scheme::Int8);
    match (four, eight) {
        (Some(four), Some(eight)) => Err(Error::request(format!(
            "'{}' would be {} and '{}' int8: transformers loads either 4-bit or int8, not both; write a .bqt file, or choose one",
            four.name, four.scheme, eight.name
        ))),
        _ => Ok(()),
    }
}

/// The config.json of the output; none if it is carried along as it is.
///
/// BQT says itself how tensors are quantized, so there only what is no longer true is taken out.
fn edited_config(checkpoint: &Checkpoint, plan: &Plan, target: Target) -> Result<Option<Vec<u8>>> {
    let Some(bytes) = checkpoint.config()? else { return Ok(None) };
    let path = checkpoint.path.join("config.json");
    let unreadable = |problem: String| Error::file(&path, problem);
    let quantized = plan.tensors.iter().find(|t| t.scheme.is_quantized());
    let config = match Config::parse(&bytes) {
        Ok(config) => config,
        Err(_) if plan.is_copy() && quantized.is_none() => return Ok(None),
        Err(problem) => return Err(unreadable(problem)),
    };
    let is_described = config.quantization_config().is_some();
    let is_verbatim = plan.is_copy() && checkpoint.origin.is_some();
    let edited = match quantized {
        Some(_) if is_described && plan.is_copy() => return Ok(None),
        Some(_) if target == Target::Bqt => bytes.clone(),
        Some(_) => config.with("quantization_config", &quantization_config(plan, &config)?),
        None if is_described && !is_verbatim && foreign_method(Some(&config)).is_none() => config.without("quantization_config"),
        None => bytes.clone(),
    };
    let config = Config::parse(&edited).map_err(unreadable)?;
    let edited = if is_verbatim { edited } else { with_dtype(plan, &config).unwrap_or(edited) };
    Ok((edited != bytes).then_some(edited))
}

/// The configuration with the type of the weights, if it names one and all dense weights have another.
fn with_dtype(plan: &Plan, config: &Config) -> Option<Vec<u8>> {
    let key = ["dtype", "torch_dtype"].into_iter().find(|key| config.value(key).is_some())?;
    let mut dtypes = plan.tensors.iter().filter_map(|t| if let Scheme::Dense(d) = t.scheme { Some(d).filter(|d| d.is_weight()) } else { None });
    let first = dtypes.next()?;
    if dtypes.any(|d| d != first) || config.dtype() == Some(first) {
        return None;
    }
    Some(config.with(key, &format!("\"{}\"", first.torch_name()?)))
}

/// The quantization_config for a plan with schemes of bitsandbytes.
fn quantization_config(plan: &Plan, config: &Config) -> Result<String> {
    let four_bit = plan.tensors.iter().find_map(|t| match t.scheme {
        Scheme::FourBit { book, nested, .. } => Some((t, book, nested)),
        _ => None,
    });
    let bnb = match four_bit {
        None => Bnb::Int8,
        Some((t, book, nested)) => {
            let compute = match t.dtype {
                Dtype::F16 | Dtype::BF16 => t.dtype,
                _ => Dtype::F32,
            };
            let storage = t.part("codes").map_or(Dtype::U8, |(_, p)| p.dtype);
            Bnb::FourBit { book, nested, compute, storage }
        }
    };
    let layers = plan.tensors.iter().filter(|t| t.shape.len() == 2).filter_map(|t| {
        let path = t.name.strip_suffix(".weight")?;
        Some(Layer { path, role: t.role, is_quantized: t.scheme.is_quantized() })
    });
    let skip = skip_modules(&layers.collect::<Vec<_>>(), Some(config)).map_err(Error::request)?;
    Ok(config::bnb_config(bnb, skip.as_deref()))
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// For each planned tensor what encoding did beyond rounding.
    pub tallies: Vec<Tally>,
    /// For each planned tensor its errors, if they were measured and it was encoded.
    pub errors: Vec<Option<ErrorStats>>,
}

/// The size of the output in bytes. Exact, except that double quantization writes a few digits whose number is only known
/// after the scan.
///
/// # Errors
/// If a scheme has no place in the form of the output.
pub fn size(checkpoint: &Checkpoint, plan: &Plan, request: &Request) -> Result<u64> {
    let beside = side_files(checkpoint, plan, request)?;
    match request.target {
        Target::Bqt => bqt::Writer::size(plan, &contents(checkpoint, request, &beside, bqt_origin(checkpoint)?.as_ref())),
        Target::Gguf | Target::GgufSet if is_gguf_restored(plan, checkpoint, request) => {
            Ok(placed::origin_of(checkpoint)?.files.iter().map(|f| f.n_bytes).sum())
        }
        Target::Gguf | Target::GgufSet => Ok(gguf_layout(checkpoint, plan, request, "")?.n_bytes()),
        Target::Safetensors => Ok(Layout::new(plan, checkpoint, u64::MAX)?.n_bytes()),
        Target::Hf => {
            let layout = Layout::new(plan, checkpoint, request.max_shard.unwrap_or(MAX_SHARD))?;
            Ok(layout.n_bytes() + beside.iter().map(|f| f.n_bytes).sum::<u64>())
        }
    }
}

fn contents<'a>(checkpoint: &'a Checkpoint, request: &'a Request, side_files: &'a [SideFile], origin: Option<&'a Origin>) -> bqt::Contents<'a> {
    bqt::Contents { checkpoint, recipe: request.recipe_text.as_deref(), metadata: &checkpoint.metadata, side_files, origin, audited: request.audit }
}

/// How a BQT file says that the original files are written again.
fn bqt_origin(checkpoint: &Checkpoint) -> Result<Option<Origin>> {
    checkpoint.origin.as_ref().map(|origin| origin.without_zero_gaps(checkpoint)).transpose()
}

/// Checks that the output may be created where it is asked for, and that there is room. Creates nothing.
///
/// # Errors
/// What [`run`] would refuse before it reads any weight.
pub fn check(checkpoint: &Checkpoint, plan: &Plan, request: &Request, output: &Path) -> Result<()> {
    let expected = size(checkpoint, plan, request)?;
    if let Some((matrix, path)) = request.mix.as_ref().and_then(|mix| mix.importance.as_ref())
        && Identity::of(output).is_ok_and(|there| there == matrix.identity())
    {
        return Err(Error::request(format!("{}: is the importance matrix {path}", output.display())));
    }
    Staged::check(output, request.target.is_folder(), expected, request.force, &checkpoint.identities()?)
}

/// Carries the plan out: scans, writes everything under a temporary name, checks that no input has changed, and commits.
///
/// # Errors
/// Any; then nothing is left behind, and what was at `output` before is still there.
pub fn run(checkpoint: &Checkpoint, plan: &mut Plan, request: &Request, output: &Path, observer: &dyn Observer) -> Result<Outcome> {
    // What is sure to fail fails before any weight is read; the space is checked again when all sizes are exact.
    check(checkpoint, plan, request, output)?;
    refuse_damaged(checkpoint, observer)?;
    plan.scan(checkpoint, &request.budget, request.keep_unfit, observer).map_err(|e| e.of(&checkpoint.path))?;
    let pass = Pass::new(checkpoint, plan, &request.budget)?.on(request.backend);
    let original = checkpoint.original.as_deref().map(|original| original as &dyn Source);
    let pass = if request.audit { pass.audited(plan, original) } else { pass };
    let beside = side_files(checkpoint, plan, request)?;
    let Done { tallies, errors } = if request.target == Target::Bqt {
        let origin = bqt_origin(checkpoint)?;
        let contents = contents(checkpoint, request, &beside, origin.as_ref());
        let writer = bqt::Writer::create(output, plan, &contents, request.force, &checkpoint.identities()?)?;
        let done = pass.run(plan, &writer, observer)?;
        let digests = pass.install(|| bqt::hash_sources(checkpoint, plan, observer))?;
        check_unchanged(checkpoint, request)?;
        writer.finish(&digests, &done.errors)?;
        done
    } else {
        let writer = match request.target {
            Target::Gguf | Target::GgufSet => gguf_writer(checkpoint, plan, request, output)?,
            _ => safetensors_writer(checkpoint, plan, request, output, &beside)?,
        };
        let done = pass.run(plan, &writer, observer)?;
        check_unchanged(checkpoint, request)?;
        writer.finish()?;
        done
    };
    Ok(Outcome { tallies, errors })
}

/// Checks that nothing that was read has changed meanwhile.
fn check_unchanged(checkpoint: &Checkpoint, request: &Request) -> Result<()> {
    if let Some((matrix, _)) = request.mix.as_ref().and_then(|mix| mix.importance.as_ref()) {
        matrix.check_unchanged()?;
    }
    checkpoint.check_unchanged()
}

/// A BQT file has checksums, so what is wrong with it need not be passed on.
fn refuse_damaged(checkpoint: &Checkpoint, observer: &dyn Observer) -> Result<()> {
    let opened = checkpoint.opened();
    let (Format::Bqt, [input, ..]) = (opened.format, &opened.inputs[..]) else { return Ok(()) };
    let report = bqt::verify(input, observer)?;
    match &report.damages[..] {
        [] => Ok(()),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(", and {} more; `quant verify` lists them", rest.len()) };
            Err(Error::file(&checkpoint.path, format!("damaged: {first}{more}")))
        }
    }
}

/// Whether the files that a checkpoint came in can be written again as they were.
fn is_restorable(plan: &Plan, checkpoint: &Checkpoint, format: OriginFormat, folder: bool) -> bool {
    let fits = |origin: &Origin| origin.format == format && (folder || origin.files.len() == 1);
    plan.is_copy() && checkpoint.origin.as_ref().is_some_and(fits)
}

/// Begins a safetensors output: the files as they were, if that is what is asked for, else laid out anew.
fn safetensors_writer(checkpoint: &Checkpoint, plan: &Plan, request: &Request, output: &Path, beside: &[SideFile]) -> Result<Placed> {
    let folder = request.target == Target::Hf;
    let same_form = folder || checkpoint.format != Format::Hf;
    if same_form && request.max_shard.is_none() && is_restorable(plan, checkpoint, OriginFormat::Safetensors, folder) {
        return Placed::restore(output, folder, MODEL, placed::origin_of(checkpoint)?, checkpoint, request.force);
    }
    let max_shard = if folder { request.max_shard.unwrap_or(MAX_SHARD) } else { u64::MAX };
    let layout = Layout::new(plan, checkpoint, max_shard)?;
    st::create(output, folder, layout, checkpoint, if folder { beside } else { &[] }, request.force)
}

/// Whether a GGUF output is the files as they were.
fn is_gguf_restored(plan: &Plan, checkpoint: &Checkpoint, request: &Request) -> bool {
    let changes = request.mix.is_some() || !request.edits.is_empty() || request.max_shard.is_some() || request.max_shard_tensors.is_some();
    let folder = request.target == Target::GgufSet;
    let n_files = checkpoint.origin.as_ref().map_or(0, |origin| origin.files.len());
    !changes && folder == (n_files > 1) && is_restorable(plan, checkpoint, OriginFormat::Gguf, folder)
}

/// Begins a GGUF output: the files as they were, if that is what is asked for, else laid out anew.
fn gguf_writer(checkpoint: &Checkpoint, plan: &Plan, request: &Request, output: &Path) -> Result<Placed> {
    let folder = request.target == Target::GgufSet;
    let name = output.file_name().unwrap_or_default().to_string_lossy();
    if is_gguf_restored(plan, checkpoint, request) {
        return Placed::restore(output, folder, &name, placed::origin_of(checkpoint)?, checkpoint, request.force);
    }
    let layout = gguf_layout(checkpoint, plan, request, &name)?;
    gguf::write::create(output, folder, layout, checkpoint, request.force)
}

/// The files beside the weights, config.json edited. In BQT the metadata of GGUF is one of them, unless the original header
/// is stored.
fn side_files(checkpoint: &Checkpoint, plan: &Plan, request: &Request) -> Result<Vec<SideFile>> {
    let mut files = checkpoint.side_files.clone();
    let has_head = is_restorable(plan, checkpoint, OriginFormat::Gguf, true);
    if request.target == Target::Bqt && !checkpoint.kv.is_empty() && !has_head {
        let bytes = gguf::write::metadata_only(&gguf_kv(checkpoint, plan, request)?, checkpoint)?;
        files.retain(|f| f.name != bqt::GGUF_METADATA);
        files.push(SideFile { name: bqt::GGUF_METADATA.into(), n_bytes: bytes.len() as u64, at: At::Bytes(bytes) });
    }
    let has_config = matches!(request.target, Target::Hf | Target::Bqt);
    let config = if has_config { edited_config(checkpoint, plan, request.target)? } else { None };
    if let (Some(bytes), Some(file)) = (config, files.iter_mut().find(|f| f.name == "config.json")) {
        *file = SideFile { name: file.name.clone(), n_bytes: bytes.len() as u64, at: At::Bytes(bytes) };
    }
    Ok(files)
}
