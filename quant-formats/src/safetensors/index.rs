//! `model.safetensors.index.json`: which tensor lies in which shard.

use std::path::Path;

use quant_core::{Error, Result};
use serde::de::{self, MapAccess};

use crate::input::Input;
use crate::json::{self, Entries, Object, Skip, Strings, TotalSize};

/// The longest index that is read.
const MAX_INDEX: u64 = 256 << 20;
/// The most shards that are read.
const MAX_SHARDS: usize = 100_000;

/// A checked index.
#[derive(Debug)]
pub struct Index {
    /// For each tensor its shard, sorted by name.
    pub weight_map: Vec<(String, String)>,
    /// `metadata.total_size`, if it is a number. Nothing relies on it.
    pub total_size: Option<u64>,
}

impl Index {
    /// The shards in the order of their names.
    ///
    /// # Errors
    /// If there are too many, or one is not a plain relative path.
    pub fn shards(&self, path: &Path) -> Result<Vec<&str>> {
        let mut shards: Vec<&str> = self.weight_map.iter().map(|(_, shard)| shard.as_str()).collect();
        shards.sort_unstable();
        shards.dedup();
        if shards.len() > MAX_SHARDS {
            return Err(Error::file(path, format!("found {} shards, at most {MAX_SHARDS} are read", shards.len())));
        }
        match shards.iter().find(|shard| !is_plain(shard)) {
            Some(shard) => Err(Error::file(path, format!("the shard name '{shard}' leaves the model's folder or is not a plain relative path"))),
            None => Ok(shards),
        }
    }
}

/// Whether `name` is a relative path that can only lead to a file below the folder it starts from.
pub(crate) fn is_plain(name: &str) -> bool {
    let has_drive = name.as_bytes().get(1) == Some(&b':');
    let part_is_plain = |part: &str| !matches!(part, "" | "." | "..");
    !has_drive && !name.contains(['\\', '\0']) && name.split('/').all(part_is_plain)
}

/// Reads and checks an index.
///
/// # Errors
/// If it is not an index, or too large.
pub fn read(input: &Input) -> Result<Index> {
    let path = input.path();
    if input.len() > MAX_INDEX {
        return Err(Error::file(path, format!("found an index of {} bytes, at most {MAX_INDEX} are read", input.len())));
    }
    let reader = std::io::BufReader::new(input.reader(0..input.len()));
    let mut index =
        json::read(reader, Object(Raw::default())).map_err(|e| match e.io_error_kind().filter(|kind| *kind != std::io::ErrorKind::InvalidData) {
            Some(kind) => Error::io("read", path, kind.into()),
            None => Error::file(path, format!("not a valid index: {e}")),
        })?;
    if index.weight_map.is_empty() {
        return Err(Error::file(path, "the index has an empty weight_map; it needs one entry for each tensor"));
    }
    index.weight_map.sort();
    Ok(index)
}

#[derive(Default)]
struct Raw {
    weight_map: Option<Vec<(String, String)>>,
    total_size: Option<u64>,
}

impl<'de> Entries<'de> for Raw {
    type Value = Index;

    fn entry<A: MapAccess<'de>>(&mut self, key: String, map: &mut A) -> std::result::Result<(), A::Error> {
        match key.as_str() {
            "weight_map" => self.weight_map = Some(map.next_value_seed(Object(Strings::default()))?),
            "metadata" => self.total_size = map.next_value_seed(TotalSize)?,
            _ => map.next_value_seed(Skip)?,
        }
        Ok(())
    }

    fn finish<E: de::Error>(self) -> std::result::Result<Index, E> {
        let weight_map = self.weight_map.ok_or_else(|| E::missing_field("weight_map"))?;
        Ok(Index { weight_map, total_size: self.total_size })
    }
}

#[cfg(test)]
mod tests {
    use super::is_plain;

    #[test]
    fn only_names_below_the_folder_are_plain() {
        for name in ["a.safetensors", "sub/a b.safetensors", "ünï.safetensors", "..a", "~"] {
            assert!(is_plain(name), "{name}");
        }
        for name in ["", ".", "..", "../a", "a/../b", "/etc/passwd", "a/", "a//b", "a\\b", "C:a", "a\0b"] {
            assert!(!is_plain(name), "{name}");
        }
    }
}
