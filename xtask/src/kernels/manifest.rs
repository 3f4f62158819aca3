//! `MANIFEST.json`: what the committed PTX was made of, so that a test without CUDA sees that it is up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Failure;
use super::resources::PerArchitecture;

/// Where it is, in the folder of quant-cuda.
pub const NAME: &str = "ptx/MANIFEST.json";

/// The contents. Paths are those in the folder of quant-cuda.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of nvcc, and of the ptxas that resources are from.
    pub nvcc: String,
    /// The arguments of nvcc.
    pub flags: Vec<String>,
    /// The version of PTX that the files say.
    pub ptx: String,
    /// The version of the old ptxas that accepted them, if one did.
    pub proven_with: Option<String>,
    /// The hash of every source, headers included.
    pub sources: BTreeMap<String, String>,
    /// What was made, by the path of the PTX.
    pub modules: BTreeMap<String, Made>,
}

/// A file of PTX.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// Its hash.
    pub sha256: String,
    /// Its sources: the `.cu` file and the headers that it includes.
    pub sources: BTreeSet<String>,
    /// What its kernels use. Those of tests are not measured.
    pub kernels: BTreeMap<String, PerArchitecture>,
}

impl Manifest {
    /// Its text.
    pub fn text(&self) -> Result<String, Failure> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The kernels of all modules.
    pub fn kernels(&self) -> Result<BTreeMap<String, PerArchitecture>, Failure> {
        let mut kernels = BTreeMap::new();
        for (path, made) in &self.modules {
            for (name, used) in &made.kernels {
                if kernels.insert(name.clone(), used.clone()).is_some() {
                    return Err(format!("{path}: another module has a kernel {name}, too").into());
                }
            }
        }
        Ok(kernels)
    }
}

/// The SHA-256 of bytes, in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of each file.
pub fn hashes(root: &Path, paths: &BTreeSet<String>) -> io::Result<BTreeMap<String, String>> {
    paths.iter().map(|path| Ok((path.clone(), sha256(&fs::read(root.join(path))?)))).collect()
}

/// The sources: kernels, headers, and the broken kernels of the tests.
pub fn sources(root: &Path) -> io::Result<BTreeSet<String>> {
    let mut paths = files(root, "kernels", &["cu", "cuh"])?;
    paths.extend(files(root, "tests/bugs", &["cu", "cuh"])?);
    Ok(paths)
}

/// All PTX that is there.
pub fn outputs(root: &Path) -> io::Result<BTreeSet<String>> {
    let mut paths = files(root, "ptx", &["ptx"])?;
    paths.extend(files(root, "tests/bugs", &["ptx"])?);
    Ok(paths)
}

fn files(root: &Path, folder: &str, endings: &[&str]) -> io::Result<BTreeSet<String>> {
    let entries = match fs::read_dir(root.join(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<io::Result<Vec<_>>>()?;
    let wanted = |name: &String| Path::new(name).extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted));
    Ok(names.into_iter().filter(wanted).map(|name| format!("{folder}/{name}")).collect())
}

/// Where the PTX of a `.cu` file goes: kernels into the folder that the crate carries, the broken ones of the tests beside their source.
pub fn ptx_of(source: &str) -> String {
    let stem = source.strip_suffix(".cu").unwrap_or(source);
    format!("{}.ptx", stem.strip_prefix("kernels/").map_or_else(|| stem.to_owned(), |name| format!("ptx/{name}")))
}

/// A source, and the headers that it includes with quotation marks, at any depth. Conditions are not evaluated.
pub fn included(root: &Path, source: &str) -> Result<BTreeSet<String>, Failure> {
    let mut found = BTreeSet::new();
    let mut open = vec![source.to_owned()];
    while let Some(path) = open.pop() {
        let text = fs::read_to_string(root.join(&path)).map_err(|error| format!("{path}: {error}"))?;
        let folder = Path::new(&path).parent().unwrap_or(Path::new(""));
        let headers = text.lines().filter_map(|line| line.trim().strip_prefix("#include")?.trim().strip_prefix('"')?.split('"').next());
        open.extend(headers.map(|header| simple(&folder.join(header))).filter(|header| !found.contains(header)));
        found.insert(path);
    }
    Ok(found)
}

/// A path without `..` in the middle.
fn simple(path: &Path) -> String {
    let mut simple = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if simple.pop() => {}
            Component::CurDir => {}
            part => simple.push(part),
        }
    }
    simple.to_string_lossy().into_owned()
}
