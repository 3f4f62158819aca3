//! The options of `quant convert` that are llama-quantize's.

use quant_core::mix::{Ftype, Options};
use quant_core::plan::{Plan, Planned};
use quant_core::recipe::{RecipeText, pattern};
use quant_core::{Error, Result, Scheme};
use quant_formats::Checkpoint;
use quant_formats::convert::Target;
use quant_formats::gguf::imatrix::ImportanceMatrix;
use quant_formats::gguf::{Edit, Entry, Kind, Mix};

use crate::args::{ConvertArgs, option_file};
use crate::recipe::unmatched;
use crate::report::first_and_more;

/// An importance matrix and the path of its file.
pub type Importance = (std::sync::Arc<ImportanceMatrix>, String);

/// Whether the options ask for several GGUF files.
pub fn is_set(args: &ConvertArgs) -> bool {
    args.gguf.keep_split || args.max_shard_size.is_some() || args.gguf.max_shard_tensors.is_some()
}

/// The mix that `--type` names, with what bends it; none if it names a scheme, or nothing.
///
/// # Errors
/// If an option cannot be read, or needs a mix and there is none.
pub fn of(args: &ConvertArgs, target: Target, recipe: Option<&RecipeText>) -> Result<Option<Mix>> {
    let gguf = &args.gguf;
    let file = recipe.filter(|recipe| recipe.mix.is_some());
    let text = file.and_then(|recipe| recipe.mix.as_deref()).or(args.scheme.as_deref()).unwrap_or_default();
    let copy = text.eq_ignore_ascii_case("copy");
    let is_gguf = matches!(target, Target::Gguf | Target::GgufSet);
    // f16 and the like are schemes as well: elsewhere every tensor is meant.
    let ftype = text.parse::<Ftype>().ok().filter(|_| is_gguf || !matches!(text.parse(), Ok(Scheme::Dense(_))));
    let Some(ftype) = ftype.or_else(|| copy.then_some(Ftype::F32)) else {
        if file.is_some() {
            return Err(no_mix(text));
        }
        return refuse_without_mix(args, recipe.is_some()).map(|()| None);
    };
    let importance = importance(args)?;
    let options = Options {
        ftype,
        pure: gguf.pure,
        has_imatrix: importance.is_some(),
        leave_output: gguf.leave_output_tensor,
        output_type: gguf.output_tensor_type.as_deref().map(|t| tensor_type("--output-tensor-type", t)).transpose()?,
        embedding_type: gguf.token_embedding_type.as_deref().map(|t| tensor_type("--token-embedding-type", t)).transpose()?,
        rules: match file {
            Some(recipe) => rules(recipe)?,
            None => tensor_types(args)?.iter().map(|text| rule_of(text)).collect::<Result<_>>()?,
        },
        no_fallback: gguf.no_fallback,
    };
    let overrides = gguf.override_kv.iter().map(|text| override_kv(text)).collect::<Result<_>>()?;
    Ok(Some(Mix { options, copy, importance, prune_layers: gguf.prune_layers.clone(), overrides, keep_split: gguf.keep_split }))
}

fn no_mix(text: &str) -> Error {
    Error::request(format!("--recipe: '{text}' is no mix of llama-quantize, such as q4_k_m"))
}

fn rules(recipe: &RecipeText) -> Result<Vec<(regex::Regex, Scheme)>> {
    recipe.tensor.iter().map(|rule| self::rule("--recipe", &rule.r#match, &rule.r#type)).collect()
}

/// The mix of a recipe and what bends it, with nothing else asked for; none if the recipe has none.
///
/// # Errors
/// If it is no mix, or a rule cannot be read.
pub fn of_recipe(recipe: &RecipeText, importance: Option<Importance>) -> Result<Option<Mix>> {
    let Some(text) = &recipe.mix else { return Ok(None) };
    let ftype = text.parse().map_err(|_| no_mix(text))?;
    let options = Options { rules: rules(recipe)?, has_imatrix: importance.is_some(), ..Options::new(ftype) };
    Ok(Some(plain(options, importance)))
}

/// A mix with its options and no others.
pub fn plain(options: Options, importance: Option<Importance>) -> Mix {
    Mix { options, copy: false, importance, prune_layers: Vec::new(), overrides: Vec::new(), keep_split: false }
}

/// What a user should know about a mix.
pub fn notes(mix: &Mix, checkpoint: &Checkpoint, plan: &Plan) -> Vec<String> {
    let mut notes = rule_notes(mix, checkpoint);
    let is_quantized = mix.options.ftype.default_scheme().is_quantized();
    if checkpoint.kv.is_empty() && is_quantized && !mix.options.pure {
        let what = "a mix goes by the tensor names and the metadata of GGUF, which this model does not have";
        notes.push(format!("{what}: its rules for single tensors do not apply"));
    }
    let lacks = |t: &&Planned| !t.copied && matches!(t.scheme, Scheme::Ggml(_)) && t.importance.is_none();
    let lacking = first_and_more(plan.tensors.iter().filter(lacks).map(|t| t.name.as_str()));
    if let (Some((_, path)), Some(names)) = (&mix.importance, lacking) {
        notes.push(format!("{names}: quantized without importance, as {path} has no entry that may be used"));
    }
    notes
}

/// What a user should know about the rules of a mix.
fn rule_notes(mix: &Mix, checkpoint: &Checkpoint) -> Vec<String> {
    let rules = &mix.options.rules;
    if !rules.is_empty() && !mix.options.ftype.default_scheme().is_quantized() {
        return vec!["--tensor-type has no effect on copy, f32, f16 and bf16, as in llama-quantize".into()];
    }
    let is_unmatched = |(pattern, _): &&(regex::Regex, Scheme)| !checkpoint.tensors.iter().any(|t| pattern.is_match(&t.name));
    let patterns: Vec<&str> = rules.iter().filter(is_unmatched).map(|(pattern, _)| pattern.as_str()).collect();
    unmatched(&patterns, checkpoint).into_iter().collect()
}

/// Options that mean nothing without a mix are most likely a mistake.
fn refuse_without_mix(args: &ConvertArgs, is_recipe: bool) -> Result<()> {
    let gguf = &args.gguf;
    let given = [
        ("--pure", gguf.pure),
        ("--imatrix", gguf.imatrix.is_some()),
        ("--output-tensor-type", gguf.output_tensor_type.is_some()),
        ("--token-embedding-type", gguf.token_embedding_type.is_some()),
        ("--leave-output-tensor", gguf.leave_output_tensor),
        ("--prune-layers", !gguf.prune_layers.is_empty()),
        ("--override-kv", !gguf.override_kv.is_empty()),
        ("--no-fallback", gguf.no_fallback),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((name, _)) if is_recipe => {
            Err(Error::request(format!("{name} needs a recipe with a mix, for GGUF; one with schemes alone does without: leave {name} out")))
        }
        Some((name, _)) => Err(Error::request(format!("{name} needs --type with a mix of llama-quantize, such as q4_k_m, or copy"))),
        None => Ok(()),
    }
}

/// The importance matrix, without the entries that are not wanted.
fn importance(args: &ConvertArgs) -> Result<Option<Importance>> {
    let Some(path) = &args.gguf.imatrix else { return Ok(None) };
    let mut matrix = ImportanceMatrix::open(path, args.io.into())?;
    if let Some(matrix) = std::sync::Arc::get_mut(&mut matrix) {
        matrix.retain(&args.gguf.include_weights, &args.gguf.exclude_weights);
    }
    if matrix.n_entries() == 0 {
        return Err(Error::file(path, "none of its entries is left"));
    }
    Ok(Some((matrix, path.to_string_lossy().into_owned())))
}

/// A type that a tensor of GGUF can have.
fn tensor_type(option: &str, text: &str) -> Result<Scheme> {
    let scheme: Option<Scheme> = text.parse().ok();
    let known = scheme.filter(|s| matches!(s, Scheme::Ggml(_)) || matches!(s, Scheme::Dense(d) if d.is_weight()));
    known
        .filter(|s| quant_core::ggml::id_of(*s).is_some())
        .ok_or_else(|| Error::request(format!("{option}: '{text}' is not a type that ggml quantizes to, such as q4_k, iq4_xs, mxfp4, f16")))
}

/// All `REGEX=TYPE` texts: those of the options, then those of the file.
pub fn tensor_types(args: &ConvertArgs) -> Result<Vec<String>> {
    let mut texts = args.tensor_type.clone();
    if let Some(path) = &args.gguf.tensor_type_file {
        texts.extend(option_file(path, "a list of REGEX=TYPE")?.split_whitespace().map(str::to_owned));
    }
    Ok(texts)
}

/// A rule of a mix. llama-quantize takes names in lower case, and the first `=` for the end of the pattern.
fn rule_of(text: &str) -> Result<(regex::Regex, Scheme)> {
    let bad = || Error::request(format!("--tensor-type '{text}': needs REGEX=TYPE"));
    let (name, ty) = text.split_once('=').filter(|(name, ty)| !name.is_empty() && !ty.is_empty()).ok_or_else(bad)?;
    rule("--tensor-type", &name.to_lowercase(), ty)
}

fn rule(option: &str, name: &str, ty: &str) -> Result<(regex::Regex, Scheme)> {
    let regex = pattern(name).map_err(|e| Error::request(format!("{option}: {e}")))?;
    Ok((regex, tensor_type(option, ty)?))
}

/// An entry of `--override-kv`: integers become u32 of their magnitude, as llama-quantize stores them.
fn override_kv(text: &str) -> Result<Entry> {
    let bad = |problem: &str| Error::request(format!("--override-kv '{text}': {problem}"));
    let (key, typed) = text.split_once('=').ok_or_else(|| bad("needs KEY=TYPE:VALUE"))?;
    let (ty, value) = typed.split_once(':').ok_or_else(|| bad("needs KEY=TYPE:VALUE"))?;
    match ty {
        "int" => {
            let n: i64 = value.parse().map_err(|_| bad("is not an integer"))?;
            let n = u32::try_from(n.unsigned_abs()).map_err(|_| bad("does not fit a u32, which llama-quantize stores"))?;
            Ok(Entry::u32(key, n))
        }
        "float" => {
            let v: f64 = value.parse().map_err(|_| bad("is not a number"))?;
            Ok(Entry::new(key, Kind::F32, (v as f32).to_le_bytes().to_vec()))
        }
        "bool" => {
            let v: bool = value.parse().map_err(|_| bad("is neither true nor false"))?;
            Ok(Entry::new(key, Kind::Bool, vec![u8::from(v)]))
        }
        "str" if value.len() <= 127 => Ok(Entry::string(key, value)),
        "str" => Err(bad("has more than 127 bytes; --set takes longer ones")),
        _ => Err(bad("the type is not one of int, float, bool, str")),
    }
}

/// The changes of `--set` and `--remove`.
pub fn edits(args: &ConvertArgs) -> Result<Vec<Edit>> {
    let set = args.gguf.set.iter().map(|text| Edit::parse(text));
    set.chain(args.gguf.remove.iter().map(|key| Ok(Edit::Remove(key.clone())))).collect()
}
