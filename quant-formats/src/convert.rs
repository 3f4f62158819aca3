//! From an opened model to another one: decide, scan, lay out, write, commit.

use std::path::Path;

use quant_core::codec::Tally;
use quant_core::convert::{Budget, Pass};
use quant_core::plan::{Plan, View};
use quant_core::recipe::Recipe;
use quant_core::sink::{Observer, Sink};
use quant_core::source::{Role, Tensor};
use quant_core::{Dtype, Error, Result, Scheme};

use crate::checkpoint::Checkpoint;
use crate::hf::config::{self, Bnb, Config};
use crate::hf::roles::{Layer, skip_modules};

use crate::safetensors::layout::Layout;
use crate::safetensors::write::{self as st, Beside, MAX_SHARD};
use crate::{Format, bqt};

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
        Request {
            recipe: Recipe::default(),
            recipe_text: None,
            target,
            max_shard: None,
            force: false,
            keep_unfit: false,
            budget: Budget::default(),
        }
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
        return Err(Error::file(&checkpoint.path, format!("is quantized with '{method}', which can be copied but not decoded; '{name}' would change")));
    }
    if request.target != Target::Bqt {
        Layout::new(&plan, checkpoint, MAX_SHARD)?;
    }
    if request.target == Target::Hf {
        fit_transformers(&plan)?;
        edited_config(checkpoint, &plan)?;
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
fn edited_config(checkpoint: &Checkpoint, plan: &Plan) -> Result<Option<Vec<u8>>> {
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
    let edited = match quantized {
        Some(_) if is_described && plan.is_copy() => return Ok(None),
        Some(_) => config.with("quantization_config", &quantization_config(plan, &config)?),
        None if is_described && !plan.is_copy() => config.without("quantization_config"),
        None => bytes.clone(),
    };
    let config = Config::parse(&edited).map_err(unreadable)?;
    let edited = with_dtype(plan, config).unwrap_or(edited);
    Ok((edited != bytes).then_some(edited))
}

/// The configuration with the type of the weights, if it names one and all dense weights now have another.
fn with_dtype(plan: &Plan, config: Config) -> Option<Vec<u8>> {
    let key = ["dtype", "torch_dtype"].into_iter().find(|key| config.value(key).is_some())?;
    let converted = plan.tensors.iter().any(|t| !t.copied && matches!(t.scheme, Scheme::Dense(_)));
    let mut dtypes = plan.tensors.iter().filter_map(|t| if let Scheme::Dense(d) = t.scheme { Some(d).filter(|d| d.is_weight()) } else { None });
    let first = dtypes.next()?;
    if !converted || dtypes.any(|d| d != first) || config.dtype() == Some(first) {
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
    if request.target == Target::Bqt {
        return bqt::Writer::size(plan, &contents(checkpoint, request));
    }
    let beside: u64 = if request.target == Target::Hf { checkpoint.side_files.iter().map(|f| f.n_bytes).sum() } else { 0 };
    Ok(Layout::new(plan, checkpoint, request.max_shard.unwrap_or(MAX_SHARD))?.n_bytes() + beside)
}

fn contents<'a>(checkpoint: &'a Checkpoint, request: &'a Request) -> bqt::Contents<'a> {
    let (metadata, side_files) = (&checkpoint.metadata, &checkpoint.side_files);
    bqt::Contents { checkpoint, recipe: request.recipe_text.as_deref(), metadata, side_files, origin: true }
}

/// Carries the plan out: scans, writes everything under a temporary name, checks that no input has changed, and commits.
///
/// # Errors
/// Any; then nothing is left behind, and what was at `output` before is still there.
pub fn run(checkpoint: &Checkpoint, plan: &mut Plan, request: &Request, output: &Path, observer: &dyn Observer) -> Result<Outcome> {
    plan.scan(checkpoint, &request.budget, request.keep_unfit, observer)?;
    let pass = Pass::new(checkpoint, plan, &request.budget)?;
    let convert = |sink: &dyn Sink| pass.run(plan, sink, observer);
    let folder = request.target == Target::Hf;
    let tallies = match request.target {
        Target::Bqt => {
            let inputs: Vec<_> = checkpoint.inputs.iter().map(|i| i.identity()).collect();
            let writer = bqt::Writer::create(output, plan, &contents(checkpoint, request), request.force, &inputs)?;
            let tallies = convert(&writer)?;
            let digests = pass.install(|| bqt::hash_sources(checkpoint, plan, observer))?;
            checkpoint.check_unchanged()?;
            writer.finish(&digests)?;
            tallies
        }
        Target::Hf | Target::Safetensors => {
            let restores = request.max_shard.is_none() && (folder || checkpoint.format != Format::Hf);
            let writer = if restores && st::is_restorable(plan, checkpoint, folder) && same_config(checkpoint, plan)? {
                st::Writer::restore(output, folder, checkpoint, request.force)?
            } else {
                let layout = Layout::new(plan, checkpoint, request.max_shard.filter(|_| folder).unwrap_or(if folder { MAX_SHARD } else { u64::MAX }))?;
                let beside = if folder { beside(checkpoint, plan)? } else { Vec::new() };
                st::Writer::create(output, folder, layout, checkpoint, beside, request.force)?
            };
            let tallies = convert(&writer)?;
            checkpoint.check_unchanged()?;
            writer.finish()?;
            tallies
        }
    };
    Ok(Outcome { tallies })
}

/// Whether config.json needs no edit.
fn same_config(checkpoint: &Checkpoint, plan: &Plan) -> Result<bool> {
    Ok(edited_config(checkpoint, plan)?.is_none())
}

/// The files beside the weights, config.json edited.
fn beside<'a>(checkpoint: &'a Checkpoint, plan: &Plan) -> Result<Vec<Beside<'a>>> {
    let config = edited_config(checkpoint, plan)?;
    let beside = |file: &'a crate::checkpoint::SideFile| match &config {
        Some(bytes) if file.name == "config.json" => Beside::Made { name: file.name.clone(), bytes: bytes.clone() },
        _ => Beside::Carried(file),
    };
    Ok(checkpoint.side_files.iter().map(beside).collect())
}
