//! The recipe that a plan writes, and the command that follows it.

use std::fmt::Write;
use std::path::Path;

use quant_core::{Error, Result, Scheme};

use super::planner::{BASE, Open, Planner, exactly};
use super::shell;

/// Endings of models, which a recipe has not.
const MODELS: [&str; 3] = [".gguf", ".bqt", ".safetensors"];

/// Refuses a name for the recipe that is one of a model: most likely that is what was to be written.
///
/// # Errors
/// If it is.
pub fn refuse_model_name(path: &Path) -> Result<()> {
    let is_folder = path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/");
    let name = path.to_string_lossy().to_ascii_lowercase();
    let is_model = MODELS.iter().any(|ending| name.ends_with(ending));
    if !is_folder && !is_model {
        return Ok(());
    }
    let what = if is_folder { "is a folder" } else { "is named like a model" };
    Err(Error::file(path, format!("{what}, needed a file for the recipe, such as recipe.toml; convert --recipe then writes the model")))
}

impl Planner<'_> {
    /// The text of the recipe.
    pub fn recipe(&self, rules: &[(&str, Scheme)], bits: f64, percent: f64) -> String {
        let (version, model) = (env!("CARGO_PKG_VERSION"), file_name(&self.args.model));
        let mut text = format!("# A recipe for quant convert --recipe, by plan of quant {version}, for {model}\n");
        let _ = writeln!(text, "# {bits:.3} bits a weight, expected error {percent:.3} %");
        if let Some(path) = &self.args.imatrix {
            let use_again = ": convert with the same one, --imatrix FILE.";
            let what = if self.is_gguf { ("Made with", use_again) } else { ("Errors were weighed by", ".") };
            let _ = writeln!(text, "# {} the importance matrix {}{}", what.0, file_name(path), what.1);
        }
        text.push('\n');
        if self.is_gguf {
            let _ = writeln!(text, "mix = \"{BASE}\"");
        }
        let _ = writeln!(text, "parameters = {}", self.base.n_elements());
        if self.is_gguf && self.args.imatrix.is_some() {
            text += "imatrix = true\n";
        }
        if !self.args.keep.is_empty() {
            let patterns: Vec<String> = self.args.keep.iter().map(|text| quoted(text)).collect();
            let _ = writeln!(text, "\nkeep = [{}]", patterns.join(", "));
        }
        for (name, scheme) in rules {
            let _ = write!(text, "\n[[tensor]]\nmatch = {}\ntype = \"{scheme}\"\n", quoted(&exactly(name)));
        }
        text
    }

    /// Whether `convert` refuses a choice without being asked: a mix for what is quantized, anything for what ggml quantized.
    pub fn requantizes(&self, open: &[Open], choice: &[usize]) -> bool {
        let is_again = |(o, &choice): (&Open, &usize)| {
            let (from, to) = (self.base.tensors[o.place].from, o.schemes[choice]);
            let was_quantized = if self.is_gguf { from.is_quantized() } else { matches!(from, Scheme::Ggml(_)) };
            was_quantized && to.is_quantized() && to != from
        };
        open.iter().zip(choice).any(is_again)
    }

    /// The command that follows the plan.
    pub fn next(&self, recipe: &Path, requantizes: bool) -> String {
        let ending = if self.is_gguf { "gguf" } else { "bqt" };
        let mut words = vec!["quant convert".to_owned(), shell::word(&self.args.model), format!("OUTPUT.{ending} --recipe"), shell::word(recipe)];
        let importance = self.args.imatrix.iter().filter(|_| self.is_gguf);
        words.extend(importance.map(|path| format!("--imatrix {}", shell::word(path))));
        words.extend(requantizes.then(|| "--allow-requantize".to_owned()));
        words.join(" ")
    }
}

/// The name of a file, for a comment.
fn file_name(path: &Path) -> String {
    quoted(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy())
}

/// A text as a string of TOML.
fn quoted(text: &str) -> String {
    let escaped = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        ' '..='~' => c.to_string(),
        c => format!("\\U{:08X}", c as u32),
    };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

#[cfg(test)]
mod tests {
    #[test]
    fn any_name_is_a_string_of_toml() {
        for name in ["plain", "a\"b\\c", "\u{200b}\0\n\u{1f600}é", "^blk\\.0$"] {
            let text = format!("x = {}", super::quoted(name));
            let table: toml::Table = toml::from_str(&text).unwrap();
            assert_eq!(table["x"].as_str(), Some(name));
        }
    }
}
