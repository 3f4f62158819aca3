//! Files written by hand, byte for byte.

mod bad;
mod good;
mod imatrix;
mod shards;

use std::path::Path;

use quant_core::Result;

use super::read::open;
use crate::checkpoint::Checkpoint;
use crate::input::{Input, Io};

/// A string of a file.
fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// A key with a value of type `kind`.
fn kv(key: impl AsRef<[u8]>, kind: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
    [&string(key), &kind.to_le_bytes()[..], value.as_ref()].concat()
}

fn u32_kv(key: &str, value: u32) -> Vec<u8> {
    kv(key, 4, value.to_le_bytes())
}

/// An array of `n` items, which are `items`.
fn array(kind: u32, n: u64, items: impl AsRef<[u8]>) -> Vec<u8> {
    [&kind.to_le_bytes(), &n.to_le_bytes()[..], items.as_ref()].concat()
}

/// A tensor of the dimensions of a file: fastest first.
fn info(name: impl AsRef<[u8]>, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let rank = (dims.len() as u32).to_le_bytes();
    let dims: Vec<u8> = dims.iter().flat_map(|d| d.to_le_bytes()).collect();
    [&string(name), &rank[..], &dims, &kind.to_le_bytes(), &offset.to_le_bytes()].concat()
}

/// Everything before the padding.
fn head(version: u32, entries: &[Vec<u8>], infos: &[Vec<u8>]) -> Vec<u8> {
    let counts = [infos.len() as u64, entries.len() as u64].map(u64::to_le_bytes).concat();
    [b"GGUF", &version.to_le_bytes()[..], &counts, &entries.concat(), &infos.concat()].concat()
}

/// A file of version 3.
fn file(entries: &[Vec<u8>], infos: &[Vec<u8>], alignment: usize, data: &[u8]) -> Vec<u8> {
    let mut bytes = head(3, entries, infos);
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
    bytes.extend_from_slice(data);
    bytes
}

/// Bytes that differ from each other.
fn data(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 % 251) as u8).collect()
}

fn open_path(path: &Path) -> Result<Checkpoint> {
    open(Input::open(path, Io::default())?, Io::default().into())
}

fn open_bytes(bytes: &[u8]) -> Result<Checkpoint> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    std::fs::write(&path, bytes).unwrap();
    open_path(&path)
}

/// The message that `bytes` are refused with, from the name of the file on.
fn refused(bytes: &[u8]) -> String {
    let text = open_bytes(bytes).err().expect("needed an error").to_string();
    text[text.find("x.gguf").expect(&text)..].to_owned()
}

/// All bytes of a tensor.
fn bytes_of(checkpoint: &Checkpoint, tensor: usize) -> Vec<u8> {
    let mut bytes = vec![0; checkpoint.tensors[tensor].n_bytes() as usize];
    checkpoint.read_at(&checkpoint.places[tensor][0], 0, &mut bytes).unwrap();
    bytes
}

/// The files of the origin, put together from heads, tensors and gaps.
fn rebuilt(checkpoint: &Checkpoint) -> Vec<(String, Vec<u8>)> {
    let origin = checkpoint.origin.as_ref().unwrap();
    let mut files: Vec<_> = origin.files.iter().map(|f| (f.name.clone(), vec![0xaa; f.n_bytes as usize])).collect();
    for (i, file) in origin.files.iter().enumerate() {
        checkpoint.read_at(&file.head.at, 0, &mut files[i].1[..file.head.n_bytes as usize]).unwrap();
        for gap in &file.gaps {
            checkpoint.read_at(&gap.at, 0, &mut files[i].1[gap.offset as usize..][..gap.n_bytes as usize]).unwrap();
        }
    }
    for (i, places) in origin.places.iter().enumerate() {
        let (place, bytes) = (places[0].unwrap(), bytes_of(checkpoint, i));
        files[place.file].1[place.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    files
}
