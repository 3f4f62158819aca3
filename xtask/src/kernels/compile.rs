//! From `.cu` to PTX, in a copy of quant-cuda's sources.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::process::Command;

use rayon::prelude::*;

use super::Failure;
use super::manifest::{Made, included, ptx_of, sha256};
use super::resources::{ARCHITECTURES, PerArchitecture, Resources, read};
use super::toolchain::Toolchain;

/// The arguments of nvcc.
///
/// sm_75 is the oldest architecture that CUDA 13 knows; drivers compile its PTX for any later one. Without `-fmad=false` a product and a sum
/// become one operation with one rounding.
pub const FLAGS: [&str; 5] = ["-O3", "-fmad=false", "-std=c++17", "-arch=compute_75", "-ptx"];

/// The version that PTX files say, in place of nvcc's own, which only drivers as new as nvcc accept.
///
/// The kernels need nothing newer. 7.0 came with CUDA 11.0, so drivers from 450 on read it; sm_75 alone would need 6.3, for drivers that
/// nobody supports any more. The old ptxas refuses an instruction that is newer than the version that the file says.
pub const PTX: &str = "7.0";

/// The architectures for which the old ptxas is asked: the oldest, and the newest that it knows.
const PROVEN: [u32; 2] = [75, 90];

/// Compiles a `.cu` file in the folder `stage`, beside which machine code is left. Kernels of tests are not assembled.
pub fn compile(tools: &Toolchain, stage: &Path, source: &str) -> Result<(String, Made), Failure> {
    let ptx = ptx_of(source);
    let (folder, name) = source.rsplit_once('/').ok_or("a source without a folder")?;
    // In its folder, so that no path gets into the text or into messages.
    let mut nvcc = Command::new(&tools.nvcc);
    nvcc.args(FLAGS).arg(name).arg("-o").arg(stage.join(&ptx)).current_dir(stage.join(folder));
    // What users set for their own builds would change the text.
    run(nvcc.env_remove("NVCC_PREPEND_FLAGS").env_remove("NVCC_APPEND_FLAGS"), source)?;
    let text = portable(&fs::read_to_string(stage.join(&ptx))?).ok_or_else(|| format!("{ptx} has no .version"))?;
    fs::write(stage.join(&ptx), &text)?;
    let kernels = if folder == "kernels" { assemble(tools, stage, &ptx)? } else { BTreeMap::new() };
    let sources = included(stage, source)?;
    Ok((ptx, Made { sha256: sha256(text.as_bytes()), sources, kernels }))
}

/// PTX with the version [`PTX`], without the comment in which nvcc names its build, and without tables that no kernel uses, which nvcc
/// keeps: there would be all of quant-core's in every module.
fn portable(text: &str) -> Option<String> {
    let start = text.lines().position(|line| line.starts_with(".version "))?;
    let mut uses = HashMap::<&str, usize>::new();
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').for_each(|word| *uses.entry(word).or_default() += 1);
    let used = |line: &&str| table(line).is_none_or(|name| uses.get(name) != Some(&1));
    let body = text.lines().skip(start + 1).filter(used).map(|line| format!("{line}\n"));
    Some(format!("// Written by `cargo xtask kernels`.\n\n.version {PTX}\n") + &body.collect::<String>())
}

/// The name of the table that a line declares.
fn table(line: &str) -> Option<&str> {
    line.strip_prefix(".global ").filter(|line| line.ends_with("};"))?.split('[').next()?.rsplit(' ').next()
}

/// What the kernels use on each architecture.
fn assemble(tools: &Toolchain, stage: &Path, ptx: &str) -> Result<BTreeMap<String, PerArchitecture>, Failure> {
    if let Some(old) = &tools.old_ptxas {
        for arch in PROVEN {
            run(Command::new(old).arg(format!("-arch=sm_{arch}")).arg(ptx).args(["-o", &cubin(ptx, 0)]).current_dir(stage), ptx)
                .map_err(|error| format!("{error}\nold drivers would refuse {ptx}: it says PTX {PTX} and has something newer"))?;
        }
    }
    let used = |arch: u32| -> Result<(u32, BTreeMap<String, Resources>), Failure> {
        let mut ptxas = Command::new(&tools.ptxas);
        let verbose = run(ptxas.args(["-v", &format!("-arch=sm_{arch}"), ptx, "-o", &cubin(ptx, arch)]).current_dir(stage), ptx)?;
        Ok((arch, read(&verbose)?))
    };
    let mut kernels = BTreeMap::<String, PerArchitecture>::new();
    for (arch, used) in ARCHITECTURES.into_par_iter().map(used).collect::<Result<Vec<_>, _>>()? {
        for (name, used) in used {
            kernels.entry(name).or_default().insert(format!("sm_{arch}"), used);
        }
    }
    Ok(kernels)
}

fn cubin(ptx: &str, arch: u32) -> String {
    format!("{ptx}.{arch}.cubin")
}

/// Joins the machine code of all architectures and the PTX in one file.
pub fn fatbin(tools: &Toolchain, stage: &Path, ptx: &str, to: &Path) -> Result<(), Failure> {
    let mut join = Command::new(&tools.fatbinary);
    join.args(["-64", "--compress-all"]).arg(format!("--create={}", to.display())).current_dir(stage);
    join.args(ARCHITECTURES.map(|arch| format!("--image3=kind=elf,sm={arch},file={}", cubin(ptx, arch))));
    run(join.arg(format!("--image3=kind=ptx,sm=75,file={ptx}")), ptx)?;
    Ok(())
}

/// Runs a program, and gives what it says.
fn run(command: &mut Command, about: &str) -> Result<String, Failure> {
    let program = command.get_program().to_owned();
    let output = command.output().map_err(|error| format!("{}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let name = Path::new(&program).file_name().unwrap_or(&program).display();
    if output.status.success() { Ok(text) } else { Err(format!("{name} refused {about} ({})\n{}", output.status, text.trim_end()).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_says_what_is_portable() {
        let text = "//\n// Compiler Build ID: CL-1\n//\n\n.version 9.5\n.target sm_75\n// .version 9.5\n";
        let expected = "// Written by `cargo xtask kernels`.\n\n.version 7.0\n.target sm_75\n// .version 9.5\n";
        assert_eq!(portable(text).unwrap(), expected);
        assert_eq!(portable(expected).unwrap(), expected);
        assert!(portable(".target sm_75\n").is_none());
    }

    #[test]
    fn tables_that_no_kernel_uses_are_left_out() {
        let table = |name: &str| format!(".global .align 1 .b8 {name}[2] = {{0, 1}};\n");
        let code = ".visible .entry k(){\nmov.u64 %rd1, USED;\n}\n";
        let text = format!(".version 9.5\n{}{}.global .align 4 .u32 counter;\n{code}", table("USED"), table("USED_NOT"));
        assert_eq!(portable(&text).unwrap(), portable(&text.replace(&table("USED_NOT"), "")).unwrap());
        assert!(portable(&text).unwrap().contains(&table("USED")));
        assert!(!portable(&text).unwrap().contains("USED_NOT"));
        assert!(portable(&text).unwrap().contains("counter"));
    }
}
