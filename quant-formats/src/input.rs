//! [`Input`]: a regular file opened for reading, and nothing else.
//!
//! What a reader gets are copies: no slice of a map ever leaves this crate, so that a file which changes under us is an
//! error and not undefined behaviour. Short reads go through `pread`, long ones through the map if there is one.

mod file_system;
mod folder;

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use quant_core::{Error, Result};

use crate::map::Map;
pub(crate) use folder::list;

/// Shorter reads never go through the map: a `pread` costs less than the page faults, and leaves nothing mapped behind.
const MIN_MAPPED_READ: usize = 64 << 10;

/// How long reads are done. The bytes are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Io {
    /// From a memory map; `pread` where the system refuses one.
    Mmap,
    /// With `pread`.
    Read,
    /// What is faster: [`Io::Read`]. Bytes are copied out of a map anyway, and the faults of doing so cost more than `pread`.
    #[default]
    Auto,
}

/// How a model is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// How its files are read.
    pub io: Io,
    /// Whether tensors of unknown types of GGUF are taken to reach as far as the next tensor, so that they can be copied.
    pub unknown_types: bool,
    /// Whether a folder with a config.json and no safetensors file is a model all the same, one without tensors: its vocabulary
    /// alone is wanted.
    pub vocab_only: bool,
}

impl From<Io> for Opening {
    fn from(io: Io) -> Opening {
        Opening { io, ..Opening::default() }
    }
}

/// What makes a file itself, under whatever name: symlinks, hard links and bind mounts have it in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The device it lies on.
    pub dev: u64,
    /// Its number there.
    pub ino: u64,
}

impl Identity {
    /// The identity of the file or folder that `path` leads to.
    ///
    /// # Errors
    /// If it leads nowhere.
    pub fn of(path: &Path) -> Result<Identity> {
        std::fs::metadata(path).map(|m| Identity::from(&m)).map_err(|e| Error::io("look at", path, e))
    }
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Identity {
        Identity { dev: metadata.dev(), ino: metadata.ino() }
    }
}

/// An opened regular file. It is never written to.
#[derive(Debug)]
pub struct Input {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    map: Option<Map>,
}

impl Input {
    /// Opens the regular file that `path` leads to; symlinks are followed.
    ///
    /// # Errors
    /// If it cannot be opened, or is anything but a stored file: a pipe, device, socket, folder, or a file of the kernel.
    pub fn open(path: &Path, io: Io) -> Result<Input> {
        // Looked at before it is opened, because opening alone wakes the writer of a pipe, rewinds a tape, arms a watchdog.
        refuse_special(path, &std::fs::metadata(path).map_err(|e| Error::io("open", path, e))?)?;
        let file = open_read_only(path).map_err(|e| Error::io("open", path, e))?;
        let metadata = file.metadata().map_err(|e| Error::io("look at", path, e))?;
        refuse_special(path, &metadata)?;
        if file_system::is_made_up(&file) {
            return Err(Error::file(path, "is made up by the kernel as it is read; needed a stored file"));
        }
        let map = if io == Io::Mmap { Map::new(&file, metadata.len()) } else { None };
        Ok(Input { path: path.into(), file, stamp: Stamp::from(&metadata), map })
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in bytes, as it was when it was opened.
    pub fn len(&self) -> u64 {
        self.stamp.len
    }

    /// Whether it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Which file it is.
    pub fn identity(&self) -> Identity {
        self.stamp.identity
    }

    /// Fills `out` with the bytes from `offset` on.
    ///
    /// # Errors
    /// If the range does not lie in the file, the system refuses, or the file was cut short since it was opened.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        self.check_range(offset, out.len() as u64)?;
        if let (Some(map), Ok(start)) = (&self.map, usize::try_from(offset))
            && out.len() >= MIN_MAPPED_READ
            && map.read(start, out)
        {
            return Ok(());
        }
        // Without a map, and after a fault in it, which may have been a damaged disk: pread can tell that from a cut.
        self.file.read_exact_at(out, offset).map_err(|e| self.read_error(e))?;
        if self.map.as_ref().is_some_and(Map::has_faulted) { Err(self.changed()) } else { Ok(()) }
    }

    /// A buffered reader of the bytes in `range`, for headers. It never goes through the map.
    ///
    /// It fails with [`ErrorKind::UnexpectedEof`] where the range leaves the file.
    pub fn reader(&self, range: Range<u64>) -> impl BufRead + '_ {
        BufReader::new(Reader { file: &self.file, range })
    }

    /// Checks that the opened file still has the size and the times it had.
    ///
    /// # Errors
    /// If it was written to, cut, or touched in any way since it was opened.
    pub fn check_unchanged(&self) -> Result<()> {
        let now = self.file.metadata().map_err(|e| Error::io("look at", &self.path, e))?;
        if Stamp::from(&now) == self.stamp { Ok(()) } else { Err(self.changed()) }
    }

    fn check_range(&self, offset: u64, n_bytes: u64) -> Result<()> {
        if offset.checked_add(n_bytes).is_some_and(|end| end <= self.len()) {
            return Ok(());
        }
        let left = self.len().saturating_sub(offset);
        Err(Error::file(&self.path, format!("found {left} bytes from here on, needed {n_bytes}")).at(offset))
    }

    fn read_error(&self, error: io::Error) -> Error {
        if error.kind() == ErrorKind::UnexpectedEof { self.changed() } else { Error::io("read", &self.path, error) }
    }

    fn changed(&self) -> Error {
        let was = self.len();
        let problem = match self.file.metadata() {
            Ok(now) if now.len() == was => {
                format!("the file changed while it was being read (it was written to or touched; it has {was} bytes as before)")
            }
            Ok(now) => format!("the file changed while it was being read (it is now {} bytes, it was {was})", now.len()),
            Err(_) => "the file changed while it was being read".into(),
        };
        Error::file(&self.path, problem)
    }
}

/// What changes when a file does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    identity: Identity,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(m: &Metadata) -> Stamp {
        Stamp { identity: Identity::from(m), len: m.len(), modified: (m.mtime(), m.mtime_nsec()), changed: (m.ctime(), m.ctime_nsec()) }
    }
}

/// Reads a range by position, so that any number of readers share a descriptor.
struct Reader<'a> {
    file: &'a File,
    range: Range<u64>,
}

impl Read for Reader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.range.end.saturating_sub(self.range.start);
        let wanted = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let n = self.file.read_at(&mut out[..wanted], self.range.start)?;
        if n == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("the file ends {left} bytes too early")));
        }
        self.range.start += n as u64;
        Ok(n)
    }
}

/// Non-blocking, because between the look and the opening a pipe may have taken the place of the file.
fn open_read_only(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path)
}

fn refuse_special(path: &Path, metadata: &Metadata) -> Result<()> {
    match special(metadata.file_type()) {
        None => Ok(()),
        Some(what) => Err(Error::file(path, format!("is {what}; needed a regular file"))),
    }
}

fn special(kind: FileType) -> Option<&'static str> {
    match kind {
        k if k.is_file() => None,
        k if k.is_dir() => Some("a folder"),
        k if k.is_fifo() => Some("a named pipe"),
        k if k.is_socket() => Some("a socket"),
        k if k.is_char_device() || k.is_block_device() => Some("a device"),
        _ => Some("of an unknown kind"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};
    use std::os::unix::net::UnixListener;
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    const LEN: usize = 5 << 20;

    /// No two pages, and no two 64 KiB windows, alike.
    fn pattern() -> Vec<u8> {
        (0..LEN as u32 / 4).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
    }

    fn fixture() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.bin");
        std::fs::write(&path, pattern()).unwrap();
        (dir, path)
    }

    fn message<T>(result: Result<T>) -> String {
        result.err().expect("needed an error").to_string()
    }

    #[test]
    fn bytes_are_the_same_by_every_way() {
        let (_dir, path) = fixture();
        let expected = pattern();
        for io in [Io::Mmap, Io::Read, Io::Auto] {
            let input = Input::open(&path, io).unwrap();
            assert_eq!(input.map.is_some(), io == Io::Mmap);
            for (offset, n) in [(0, LEN), (1, LEN - 1), (65_537, 70_001), (LEN - 65_536, 65_536), (4095, 2), (LEN, 0), (123_457, 4 << 20)] {
                let mut out = vec![0; n];
                input.read_at(offset as u64, &mut out).unwrap();
                assert!(out == expected[offset..offset + n], "{io:?} {offset} {n}");
            }
            input.check_unchanged().unwrap();
        }
    }

    #[test]
    fn parallel_neighbours_read_the_right_bytes() {
        let (_dir, path) = fixture();
        let (input, expected) = (Input::open(&path, Io::Mmap).unwrap(), pattern());
        std::thread::scope(|scope| {
            for start in [0, 1] {
                let (input, expected) = (&input, &expected);
                scope.spawn(move || {
                    let mut out = vec![0; 70_001];
                    for at in (start..LEN / 70_001).step_by(2).cycle().take(400) {
                        input.read_at((at * 70_001) as u64, &mut out).unwrap();
                        assert!(out == expected[at * 70_001..][..70_001]);
                    }
                });
            }
        });
    }

    #[test]
    fn what_was_read_does_not_stay_mapped() {
        const LARGE: u64 = 256 << 20;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large.bin");
        File::create(&path).unwrap().set_len(LARGE).unwrap();
        let input = Input::open(&path, Io::Mmap).unwrap();
        let mut out = vec![0; 100_000];
        for at in (0..LARGE - 100_000).step_by(100_000) {
            input.read_at(at, &mut out).unwrap();
        }
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mine = smaps.split(path.to_str().unwrap()).nth(1).expect("the map is there");
        let rss = mine.lines().find(|l| l.starts_with("Rss:")).unwrap();
        let kib: u64 = rss.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kib < 40 << 10, "{rss}");
    }

    #[test]
    fn special_files_are_refused_by_name_without_hanging() {
        let dir = tempfile::tempdir().unwrap();
        let (fifo, socket) = (dir.path().join("fifo"), dir.path().join("socket"));
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let _listener = UnixListener::bind(&socket).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let cases = [
            (fifo.as_path(), "named pipe"),
            (dir.path(), "folder"),
            (Path::new("/dev/null"), "device"),
            (&link, "device"),
            (&socket, "socket"),
            (Path::new("/proc/self/maps"), "kernel"),
        ];
        for (path, what) in cases {
            for io in [Io::Mmap, Io::Read, Io::Auto] {
                let text = message(Input::open(path, io));
                assert!(text.contains(what) && text.contains(path.to_str().unwrap()), "{text}");
            }
        }
    }

    #[test]
    fn a_pipe_that_takes_the_place_of_the_file_does_not_hang() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert!(open_read_only(&fifo).is_ok());
    }

    #[test]
    fn an_empty_file_opens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty");
        File::create(&path).unwrap();
        let input = Input::open(&path, Io::Mmap).unwrap();
        assert!(input.is_empty());
        input.read_at(0, &mut []).unwrap();
        assert!(message(input.read_at(0, &mut [0])).contains("found 0 bytes"));
    }

    #[test]
    fn bounds_are_checked_without_overflow() {
        let (_dir, path) = fixture();
        for io in [Io::Mmap, Io::Read] {
            let input = Input::open(&path, io).unwrap();
            let text = message(input.read_at(LEN as u64 - 3, &mut [0; 4]));
            assert!(text.ends_with(&format!("in.bin at byte {}: found 3 bytes from here on, needed 4", LEN - 3)), "{text}");
            assert!(message(input.read_at(u64::MAX, &mut [0; 4])).contains("found 0 bytes"));
            assert!(message(input.read_at(1, &mut vec![0; LEN])).contains("needed"));
        }
    }

    #[test]
    fn a_file_cut_under_the_map_is_an_error() {
        for (io, left) in [(Io::Mmap, 1 << 20), (Io::Mmap, 0), (Io::Read, 1 << 20)] {
            let (_dir, path) = fixture();
            let input = Input::open(&path, io).unwrap();
            let mut out = vec![0; LEN];
            input.read_at(0, &mut out).unwrap();
            OpenOptions::new().write(true).open(&path).unwrap().set_len(left).unwrap();
            let text = message(input.read_at(0, &mut out));
            assert!(text.contains(&format!("changed while it was being read (it is now {left} bytes, it was {LEN})")), "{text}");
            assert!(message(input.read_at(2 << 20, &mut [0; 8])).contains("changed"));
            assert!(message(input.check_unchanged()).contains("changed"));
        }
    }

    #[test]
    fn after_a_fault_the_map_is_never_trusted_again() {
        let (_dir, path) = fixture();
        let input = Input::open(&path, Io::Mmap).unwrap();
        let mut out = vec![0; LEN];
        OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
        assert!(input.read_at(0, &mut out).is_err());
        std::fs::write(&path, pattern()).unwrap();
        assert!(message(input.read_at(0, &mut out)).contains("changed"));
    }

    #[test]
    fn maps_that_come_and_go_while_files_are_cut_never_crash() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let (_dir, path) = fixture();
                        let input = Input::open(&path, Io::Mmap).unwrap();
                        std::thread::scope(|inner| {
                            let reads: Vec<_> = (0..2)
                                .map(|_| inner.spawn(|| input.read_at(0, &mut vec![0; LEN]).and_then(|()| input.read_at(0, &mut vec![0; LEN]))))
                                .collect();
                            OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
                            reads.into_iter().for_each(|r| drop(r.join().unwrap()));
                        });
                        assert!(input.read_at(0, &mut vec![0; LEN]).is_err());
                    }
                });
            }
        });
    }

    #[test]
    fn every_change_is_noticed() {
        type Change = fn(&mut File);
        let changes: [(&str, Change); 3] = [
            ("cut", |f| f.set_len(17).unwrap()),
            ("grown", |f| f.set_len(LEN as u64 + 1).unwrap()),
            ("rewritten", |f| {
                f.rewind().unwrap();
                f.write_all(b"x").unwrap();
            }),
        ];
        for (what, change) in changes {
            let (_dir, path) = fixture();
            let input = Input::open(&path, Io::Auto).unwrap();
            input.check_unchanged().unwrap();
            std::thread::sleep(Duration::from_millis(20)); // Times tick every 4 ms on older kernels.
            change(&mut OpenOptions::new().write(true).open(&path).unwrap());
            assert!(message(input.check_unchanged()).contains("changed"), "{what}");
        }
    }

    #[test]
    fn a_reader_ends_where_its_range_does() {
        let (_dir, path) = fixture();
        let input = Input::open(&path, Io::Mmap).unwrap();
        let mut out = Vec::new();
        input.reader(3..50_000).read_to_end(&mut out).unwrap();
        assert!(out == pattern()[3..50_000]);
        let error = input.reader(LEN as u64 - 1..u64::MAX).read_to_end(&mut out).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        #[expect(clippy::reversed_empty_ranges, reason = "hostile ranges come reversed")]
        let reversed = input.reader(5..3).read_to_end(&mut out).unwrap();
        assert_eq!(reversed, 0);
    }

    #[test]
    fn identity_sees_through_links() {
        let (dir, path) = fixture();
        let (hard, soft) = (dir.path().join("hard"), dir.path().join("soft"));
        std::fs::hard_link(&path, &hard).unwrap();
        std::os::unix::fs::symlink(&path, &soft).unwrap();
        let identity = Input::open(&path, Io::Read).unwrap().identity();
        assert_eq!(Identity::of(&hard).unwrap(), identity);
        assert_eq!(Input::open(&soft, Io::Read).unwrap().identity(), identity);
        assert_ne!(Identity::of(dir.path()).unwrap(), identity);
    }
}
