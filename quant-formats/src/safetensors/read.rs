//! Opening safetensors files and folders.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use quant_core::source::{Role, Stored, Tensor};
use quant_core::{Dtype, Error, Result, Scheme};

use super::{header, index};
use crate::bnb;
use crate::checkpoint::{At, Checkpoint, Format, Origin, OriginFile, Place, SideFile};
use crate::hf::config::Config;
use crate::hf::side_files::{self, Side};
use crate::input::{Input, Io};

/// The name of a model's only file.
pub(crate) const MODEL: &str = "model.safetensors";
const INDEX_ENDING: &str = ".safetensors.index.json";
const ENDING: &str = ".safetensors";
/// The most files of a folder that are looked at.
const MAX_FILES: usize = 200_000;

/// A tensor as it stands in a file.
#[derive(Clone, Debug)]
pub(crate) struct Physical {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<u64>,
    pub(crate) n_bytes: u64,
    pub(crate) input: usize,
    pub(crate) offset: u64,
}

impl Physical {
    pub(crate) fn at(&self) -> At {
        At::File { input: self.input, offset: self.offset }
    }

    pub(crate) fn stored(&self, name: &str) -> Stored {
        Stored { name: name.into(), dtype: self.dtype, shape: self.shape.clone(), n_bytes: self.n_bytes }
    }

    pub(crate) fn as_dense(&self) -> bnb::read::Located {
        let tensor = Tensor {
            name: self.name.clone(),
            shape: self.shape.clone(),
            dtype: self.dtype,
            scheme: Scheme::Dense(self.dtype),
            role: Role::Other,
            parts: vec![self.stored("data")],
            packed: None,
        };
        (tensor, vec![self.at()])
    }
}

/// Opens one file on its own.
pub(crate) fn open_file(path: &Path, io: Io) -> Result<Checkpoint> {
    let mut model = Model::default();
    model.add_shard(path, "", io)?;
    let note = path.parent().map(|p| p.join("config.json")).filter(|p| p.is_file());
    model.notes.extend(note.map(|p| format!("{} and the files beside it do not come along; give the folder to take them", p.display())));
    model.finish(Format::Safetensors, path)
}

/// Opens a folder, or the folder of an index.
pub(crate) fn open_folder(folder: &Path, io: Io) -> Result<Checkpoint> {
    let listing = list(folder)?;
    let mut model = Model::default();
    let index = find_index(folder, &listing)?;
    match &index {
        Some(name) => model.add_shards(folder, name, io)?,
        None => {
            let name = find_model(folder, &listing)?;
            let shard = name.to_str().ok_or_else(|| Error::file(&folder.join(&name), "the file name is not valid UTF-8"))?;
            model.add_shard(&folder.join(&name), shard, io)?;
        }
    }
    model.add_side_files(folder, &listing)?;
    model.finish(Format::Hf, folder)
}

/// Opens a folder of which nothing but the files beside the weights is wanted.
pub(crate) fn open_without_weights(folder: &Path) -> Result<Checkpoint> {
    let mut model = Model::default();
    model.add_side_files(folder, &list(folder)?)?;
    model.finish(Format::Hf, folder)
}

/// Whether a folder has a config.json and neither a safetensors file nor an index of some.
pub(crate) fn has_only_config(folder: &Path) -> Result<bool> {
    let listing = list(folder)?;
    let has_weights = listing.iter().any(|n| ends_with(n, ENDING) || ends_with(n, INDEX_ENDING));
    Ok(!has_weights && listing.iter().any(|n| n.to_str() == Some("config.json")))
}

/// The names of a folder's files, sorted.
fn list(folder: &Path) -> Result<Vec<OsString>> {
    let names = crate::input::list(folder).map_err(|e| Error::io("list", folder, e))?;
    if names.len() > MAX_FILES {
        return Err(Error::file(folder, format!("found more than {MAX_FILES} files in the folder")));
    }
    Ok(names)
}

fn ends_with(name: &OsString, ending: &str) -> bool {
    name.as_encoded_bytes().ends_with(ending.as_bytes()) && !name.as_encoded_bytes().starts_with(b".")
}

fn find_index(folder: &Path, listing: &[OsString]) -> Result<Option<String>> {
    let default = format!("model{INDEX_ENDING}");
    let found: Vec<&OsString> = listing.iter().filter(|n| ends_with(n, INDEX_ENDING)).collect();
    let only = match found[..] {
        [] => return Ok(None),
        [only] => only,
        _ if found.iter().any(|n| n.to_str() == Some(&default)) => return Ok(Some(default)),
        _ => return Err(Error::file(folder, format!("found {} indexes and none is called {default}", found.len()))),
    };
    let name = only.to_str().ok_or_else(|| Error::file(&folder.join(only), "the file name is not valid UTF-8"))?;
    Ok(Some(name.into()))
}

fn find_model(folder: &Path, listing: &[OsString]) -> Result<OsString> {
    if let Some(model) = listing.iter().find(|n| n.to_str() == Some(MODEL)) {
        return Ok(model.clone());
    }
    let found: Vec<&OsString> = listing.iter().filter(|n| ends_with(n, ENDING)).collect();
    match found[..] {
        [only] if is_shard(only) => {
            Err(Error::file(&folder.join(only), format!("is one of several shards and there is no model{INDEX_ENDING}; the set is incomplete")))
        }
        [only] => Ok(only.clone()),
        [] => Err(Error::file(folder, format!("found no {MODEL} and no other safetensors file in the folder"))),
        _ => Err(Error::file(
            folder,
            format!("found {} safetensors files without an index; the set is incomplete: needed model{INDEX_ENDING}", found.len()),
        )),
    }
}

/// Whether `path` leads to a regular file. That the system cannot tell is an error: the file might belong to the model.
fn is_file(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.is_file()),
        Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ELOOP) => Ok(false),
        Err(e) => Err(Error::io("look at", path, e)),
    }
}

/// Whether a name is that of one shard of several: `…-00001-of-00002.safetensors`.
fn is_shard(name: &OsString) -> bool {
    let stem = name.to_str().and_then(|n| n.strip_suffix(ENDING)).unwrap_or_default();
    let number = |text: &str| text.parse::<u64>().ok();
    let of = stem.rsplit_once("-of-").and_then(|(before, n)| Some((number(before.rsplit('-').next()?)?, number(n)?)));
    of.is_some_and(|(_, n)| n > 1)
}

/// A model being opened.
#[derive(Default)]
struct Model {
    inputs: Vec<Input>,
    physical: Vec<Physical>,
    metadata: Vec<(String, String)>,
    origin: Origin,
    side_files: Vec<SideFile>,
    notes: Vec<String>,
}

impl Model {
    fn add_shards(&mut self, folder: &Path, index_name: &str, io: Io) -> Result<()> {
        let path = folder.join(index_name);
        let input = Input::open(&path, Io::Read)?;
        let index = index::read(&input)?;
        self.origin.index = Some(SideFile { name: index_name.into(), n_bytes: input.len(), at: At::File { input: self.inputs.len(), offset: 0 } });
        self.inputs.push(input);
        for shard in index.shards(&path)? {
            let first = self.physical.len();
            self.add_shard(&folder.join(shard), shard, io)?;
            let mapped = |name: &str| index.weight_map.binary_search_by(|(n, _)| n.as_str().cmp(name)).map(|i| index.weight_map[i].1.as_str());
            for p in &self.physical[first..] {
                match mapped(&p.name) {
                    Ok(home) if home == shard => {}
                    Ok(home) => return Err(Error::tensor(&folder.join(shard), &p.name, format!("the index has it in '{home}'"))),
                    Err(_) => return Err(Error::tensor(&folder.join(shard), &p.name, "the index does not name it; converting would lose it")),
                }
            }
        }
        self.check_complete(&path, &index)
    }

    fn check_complete(&mut self, path: &Path, index: &index::Index) -> Result<()> {
        let found: HashMap<&str, ()> = self.physical.iter().map(|p| (p.name.as_str(), ())).collect();
        if let Some((name, shard)) = index.weight_map.iter().find(|(name, _)| !found.contains_key(name.as_str())) {
            return Err(Error::tensor(path, name, format!("the index has it in '{shard}', which does not hold it")));
        }
        let total: u64 = self.physical.iter().map(|p| p.n_bytes).sum();
        if let Some(declared) = index.total_size.filter(|&d| d != total) {
            self.notes.push(format!("{}: total_size is {declared}, the tensors have {total} bytes", path.display()));
        }
        Ok(())
    }

    fn add_shard(&mut self, path: &Path, name: &str, io: Io) -> Result<()> {
        let input = Input::open(path, io)?;
        let header = header::read(&input)?;
        let at = self.inputs.len();
        for e in header.entries {
            let (n_bytes, offset) = (e.range.end - e.range.start, header.data_start + e.range.start);
            self.physical.push(Physical { name: e.name, dtype: e.dtype, shape: e.shape, n_bytes, input: at, offset });
        }
        for (key, value) in header.metadata {
            match self.metadata.iter().find(|(k, _)| *k == key) {
                None => self.metadata.push((key, value)),
                Some((_, first)) if *first != value => self.notes.push(format!("{}: metadata '{key}' differs between the shards", path.display())),
                Some(_) => {}
            }
        }
        let head = SideFile { name: name.into(), n_bytes: header.data_start, at: At::File { input: at, offset: 0 } };
        self.origin.files.push(OriginFile { name: name.into(), n_bytes: input.len(), head, gaps: Vec::new() });
        self.inputs.push(input);
        Ok(())
    }

    fn add_side_files(&mut self, folder: &Path, listing: &[OsString]) -> Result<()> {
        let mut left = Vec::new();
        for name in listing {
            let path = folder.join(name);
            let class = match name.to_str() {
                None => Side::Left("its name is not UTF-8"),
                Some(_) if !is_file(&path)? => Side::Left("not a regular file"),
                Some(name) => side_files::side(name),
            };
            match class {
                Side::Weights if name.to_str().is_some_and(|n| self.is_used(n)) => {}
                Side::Weights => left.push(format!("{} (not part of the model)", name.to_string_lossy())),
                Side::Carried => {
                    let input = Input::open(&path, Io::Read)?;
                    let at = At::File { input: self.inputs.len(), offset: 0 };
                    self.side_files.push(SideFile { name: name.to_string_lossy().into_owned(), n_bytes: input.len(), at });
                    self.inputs.push(input);
                }
                Side::Left(reason) => left.push(format!("{} ({reason})", name.to_string_lossy())),
            }
        }
        if !left.is_empty() {
            self.notes.push(format!("left behind: {}", left.join(", ")));
        }
        Ok(())
    }

    /// Whether a file of weights, or an index, is part of the model.
    fn is_used(&self, name: &str) -> bool {
        self.origin.files.iter().any(|f| f.name == name) || self.origin.index.as_ref().is_some_and(|f| f.name == name)
    }

    fn finish(mut self, format: Format, path: &Path) -> Result<Checkpoint> {
        let int8_dtype = self.config().and_then(|c| c.dtype()).unwrap_or(Dtype::F16);
        let input_of = |f: &OriginFile| if let At::File { input, .. } = f.head.at { input } else { usize::MAX };
        let file_of_input: HashMap<usize, usize> = self.origin.files.iter().enumerate().map(|(i, f)| (input_of(f), i)).collect();
        refuse_duplicates(&self.inputs, &self.physical)?;
        let located = bnb::read::join(&self.inputs, std::mem::take(&mut self.physical), int8_dtype)?;
        let (tensors, places): (Vec<_>, Vec<_>) = located.into_iter().unzip();
        let place = |at: &At| match at {
            At::File { input, offset } => file_of_input.get(input).map(|&file| Place { file, offset: *offset }),
            At::Bytes(_) | At::Made(_) => None,
        };
        self.origin.places = places.iter().map(|parts| parts.iter().map(place).collect()).collect();
        let in_subfolders = self.origin.files.iter().any(|f| f.name.contains('/'));
        let mut checkpoint = Checkpoint {
            format,
            path: PathBuf::from(path),
            tensors,
            places,
            inputs: self.inputs,
            metadata: self.metadata,
            kv: Vec::new(),
            side_files: self.side_files,
            // Outputs are flat, so shards in sub-folders are laid out anew.
            origin: (!in_subfolders).then_some(self.origin),
            notes: self.notes,
            base: None,
            errors: Vec::new(),
            original: None,
        };
        crate::open::settle(&mut checkpoint)?;
        Ok(checkpoint)
    }

    /// config.json, if it is there and can be read; it only refines what tensors are taken for.
    fn config(&self) -> Option<Config> {
        let file = self.side_files.iter().find(|f| f.name == "config.json" && f.n_bytes <= f.most_bytes())?;
        let At::File { input, .. } = file.at else { return None };
        let mut bytes = vec![0; file.n_bytes as usize];
        self.inputs[input].read_at(0, &mut bytes).ok()?;
        Config::parse(&bytes).ok()
    }
}

/// The same name in two shards.
fn refuse_duplicates(inputs: &[Input], physical: &[Physical]) -> Result<()> {
    let mut seen: HashMap<&str, usize> = HashMap::with_capacity(physical.len());
    for p in physical {
        if let Some(first) = seen.insert(&p.name, p.input) {
            return Err(Error::tensor(inputs[p.input].path(), &p.name, format!("is also in {}", inputs[first].path().display())));
        }
    }
    Ok(())
}
