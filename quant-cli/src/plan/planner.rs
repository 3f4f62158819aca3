//! What there is to choose: the model, the tensors whose type is open, and what a conversion would make of them.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use quant_core::mix::Ftype;
use quant_core::plan::{Plan, Planned};
use quant_core::recipe::{Recipe, Rule, pattern};
use quant_core::{Error, Result, Scheme, ggml};
use quant_formats::audit::{self, Beside, has_head, layer_of, part_of, sensitivities};
use quant_formats::convert::{self, Request, Target};
use quant_formats::foreign::Form;
use quant_formats::gguf::imatrix::{self, ImportanceMatrix};
use quant_formats::model::{self, ToGguf};
use quant_formats::{Checkpoint, Opening};
use regex::Regex;

use super::args::PlanArgs;
use super::costs::Costs;
use crate::audit::tried::mix;
use crate::report::first_and_more;

/// The mix that a recipe for GGUF begins with; it gives types to what the recipe does not name.
pub const BASE: &str = "q4_k_m";
/// The mixes that a plan is compared with.
const FIXED: [&str; 13] = ["q2_k", "iq3_xs", "q3_k_s", "iq3_m", "q3_k_m", "q3_k_l", "iq4_xs", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k", "q8_0"];

/// How many times the errors of a tensor may count: beyond, nothing would be left of the others.
const FACTORS: RangeInclusive<f64> = 1e-12..=1e12;

/// What a plan is made of.
pub struct Planner<'a> {
    pub args: &'a PlanArgs,
    /// Types to choose from.
    pub schemes: Vec<Scheme>,
    /// Patterns and how many times errors of what they match count.
    pub weights: Vec<(Regex, f64)>,
    /// What is not to be quantized.
    pub keep: Vec<Regex>,
    /// Whether the recipe is for GGUF, not for BQT.
    pub is_gguf: bool,
    pub beside: Beside,
    pub checkpoint: Checkpoint,
    /// What every tensor becomes before anything is chosen.
    pub base: Plan,
}

/// A tensor whose type is to be chosen.
pub struct Open {
    /// Its place in the plan.
    pub place: usize,
    /// How much a squared relative error counts.
    pub weight: f64,
    /// What it may become.
    pub schemes: Vec<Scheme>,
}

impl<'a> Planner<'a> {
    /// Opens everything.
    ///
    /// # Errors
    /// If an option or a file cannot be read.
    pub fn new(args: &'a PlanArgs) -> Result<Planner<'a>> {
        let schemes = args.schemes.iter().map(|text| scheme(text)).collect::<Result<Vec<_>>>()?;
        let weights = args.weight.iter().map(|text| factor(text)).collect::<Result<Vec<_>>>()?;
        let keep = args.keep.iter().map(|text| pattern(text)).collect::<Result<Vec<_>>>()?;
        let is_gguf = schemes.iter().all(|s| ggml::id_of(*s).is_some());
        let importance = args.imatrix.as_deref().map(|path| ImportanceMatrix::open(path, args.io.into())).transpose()?;
        let checkpoint = open(args, is_gguf)?;
        let beside = Beside { importance, activations: None };
        let mut planner = Planner { args, schemes, weights, keep, is_gguf, beside, checkpoint, base: Plan::default() };
        planner.base = planner.planned(&planner.request(&[])?)?;
        Ok(planner)
    }

    fn planned(&self, request: &Request) -> Result<Plan> {
        convert::plan(&self.checkpoint, request).map_err(|e| e.of(&self.args.model))
    }

    /// What a conversion by a recipe with these rules is asked, but for the text of the recipe, which a BQT file keeps.
    fn request(&self, rules: &[(&str, Scheme)]) -> Result<Request> {
        let rules = rules.iter().map(|(name, scheme)| Ok((pattern(&exactly(name))?, *scheme))).collect::<Result<Vec<_>>>()?;
        if self.is_gguf {
            let mut request = self.mix_request(BASE)?;
            if let Some(mix) = &mut request.mix {
                mix.options.rules = rules;
            }
            return Ok(request);
        }
        let rules = rules.into_iter().map(|(pattern, scheme)| Rule { pattern, scheme }).collect();
        let recipe = Recipe { default: None, keep: self.keep.clone(), rules };
        Ok(Request { allow_requantize: true, recipe, ..Request::new(Target::Bqt) })
    }

    /// What a conversion to a mix would be asked.
    fn mix_request(&self, name: &str) -> Result<Request> {
        let ftype: Ftype = name.parse().map_err(|_| Error::request(format!("there is no mix '{name}'")))?;
        let path = self.args.imatrix.as_ref().map(|path| path.to_string_lossy().into_owned());
        let mix = mix(ftype, false, self.beside.importance.clone().zip(path));
        let recipe = Recipe { keep: self.keep.clone(), ..Recipe::default() };
        Ok(Request { allow_requantize: true, mix: Some(mix), recipe, ..Request::new(Target::Gguf) })
    }

    /// What a conversion by a recipe makes of the tensors, and the bytes of its file; a BQT file keeps the text of the recipe, too, and,
    /// with `audit`, what `--audit` finds.
    ///
    /// # Errors
    /// If the model cannot be converted so.
    pub fn written(&self, rules: &[(&str, Scheme)], text: String, audit: bool) -> Result<(Plan, u64)> {
        let request = Request { recipe_text: Some(text), audit, ..self.request(rules)? };
        let plan = self.planned(&request)?;
        let size = convert::size(&self.checkpoint, &plan, &request)?;
        Ok((plan, size))
    }

    /// The fixed mixes that this model can have.
    pub fn fixed_mixes(&self) -> Vec<(&'static str, Plan)> {
        let names = FIXED.iter().filter(|_| self.is_gguf);
        names.filter_map(|name| Some((*name, self.planned(&self.mix_request(name).ok()?).ok()?))).collect()
    }

    /// The tensors whose type is to be chosen. For GGUF those that the mix quantizes; for BQT linear layers, or all weights if no
    /// type quantizes.
    ///
    /// # Errors
    /// If there is none, or one has no type that fits it.
    pub fn choices(&self) -> Result<Vec<Open>> {
        let default = self.schemes.iter().find(|s| s.is_quantized()).or(self.schemes.first()).copied();
        let recipe = Recipe { default, keep: self.keep.clone(), rules: Vec::new() };
        let layers: BTreeSet<u64> = self.base.tensors.iter().filter_map(|t| layer_of(&t.name)).collect();
        let parts: Vec<_> = self.base.tensors.iter().map(|t| (part_of(&t.name, t.role), t.n_elements())).collect();
        let sensitivities = sensitivities(&parts, layers.len() as u64, has_head(&self.checkpoint));
        let mut open = Vec::new();
        for ((place, t), sensitivity) in self.base.tensors.iter().enumerate().zip(sensitivities) {
            let tensor = &self.checkpoint.tensors[t.source];
            let is_open = if self.is_gguf { !t.copied } else { tensor.is_weight() && recipe.decide(tensor).scheme.is_some() };
            if !is_open || t.n_elements() == 0 {
                continue;
            }
            let fitting: Vec<Scheme> = self.schemes.iter().copied().filter(|s| s.codec(&t.shape).is_ok() && self.has_importance(*s, t)).collect();
            if fitting.is_empty() && self.is_gguf && !t.scheme.is_quantized() {
                continue;
            }
            if fitting.is_empty() {
                return Err(Error::tensor(&self.args.model, &t.name, self.why_nothing_fits(t)));
            }
            open.push(Open { place, weight: sensitivity * self.factor_of(t)?, schemes: fitting });
        }
        match open.is_empty() {
            true => Err(Error::file(&self.args.model, self.why_nothing_is_open())),
            false => Ok(open),
        }
    }

    /// How many times the errors of a tensor count, by the options.
    fn factor_of(&self, t: &Planned) -> Result<f64> {
        let factor = self.weights.iter().filter(|(pattern, _)| pattern.is_match(&t.name)).map(|(_, factor)| factor).product::<f64>();
        match FACTORS.contains(&factor) {
            true => Ok(factor),
            false => Err(Error::tensor(&self.args.model, &t.name, format!("the factors of --weight multiply to {factor:e}, needed 1e-12 to 1e12"))),
        }
    }

    /// Whether a tensor has the importance that a scheme needs, if it needs any. A recipe for BQT has none.
    fn has_importance(&self, scheme: Scheme, t: &Planned) -> bool {
        let is_known = || self.beside.importance.as_ref().is_some_and(|matrix| matrix.n_values(&t.name).is_some());
        !needs_importance(scheme) || self.is_gguf && is_known()
    }

    fn why_nothing_fits(&self, t: &Planned) -> String {
        let text = self.schemes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self.schemes.iter().any(|s| s.codec(&t.shape).is_ok()) {
            true if !self.is_gguf => format!("{text} needs importance, which a recipe for BQT cannot use; --schemes of ggml types alone is for GGUF"),
            true if self.beside.importance.is_some() => {
                format!("{text} needs importance, and the matrix has no entry of it; add a type that needs none, such as q4_k")
            }
            true => format!("{text} needs an importance matrix (--imatrix)"),
            false => format!("its shape {:?} fits none of {text}; add a type with smaller blocks, such as q8_0, or --keep it", t.shape),
        }
    }

    fn why_nothing_is_open(&self) -> &'static str {
        match self.is_gguf {
            true => "has no tensor whose type could be chosen: all are kept, or have the types of q4_k_m already (plan the model in f16 or bf16)",
            false => "has no tensor whose type could be chosen: it has no linear layers that are not kept",
        }
    }

    /// Types that are no choice for any tensor, and why.
    pub fn left_out(&self, open: &[Open]) -> Vec<String> {
        let unused = self.schemes.iter().filter(|s| !open.iter().any(|o| o.schemes.contains(s)));
        let (weighed, unfit): (Vec<&Scheme>, Vec<&Scheme>) = unused.partition(|s| needs_importance(**s));
        let told = |schemes: Vec<&Scheme>, why: &str| {
            let text = schemes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            (!schemes.is_empty()).then(|| format!("{text}: not tried, {why}"))
        };
        let why = match (self.is_gguf, &self.beside.importance) {
            (false, _) => "it needs importance, which a recipe for BQT cannot use",
            (true, None) => "it needs an importance matrix (--imatrix)",
            (true, Some(_)) => "it needs importance, and the matrix has none of the tensors that it fits",
        };
        told(weighed, why).into_iter().chain(told(unfit, "it fits the rows of no tensor")).collect()
    }

    /// Refuses an importance matrix that knows none of these tensors.
    ///
    /// # Errors
    /// If it does not.
    pub fn refuse_other_matrix(&self, open: &[Open]) -> Result<()> {
        let (Some(matrix), Some(path)) = (&self.beside.importance, &self.args.imatrix) else { return Ok(()) };
        let first = &self.base.tensors[open[0].place].name;
        match open.iter().any(|o| matrix.n_values(&self.base.tensors[o.place].name).is_some()) {
            true => Ok(()),
            false => Err(Error::file(
                path,
                format!("has entries for none of these tensors, such as '{first}'; its names are those of GGUF, so plan a GGUF file"),
            )),
        }
    }

    /// Says which tensors have no importance.
    pub fn without_importance(&self, open: &[Open]) -> Option<String> {
        let Some(matrix) = &self.beside.importance else { return Some("without --imatrix every column counts the same".into()) };
        let names = open.iter().map(|o| self.base.tensors[o.place].name.as_str());
        let lacking = first_and_more(names.filter(|name| matrix.n_values(name).is_none()))?;
        let is_needed = self.is_gguf && self.schemes.iter().any(|s| needs_importance(*s));
        let also = if is_needed { ", and types that need importance are no choice" } else { "" };
        Some(format!("{lacking}: the importance matrix has no entry; every column counts the same there{also}"))
    }

    /// The relative error of a tensor under a scheme, if it was measured. What has the scheme from the first is copied.
    pub fn error_of(&self, costs: &Costs, t: &Planned, scheme: Scheme) -> Option<f64> {
        let original = self.checkpoint.original.as_deref().unwrap_or(&self.checkpoint);
        let is_copied = scheme.reads_like(t.from) && scheme.reads_like(original.tensors[t.source].scheme);
        if is_copied { Some(0.0) } else { costs.of(t.source, scheme) }
    }

    /// What the recipe says of tensors: the choice; and of what has a type of ggml already that it keeps it, as the mix counts tensors
    /// that no rule names, and could give them another one.
    pub fn rules<'b>(&'b self, open: &'b [Open], choice: &[usize]) -> Vec<(&'b str, Scheme)> {
        let chosen = open.iter().zip(choice).map(|(o, &choice)| (self.base.tensors[o.place].name.as_str(), o.schemes[choice]));
        let is_kept = |t: &&Planned| self.is_gguf && matches!(t.scheme, Scheme::Ggml(_));
        chosen.chain(self.not_chosen(open).filter(is_kept).map(|t| (t.name.as_str(), t.scheme))).collect()
    }

    /// The tensors whose type is not chosen.
    pub fn not_chosen<'b>(&'b self, open: &[Open]) -> impl Iterator<Item = &'b Planned> {
        let chosen: BTreeSet<usize> = open.iter().map(|o| o.place).collect();
        self.base.tensors.iter().enumerate().filter(move |(place, _)| !chosen.contains(place)).map(|(_, t)| t)
    }

    /// The patterns of the options that match no tensor: most likely they were meant to.
    pub fn unmatched(&self) -> Vec<&str> {
        let patterns = self.weights.iter().map(|(pattern, _)| pattern).chain(&self.keep);
        patterns.filter(|pattern| !self.base.tensors.iter().any(|t| pattern.is_match(&t.name))).map(Regex::as_str).collect()
    }
}

/// The model, as GGUF if that is what becomes of it.
fn open(args: &PlanArgs, is_gguf: bool) -> Result<Checkpoint> {
    let checkpoint = quant_formats::open(&args.model, Opening { io: args.io.into(), ..Default::default() })?;
    imatrix::refuse_as_model(&checkpoint)?;
    if is_gguf && checkpoint.kv.is_empty() && model::is_mappable(&checkpoint) {
        let wanted = ToGguf { is_rounded: true, ..ToGguf::default() };
        return Ok(model::to_gguf(audit::by_numbers(checkpoint, Form::Gguf)?, &wanted)?.checkpoint);
    }
    audit::by_numbers(checkpoint, Form::Dense)
}

fn needs_importance(scheme: Scheme) -> bool {
    matches!(scheme, Scheme::Ggml(ty) if ty.needs_importance())
}

/// A pattern that matches this name only.
pub fn exactly(name: &str) -> String {
    format!("^{}$", regex::escape(name))
}

fn scheme(text: &str) -> Result<Scheme> {
    let unknown = |e: quant_core::scheme::BadScheme| match text.parse::<Ftype>() {
        Ok(_) => Error::request(format!("--schemes: '{text}' is a mix, needed types of single tensors, such as q4_k,q6_k,q8_0")),
        Err(_) => Error::request(format!("--schemes: {e}")),
    };
    text.parse().map_err(unknown)
}

/// A pattern and how many times errors count. Extreme factors would leave no digits of the others.
fn factor(text: &str) -> Result<(Regex, f64)> {
    let bad = || Error::request(format!("--weight '{text}': needs REGEX=FACTOR, a factor from 1e-6 to 1e6"));
    let (name, factor) = text.rsplit_once('=').ok_or_else(bad)?;
    let factor: f64 = factor.parse().ok().filter(|v: &f64| (1e-6..=1e6).contains(v)).ok_or_else(bad)?;
    Ok((pattern(name).map_err(|e| Error::request(format!("--weight: {e}")))?, factor))
}
