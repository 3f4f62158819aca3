//! The options of `quant convert` between Hugging Face and GGUF.

use std::path::Path;

use quant_core::{Error, Result, Scheme};
use quant_formats::convert::{Request, Target};
use quant_formats::foreign::{self, Form};
use quant_formats::model::{self, Outtype, ToGguf};
use quant_formats::{Checkpoint, Format};
use serde_json::Value;

use crate::args::ConvertArgs;
use crate::args::option_file;

/// The model as it is called and laid out on the other side, if the conversion leads from Hugging Face to GGUF or back.
///
/// # Errors
/// If the model's class is not known, or it is not what its configuration says; if an option does not fit.
pub fn mapped(args: &ConvertArgs, request: &mut Request, checkpoint: Checkpoint) -> Result<Checkpoint> {
    let is_gguf = matches!(request.target, Target::Gguf | Target::GgufSet);
    let to_gguf = is_gguf && !args.model.generic && model::is_mappable(&checkpoint);
    if !to_gguf {
        refuse_unused(args)?;
        if is_gguf && !args.model.generic && checkpoint.format == Format::Hf {
            return Err(model::no_config(&checkpoint));
        }
    }
    let checkpoint = decoded(args, request, checkpoint, to_gguf)?;
    if to_gguf {
        let mapped = model::to_gguf(checkpoint, &wanted(args, request)?)?;
        request.schemes = mapped.schemes;
        return Ok(mapped.checkpoint);
    }
    if request.target == Target::Hf && !args.model.generic && model::is_mappable_back(&checkpoint) && !is_copy_of_folder(&checkpoint) {
        let dtype = match request.recipe.default {
            Some(Scheme::Dense(dtype)) => Some(dtype),
            _ => None,
        };
        let mapped = model::to_hf(checkpoint, dtype)?;
        request.schemes = mapped.schemes;
        return Ok(mapped.checkpoint);
    }
    Ok(checkpoint)
}

/// The model with the numbers of layers that another tool has quantized, if these are to change; copied, they stay as they are.
fn decoded(args: &ConvertArgs, request: &Request, checkpoint: Checkpoint, to_gguf: bool) -> Result<Checkpoint> {
    let changes = to_gguf || request.mix.is_some() || request.recipe.default.is_some() || !request.recipe.rules.is_empty();
    let form = if to_gguf { Form::Gguf } else { Form::Dense };
    if !changes || args.model.generic && request.recipe.default.is_none() && request.mix.is_none() {
        return Ok(checkpoint);
    }
    match foreign::unpack(&checkpoint)? {
        Some(unpacking) => foreign::logical(checkpoint, unpacking, form),
        None => Ok(checkpoint),
    }
}

/// Whether a checkpoint with metadata of GGUF has the files of a folder of Hugging Face as well.
fn is_copy_of_folder(checkpoint: &Checkpoint) -> bool {
    checkpoint.side_files.iter().any(|f| f.name == "config.json")
}

/// What is wanted of the way to GGUF.
fn wanted(args: &ConvertArgs, request: &Request) -> Result<ToGguf> {
    let outtype = args.model.outtype.as_deref().map(str::parse::<Outtype>).transpose();
    Ok(ToGguf {
        outtype: outtype.map_err(|e| Error::request(format!("--outtype: {e}")))?.unwrap_or_default(),
        is_rounded: request.mix.is_some(),
        vocab_only: args.model.vocab_only,
        tensors_only: false,
        model_name: args.model.model_name.clone(),
        metadata: args.model.metadata.as_deref().map(metadata_file).transpose()?,
        pre: args.model.pre.clone(),
    })
}

/// The metadata in a file. It is read here once already, because here its name is known.
fn metadata_file(path: &Path) -> Result<Vec<u8>> {
    let text = option_file(path, "metadata")?;
    let problem = |what: &str| Error::file(path, format!("not metadata: {what}, needed a JSON object of keys such as 'general.name'"));
    match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(_)) => Ok(text.into_bytes()),
        Ok(_) => Err(problem("found JSON that is no object")),
        Err(e) => Err(problem(&format!("cannot be read as JSON ({e})"))),
    }
}

/// Options that only the way from Hugging Face to GGUF has are most likely a mistake elsewhere.
fn refuse_unused(args: &ConvertArgs) -> Result<()> {
    let model = &args.model;
    let given = [
        ("--outtype", model.outtype.is_some()),
        ("--model-name", model.model_name.is_some()),
        ("--metadata", model.metadata.is_some()),
        ("--vocab-only", model.vocab_only),
        ("--pre", model.pre.is_some()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((name, _)) => Err(Error::request(format!("{name} is for a Hugging Face model, with its config.json, that becomes GGUF"))),
        None => Ok(()),
    }
}
