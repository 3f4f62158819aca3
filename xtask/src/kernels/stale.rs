//! Whether the committed PTX belongs to its sources, by the hashes of `MANIFEST.json`: what can be seen without CUDA.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::Failure;
use super::manifest::{Manifest, NAME, hashes, included, outputs, ptx_of, sources};

/// The committed manifest.
pub fn committed(root: &Path) -> Result<Manifest, Failure> {
    let path = root.join(NAME);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?)
}

/// What does not fit the files, in words.
pub fn stale(manifest: &Manifest, root: &Path) -> Result<Vec<String>, Failure> {
    let sources = sources(root)?;
    let mut stale = differences(&manifest.sources, &hashes(root, &sources)?, "is edited");
    let made = manifest.modules.iter().map(|(path, made)| (path.clone(), made.sha256.clone())).collect();
    stale.extend(differences(&made, &hashes(root, &outputs(root)?)?, "is not what was compiled"));
    for source in sources.iter().filter(|path| path.ends_with(".cu")) {
        match manifest.modules.get(&ptx_of(source)) {
            None => stale.push(format!("{source} is not compiled")),
            Some(made) if made.sources != included(root, source)? => stale.push(format!("{source} includes other headers")),
            Some(_) => {}
        }
    }
    Ok(stale)
}

fn differences(then: &BTreeMap<String, String>, now: &BTreeMap<String, String>, edited: &str) -> Vec<String> {
    let paths: BTreeSet<_> = then.keys().chain(now.keys()).collect();
    let say = |path: &String| match (then.get(path), now.get(path)) {
        (Some(then), Some(now)) if then == now => None,
        (Some(_), Some(_)) => Some(format!("{path} {edited}")),
        (Some(_), None) => Some(format!("{path} is gone")),
        (None, _) => Some(format!("{path} is new")),
    };
    paths.into_iter().filter_map(say).collect()
}

mod tests {
    use super::super::manifest::{Made, sha256};
    use super::*;

    fn crate_of(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            fs::create_dir_all(folder.path().join(path).parent().unwrap()).unwrap();
            fs::write(folder.path().join(path), text).unwrap();
        }
        folder
    }

    const FILES: [(&str, &str); 6] = [
        ("kernels/a.cu", "#include <math.h>\n#include \"a.cuh\"\n"),
        ("kernels/a.cuh", "  #include \"./b.cuh\" // and itself\n#include \"a.cuh\"\n"),
        ("kernels/b.cuh", ""),
        ("ptx/a.ptx", "text"),
        ("tests/bugs/race.cu", "#include \"../../kernels/b.cuh\"\n"),
        ("tests/bugs/race.ptx", "text"),
    ];

    fn manifest(root: &Path) -> Manifest {
        let cu = ["kernels/a.cu", "tests/bugs/race.cu"];
        let made = |source: &str| Made { sha256: sha256(b"text"), sources: included(root, source).unwrap(), kernels: BTreeMap::new() };
        let modules = cu.iter().map(|source| (ptx_of(source), made(source))).collect();
        let sources = hashes(root, &sources(root).unwrap()).unwrap();
        Manifest { nvcc: String::new(), flags: vec![], ptx: String::new(), proven_with: None, sources, modules }
    }

    #[test]
    fn a_change_of_any_file_is_seen() {
        let folder = crate_of(&FILES);
        let root = folder.path();
        let manifest = manifest(root);
        assert_eq!(stale(&manifest, root).unwrap(), Vec::<String>::new());
        assert_eq!(manifest.modules["ptx/a.ptx"].sources, ["kernels/a.cu", "kernels/a.cuh", "kernels/b.cuh"].map(str::to_owned).into());
        assert_eq!(manifest.modules["tests/bugs/race.ptx"].sources, ["kernels/b.cuh", "tests/bugs/race.cu"].map(str::to_owned).into());
        for (path, text) in FILES {
            fs::write(root.join(path), format!("{text} ")).unwrap();
            assert_eq!(stale(&manifest, root).unwrap().len(), 1, "{path} with a space more");
            fs::write(root.join(path), text).unwrap();
        }
        for path in ["kernels/c.cuh", "ptx/c.ptx", "tests/bugs/c.ptx"] {
            fs::write(root.join(path), "").unwrap();
            assert_eq!(stale(&manifest, root).unwrap(), [format!("{path} is new")]);
            fs::remove_file(root.join(path)).unwrap();
        }
        fs::write(root.join("kernels/c.cu"), "").unwrap();
        assert_eq!(stale(&manifest, root).unwrap(), ["kernels/c.cu is new", "kernels/c.cu is not compiled"]);
        fs::remove_file(root.join("kernels/c.cu")).unwrap();
        fs::remove_file(root.join("ptx/a.ptx")).unwrap();
        assert_eq!(stale(&manifest, root).unwrap(), ["ptx/a.ptx is gone"]);
    }

    #[test]
    fn names_of_kernels_are_unique() {
        let folder = crate_of(&FILES);
        let mut manifest = manifest(folder.path());
        manifest.modules.values_mut().for_each(|made| drop(made.kernels.insert("twice".to_owned(), BTreeMap::new())));
        assert!(manifest.kernels().unwrap_err().to_string().contains("twice"));
    }
}
