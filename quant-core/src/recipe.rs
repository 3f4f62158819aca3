//! [`Recipe`]: **which** scheme for which tensor. A pure function of the tensor, never of what was asked before.

use regex::Regex;
use serde::Deserialize;

use crate::plan::Decision;
use crate::source::{Role, Tensor};
use crate::{Error, Result, Scheme};

/// The reason for keeping a tensor that no rule names.
pub const NOT_ASKED: &str = "no type asked for";

/// Rules over names and roles; see [`Recipe::decide`] for their order.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// The scheme for what no rule names; none keeps it as it is stored.
    pub default: Option<Scheme>,
    /// Patterns of tensors that are kept as they are stored.
    pub keep: Vec<Regex>,
    /// Rules by name, the first that matches wins.
    pub rules: Vec<Rule>,
}

/// Tensors whose name matches get a scheme.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The pattern; it may match anywhere in the name.
    pub pattern: Regex,
    /// The scheme.
    pub scheme: Scheme,
}

/// A recipe as it stands in a TOML file.
///
/// ```toml
/// type = "nf4-dq"            # for every linear layer
/// keep = ["lm_head"]         # patterns, kept as they are
///
/// [[tensor]]                 # the first that matches wins
/// match = 'mlp\.down_proj'
/// type = "int8"
/// ```
///
/// With `mix = "q4_k_m"` in place of `type` it bends a mix of llama-quantize, for GGUF; with `imatrix = true` it expects an importance
/// matrix, and with `parameters = 134515008` a model of so many weights.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeText {
    /// A mix of llama-quantize, whose types the rules change. Then there is no scheme for the rest.
    pub mix: Option<String>,
    /// The scheme for what no rule names.
    pub r#type: Option<String>,
    /// Whether it was made with an importance matrix, and expects one.
    #[serde(default)]
    pub imatrix: bool,
    /// The weights of the model that it was made for; it is for no other then.
    pub parameters: Option<u64>,
    /// Patterns of tensors to keep.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Rules by name.
    #[serde(default)]
    pub tensor: Vec<RuleText>,
}

/// A rule as it stands in a TOML file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleText {
    /// The pattern.
    pub r#match: String,
    /// The scheme.
    pub r#type: String,
}

impl Recipe {
    /// Reads a recipe's patterns and schemes.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub fn parse(text: &RecipeText) -> Result<Recipe> {
        Ok(Recipe {
            default: text.r#type.as_deref().map(scheme).transpose()?,
            keep: text.keep.iter().map(|p| pattern(p)).collect::<Result<_>>()?,
            rules: text.tensor.iter().map(|rule| Rule::new(&rule.r#match, &rule.r#type)).collect::<Result<_>>()?,
        })
    }

    /// The patterns that match none of `tensors`: most likely they were meant to.
    pub fn unmatched(&self, tensors: &[Tensor]) -> Vec<&str> {
        let patterns = self.keep.iter().chain(self.rules.iter().map(|rule| &rule.pattern));
        patterns.filter(|p| !tensors.iter().any(|t| p.is_match(&t.name))).map(Regex::as_str).collect()
    }

    /// Why a tensor of this name is kept as it is stored, if a keep pattern matches.
    pub fn kept(&self, name: &str) -> Option<String> {
        self.keep.iter().find(|k| k.is_match(name)).map(|keep| format!("pattern '{keep}'"))
    }

    /// What `tensor` becomes: kept if a keep pattern matches, else by the first rule that matches, else by the default.
    ///
    /// A dense default applies to all weights. A quantizing default applies to linear layers: embeddings, heads, norms,
    /// biases, experts and routers keep their numbers, as they do in bitsandbytes' integration into transformers 5.
    pub fn decide(&self, tensor: &Tensor) -> Decision {
        if let Some(reason) = self.kept(&tensor.name) {
            return Decision { scheme: None, reason };
        }
        if let Some(rule) = self.rules.iter().find(|r| r.pattern.is_match(&tensor.name)) {
            return Decision { scheme: Some(rule.scheme), reason: format!("rule '{}'", rule.pattern) };
        }
        let Some(scheme) = self.default else {
            return Decision { scheme: None, reason: NOT_ASKED.into() };
        };
        let is_linear = matches!(tensor.role, Role::Linear | Role::Conv1d);
        if scheme.is_quantized() && !is_linear {
            return Decision { scheme: None, reason: format!("{} is not quantized by default", tensor.role.name()) };
        }
        Decision { scheme: Some(scheme), reason: "default".into() }
    }
}

impl Rule {
    /// A rule from its texts.
    ///
    /// # Errors
    /// If the pattern is not a regular expression or the scheme is unknown.
    pub fn new(pattern_text: &str, scheme_text: &str) -> Result<Rule> {
        Ok(Rule { pattern: pattern(pattern_text)?, scheme: scheme(scheme_text)? })
    }
}

/// Reads a pattern.
///
/// # Errors
/// If it is not a regular expression.
pub fn pattern(text: &str) -> Result<Regex> {
    // The regex crate draws the place over several lines; its last line is the reason.
    let reason = |e: regex::Error| e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    Regex::new(text).map_err(|e| Error::request(format!("'{text}' is not a pattern: {}", reason(e))))
}

fn scheme(text: &str) -> Result<Scheme> {
    text.parse().map_err(|e: crate::scheme::BadScheme| Error::request(e.to_string()))
}
