//! A model in several files: the names of the files and what their keys say.
//!
//! A shard is called `PREFIX-%05d-of-%05d.gguf`, counted from 1, and says the same in `split.no` (counted from 0) and
//! `split.count`; `split.tensors.count` is the number of tensors in all of them. Source: `llama_split_path` and gguf-split
//! of llama.cpp 0.5.0-dev. The numbers may be of any integer type.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use quant_core::{Error, Result};

use super::entry::{Entry, find};

/// What all keys of a split begin with.
pub(super) const KEYS: &str = "split.";
/// The ending of every GGUF file.
const ENDING: &[u8] = b".gguf";
/// Digits of a number in the name of a shard.
const DIGITS: usize = 5;

/// The name of a shard, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ShardName {
    /// What the names of all shards begin with.
    prefix: Vec<u8>,
    /// The number of the shard, from 1.
    pub(super) no: u64,
    /// The number of shards.
    pub(super) count: u64,
}

impl ShardName {
    /// Takes the name of a file apart, if it is that of a shard.
    pub(super) fn parse(name: &OsStr) -> Option<ShardName> {
        let rest = name.as_bytes().strip_suffix(ENDING)?;
        let (rest, count) = number(rest)?;
        let (rest, no) = number(rest.strip_suffix(b"-of-")?)?;
        Some(ShardName { prefix: rest.strip_suffix(b"-")?.to_vec(), no, count })
    }

    /// The name of shard `no` of the same model.
    pub(super) fn sibling(&self, no: u64) -> OsString {
        let numbers = format!("-{no:0DIGITS$}-of-{:0DIGITS$}", self.count);
        OsString::from_vec([&self.prefix, numbers.as_bytes(), ENDING].concat())
    }
}

/// A number at the end of a name, and what is before it.
fn number(name: &[u8]) -> Option<(&[u8], u64)> {
    let (rest, digits) = name.split_at_checked(name.len().checked_sub(DIGITS)?)?;
    let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
    Some((rest, digits.parse().ok()?))
}

/// What the keys of a file say about the split; the number of files is 1 where they say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    /// The number of the file, from 0, if there is one.
    no: Option<u64>,
    /// The number of files.
    count: u64,
    /// The number of tensors in all files, if there is one.
    n_tensors: Option<u64>,
}

impl Split {
    /// Reads the keys of `path` and holds them against its name.
    ///
    /// # Errors
    /// If they contradict the name, or a key is no number.
    pub(super) fn read(path: &Path, entries: &[Entry]) -> Result<Split> {
        let number = |key: &str| match find(entries, key) {
            None => Ok(None),
            Some(entry) => entry.unsigned().map(Some).ok_or_else(|| Error::file(path, format!("key '{key}': needed a number that is not negative"))),
        };
        let count = number("split.count")?;
        // A file that gguf-split has merged keeps the keys, with a count of 0.
        let n_tensors = number("split.tensors.count")?.filter(|_| count != Some(0));
        let split = Split { no: number("split.no")?, count: count.unwrap_or(1).max(1), n_tensors };
        split.check_name(path).map_err(|problem| Error::file(path, problem))?;
        Ok(split)
    }

    /// Whether there are other files.
    pub(super) fn is_shard(&self) -> bool {
        self.count > 1
    }

    fn check_name(&self, path: &Path) -> std::result::Result<(), String> {
        let name = path.file_name().and_then(ShardName::parse);
        let name = match name {
            None if !self.is_shard() => return Ok(()),
            None => return Err(format!("key 'split.count' says {} files, so the name must end in -00001-of-{:05}.gguf", self.count, self.count)),
            Some(name) => name,
        };
        if name.count != self.count {
            let hint = if self.is_shard() { "" } else { " (rename the file if it is a whole model)" };
            return Err(format!("its name says {} files, key 'split.count' says {}{hint}", name.count, self.count));
        }
        if !(1..=name.count).contains(&name.no) {
            return Err(format!("its name says file {} of {}", name.no, name.count));
        }
        match self.no {
            Some(no) if no.checked_add(1) == Some(name.no) => Ok(()),
            None if !self.is_shard() => Ok(()),
            Some(no) => Err(format!("its name says file {} of {}, key 'split.no' says {no} (counted from 0)", name.no, name.count)),
            None => Err("key 'split.no' is missing".into()),
        }
    }

    /// Checks the number of tensors in all files, of which `path` is one.
    ///
    /// # Errors
    /// If the keys say another.
    pub(super) fn check_total(&self, path: &Path, found: u64) -> Result<()> {
        match self.n_tensors.filter(|&n| n != found) {
            Some(n) => Err(Error::file(path, format!("key 'split.tensors.count' says {n} tensors, found {found}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> Option<(String, u64, u64)> {
        ShardName::parse(name.as_ref()).map(|n| (String::from_utf8(n.prefix).unwrap(), n.no, n.count))
    }

    #[test]
    fn names_are_taken_apart_from_their_end() {
        assert_eq!(parsed("m 1-00001-of-00009.x-00002-of-00003.gguf"), Some(("m 1-00001-of-00009.x".into(), 2, 3)));
        assert_eq!(parsed("-00001-of-00001.gguf"), Some((String::new(), 1, 1)));
        for name in ["m.gguf", "m-1-of-2.gguf", "m-00001-of-00002", "m-000a1-of-00002.gguf", "m-+0001-of-00002.gguf", "0001-of-00002.gguf", ".gguf"] {
            assert_eq!(parsed(name), None, "{name}");
        }
        let name = ShardName::parse("ü-00001-of-00012.gguf".as_ref()).unwrap();
        assert_eq!(name.sibling(7), "ü-00007-of-00012.gguf");
    }
}
