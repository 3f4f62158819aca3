//! [`Checkpoint`]: an opened model of any format.
//!
//! Every format comes down to the same thing: named tensors whose parts are byte ranges of a few files. A reader checks a
//! header whole and fills in this table; after that all formats are read by the same few lines.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use quant_core::audit::ErrorStats;
use quant_core::source::{Source, Tensor};
use quant_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::gguf;
use crate::input::{Identity, Input};

/// A container format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One safetensors file.
    Safetensors,
    /// A folder in the layout of Hugging Face: one or more safetensors files and the files beside them.
    Hf,
    /// A BQT file.
    Bqt,
    /// A GGUF file, or a set of GGUF shards.
    Gguf,
}

impl Format {
    /// The name shown to people.
    pub fn name(self) -> &'static str {
        match self {
            Format::Safetensors => "safetensors",
            Format::Hf => "Hugging Face",
            Format::Bqt => "BQT",
            Format::Gguf => "GGUF",
        }
    }
}

/// Where the bytes of a part, or of a file carried along, lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// From `offset` on in the opened file of this index.
    File {
        /// Index into [`Checkpoint::inputs`].
        input: usize,
        /// Offset in that file.
        offset: u64,
    },
    /// Bytes that the reader derived from the header.
    Bytes(Vec<u8>),
    /// Bytes that are made of others while they are read.
    Made(Made),
}

/// Bytes that are made of other tensors while they are read.
pub trait Make: Send + Sync + std::fmt::Debug {
    /// Fills `out` with the bytes from `offset` on. `from` is the checkpoint that was opened.
    ///
    /// # Errors
    /// If a file cannot be read.
    fn read(&self, from: &Checkpoint, offset: u64, out: &mut [u8]) -> Result<()>;

    /// The file that holds them, if it is one; for messages.
    fn file<'a>(&'a self, from: &'a Checkpoint) -> Option<&'a Path> {
        let _ = from;
        None
    }
}

/// A shared [`Make`]. Equal only to itself.
#[derive(Clone, Debug)]
pub struct Made(pub Arc<dyn Make>);

impl PartialEq for Made {
    fn eq(&self, other: &Made) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Made {}

/// A file that belongs to the model and is not made of tensors: config.json, a tokenizer, a licence.
#[derive(Clone, Debug)]
pub struct SideFile {
    /// Its name in the model's folder.
    pub name: String,
    /// Its size.
    pub n_bytes: u64,
    /// Its bytes.
    pub at: At,
}

impl SideFile {
    /// How long a file of this name may be to be read at once. Values of JSON take up to fifty times as much memory as their text.
    pub(crate) fn most_bytes(&self) -> u64 {
        match self.name.as_str() {
            // Vocabularies, which grow with the number of languages; they are not read as trees.
            "tokenizer.json" | "tokenizer.model" | "sentencepiece.bpe.model" | "vocab.json" | "vocab.txt" | "merges.txt" => 64 << 20,
            // The tables of a benchmark in a README, and the tokens that a large vocabulary adds.
            "README.md" | "tokenizer_config.json" | "added_tokens.json" => 16 << 20,
            // Settings, of which real models have less than 1 MiB.
            _ => 8 << 20,
        }
    }
}

/// How the tensors lay in safetensors or GGUF files, complete enough to write those files again byte for byte.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The format of the files.
    pub format: OriginFormat,
    /// The files. The name is empty for a model that was one file on its own.
    pub files: Vec<OriginFile>,
    /// For each tensor, for each part: its file, and its offset from the start of that file. None for derived parts.
    pub places: Vec<Vec<Option<Place>>>,
    /// The index file of a sharded model, verbatim.
    pub index: Option<SideFile>,
}

/// The format of the files of an [`Origin`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OriginFormat {
    /// safetensors.
    #[default]
    Safetensors,
    /// GGUF.
    Gguf,
}

/// One file of an [`Origin`]. Head, parts and gaps tile it.
#[derive(Clone, Debug)]
pub struct OriginFile {
    /// Its name in the model's folder.
    pub name: String,
    /// Its size.
    pub n_bytes: u64,
    /// Everything before the data: the header and its padding.
    pub head: SideFile,
    /// What lies between and after the tensors, by offset.
    pub gaps: Vec<Gap>,
}

/// Bytes of a file of an [`Origin`] that belong to no tensor, such as padding.
#[derive(Clone, Debug)]
pub struct Gap {
    /// Where they lie, from the start of the file of the origin.
    pub offset: u64,
    /// How many they are.
    pub n_bytes: u64,
    /// Where they can be read.
    pub at: At,
}

/// A place in a file of an [`Origin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index into [`Origin::files`].
    pub file: usize,
    /// Offset from the start of the file.
    pub offset: u64,
}

/// An opened model.
pub struct Checkpoint {
    /// The container.
    pub format: Format,
    /// The path it was opened by.
    pub path: PathBuf,
    /// The tensors.
    pub tensors: Vec<Tensor>,
    /// For each tensor, for each part, where its bytes lie.
    pub places: Vec<Vec<At>>,
    /// The files that hold them.
    pub inputs: Vec<Input>,
    /// The metadata of the container, in order.
    pub metadata: Vec<(String, String)>,
    /// The typed metadata of GGUF, in order; of a set of shards, that of the first.
    pub kv: Vec<gguf::Entry>,
    /// The files carried along.
    pub side_files: Vec<SideFile>,
    /// How to write the files again that these tensors came in.
    pub origin: Option<Origin>,
    /// What a user should know: files that are not carried along, totals that do not add up.
    pub notes: Vec<String>,
    /// The checkpoint that was opened, if this one shows its tensors under other names and layouts. It has no inputs of its own.
    pub base: Option<Arc<Checkpoint>>,
    /// For each tensor the errors that were measured when it was quantized, where the file says; empty if it says nothing.
    pub errors: Vec<Option<ErrorStats>>,
    /// The same tensors before they are rounded, if reading this checkpoint rounds them on the way to another type.
    pub original: Option<Arc<Checkpoint>>,
}

impl Origin {
    /// The same origin with only those gaps that hold anything but zeros.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub(crate) fn without_zero_gaps(&self, checkpoint: &Checkpoint) -> Result<Origin> {
        let mut origin = self.clone();
        for file in &mut origin.files {
            let mut kept = Vec::new();
            for gap in file.gaps.drain(..) {
                if !checkpoint.is_zero(&gap.at, gap.n_bytes)? {
                    kept.push(gap);
                }
            }
            file.gaps = kept;
        }
        Ok(origin)
    }
}

impl Checkpoint {
    /// A model of `format` that has nothing yet.
    pub(crate) fn empty(format: Format, path: &Path) -> Checkpoint {
        Checkpoint {
            format,
            path: path.to_path_buf(),
            tensors: Vec::new(),
            places: Vec::new(),
            inputs: Vec::new(),
            metadata: Vec::new(),
            kv: Vec::new(),
            side_files: Vec::new(),
            origin: None,
            notes: Vec::new(),
            base: None,
            errors: Vec::new(),
            original: None,
        }
    }

    /// A model that shows another: with its files, metadata and notes, and no tensors yet.
    pub(crate) fn over(base: &Arc<Checkpoint>) -> Checkpoint {
        Checkpoint {
            metadata: base.metadata.clone(),
            kv: base.kv.clone(),
            side_files: base.side_files.clone(),
            notes: base.notes.clone(),
            base: Some(base.clone()),
            ..Checkpoint::empty(base.format, &base.path)
        }
    }

    /// The checkpoint that has the files: this one, or the one that it shows.
    pub fn opened(&self) -> &Checkpoint {
        self.base.as_ref().map_or(self, |base| base.opened())
    }

    /// Whether `n_bytes` bytes that lie at `at` are all zero.
    fn is_zero(&self, at: &At, n_bytes: u64) -> Result<bool> {
        const PIECE: u64 = 1 << 16;
        let mut buffer = vec![0; n_bytes.min(PIECE) as usize];
        for start in (0..n_bytes).step_by(PIECE as usize) {
            let piece = &mut buffer[..(n_bytes - start).min(PIECE) as usize];
            self.read_at(at, start, piece)?;
            if piece.iter().any(|&b| b != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads bytes that lie at `at`, from `offset` on.
    ///
    /// # Errors
    /// If the file cannot be read or has changed.
    pub fn read_at(&self, at: &At, offset: u64, out: &mut [u8]) -> Result<()> {
        match at {
            At::File { input, offset: base } => self.opened().inputs[*input].read_at(base + offset, out),
            At::Made(made) => made.0.read(self.opened(), offset, out),
            At::Bytes(bytes) => {
                let range = usize::try_from(offset).ok().and_then(|start| bytes.get(start..start.checked_add(out.len())?));
                let bytes = range.ok_or_else(|| Error::file(&self.path, "a derived part is shorter than its size"))?;
                out.copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// The bytes of a file carried along, to be parsed.
    ///
    /// # Errors
    /// If it is larger than files of its kind are, or cannot be read.
    pub fn side_file(&self, file: &SideFile) -> Result<Vec<u8>> {
        let most = file.most_bytes();
        if file.n_bytes > most {
            let problem = format!("found {} bytes, at most {most} are read of a file of this kind", file.n_bytes);
            return Err(Error::file(&self.path.join(&file.name), problem));
        }
        let mut bytes = vec![0; file.n_bytes as usize];
        self.read_at(&file.at, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// The bytes of config.json, if there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn config(&self) -> Result<Option<Vec<u8>>> {
        self.side_files.iter().find(|f| f.name == "config.json").map(|f| self.side_file(f)).transpose()
    }

    /// What an output must not be: any of the files, and the folder they lie in.
    ///
    /// # Errors
    /// If the path it was opened by leads nowhere any more.
    pub fn identities(&self) -> Result<Vec<Identity>> {
        let files = self.opened().inputs.iter().map(Input::identity);
        Ok(files.chain([Identity::of(&self.path)?]).collect())
    }

    /// Checks that no file has changed since it was opened.
    ///
    /// # Errors
    /// Naming the first that has.
    pub fn check_unchanged(&self) -> Result<()> {
        self.opened().inputs.iter().try_for_each(Input::check_unchanged)
    }

    /// The file that holds a tensor's first part; for messages.
    pub fn file_of(&self, tensor: usize) -> &Path {
        match self.places[tensor].first() {
            Some(At::File { input, .. }) => self.opened().inputs[*input].path(),
            Some(At::Made(made)) => made.0.file(self.opened()).unwrap_or(&self.path),
            _ => &self.path,
        }
    }
}

impl Source for Checkpoint {
    fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    fn read(&self, tensor: usize, part: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        self.read_at(&self.places[tensor][part], offset, out)
    }
}
