//! Recipes in files, for `convert` and `audit`.

use std::path::{Path, PathBuf};

use quant_core::plan::Plan;
use quant_core::recipe::{Recipe, RecipeText};
use quant_core::{Error, Result};
use quant_formats::Checkpoint;
use quant_formats::convert::Request;
use regex::Regex;

use crate::args::option_file;

/// Patterns that are named where several match nothing.
const NAMED: usize = 3;

/// A recipe in a file.
pub struct RecipeFile {
    pub path: PathBuf,
    /// As it stands there.
    pub raw: String,
    pub text: RecipeText,
}

impl RecipeFile {
    /// Reads it.
    ///
    /// # Errors
    /// If it cannot be read, or contradicts itself.
    pub fn read(path: &Path) -> Result<RecipeFile> {
        let raw = option_file(path, "a recipe")?;
        let text: RecipeText = toml::from_str(&raw).map_err(|e| not_a_recipe(path, &raw, &e))?;
        if text.mix.is_some() && text.r#type.is_some() {
            return Err(Error::file(path, "has both a mix and a type; a mix gives every tensor a type"));
        }
        Ok(RecipeFile { path: path.into(), raw, text })
    }

    /// What it says of tensors. A mix has the rules itself; then only what is kept is left.
    ///
    /// # Errors
    /// If a pattern or a scheme cannot be read.
    pub fn recipe(&self) -> Result<Recipe> {
        let mut recipe = Recipe::parse(&self.text).map_err(|e| Error::file(&self.path, e.to_string()))?;
        if self.text.mix.is_some() {
            recipe.rules.clear();
        }
        Ok(recipe)
    }

    /// Says that it was made with an importance matrix, if there is none.
    pub fn lacks(&self, has_importance: bool) -> Option<String> {
        let what = "was made with an importance matrix; without --imatrix errors are greater than it expects";
        (self.text.imatrix && !has_importance).then(|| format!("{} {what}", self.path.display()))
    }

    /// Refuses a recipe that was made for another model, or for other names: what it says of tensors would go unheard.
    ///
    /// # Errors
    /// If no rule matches a tensor, or the model has another number of weights than the recipe says and is not pruned.
    pub fn refuse_other(&self, request: &Request, checkpoint: &Checkpoint, plan: &Plan) -> Result<()> {
        let of_mix = request.mix.iter().flat_map(|mix| mix.options.rules.iter().map(|(pattern, _)| pattern));
        let patterns: Vec<&Regex> = request.recipe.rules.iter().map(|rule| &rule.pattern).chain(of_mix).collect();
        let matches = |pattern: &&Regex| checkpoint.tensors.iter().any(|t| pattern.is_match(&t.name));
        if let (Some(pattern), Some(tensor)) = (patterns.first(), checkpoint.tensors.first())
            && !patterns.iter().any(matches)
        {
            return Err(Error::file(&self.path, other_names(pattern, &tensor.name)));
        }
        let (found, is_pruned) = (plan.n_elements(), request.mix.as_ref().is_some_and(|mix| !mix.prune_layers.is_empty()));
        if let Some(needed) = self.text.parameters
            && needed != found
            && found > 0
            && !is_pruned
        {
            let problem = format!("was made for a model of {needed} weights, found {found} in {}", checkpoint.path.display());
            return Err(Error::file(&self.path, format!("{problem}; plan this model, or remove 'parameters' to use it all the same")));
        }
        Ok(())
    }
}

fn other_names(pattern: &Regex, name: &str) -> String {
    let problem = format!("none of its rules matches a tensor: it has '{pattern}', and the tensors have names such as '{name}'");
    format!("{problem}. The names are those of GGUF where the recipe was planned for .gguf, or of a GGUF file; else those of the model")
}

/// Patterns that most likely were meant to match something, in a line.
pub fn unmatched(patterns: &[&str], checkpoint: &Checkpoint) -> Option<String> {
    let example = checkpoint.tensors.first().map_or(String::new(), |t| format!("; names are such as '{}'", t.name));
    let shown: Vec<String> = patterns.iter().take(NAMED).map(|pattern| format!("'{pattern}'")).collect();
    match patterns.len() {
        0 => None,
        1 => Some(format!("the pattern {} matches no tensor{example}", shown[0])),
        n if n <= NAMED => Some(format!("the patterns {} match no tensor{example}", shown.join(", "))),
        n => Some(format!("the patterns {} and {} more match no tensor{example}", shown.join(", "), n - NAMED)),
    }
}

/// A recipe that cannot be read, in one line.
fn not_a_recipe(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
    Error::file(path, format!("not a recipe: line {line}: {}", error.message().replace('\n', ", ")))
}
