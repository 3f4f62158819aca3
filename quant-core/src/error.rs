//! What can go wrong, sorted by who can act.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// The result of every fallible function of the workspace.
pub type Result<T> = std::result::Result<T, Error>;

/// One error, complete enough to be acted on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is damaged, hostile or of a kind that is not read: its author can act.
    #[error("{}", shown_file(.0))]
    File(Box<BadFile>),
    /// The request cannot be met as it stands: the caller can act.
    #[error("{0}")]
    Request(String),
    /// A weight cannot be expressed in the scheme asked for.
    #[error("tensor '{tensor}': element {index} is {value}, which {scheme} cannot hold (use --non-finite keep to leave such tensors as they are)")]
    NonFinite {
        /// The tensor's name.
        tensor: String,
        /// The flat index of its first non-finite element, row-major.
        index: u64,
        /// The value found.
        value: f32,
        /// The scheme asked for.
        scheme: String,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// What was tried, as a verb with its object.
        action: &'static str,
        /// The file concerned.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The observer asked to stop.
    #[error("interrupted")]
    Cancelled,
}

/// Where in which file which problem was found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct BadFile {
    /// The file.
    pub path: PathBuf,
    /// The tensor or key concerned.
    pub tensor: Option<String>,
    /// The byte offset in the file.
    pub offset: Option<u64>,
    /// What was found and what was needed.
    pub problem: String,
}

impl Error {
    /// A problem of `path` as a whole.
    pub fn file(path: &Path, problem: impl Into<String>) -> Error {
        Error::File(Box::new(BadFile { path: path.into(), problem: problem.into(), ..BadFile::default() }))
    }

    /// A problem of one tensor of `path`.
    pub fn tensor(path: &Path, tensor: &str, problem: impl Into<String>) -> Error {
        let tensor = Some(tensor.into());
        Error::File(Box::new(BadFile { path: path.into(), tensor, offset: None, problem: problem.into() }))
    }

    /// A request that cannot be met.
    pub fn request(problem: impl Into<String>) -> Error {
        Error::Request(problem.into())
    }

    /// A system error while doing `action` to `path`.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io { action, path: path.into(), source }
    }

    /// The same error, said of `path` if it does not name a file yet.
    #[must_use]
    pub fn of(self, path: &Path) -> Error {
        match self {
            Error::Request(problem) => Error::file(path, problem),
            Error::NonFinite { .. } => Error::file(path, self.to_string()),
            other => other,
        }
    }

    /// The same error with a byte offset, if it concerns a file.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Error {
        if let Error::File(bad) = &mut self {
            bad.offset = Some(offset);
        }
        self
    }
}

fn shown_file(bad: &BadFile) -> String {
    let mut text = bad.path.display().to_string();
    if let Some(offset) = bad.offset {
        text += &format!(" at byte {offset}");
    }
    if let Some(tensor) = &bad.tensor {
        text += &format!(": tensor '{tensor}'");
    }
    format!("{text}: {}", bad.problem)
}

/// Text from a file, made safe to print: control and direction-changing characters are shown as escapes.
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if is_unsafe_to_print(c) { write!(f, "{}", c.escape_unicode())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

/// Whether `c` could move the cursor, hide text or change its direction. A newline counts.
pub fn is_unsafe_to_print(c: char) -> bool {
    c.is_control() || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_error_says_where() {
        let error = Error::tensor(Path::new("a/b.safetensors"), "x", "found 3 bytes, needed 4").at(17);
        assert_eq!(error.to_string(), "a/b.safetensors at byte 17: tensor 'x': found 3 bytes, needed 4");
    }

    #[test]
    fn hostile_names_are_escaped() {
        assert_eq!(Printable("a\u{1b}[31m\r\u{202e}é").to_string(), "a\\u{1b}[31m\\u{d}\\u{202e}é");
    }
}
