//! `cargo xtask kernels`: from CUDA to the PTX that the crate carries.

pub mod tables;

use std::path::{Path, PathBuf};
use std::process::Command;

/// How kernels are built.
#[derive(clap::Args)]
pub struct Options {
    /// The nvcc to use
    #[arg(long)]
    nvcc: PathBuf,
}

/// Compiles all kernels.
pub fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../quant-cuda");
    std::fs::write(root.join("kernels/tables.cuh"), tables::header())?;
    std::fs::create_dir_all(root.join("ptx"))?;
    let mut sources: Vec<PathBuf> = std::fs::read_dir(root.join("kernels"))?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    sources.retain(|path| path.extension().is_some_and(|ext| ext == "cu"));
    sources.sort();
    for source in sources {
        let name = source.file_name().ok_or("no name")?;
        let out = root.join("ptx").join(name).with_extension("ptx");
        let nvcc = ["-O3", "-fmad=false", "-std=c++17", "-arch=compute_75", "-ptx"];
        let done = Command::new(&options.nvcc).args(nvcc).arg(name).arg("-o").arg(&out).current_dir(root.join("kernels")).status()?;
        if !done.success() {
            return Err(format!("nvcc failed on {}", source.display()).into());
        }
        let text = std::fs::read_to_string(&out)?.replace(".version 9.5", ".version 7.0");
        std::fs::write(&out, text)?;
    }
    Ok(())
}
