//! What is checked before anything is created.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::Path;

use quant_core::error::Printable;
use quant_core::{Error, Result};

use super::{NewFile, exists, parent_of, shown, sys};
use crate::input::{Identity, list};

/// Checks that `target` may be created or replaced, and gives the folder it is to lie in.
pub(super) fn target<'a>(target: &'a Path, folder: bool, force: bool, inputs: &[Identity]) -> Result<&'a Path> {
    let request = |problem: &str| Error::request(format!("{}: {problem}", shown(target)));
    if target.file_name().is_none() {
        return Err(request("is not the name of a new file or folder; give a path that ends in one"));
    }
    let parent = parent_of(target);
    match fs::metadata(parent) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(request(&format!("'{}' is not a folder; choose another place", shown(parent)))),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            return Err(request(&format!("the folder '{}' does not exist; create it first", shown(parent))));
        }
        Err(e) => return Err(Error::io("look at", parent, e)),
    }
    match fs::symlink_metadata(target) {
        Ok(found) => existing(target, &found, folder, force, inputs)?,
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(Error::io("look at", target, e)),
    }
    Ok(parent)
}

/// Checks that what is at `target` may be replaced.
fn existing(target: &Path, found: &Metadata, folder: bool, force: bool, inputs: &[Identity]) -> Result<()> {
    let request = |problem: &str| Err(Error::request(format!("{}: {problem}", shown(target))));
    // Through links, because the user means what the link leads to.
    let behind = fs::metadata(target).ok();
    if behind.as_ref().is_some_and(|m| inputs.contains(&Identity::from(m))) {
        return request("is an input; the output needs another name");
    }
    if !behind.as_ref().unwrap_or(found).is_dir() && !behind.as_ref().is_none_or(Metadata::is_file) {
        return request("is neither a file nor a folder; the output needs another name");
    }
    if found.is_dir() {
        if is_around_here(found) {
            return request("is the current folder, or one above it; the output needs another name");
        }
        if holds_input(target, inputs) {
            return request("holds an input; the output needs another name");
        }
        if force && holds_folder(target) {
            return request("holds other folders, which replacing it would delete; the output needs another name");
        }
        if force && !folder && !is_empty(target) {
            return request("is a folder, which a file does not replace; the output needs another name");
        }
    }
    if force || (folder && found.is_dir() && is_empty(target)) { Ok(()) } else { Err(exists(target)) }
}

/// Whether the current folder is, or lies in, the folder `found`: nobody means to replace that.
fn is_around_here(found: &Metadata) -> bool {
    let Ok(here) = std::env::current_dir() else { return false };
    here.ancestors().any(|folder| Identity::of(folder).is_ok_and(|identity| identity == Identity::from(found)))
}

/// Checks that nothing is in the folder `target` but what an earlier output of the same kind has left there: the names of
/// `files`, whatever their numbers, or the usual ones of a model.
pub(super) fn replaced(target: &Path, files: &[NewFile]) -> Result<()> {
    const USUAL: [&str; 3] = ["model.safetensors", "model.safetensors.index.json", "model-#-of-#.safetensors"];
    let known: HashSet<String> = files.iter().map(|f| numberless(&f.name)).chain(USUAL.map(str::to_owned)).collect();
    let is_foreign = |name: &OsString| !known.contains(&numberless(&name.to_string_lossy()));
    // A link is replaced, not what it leads to.
    let is_folder = fs::symlink_metadata(target).is_ok_and(|found| found.is_dir());
    let mut names = list(target).into_iter().filter(|_| is_folder).flatten();
    match names.find(is_foreign) {
        Some(name) => {
            let name = Printable(&name.to_string_lossy()).to_string();
            let what = format!("{}: holds '{name}', which is no part of the output and would be deleted", shown(target));
            Err(Error::request(format!("{what}; the output needs another name, or an empty folder")))
        }
        None => Ok(()),
    }
}

/// A name with `#` for each of its numbers.
fn numberless(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if !c.is_ascii_digit() {
            out.push(c);
        } else if !out.ends_with('#') {
            out.push('#');
        }
    }
    out
}

fn is_empty(folder: &Path) -> bool {
    list(folder).is_ok_and(|names| names.is_empty())
}

/// Whether there is a folder in `folder`. What is written here has none, so it is something else.
fn holds_folder(folder: &Path) -> bool {
    list(folder).into_iter().flatten().any(|name| fs::symlink_metadata(folder.join(name)).is_ok_and(|found| found.is_dir()))
}

/// Whether an input lies in `folder`, at any depth, or is what a link in it leads to, as in the cache of Hugging Face.
///
/// What cannot be looked at is taken not to be one: it could not be opened as an input either.
fn holds_input(folder: &Path, inputs: &[Identity]) -> bool {
    let inputs: HashSet<Identity> = inputs.iter().copied().collect();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in list(&folder).into_iter().flatten().map(|name| folder.join(name)) {
            if Identity::of(&path).is_ok_and(|identity| inputs.contains(&identity)) {
                return true;
            }
            if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
                folders.push(path);
            }
        }
    }
    false
}

/// Checks that every file has a plain name of its own.
pub(super) fn names(target: &Path, files: &[NewFile]) -> Result<()> {
    let mut seen = HashSet::with_capacity(files.len());
    for NewFile { name, .. } in files {
        let refuse = |problem: &str| Err(Error::request(format!("{}: the file name '{}' {problem}", shown(target), Printable(name))));
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return refuse("is not a plain name; needed one without '/', NUL, '.' and '..'");
        }
        if name.len() > 255 {
            return refuse(&format!("has {} bytes; at most 255 are possible", name.len()));
        }
        if !seen.insert(name) {
            return refuse("comes twice; every file needs its own");
        }
    }
    Ok(())
}

/// Checks that files of these sizes fit in `parent`. A file system that cannot tell is believed to have room.
pub(super) fn free_space(target: &Path, parent: &Path, sizes: impl IntoIterator<Item = u64>) -> Result<()> {
    let needed = sizes.into_iter().fold(0u64, u64::saturating_add);
    match sys::free_bytes(parent) {
        Some(found) if found < needed => Err(no_space(target, Some(found), needed)),
        _ => Ok(()),
    }
}

/// The refusal for want of space.
pub(super) fn no_space(target: &Path, found: Option<u64>, needed: u64) -> Error {
    let found = found.map_or("found the disk full".into(), |found| format!("found {found} bytes free"));
    Error::request(format!("{}: not enough space: {found}, needed {needed}; make room or choose another place", shown(target)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T>(result: Result<T>) -> String {
        result.err().expect("needed an error").to_string()
    }

    #[test]
    fn names_are_plain_and_unique() {
        let file = |name: &str| NewFile { name: name.into(), n_bytes: 0 };
        for bad in ["", ".", "..", "a/b", "/a", "../a", "a\0b", &"x".repeat(256)] {
            assert!(message(names(Path::new("out"), &[file(bad)])).contains("file name"), "{bad}");
        }
        assert!(message(names(Path::new("out"), &[file("a"), file("a")])).contains("twice"));
        names(Path::new("out"), &[file("a"), file("..a"), file(&"x".repeat(255))]).unwrap();
    }

    #[test]
    fn a_target_needs_a_name_and_a_parent() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let check = |path: &Path| message(target(path, true, true, &[]));
        assert!(check(&dir.path().join("..")).contains("not the name"));
        assert!(check(Path::new("/")).contains("not the name"));
        assert!(check(&dir.path().join("none/out")).contains("does not exist; create it first"));
        assert!(check(&dir.path().join("file/out")).contains("is not a folder"));
        assert_eq!(target(Path::new("out-that-is-not-here"), true, true, &[]).unwrap(), Path::new("."));
    }

    #[test]
    fn devices_and_the_current_folder_are_never_replaced() {
        assert!(message(target(Path::new("/dev/null"), false, true, &[])).contains("neither a file nor a folder"));
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        assert!(message(target(&link, false, true, &[])).contains("neither a file nor a folder"));
        let here = std::env::current_dir().unwrap();
        assert!(message(target(&here, true, true, &[])).contains("current folder"));
        assert!(message(target(here.parent().unwrap(), true, true, &[])).contains("current folder"));
    }

    #[test]
    fn room_is_checked_without_overflow() {
        let dir = tempfile::tempdir().unwrap();
        let text = message(free_space(&dir.path().join("out"), dir.path(), [u64::MAX, 2]));
        assert!(text.contains("bytes free, needed 18446744073709551615"), "{text}");
        free_space(&dir.path().join("out"), dir.path(), [1, 2]).unwrap();
    }
}
