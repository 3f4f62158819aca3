//! From an opened model to another one: decide, scan, lay out, write, commit.

use std::path::Path;

use quant_core::codec::Tally;
use quant_core::convert::{Budget, Pass};
use quant_core::plan::{Plan, View};
use quant_core::recipe::Recipe;
use quant_core::sink::Observer;
use quant_core::source::{Role, Tensor};
use quant_core::{Dtype, Error, Result, Scheme};

use crate::checkpoint::{At, Checkpoint, SideFile};
use crate::hf::config::{self, Bnb, Config};
use crate::hf::roles::{Layer, skip_modules};

use crate::output::Staged;
use crate::safetensors::layout::Layout;
use crate::safetensors::write::{self as st, MAX_SHARD};
use crate::{Format, bqt};

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
}

impl Target {
    /// The form that the name of an output asks for: by its ending, else a folder.
    ///
    /// # Errors
    /// If the ending is that of a format that is not written.
    pub fn of(path: &Path) -> Result<Target> {
        let ending = path.extension().map(|e| e.to_ascii_lowercase());
        match ending.as_ref().and_then(|e| e.to_str()) {
            Some("safetensors") => Ok(Target::Safetensors),
            Some("bqt") => Ok(Target::Bqt),
            Some("gguf") => Err(Error::request(format!("{}: writing GGUF is not yet possible", path.display()))),
            Some(other) if NOT_WRITTEN.contains(&other) => {
                Err(Error::request(format!("{}: .{other} is not written; name a .safetensors or .bqt file, or a folder", path.display())))
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
    /// Bytes of tensor data in one file of a folder; by default those of transformers, or the files as they were.
    pub max_shard: Option<u64>,
    /// Whether an existing output is replaced.
    pub force: bool,
    /// Whether tensors with NaN or infinities are kept as they are instead of refused.
    pub keep_unfit: bool,
    /// Memory and threads.
    pub budget: Budget,
}

impl Request {
    /// A request that changes nothing but the form.
    pub fn new(target: Target) -> Request {
        Request { recipe: Recipe::default(), recipe_text: None, target, max_shard: None, force: false, keep_unfit: false, budget: Budget::default() }
    }
}

/// Decides what each tensor becomes. Reads no weight.
///
/// # Errors
/// If the request does not fit the model or the form of the output.
pub fn plan(checkpoint: &Checkpoint, request: &Request) -> Result<Plan> {
    if request.max_shard.is_some() && request.target != Target::Hf {
        return Err(Error::request("--max-shard-size needs a folder as output"));
    }
    let config = config_of(checkpoint);
    let foreign = foreign_method(config.as_ref());
    let decide = |tensor: &Tensor| {
        let decision = request.recipe.decide(tensor);
        let view = decision.scheme.map_or(View::Whole, |scheme| view(tensor, scheme));
        Ok((decision, view))
    };
    let plan = Plan::new(checkpoint, decide)?;
    if let (Some(method), Some(t)) = (foreign, plan.tensors.iter().find(|t| !t.copied)) {
        let name = &t.name;
        return Err(Error::file(
            &checkpoint.path,
            format!("is quantized with '{method}', which can be copied but not decoded; '{name}' would change"),
        ));
    }
    if request.target != Target::Bqt {
        Layout::new(&plan, checkpoint, MAX_SHARD)?;
    }
    if request.target == Target::Hf {
        fit_transformers(&plan)?;
        edited_config(checkpoint, &plan, request.target)?;
    }
    Ok(plan)
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
}

/// The size of the output in bytes. Exact, except that double quantization writes a few digits whose number is only known
/// after the scan.
///
/// # Errors
/// If a scheme has no place in the form of the output.
pub fn size(checkpoint: &Checkpoint, plan: &Plan, request: &Request) -> Result<u64> {
    let beside = side_files(checkpoint, plan, request.target)?;
    match request.target {
        Target::Bqt => bqt::Writer::size(plan, &contents(checkpoint, request, &beside)),
        Target::Safetensors => Ok(Layout::new(plan, checkpoint, u64::MAX)?.n_bytes()),
        Target::Hf => {
            let layout = Layout::new(plan, checkpoint, request.max_shard.unwrap_or(MAX_SHARD))?;
            Ok(layout.n_bytes() + beside.iter().map(|f| f.n_bytes).sum::<u64>())
        }
    }
}

fn contents<'a>(checkpoint: &'a Checkpoint, request: &'a Request, side_files: &'a [SideFile]) -> bqt::Contents<'a> {
    bqt::Contents { checkpoint, recipe: request.recipe_text.as_deref(), metadata: &checkpoint.metadata, side_files, origin: true }
}

/// Checks that the output may be created where it is asked for, and that there is room. Creates nothing.
///
/// # Errors
/// What [`run`] would refuse before it reads any weight.
pub fn check(checkpoint: &Checkpoint, plan: &Plan, request: &Request, output: &Path) -> Result<()> {
    let expected = size(checkpoint, plan, request)?;
    Staged::check(output, request.target == Target::Hf, expected, request.force, &checkpoint.identities()?)
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
    let pass = Pass::new(checkpoint, plan, &request.budget)?;
    let beside = side_files(checkpoint, plan, request.target)?;
    let tallies = if request.target == Target::Bqt {
        let contents = contents(checkpoint, request, &beside);
        let writer = bqt::Writer::create(output, plan, &contents, request.force, &checkpoint.identities()?)?;
        let tallies = pass.run(plan, &writer, observer)?;
        let digests = pass.install(|| bqt::hash_sources(checkpoint, plan, observer))?;
        checkpoint.check_unchanged()?;
        writer.finish(&digests)?;
        tallies
    } else {
        let writer = safetensors_writer(checkpoint, plan, request, output, &beside)?;
        let tallies = pass.run(plan, &writer, observer)?;
        checkpoint.check_unchanged()?;
        writer.finish()?;
        tallies
    };
    Ok(Outcome { tallies })
}

/// A BQT file has checksums, so what is wrong with it need not be passed on.
fn refuse_damaged(checkpoint: &Checkpoint, observer: &dyn Observer) -> Result<()> {
    if checkpoint.format != Format::Bqt {
        return Ok(());
    }
    let report = bqt::verify(&checkpoint.inputs[0], observer)?;
    match &report.damages[..] {
        [] => Ok(()),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(", and {} more; `quant verify` lists them", rest.len()) };
            Err(Error::file(&checkpoint.path, format!("damaged: {first}{more}")))
        }
    }
}

/// Begins a safetensors output: the files as they were, if that is what is asked for, else laid out anew.
fn safetensors_writer(checkpoint: &Checkpoint, plan: &Plan, request: &Request, output: &Path, beside: &[SideFile]) -> Result<st::Writer> {
    let folder = request.target == Target::Hf;
    let same_form = folder || checkpoint.format != Format::Hf;
    if same_form && request.max_shard.is_none() && st::is_restorable(plan, checkpoint, folder) {
        return st::Writer::restore(output, folder, checkpoint, request.force);
    }
    let max_shard = if folder { request.max_shard.unwrap_or(MAX_SHARD) } else { u64::MAX };
    let layout = Layout::new(plan, checkpoint, max_shard)?;
    st::Writer::create(output, folder, layout, checkpoint, if folder { beside } else { &[] }, request.force)
}

/// The files beside the weights, config.json edited.
fn side_files(checkpoint: &Checkpoint, plan: &Plan, target: Target) -> Result<Vec<SideFile>> {
    let mut files = checkpoint.side_files.clone();
    let config = edited_config(checkpoint, plan, target)?;
    if let (Some(bytes), Some(file)) = (config, files.iter_mut().find(|f| f.name == "config.json")) {
        *file = SideFile { name: file.name.clone(), n_bytes: bytes.len() as u64, at: At::Bytes(bytes) };
    }
    Ok(files)
}
