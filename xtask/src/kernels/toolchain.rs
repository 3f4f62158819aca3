//! The compiler: pinned packages under `target/cuda-toolchain`, or a user's own nvcc.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Failure;
use super::manifest::sha256;

/// The packages, with versions and hashes, as pip reads them.
const LIST: &str = include_str!("../../cuda-toolchain.txt");

/// Programs that belong together.
pub struct Toolchain {
    /// From CUDA to PTX.
    pub nvcc: PathBuf,
    /// Its version, like `13.5.37`.
    pub version: String,
    /// From PTX to machine code.
    pub ptxas: PathBuf,
    /// Joins machine code and PTX in one file.
    pub fatbinary: PathBuf,
    /// The ptxas that knows no newer PTX than the oldest driver that counts; a user's own nvcc may be without it.
    pub old_ptxas: Option<PathBuf>,
}

impl Toolchain {
    /// The pinned one, installed if that is wished for.
    pub fn pinned(target: &Path, install: bool) -> Result<Self, Failure> {
        let home = home(target);
        if install {
            self::install(&home)?;
        }
        if !home.is_dir() {
            let name = Path::new("target/cuda-toolchain").join(home.file_name().unwrap_or_default());
            return Err(format!(
                "there is no CUDA toolchain in {}: `cargo xtask kernels --install` puts it there (150 MB from the package index of pip; needs \
                 Python 3 with pip), or give your own with --nvcc PATH",
                name.display()
            )
            .into());
        }
        let found = Self::beside(&home.join("nvidia/cu13/bin/nvcc"), target)?;
        if found.version != pinned("nvidia-cuda-nvcc") {
            return Err(format!("{} is of version {}, not {}", found.nvcc.display(), found.version, pinned("nvidia-cuda-nvcc")).into());
        }
        Ok(found)
    }

    /// A user's own, of any version.
    pub fn own(nvcc: &Path, target: &Path) -> Result<Self, Failure> {
        // Programs run in another folder, so that a relative path would name something else there.
        let nvcc =
            if nvcc.components().count() > 1 { nvcc.canonicalize().map_err(|error| format!("{}: {error}", nvcc.display()))? } else { on_path(nvcc)? };
        let own = Self::beside(&nvcc, target)?;
        let pinned = pinned("nvidia-cuda-nvcc");
        if own.version != pinned {
            eprintln!("warning: this nvcc is {}, the pinned one {pinned}: the PTX may differ from what is committed", own.version);
        }
        if own.old_ptxas.is_none() {
            eprintln!("warning: without the pinned toolchain (--install) nothing proves that old drivers can read the PTX");
        }
        Ok(own)
    }

    fn beside(nvcc: &Path, target: &Path) -> Result<Self, Failure> {
        let old_ptxas = Some(home(target).join("nvidia/cuda_nvcc/bin/ptxas")).filter(|path| path.is_file());
        let (ptxas, fatbinary) = (nvcc.with_file_name("ptxas"), nvcc.with_file_name("fatbinary"));
        Ok(Self { nvcc: nvcc.to_owned(), version: version(nvcc)?, ptxas, fatbinary, old_ptxas })
    }

    /// The version of the old ptxas, if there is one.
    pub fn old_version(&self) -> Option<String> {
        self.old_ptxas.as_ref().map(|_| pinned("nvidia-cuda-nvcc-cu12").to_owned())
    }
}

/// The version of a package in the list.
pub fn pinned(package: &str) -> &'static str {
    LIST.lines().find_map(|line| line.strip_prefix(package)?.strip_prefix("==")?.split(' ').next()).unwrap_or_default()
}

/// Where the pinned toolchain is: another list is another folder.
fn home(target: &Path) -> PathBuf {
    target.join("cuda-toolchain").join(&sha256(LIST.as_bytes())[..16])
}

fn on_path(program: &Path) -> Result<PathBuf, Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file());
    Ok(found.ok_or_else(|| format!("{} is not on the PATH", program.display()))?.canonicalize()?)
}

fn version(nvcc: &Path) -> Result<String, Failure> {
    let output = Command::new(nvcc).arg("--version").output().map_err(|error| format!("{}: {error}", nvcc.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.split(", V").nth(1).and_then(|rest| rest.split_whitespace().next());
    Ok(version.ok_or_else(|| format!("{} does not tell its version; is it nvcc?", nvcc.display()))?.to_owned())
}

/// Installs beside the place and renames, so that what is in the place is complete whatever happens.
fn install(home: &Path) -> Result<(), Failure> {
    let parent = home.parent().ok_or("no parent folder")?;
    fs::create_dir_all(parent)?;
    let lock = File::create(parent.join("lock"))?;
    lock.lock()?;
    if home.is_dir() {
        eprintln!("the CUDA toolchain is there already");
        return Ok(());
    }
    let partial = home.with_extension("partial");
    if partial.exists() {
        eprintln!("removing what an interrupted installation left");
        fs::remove_dir_all(&partial)?;
    }
    eprintln!("installing the CUDA toolchain");
    fs::create_dir_all(partial.join("tmp"))?;
    fs::write(partial.join("list.txt"), LIST)?;
    pip(&partial)?;
    fs::rename(partial.join("toolchain"), home)?;
    fs::remove_dir_all(&partial)?;
    Ok(())
}

/// Installs the list in a folder, in which temporary files stay, too.
fn pip(folder: &Path) -> Result<(), Failure> {
    let missing = "--install needs Python 3 with pip: `python3 -m pip --version` must work";
    let found = Command::new("python3").args(["-m", "pip", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !found.map_err(|error| format!("{missing} (python3: {error})"))?.success() {
        return Err(missing.into());
    }
    let done = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--no-deps", "--no-compile", "--require-hashes"])
        .args(["--only-binary=:all:", "--root-user-action=ignore", "--target"])
        .arg(folder.join("toolchain"))
        .arg("-r")
        .arg(folder.join("list.txt"))
        .env("TMPDIR", folder.join("tmp"))
        .status()?;
    if done.success() {
        return Ok(());
    }
    Err("pip could not install the CUDA toolchain: see above. It exists for x86-64 Linux only; --nvcc PATH uses your own".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_pins_versions_and_hashes() {
        let packages: Vec<&str> = LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert!(packages.iter().all(|line| line.contains("==") && line.contains(" --hash=sha256:")), "{packages:?}");
        for package in ["nvidia-cuda-nvcc", "nvidia-cuda-nvcc-cu12"] {
            assert_eq!(pinned(package).split('.').count(), 3, "{package}");
        }
    }
}
