//! `cargo xtask kernels`: from CUDA to the PTX that the crate carries.
//!
//! Everything is made in a temporary folder, then copied to its place, or compared with what is there. The same sources and compiler give
//! the same bytes.

mod compile;
mod manifest;
mod resources;
#[cfg(test)]
mod stale;
pub mod tables;
mod toolchain;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rayon::prelude::*;

use manifest::Manifest;
use resources::Limits;
use toolchain::Toolchain;

/// Compilers run in several threads, so an error must be able to leave one.
type Failure = Box<dyn std::error::Error + Send + Sync>;

const HELP: &str = "Nobody needs CUDA to build or test quant: the PTX is committed. This is for those who change a kernel.

Examples:
  cargo xtask kernels --install           once: puts the pinned compiler under target/
  cargo xtask kernels                     after a change of a kernel; commit what it writes
  cargo xtask kernels --check             does the committed PTX belong to the sources?
  cargo xtask kernels --nvcc /usr/local/cuda/bin/nvcc";

/// How kernels are built.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Options {
    /// Install the pinned CUDA toolchain with pip first, if it is not there
    #[arg(long)]
    install: bool,
    /// Use this nvcc, and the programs beside it. Another version than the pinned one may write other PTX
    #[arg(long, value_name = "PATH", conflicts_with = "install")]
    nvcc: Option<PathBuf>,
    /// Write nothing; name each committed file that differs from what the sources give, and fail if there is one
    #[arg(long)]
    check: bool,
    /// Also write target/kernels/*.fatbin, machine code for seven architectures with the PTX
    #[arg(long)]
    fatbin: bool,
}

/// Compiles all kernels, and says what they use.
pub fn run(options: &Options) -> Result<(), Failure> {
    let start = Instant::now();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let (root, target) = (workspace.join("quant-cuda"), workspace.join("target"));
    let limits = Limits::parse(&fs::read_to_string(root.join("kernels/limits.toml"))?)?;
    let tools = match &options.nvcc {
        Some(nvcc) => Toolchain::own(nvcc, &target)?,
        None => Toolchain::pinned(&target, options.install)?,
    };

    let stage = tempfile::tempdir()?;
    let manifest = build(&tools, &root, stage.path())?;
    let kernels = manifest.kernels()?;
    print!("{}", resources::table(&kernels));
    if options.fatbin {
        fatbins(&tools, stage.path(), &target.join("kernels"), &manifest)?;
    }
    let changed = changes(&root, stage.path(), &manifest)?;
    if !options.check {
        write(&root, stage.path(), &changed)?;
    }
    // Limits come after writing, so that a kernel which is too large can be tried and looked at.
    let broken = limits.broken(&kernels);
    broken.iter().for_each(|line| eprintln!("{line}"));
    if options.check {
        changed.iter().for_each(|path| eprintln!("quant-cuda/{path} is not what the sources give"));
        if !changed.is_empty() {
            return Err("the committed kernels are not those of the sources: run `cargo xtask kernels`, and commit what it writes".into());
        }
    }
    if !broken.is_empty() {
        return Err("kernels are over their limits (quant-cuda/kernels/limits.toml)".into());
    }
    let (modules, seconds) = (manifest.modules.len(), start.elapsed().as_secs_f64());
    println!("{modules} modules, {} kernels, {} files changed, {seconds:.1} s", kernels.len(), if options.check { 0 } else { changed.len() });
    Ok(())
}

/// Makes all files in a copy of the sources.
fn build(tools: &Toolchain, root: &Path, stage: &Path) -> Result<Manifest, Failure> {
    for folder in ["kernels", "tests/bugs", "ptx"] {
        fs::create_dir_all(stage.join(folder))?;
    }
    for path in manifest::sources(root)? {
        fs::copy(root.join(&path), stage.join(&path))?;
    }
    fs::write(stage.join("kernels/tables.cuh"), tables::header())?;

    let sources = manifest::sources(stage)?;
    let programs: Vec<&String> = sources.iter().filter(|path| path.ends_with(".cu")).collect();
    let modules = programs.par_iter().map(|source| compile::compile(tools, stage, source)).collect::<Result<BTreeMap<_, _>, _>>()?;
    let manifest = Manifest {
        nvcc: tools.version.clone(),
        flags: compile::FLAGS.map(str::to_owned).into(),
        ptx: compile::PTX.to_owned(),
        proven_with: tools.old_version(),
        sources: manifest::hashes(stage, &sources)?,
        modules,
    };
    fs::write(stage.join(manifest::NAME), manifest.text()?)?;
    Ok(manifest)
}

/// The files that are not as they should be, those that should not be there included.
fn changes(root: &Path, stage: &Path, manifest: &Manifest) -> Result<Vec<String>, Failure> {
    let mut paths: BTreeSet<String> = manifest::outputs(root)?;
    paths.extend(manifest.modules.keys().cloned());
    paths.extend(["kernels/tables.cuh", manifest::NAME].map(str::to_owned));
    let mut changed = Vec::new();
    for path in paths {
        let (is, should) = (fs::read(root.join(&path)).ok(), fs::read(stage.join(&path)).ok());
        if is != should {
            changed.push(path);
        }
    }
    Ok(changed)
}

fn write(root: &Path, stage: &Path, changed: &[String]) -> Result<(), Failure> {
    fs::create_dir_all(root.join("ptx"))?;
    for path in changed {
        if stage.join(path).exists() {
            fs::copy(stage.join(path), root.join(path))?;
        } else {
            fs::remove_file(root.join(path))?;
        }
        println!("{} quant-cuda/{path}", if stage.join(path).exists() { "wrote" } else { "removed" });
    }
    Ok(())
}

fn fatbins(tools: &Toolchain, stage: &Path, to: &Path, manifest: &Manifest) -> Result<(), Failure> {
    // Those of kernels that are gone must not get into a release.
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for ptx in manifest.modules.keys().filter(|path| path.starts_with("ptx/")) {
        let file = to.join(Path::new(ptx).file_name().ok_or("no name")?).with_extension("fatbin");
        compile::fatbin(tools, stage, ptx, &file)?;
        println!("wrote target/kernels/{}, {} bytes", file.file_name().unwrap_or_default().display(), fs::metadata(&file)?.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../quant-cuda")
    }

    #[test]
    fn the_tables_are_those_of_quant_core() {
        let text = fs::read_to_string(root().join("kernels/tables.cuh")).unwrap();
        assert!(text == tables::header(), "quant-cuda/kernels/tables.cuh is not what quant_core::tables gives: run `cargo xtask kernels`");
    }

    /// Without CUDA: a kernel that was edited and not compiled fails here.
    #[test]
    fn the_committed_ptx_belongs_to_the_sources() {
        let manifest = stale::committed(&root()).unwrap();
        let stale = stale::stale(&manifest, &root()).unwrap();
        assert!(stale.is_empty(), "run `cargo xtask kernels`, and commit what it writes:\n{}", stale.join("\n"));
        assert_eq!(manifest.flags, compile::FLAGS, "run `cargo xtask kernels`");
        assert_eq!(manifest.ptx, compile::PTX, "run `cargo xtask kernels`");
        let versions = [Some(manifest.nvcc.as_str()), manifest.proven_with.as_deref()];
        let pinned = ["nvidia-cuda-nvcc", "nvidia-cuda-nvcc-cu12"].map(|package| Some(toolchain::pinned(package)));
        assert_eq!(versions, pinned, "compiled without the pinned toolchain: run `cargo xtask kernels --install`");
        assert_eq!(fs::read_to_string(root().join(manifest::NAME)).unwrap(), manifest.text().unwrap());
    }

    #[test]
    fn the_committed_kernels_are_within_their_limits() {
        let limits = Limits::parse(&fs::read_to_string(root().join("kernels/limits.toml")).unwrap()).unwrap();
        assert_eq!(limits.broken(&stale::committed(&root()).unwrap().kernels().unwrap()), Vec::<String>::new());
    }
}
