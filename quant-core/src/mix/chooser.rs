//! One model's tensors, decided on one after the other: what is counted lives in [`Chooser`].

use regex::Regex;

use super::names::{self, Category, N_CATEGORIES, PER_LAYER_EMBEDDING};
use super::rules::{self, Case};
use super::{Choice, Item, Model, Options};
use crate::ggml::{self, Type};
use crate::{Dtype, Error, Result, Scheme};

/// A tensor, and what its name and shape say.
pub(super) struct Tensor<'a> {
    pub(super) item: Item<'a>,
    category: Category,
    /// What it is, if that is never quantized.
    pub(super) never: Option<&'static str>,
}

pub(super) fn looked_at<'a>(model: &Model, items: &[Item<'a>]) -> Vec<Tensor<'a>> {
    let looked_at = |item: &Item<'a>| Tensor {
        item: *item,
        category: Category::of(item.name),
        never: names::never_quantized(item.name, item.shape, &model.arch),
    };
    items.iter().map(looked_at).collect()
}

impl Tensor<'_> {
    /// Elements of a row.
    fn row_len(&self) -> u64 {
        self.item.shape.last().copied().unwrap_or(1)
    }

    fn fits(&self, scheme: Scheme) -> bool {
        self.row_len().is_multiple_of(block_len(scheme))
    }

    fn error(&self, problem: impl std::fmt::Display) -> Error {
        Error::request(format!("tensor '{}': {problem}", self.item.name))
    }
}

/// Elements of a block; 1 for types that are not known.
fn block_len(scheme: Scheme) -> u64 {
    ggml::id_of(scheme).and_then(ggml::block_of).map_or(1, |(len, _)| len)
}

/// What a tensor becomes, in numbers only.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// The scheme, after shapes that do not fit; none to keep the bytes.
    pub(super) scheme: Option<Scheme>,
    /// The scheme before, if another.
    wanted: Option<Scheme>,
    why: Why<'a>,
}

/// Who decided.
#[derive(Clone, Copy)]
enum Why<'a> {
    Never(&'static str),
    LeftOutput,
    Asked,
    /// The type asked for the output reaches embeddings that serve as output, but there the shape is looked at.
    AskedForOutput,
    Rule(&'a Regex),
    Mix,
}

/// The rules applied to one model: what is counted lives here.
pub(super) struct Chooser<'a> {
    options: &'a Options,
    model: &'a Model,
    is_70b: bool,
    /// Tensors like `attn_v`.
    n_attn_v: usize,
    /// Whether the embeddings serve as output.
    is_tied: bool,
    /// How many tensors of each category the mix has decided on.
    seen: [i64; N_CATEGORIES],
}

impl<'a> Chooser<'a> {
    pub(super) fn new(options: &'a Options, model: &'a Model, tensors: &[Tensor<'_>]) -> Result<Chooser<'a>> {
        if !options.ftype.is_selectable() {
            return Err(Error::request(format!("there is no mix for files of type {}", options.ftype)));
        }
        let n = |category: Category| tensors.iter().filter(|tensor| tensor.category == category).count();
        let (n_attn_v, is_tied) = (n(Category::AttnV), n(Category::Output) == 0);
        Ok(Chooser { options, model, is_70b: rules::is_70b(model), n_attn_v, is_tied, seen: [0; N_CATEGORIES] })
    }

    /// The decision with its words.
    pub(super) fn choice(&mut self, tensor: &Tensor<'_>) -> Result<Choice> {
        let target = self.target(tensor)?;
        let fallback = target.wanted.zip(target.scheme);
        let ftype = self.options.ftype;
        let needs_importance = match target.scheme {
            Some(Scheme::Ggml(ty)) => target.scheme != Some(tensor.item.from) && rules::wants_importance(ftype, tensor.category, ty),
            _ => false,
        };
        Ok(Choice { scheme: target.scheme, reason: self.reason(tensor, &target), fallback, needs_importance })
    }

    fn reason(&self, tensor: &Tensor<'_>, target: &Target<'_>) -> String {
        let (ftype, default) = (self.options.ftype, self.options.ftype.default_scheme());
        if let (Some(wanted), Some(got)) = (target.wanted, target.scheme) {
            return format!("fallback: rows of {} are no multiple of {}, {wanted} became {got}", tensor.row_len(), block_len(wanted));
        }
        match target.why {
            Why::Never(what) => format!("{what} are not quantized"),
            Why::LeftOutput => "the output is left as it is".into(),
            Why::Asked => format!("asked for {}", tensor.category.word()),
            Why::AskedForOutput => "asked for the output, which the embeddings serve as".into(),
            Why::Rule(pattern) => format!("rule '{pattern}'"),
            Why::Mix if self.options.pure && default.is_quantized() => format!("{ftype}, pure"),
            Why::Mix => match target.scheme.and_then(|scheme| compared(scheme, default)) {
                Some(compared) => format!("{ftype}: {compared} for {}", tensor.category.word()),
                None => ftype.name().into(),
            },
        }
    }

    /// What a tensor becomes.
    pub(super) fn target(&mut self, tensor: &Tensor<'_>) -> Result<Target<'a>> {
        let (wanted, why) = match self.kept(tensor) {
            Some(why) => return Ok(Target { scheme: None, wanted: None, why }),
            None => self.wanted(tensor)?,
        };
        let scheme = match why {
            // llama-quantize does not look at the shape here, and stops at an assertion later.
            Why::Asked if !tensor.fits(wanted) => return Err(tensor.error(misfit(tensor, wanted))),
            Why::Asked => wanted,
            _ => self.fitted(tensor, wanted)?,
        };
        if scheme != tensor.item.from && !is_writable(scheme) {
            return Err(tensor.error(format!("{scheme} is not a type that GGUF files are quantized to")));
        }
        Ok(Target { scheme: Some(scheme), wanted: (wanted != scheme).then_some(wanted), why })
    }

    fn kept(&self, tensor: &Tensor<'_>) -> Option<Why<'a>> {
        let left = (self.options.leave_output && tensor.category == Category::Output).then_some(Why::LeftOutput);
        tensor.never.map(Why::Never).or(left)
    }

    /// What a tensor should become, whatever its shape.
    fn wanted(&mut self, tensor: &Tensor<'_>) -> Result<(Scheme, Why<'a>)> {
        let options = self.options;
        let rule = options.rules.iter().find(|(pattern, _)| pattern.is_match(tensor.item.name));
        if let Some(scheme) = options.embedding_type
            && tensor.category == Category::Embedding
            && !(tensor.item.name == PER_LAYER_EMBEDDING && rule.is_some())
        {
            return Ok((scheme, Why::Asked));
        }
        if let Some(scheme) = options.output_type
            && tensor.category == Category::Output
        {
            return Ok((scheme, Why::Asked));
        }
        match (options.ftype.default_scheme(), rule) {
            (Scheme::Ggml(_), Some((pattern, scheme))) => Ok((*scheme, Why::Rule(pattern))),
            (Scheme::Ggml(default), None) if !options.pure => match options.output_type.filter(|_| self.is_head(tensor)) {
                Some(scheme) => Ok((scheme, Why::AskedForOutput)),
                None => Ok((self.mixed(tensor, default)?, Why::Mix)),
            },
            (default, _) => Ok((default, Why::Mix)),
        }
    }

    /// Whether a tensor of embeddings serves as output.
    fn is_head(&self, tensor: &Tensor<'_>) -> bool {
        self.is_tied && tensor.category == Category::Embedding
    }

    /// What the mix wants.
    fn mixed(&mut self, tensor: &Tensor<'_>, default: Type) -> Result<Scheme> {
        if self.model.arch == names::GLM5_NEXT && names::is_touchy_in_glm5_next(tensor.item.name) {
            return Ok(Scheme::Ggml(Type::Q8_0));
        }
        let (i, n) = self.place(tensor)?;
        let case = Case {
            arch: &self.model.arch,
            gqa: self.model.n_head.checked_div(self.model.n_head_kv).unwrap_or(0),
            n_expert: self.model.n_expert,
            is_70b: self.is_70b,
            has_imatrix: self.options.has_imatrix,
            ftype: self.options.ftype,
            category: if self.is_head(tensor) { Category::Output } else { tensor.category },
            fits_default: tensor.fits(Scheme::Ggml(default)),
            depth: tensor.item.shape.iter().rev().nth(2).copied().unwrap_or(1),
            i,
            n,
        };
        Ok(Scheme::Ggml(rules::mixed(&case, default)))
    }

    /// A tensor's place among those of its category, and their number. In mixtures a layer may have several, or none.
    fn place(&mut self, tensor: &Tensor<'_>) -> Result<(i64, i64)> {
        let seen = &mut self.seen[tensor.category as usize];
        let before = *seen;
        *seen += 1;
        let n_layer = i64::from(self.model.n_layer);
        match tensor.category {
            Category::AttnV => Ok((before, self.n_attn_v as i64)),
            Category::FfnUp | Category::FfnGate | Category::FfnDown if self.model.n_expert > 1 && !rules::counts_layers(self.options.ftype) => {
                let layer =
                    names::layer(tensor.item.name).ok_or_else(|| tensor.error("the name of an expert or feed-forward tensor has no layer"))?;
                let layer = i64::from(layer);
                let problem = || tensor.error(format!("layer {layer} is not one of the model's {n_layer}"));
                if (0..n_layer).contains(&layer) { Ok((layer, n_layer)) } else { Err(problem()) }
            }
            _ => Ok((before, n_layer)),
        }
    }

    /// `wanted`, or what takes its place where the rows do not fit it.
    fn fitted(&self, tensor: &Tensor<'_>, wanted: Scheme) -> Result<Scheme> {
        if tensor.fits(wanted) {
            return Ok(wanted);
        }
        if self.options.no_fallback {
            return Err(tensor.error(format!("{}, and no other type is allowed", misfit(tensor, wanted))));
        }
        let substitute = match wanted {
            Scheme::Ggml(ty) => rules::substitute(ty).map(Scheme::Ggml),
            _ => None,
        };
        let substitute = substitute.ok_or_else(|| tensor.error(format!("{}, and no other type takes its place", misfit(tensor, wanted))))?;
        Ok(if tensor.fits(substitute) { substitute } else { Scheme::Dense(Dtype::F16) })
    }
}

fn misfit(tensor: &Tensor<'_>, wanted: Scheme) -> String {
    format!("{wanted} needs rows of a multiple of {} elements, got shape {:?}", block_len(wanted), tensor.item.shape)
}

/// Whether there is a quantizer or a conversion to it.
fn is_writable(scheme: Scheme) -> bool {
    matches!(scheme, Scheme::Ggml(_) | Scheme::Dense(Dtype::F32 | Dtype::F16 | Dtype::BF16))
}

/// How `scheme` compares with another default, if it does.
fn compared(scheme: Scheme, default: Scheme) -> Option<&'static str> {
    let (Scheme::Ggml(ty), Scheme::Ggml(default)) = (scheme, default) else { return None };
    if ty == default {
        return None;
    }
    let (bits, default_bits) = (ty.block_bytes() * default.block_len(), default.block_bytes() * ty.block_len());
    Some(match bits.cmp(&default_bits) {
        std::cmp::Ordering::Greater => "more bits",
        std::cmp::Ordering::Less => "fewer bits",
        std::cmp::Ordering::Equal => "another type",
    })
}
