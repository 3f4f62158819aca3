//! [`Staged`]: an output under construction, that appears under its name only when it is complete and synced.
//!
//! ```text
//! checks ─► remove leftovers of dead runs ─► create NAME.partial.PID.RANDOM beside the target, lock it, allocate it whole
//!        ─► writes, in any order ─► check lengths ─► fsync files (and folder) ─► rename ─► fsync the parent folder
//! ```
//!
//! Invariant: at any instant the target is absent, what was there before, or the complete new output. Dropping before
//! [`Staged::commit`] leaves nothing behind; only SIGKILL and a power cut can, and then the next run to that name removes it.

mod checks;
mod files;
mod place;
mod sys;
mod temporary;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use quant_core::error::Printable;
use quant_core::{Error, Result};

use crate::input::Identity;
use files::Files;
use temporary::Temporary;

/// A file of a folder to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewFile {
    /// Its name in the folder.
    pub name: String,
    /// Its size.
    pub n_bytes: u64,
}

/// An output file or folder under construction.
pub struct Staged {
    target: PathBuf,
    force: bool,
    files: Files,
    is_folder: bool,
    /// Dropped last, when nothing is open in it any more.
    temporary: Temporary,
}

impl Staged {
    /// Begins one file of `n_bytes` bytes.
    ///
    /// # Errors
    /// Before anything is created: if `target` is one of `inputs` under whatever name, exists and `force` is not given, is
    /// neither a file nor a folder, or if there is no room for it.
    pub fn file(target: &Path, n_bytes: u64, force: bool, inputs: &[Identity]) -> Result<Staged> {
        let target = plain(target);
        let parent = checks::target(&target, false, force, inputs)?;
        temporary::remove_stale(parent, &target);
        checks::free_space(&target, parent, [n_bytes])?;
        let (temporary, file) = Temporary::file(parent, &target)?;
        let files = Files::single(&target, temporary.path(), file, n_bytes)?;
        Ok(Staged { target, force, files, is_folder: false, temporary })
    }

    /// Begins a folder with the given files, and no others.
    ///
    /// # Errors
    /// As [`Staged::file`]; an empty folder counts as absent. Also if `target` holds one of `inputs`, at any depth, is the
    /// current folder or one above it, or if two names are the same, or one is not a plain name.
    pub fn folder(target: &Path, files: Vec<NewFile>, force: bool, inputs: &[Identity]) -> Result<Staged> {
        let target = plain(target);
        checks::names(&target, &files)?;
        let parent = checks::target(&target, true, force, inputs)?;
        checks::replaced(&target, &files)?;
        temporary::remove_stale(parent, &target);
        checks::free_space(&target, parent, files.iter().map(|f| f.n_bytes))?;
        let temporary = Temporary::folder(parent, &target)?;
        let files = Files::create(&target, temporary.path(), files)?;
        Ok(Staged { target, force, files, is_folder: true, temporary })
    }

    /// Makes the checks of [`Staged::file`] or [`Staged::folder`] for an output of about `n_bytes`, and creates nothing.
    ///
    /// # Errors
    /// What would be refused there.
    pub fn check(target: &Path, is_folder: bool, n_bytes: u64, force: bool, inputs: &[Identity]) -> Result<()> {
        let target = plain(target);
        let parent = checks::target(&target, is_folder, force, inputs)?;
        checks::free_space(&target, parent, [n_bytes])
    }

    /// Writes `bytes` from `offset` of file `file` on, which is its index in the list given. Any thread, any order.
    ///
    /// # Errors
    /// If they do not fit in the declared size, or the system refuses.
    pub fn write_at(&self, file: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        self.files.write_at(file, offset, bytes)
    }

    /// Reads back from `offset` of file `file` on. What was not written yet reads as zeros.
    ///
    /// # Errors
    /// If the range does not lie in the declared size, or the system refuses.
    pub fn read_at(&self, file: usize, offset: u64, out: &mut [u8]) -> Result<()> {
        self.files.read_at(file, offset, out)
    }

    /// Makes the output durable, and appear under its name.
    ///
    /// # Errors
    /// If the system refuses, an earlier write failed, or, without `force`, someone else created the target meanwhile. Then
    /// whatever was at the target is there still. The one exception: if only the last sync of the parent folder fails, the
    /// complete output is in place, but may not survive a power cut.
    pub fn commit(mut self) -> Result<()> {
        self.files.sync()?;
        if self.is_folder {
            self.temporary.sync()?;
        }
        place::place(&mut self.temporary, &self.target, self.is_folder, self.force)
    }
}

/// A path without a slash at its end, with which the system would look through a link and refuse to create a file.
fn plain(target: &Path) -> PathBuf {
    target.components().collect()
}

/// A path as it can be printed: names may hold control characters.
fn shown(path: &Path) -> String {
    Printable(&path.to_string_lossy()).to_string()
}

/// The refusal of a target that is there already.
fn exists(target: &Path) -> Error {
    Error::request(format!("{}: exists; use --force to replace it", shown(target)))
}

/// The folder that `target` is to lie in.
fn parent_of(target: &Path) -> &Path {
    target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The last component of a checked target.
fn name_of(target: &Path) -> &OsStr {
    target.file_name().unwrap_or(OsStr::new("output"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn listing(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn message<T>(result: Result<T>) -> String {
        result.err().expect("needed an error").to_string()
    }

    fn two_files() -> Vec<NewFile> {
        vec![NewFile { name: "a".into(), n_bytes: 3 }, NewFile { name: "b".into(), n_bytes: 0 }]
    }

    fn put_file(target: &Path, bytes: &[u8], force: bool) -> Result<()> {
        let staged = Staged::file(target, bytes.len() as u64, force, &[])?;
        staged.write_at(0, 0, bytes)?;
        staged.commit()
    }

    fn put_folder(target: &Path, force: bool) -> Result<()> {
        let staged = Staged::folder(target, two_files(), force, &[])?;
        staged.write_at(0, 0, b"new")?;
        staged.commit()
    }

    fn is_new_folder(target: &Path) -> bool {
        listing(target) == ["a", "b"] && std::fs::read(target.join("a")).unwrap() == b"new"
    }

    #[test]
    fn a_file_appears_only_at_commit() {
        let dir = dir();
        let target = dir.path().join("out");
        let staged = Staged::file(&target, 6, false, &[]).unwrap();
        assert!(!target.exists());
        let names = listing(dir.path());
        assert!(names.len() == 1 && names[0].starts_with(&format!("out.partial.{}.", std::process::id())), "{names:?}");
        staged.write_at(0, 3, b"def").unwrap();
        staged.write_at(0, 0, b"abc").unwrap();
        let mut back = [0; 4];
        staged.read_at(0, 1, &mut back).unwrap();
        assert_eq!(&back, b"bcde");
        staged.commit().unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"abcdef");
        assert_eq!(listing(dir.path()), ["out"]);
    }

    #[test]
    fn dropping_leaves_nothing() {
        let dir = dir();
        let target = dir.path().join("out");
        let file = Staged::file(&target, 6, false, &[]).unwrap();
        file.write_at(0, 0, b"abc").unwrap();
        let folder = Staged::folder(&target, two_files(), false, &[]).unwrap();
        assert_eq!(listing(dir.path()).len(), 2);
        drop((file, folder));
        assert!(listing(dir.path()).is_empty());
    }

    #[test]
    fn writes_beyond_the_declared_size_are_refused() {
        let dir = dir();
        let staged = Staged::file(&dir.path().join("out"), 6, false, &[]).unwrap();
        for (file, offset) in [(0, 4), (0, u64::MAX), (1, 0)] {
            let text = message(staged.write_at(file, offset, b"abc"));
            assert!(text.contains("out"), "{text}");
            assert!(staged.read_at(file, offset, &mut [0; 3]).is_err());
        }
        assert!(message(staged.write_at(0, 4, b"abc")).contains("found 6 bytes, needed 7"));
    }

    #[test]
    fn a_length_that_someone_changed_is_an_error() {
        let dir = dir();
        let target = dir.path().join("out");
        let staged = Staged::file(&target, 6, false, &[]).unwrap();
        let temporary = dir.path().join(&listing(dir.path())[0]);
        std::fs::OpenOptions::new().write(true).open(temporary).unwrap().set_len(5).unwrap();
        assert!(message(staged.commit()).contains("found 5 bytes, needed 6"));
        assert!(listing(dir.path()).is_empty());
    }

    #[test]
    fn an_existing_file_survives_without_force_and_a_dropped_force() {
        let dir = dir();
        let target = dir.path().join("out");
        std::fs::write(&target, "old").unwrap();
        assert!(message(put_file(&target, b"new", false)).ends_with("out: exists; use --force to replace it"));
        drop(Staged::file(&target, 3, true, &[]).unwrap());
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
        put_file(&target, b"new", true).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
        assert_eq!(listing(dir.path()), ["out"]);
    }

    #[test]
    fn a_race_lost_at_the_rename_leaves_the_winner() {
        for folder in [false, true] {
            let dir = dir();
            let target = dir.path().join("out");
            let staged = if folder { Staged::folder(&target, two_files(), false, &[]) } else { Staged::file(&target, 3, false, &[]) }.unwrap();
            std::fs::write(&target, "winner").unwrap();
            assert!(message(staged.commit()).contains("exists; use --force"));
            assert_eq!(std::fs::read(&target).unwrap(), b"winner");
            assert_eq!(listing(dir.path()), ["out"]);
        }
    }

    #[test]
    fn of_many_racers_without_force_one_wins() {
        let dir = dir();
        let target = dir.path().join("out");
        let barrier = std::sync::Barrier::new(8);
        let race = |folder: bool| {
            let staged = if folder { Staged::folder(&target, two_files(), false, &[]) } else { Staged::file(&target, 0, false, &[]) };
            barrier.wait();
            staged.and_then(Staged::commit).is_ok()
        };
        for folder in [true, false] {
            let race = &race;
            let wins: usize = std::thread::scope(|s| {
                let racers: Vec<_> = (0..8).map(|_| s.spawn(move || race(folder))).collect();
                racers.into_iter().map(|r| usize::from(r.join().unwrap())).sum()
            });
            assert_eq!(wins, 1);
            assert_eq!(listing(dir.path()), ["out"]);
            if folder { std::fs::remove_dir_all(&target).unwrap() } else { std::fs::remove_file(&target).unwrap() }
        }
    }

    #[test]
    fn inputs_are_refused_under_every_name_even_with_force() {
        let dir = dir();
        let (input, hard, soft) = (dir.path().join("in"), dir.path().join("hard"), dir.path().join("soft"));
        std::fs::write(&input, "in").unwrap();
        std::fs::hard_link(&input, &hard).unwrap();
        symlink("in", &soft).unwrap();
        let inputs = [Identity::of(&input).unwrap()];
        for target in [&input, &hard, &soft, &dir.path().join("./../").join(dir.path().file_name().unwrap()).join("in")] {
            for force in [false, true] {
                assert!(message(Staged::file(target, 1, force, &inputs)).contains("is an input"));
                assert!(message(Staged::folder(target, two_files(), force, &inputs)).contains("is an input"));
            }
        }
        assert_eq!(std::fs::read(&input).unwrap(), b"in");
        assert_eq!(listing(dir.path()), ["hard", "in", "soft"]);
    }

    #[test]
    fn a_folder_that_holds_an_input_is_never_replaced() {
        let dir = dir();
        let (model, cache) = (dir.path().join("model"), dir.path().join("cache"));
        std::fs::create_dir_all(model.join("sub")).unwrap();
        std::fs::create_dir(&cache).unwrap();
        std::fs::write(model.join("sub/in"), "in").unwrap();
        symlink(model.join("sub/in"), cache.join("link")).unwrap();
        let inputs = [Identity::of(&model.join("sub/in")).unwrap()];
        for target in [&model, &cache] {
            assert!(message(Staged::folder(target, two_files(), true, &inputs)).contains("holds an input"));
            assert!(message(Staged::file(target, 1, true, &inputs)).contains("holds an input"));
        }
        let folder = [Identity::of(&model).unwrap()];
        assert!(message(Staged::folder(&model, two_files(), true, &folder)).contains("is an input"));
        assert!(message(Staged::folder(&cache, two_files(), true, &[])).contains("holds 'link', which is no part of the output"));
    }

    #[test]
    fn an_empty_folder_is_as_good_as_none() {
        let dir = dir();
        let target = dir.path().join("out");
        put_folder(&target, false).unwrap();
        assert!(is_new_folder(&target));
        let empty = dir.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        put_folder(&empty, false).unwrap();
        assert!(is_new_folder(&empty));
        assert!(message(put_folder(&empty, false)).contains("exists"));
        assert_eq!(listing(dir.path()), ["empty", "out"]);
    }

    #[test]
    fn force_replaces_files_and_flat_folders() {
        let dir = dir();
        let (file, folder, link, elsewhere) =
            (dir.path().join("file"), dir.path().join("folder"), dir.path().join("link"), dir.path().join("elsewhere"));
        std::fs::write(&file, "old").unwrap();
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("a"), "old").unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("kept"), "kept").unwrap();
        symlink("elsewhere", &link).unwrap();
        for target in [&file, &folder, &link] {
            assert!(message(put_folder(target, false)).contains("exists"));
            put_folder(target, true).unwrap();
            assert!(is_new_folder(target) && !target.is_symlink());
        }
        assert!(message(put_file(&folder, b"file", true)).contains("is a folder, which a file does not replace"));
        std::fs::write(folder.join("thesis.txt"), "years of work").unwrap();
        assert!(message(put_folder(&folder, true)).contains("holds 'thesis.txt'"));
        assert_eq!(listing(&folder), ["a", "b", "thesis.txt"]);
        assert_eq!(listing(dir.path()), ["elsewhere", "file", "folder", "link"]);
        assert_eq!(listing(&elsewhere), ["kept"]);
    }

    #[test]
    fn a_folder_with_folders_in_it_is_never_replaced() {
        let dir = dir();
        let target = dir.path().join("thesis");
        std::fs::create_dir_all(target.join("chapter")).unwrap();
        assert!(message(put_folder(&target, true)).contains("holds other folders"));
        assert!(message(put_file(&target, b"file", true)).contains("holds other folders"));
        assert!(target.join("chapter").is_dir());
    }

    #[test]
    fn a_slash_at_the_end_means_nothing() {
        let dir = dir();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        symlink("folder", dir.path().join("link")).unwrap();
        let slashed = |name: &str| PathBuf::from(format!("{}/{name}/", dir.path().display()));
        put_file(&slashed("new"), b"new", false).unwrap();
        put_folder(&slashed("other"), false).unwrap();
        assert!(message(put_folder(&slashed("link"), false)).contains("exists"));
        put_folder(&slashed("link"), true).unwrap();
        assert!(!dir.path().join("link").is_symlink() && listing(&dir.path().join("folder")).is_empty());
    }

    #[test]
    fn a_link_exists_and_force_replaces_the_link() {
        let dir = dir();
        let (link, other) = (dir.path().join("link"), dir.path().join("other"));
        std::fs::write(&other, "other").unwrap();
        symlink("other", &link).unwrap();
        symlink("nowhere", dir.path().join("dangling")).unwrap();
        assert!(message(put_file(&link, b"new", false)).contains("exists"));
        assert!(message(put_file(&dir.path().join("dangling"), b"new", false)).contains("exists"));
        put_file(&link, b"new", true).unwrap();
        assert!(!link.is_symlink());
        assert_eq!(std::fs::read(&other).unwrap(), b"other");
    }

    #[test]
    fn more_files_than_descriptors_are_all_written_and_read_back() {
        let dir = dir();
        let target = dir.path().join("out");
        let files = (0..200).map(|i| NewFile { name: format!("f{i:03}"), n_bytes: 4 }).collect();
        let staged = Staged::folder(&target, files, false, &[]).unwrap();
        for half in [0, 2] {
            for i in 0..200u16 {
                staged.write_at(i.into(), half, &i.to_le_bytes()).unwrap();
            }
        }
        let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|e| std::fs::read_link(e.path()).ok());
        assert_eq!(open.filter(|p| p.starts_with(dir.path())).count(), 64 + 1);
        let mut back = [0; 4];
        staged.read_at(7, 0, &mut back).unwrap();
        assert_eq!(back, [7, 0, 7, 0]);
        staged.commit().unwrap();
        assert_eq!(listing(&target).len(), 200);
        assert_eq!(std::fs::read(target.join("f199")).unwrap(), [199, 0, 199, 0]);
    }

    #[test]
    fn a_lost_file_is_not_made_again() {
        let dir = dir();
        let files = (0..70).map(|i| NewFile { name: format!("f{i}"), n_bytes: 1 }).collect();
        let staged = Staged::folder(&dir.path().join("out"), files, false, &[]).unwrap();
        std::fs::remove_file(dir.path().join(&listing(dir.path())[0]).join("f0")).unwrap();
        assert!(staged.write_at(0, 0, b"x").is_err());
        assert!(staged.commit().is_err());
        assert!(listing(dir.path()).is_empty());
    }

    #[test]
    fn parallel_writers_fill_a_file() {
        let dir = dir();
        let target = dir.path().join("out");
        let staged = Staged::file(&target, 1 << 20, false, &[]).unwrap();
        std::thread::scope(|s| {
            for t in 0..4u8 {
                let staged = &staged;
                s.spawn(move || (0..64).for_each(|i| staged.write_at(0, (i * 4 + u64::from(t)) << 12, &[t; 4096]).unwrap()));
            }
        });
        staged.commit().unwrap();
        let bytes = std::fs::read(&target).unwrap();
        assert!(bytes.len() == 1 << 20 && bytes.iter().enumerate().all(|(i, &b)| usize::from(b) == (i >> 12) % 4));
    }

    #[test]
    fn permissions_follow_the_umask() {
        let dir = dir();
        let probe = dir.path().join("probe");
        std::fs::write(&probe, "").unwrap();
        std::fs::create_dir(dir.path().join("probes")).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        put_file(&dir.path().join("file"), b"new", false).unwrap();
        put_folder(&dir.path().join("folder"), false).unwrap();
        assert_eq!(mode(&dir.path().join("file")), mode(&probe));
        assert_eq!(mode(&dir.path().join("folder")), mode(&dir.path().join("probes")));
        assert_eq!(mode(&dir.path().join("folder/a")), mode(&probe));
    }

    #[test]
    fn odd_and_long_names_are_fine() {
        use std::os::unix::ffi::OsStrExt;
        let dir = dir();
        let names = [b"\xff\xfe".to_vec(), b"-rf".to_vec(), vec![b'x'; 255], "é".repeat(127).into_bytes()];
        for name in names {
            let target = dir.path().join(OsStr::from_bytes(&name));
            put_file(&target, b"new", false).unwrap();
            put_folder(&target, true).unwrap();
            assert!(is_new_folder(&target));
        }
        assert_eq!(listing(dir.path()).len(), 4);
    }
}
