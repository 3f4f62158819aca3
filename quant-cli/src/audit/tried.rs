//! What schemes would do to a model, without writing it; and what a conversion did.

use std::collections::BTreeSet;
use std::path::Path;

use quant_core::audit::{Audit, ErrorStats, Subject};
use quant_core::mix::{Ftype, Options};
use quant_core::plan::Plan;
use quant_core::recipe::Recipe;
use quant_core::{Error, Result, Scheme};
use quant_formats::Checkpoint;
use quant_formats::audit::{self, Beside};
use quant_formats::convert::{self, Request, Target};
use quant_formats::foreign::Form;
use quant_formats::gguf::Mix;
use quant_formats::model::{self, ToGguf};

use super::build::Measured;
use super::report::{Report, SchemeReport, Skipped};
use super::{Session, build, empty};
use crate::convert::fallbacks;
use crate::mix::Importance;
use crate::recipe::{RecipeFile, unmatched};

/// What one of `--type`, or a recipe, asks for.
struct Asked {
    name: String,
    mix: Option<Mix>,
    recipe: Recipe,
    file: Option<RecipeFile>,
}

impl Session<'_> {
    /// Tries every scheme that was asked for.
    pub fn tried(&self) -> Result<Report> {
        let types = self.args.types.iter().map(|text| self.type_asked(text));
        let mut asked = types.chain(self.args.recipe.iter().map(|path| self.recipe_asked(path))).collect::<Result<Vec<_>>>()?;
        tell_apart(&mut asked)?;
        let mut report = empty(self.args, "");
        let mut schemes = Vec::new();
        let mut names = Vec::new();
        for asked in asked {
            let (name, scheme) = self.one(asked, &mut report)?;
            schemes.push(scheme);
            names.push(name);
        }
        if let Some(only) = &self.only {
            let nothing: Vec<&SchemeReport> = schemes.iter().filter(|s| s.compared == 0).collect();
            if nothing.len() == schemes.len() {
                return Err(Error::request(format!("--only '{only}' matches no tensor and no role")));
            }
            report.problems.extend(nothing.iter().map(|s| format!("--only '{only}' matches no tensor and no role of {}", s.scheme)));
        }
        names.dedup();
        report.names = if let [name] = names[..] { name } else { "Hugging Face, and those of GGUF for mixes" };
        self.finish(&mut report, schemes);
        Ok(report)
    }

    fn type_asked(&self, text: &str) -> Result<Asked> {
        let (mix, default) = match asked(text)? {
            Type::Mix(ftype) => (Some(mix(ftype, self.args.pure, self.importance())), None),
            Type::Scheme(scheme) => (None, Some(scheme)),
        };
        Ok(Asked { name: text.to_ascii_lowercase(), mix, recipe: Recipe { default, ..Recipe::default() }, file: None })
    }

    fn importance(&self) -> Option<Importance> {
        let path = self.args.imatrix.as_ref().map(|path| path.display().to_string());
        self.beside.importance.clone().zip(path)
    }

    fn recipe_asked(&self, path: &Path) -> Result<Asked> {
        let file = RecipeFile::read(path)?;
        let mix = crate::mix::of_recipe(&file.text, self.importance())?;
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Asked { name, mix, recipe: file.recipe()?, file: Some(file) })
    }

    fn one(&self, asked: Asked, report: &mut Report) -> Result<(&'static str, SchemeReport)> {
        let checkpoint = self.open(&self.args.reference)?;
        let checkpoint = if asked.mix.is_some() && checkpoint.kv.is_empty() && model::is_mappable(&checkpoint) {
            let wanted = ToGguf { is_rounded: true, tensors_only: true, ..ToGguf::default() };
            model::to_gguf(audit::by_numbers(checkpoint, Form::Gguf)?, &wanted)?.checkpoint
        } else {
            audit::by_numbers(checkpoint, Form::Dense)?
        };
        let Asked { name, mix, recipe, file } = asked;
        let request = Request { budget: self.budget, allow_requantize: true, mix, recipe, ..Request::new(Target::Bqt) };
        let mut plan = convert::plan(&checkpoint, &request).map_err(|e| e.of(&self.args.reference))?;
        let mut notes: Vec<String> = file.iter().filter_map(|file| file.lacks(self.beside.importance.is_some())).collect();
        if let Some(file) = &file {
            file.refuse_other(&request, &checkpoint, &plan)?;
        }
        if checkpoint.opened().tensors.iter().any(|t| t.packed.is_some() || t.is_weight() && t.scheme.is_quantized()) {
            notes.push("the model is quantized already: these are errors against what it holds, not against what it was made of".into());
        }
        notes.extend_from_slice(&checkpoint.notes);
        notes.extend(convert_notes(&request, &checkpoint, &plan).into_iter().map(|text| format!("{name}: {text}")));
        plan.tensors.retain(|t| self.is_wanted(&t.name, t.role));
        plan.scan(&checkpoint, &self.budget, false, &self.progress).map_err(|e| self.unfit(e))?;
        let subjects = audit::tried(&checkpoint, &plan, &self.beside)?;
        let (places, subjects): (Vec<usize>, Vec<Subject<'_>>) = subjects.into_iter().unzip();
        let stats = self.audit.run(&subjects, &self.progress).map_err(|e| self.unfit(e))?;
        checkpoint.check_unchanged()?;
        if report.schemes.is_empty() && report.skipped.is_empty() {
            report.skipped = data_of(&checkpoint, &plan);
        }
        for text in notes {
            if !report.notes.contains(&text) {
                report.notes.push(text);
            }
        }
        let names = audit::names_of(&checkpoint);
        Ok((names, build::scheme(Some(name), rows(&checkpoint, &plan, places.into_iter().zip(stats)))))
    }

    /// A number that a scheme cannot hold, with what helps here.
    fn unfit(&self, error: Error) -> Error {
        match error {
            Error::NonFinite { tensor, index, value, scheme } => {
                let problem = format!("element {index} is {value}, which {scheme} cannot hold; --only with another pattern leaves the tensor out");
                Error::tensor(&self.args.reference, &tensor, problem)
            }
            other => other.of(&self.args.reference),
        }
    }
}

/// Gives recipes of the same name that of their path; refuses what is asked for twice.
fn tell_apart(asked: &mut [Asked]) -> Result<()> {
    let same = repeated(asked);
    for a in asked.iter_mut().filter(|a| same.contains(&a.name)) {
        a.name = a.file.as_ref().map_or(a.name.clone(), |file| file.path.display().to_string());
    }
    match repeated(asked).first() {
        Some(name) => Err(Error::request(format!("'{name}' is asked for twice"))),
        None => Ok(()),
    }
}

/// The names that several have.
fn repeated(asked: &[Asked]) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    asked.iter().filter(|a| !seen.insert(&a.name)).map(|a| a.name.clone()).collect()
}

/// What a conversion would say of the types that it gives.
fn convert_notes(request: &Request, checkpoint: &Checkpoint, plan: &Plan) -> Vec<String> {
    let mut notes: Vec<String> = unmatched(&request.recipe.unmatched(&checkpoint.tensors), checkpoint).into_iter().collect();
    notes.extend(request.mix.as_ref().map(|mix| crate::mix::notes(mix, checkpoint, plan)).unwrap_or_default());
    notes.extend(fallbacks(plan.tensors.iter().filter(|t| !t.copied).map(|t| (t.name.as_str(), t.reason.as_str()))));
    notes
}

/// A mix with nothing else asked for.
pub fn mix(ftype: Ftype, pure: bool, importance: Option<Importance>) -> Mix {
    let options = Options { pure, has_imatrix: importance.is_some(), ..Options::new(ftype) };
    crate::mix::plain(options, importance)
}

/// What a text of `--type` names.
enum Type {
    Mix(Ftype),
    Scheme(Scheme),
}

/// A mix of llama-quantize or a scheme. What is both, such as f16, is a scheme.
fn asked(text: &str) -> Result<Type> {
    let scheme = text.parse::<Scheme>();
    match (text.parse::<Ftype>(), scheme) {
        (_, Ok(scheme @ Scheme::Dense(_))) => Ok(Type::Scheme(scheme)),
        (Ok(ftype), _) => Ok(Type::Mix(ftype)),
        (_, Ok(Scheme::Ggml(_) | Scheme::Opaque(_))) => Err(Error::request(format!("--type {text}: is the type of a tensor, not a mix"))),
        (_, Ok(scheme)) => Ok(Type::Scheme(scheme)),
        (_, Err(e)) => Err(Error::request(format!("--type: {e}; or a mix of llama-quantize such as q4_k_m, iq3_xs"))),
    }
}

/// Planned tensors that are no weights.
fn data_of(checkpoint: &Checkpoint, plan: &Plan) -> Vec<Skipped> {
    let data = plan.tensors.iter().filter(|t| !checkpoint.tensors[t.source].is_weight());
    data.map(|t| Skipped { name: t.name.clone(), reason: format!("{} is data, not weights", t.from) }).collect()
}

/// Planned tensors with their errors.
fn rows(checkpoint: &Checkpoint, plan: &Plan, stats: impl Iterator<Item = (usize, ErrorStats)>) -> Vec<Measured> {
    let row = |(i, stats): (usize, ErrorStats)| {
        let planned = &plan.tensors[i];
        Measured {
            name: planned.name.clone(),
            shape: planned.shape.clone(),
            from: checkpoint.original.as_deref().unwrap_or(checkpoint).tensors[planned.source].stored_as(),
            to: planned.scheme.to_string(),
            role: planned.role,
            bytes: planned.n_bytes(),
            stats,
        }
    };
    stats.map(row).collect()
}

/// The report of a conversion that measured the errors of what it encoded; what it copied is looked at here.
///
/// # Errors
/// If a tensor cannot be read.
pub fn converted(
    name: Option<String>,
    checkpoint: &Checkpoint,
    plan: &Plan,
    mut errors: Vec<Option<ErrorStats>>,
    budget: &quant_core::convert::Budget,
) -> Result<SchemeReport> {
    let audit = Audit::new(budget, false)?;
    let beside = Beside::default();
    let subjects = audit::tried(checkpoint, plan, &beside)?;
    let (encoded, copied): (Vec<_>, Vec<_>) = subjects.into_iter().partition(|(i, _)| errors.get(*i).is_some_and(Option::is_some));
    let (places, subjects): (Vec<usize>, Vec<Subject<'_>>) = encoded.into_iter().unzip();
    let mut stats: Vec<ErrorStats> = places.iter().map(|&i| errors[i].take().unwrap_or_default()).collect();
    audit.complete(&subjects, &mut stats)?;
    let (more, subjects): (Vec<usize>, Vec<Subject<'_>>) = copied.into_iter().unzip();
    let exact = audit.run(&subjects, &())?;
    Ok(build::scheme(name, rows(checkpoint, plan, places.into_iter().zip(stats).chain(more.into_iter().zip(exact)))))
}
