//! No bit changes unnoticed, and damage is named.

use std::collections::BTreeSet;

use quant_core::convert::decode;

use super::*;
use crate::bqt::{Report, Spot};

fn report(folder: &Path, bytes: &[u8]) -> Report {
    let path = folder.join("damaged.bqt");
    fs::write(&path, bytes).unwrap();
    verify(&input(&path), &()).unwrap()
}

/// A sound file, to be damaged.
struct Sound {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
    checkpoint: Checkpoint,
    numbers: Vec<Vec<f32>>,
}

impl Sound {
    fn new() -> Sound {
        let folder = tempfile::tempdir().unwrap();
        let bytes = small_file(folder.path());
        let checkpoint = open(input(&folder.path().join("model.bqt"))).unwrap();
        let numbers = numbers_of(&checkpoint, &bytes);
        Sound { folder, bytes, checkpoint, numbers }
    }

    /// Names and rows of all numbers that differ.
    fn changed_rows(&self, damaged: &[u8]) -> BTreeSet<(String, u64)> {
        let damaged = numbers_of(&self.checkpoint, damaged);
        let mut rows = BTreeSet::new();
        for (tensor, (old, new)) in self.checkpoint.tensors.iter().zip(self.numbers.iter().zip(&damaged)) {
            let differ = old.iter().zip(new).enumerate().filter(|(_, (x, y))| x.to_bits() != y.to_bits());
            rows.extend(differ.map(|(i, _)| (tensor.name.clone(), i as u64 / tensor.shape.last().unwrap())));
        }
        rows
    }

    /// Flips one bit and checks that the report covers it, and every number it changes.
    fn flip(&self, bit: usize) {
        let mut bytes = self.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let report = report(self.folder.path(), &bytes);
        assert_eq!(report.damages.len(), 1, "bit {bit}: {report:?}");
        let covered = &report.damages[0].bytes;
        let in_header = matches!(report.damages[0].spot, Spot::Header | Spot::Index);
        assert!(in_header || covered.contains(&(bit as u64 / 8)), "bit {bit}: {covered:?}");
        let changed = self.changed_rows(&bytes);
        assert!(changed.is_subset(&named_rows(&report)), "bit {bit}: {changed:?} not in {report:?}");
        assert!(!report.damages[0].to_string().is_empty());
    }
}

/// All numbers of a file, decoded straight from the places that its sound version has.
fn numbers_of(checkpoint: &Checkpoint, bytes: &[u8]) -> Vec<Vec<f32>> {
    let part = |(at, stored): (&At, &Stored)| {
        let At::File { offset, .. } = at else { unreachable!() };
        bytes[*offset as usize..(*offset + stored.n_bytes) as usize].to_vec()
    };
    let decoded = |(tensor, places): (&Tensor, &Vec<At>)| {
        let parts: Vec<Vec<u8>> = places.iter().zip(&tensor.parts).map(part).collect();
        decode(tensor.scheme, &tensor.shape, &parts).unwrap()
    };
    checkpoint.tensors.iter().zip(&checkpoint.places).map(decoded).collect()
}

fn named_rows(report: &Report) -> BTreeSet<(String, u64)> {
    let rows = |spot: &Spot| match spot {
        Spot::Part { tensor, rows: Some(rows), .. } => rows.clone().map(|row| (tensor.clone(), row)).collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    report.damages.iter().flat_map(|damage| rows(&damage.spot)).collect()
}

#[test]
fn every_bit_of_the_header_and_one_of_every_byte_is_noticed() {
    let sound = Sound::new();
    let header = 0..32 * 8;
    header.chain((32..sound.bytes.len()).map(|byte| byte * 8 + byte % 8)).for_each(|bit| sound.flip(bit));
}

#[test]
fn any_bit_is_noticed() {
    let sound = Sound::new();
    let mut runner = proptest::test_runner::TestRunner::default();
    let flipped = runner.run(&(0..sound.bytes.len() * 8), |bit| {
        sound.flip(bit);
        Ok(())
    });
    flipped.unwrap();
}

#[test]
fn rows_are_named_no_wider_than_a_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let made = checkpoint(vec![tensor("w", "bf16", &[100, 64])]);
    let path = write(&made, &plan(&made, None), folder.path(), 256);
    let At::File { offset, .. } = open(input(&path)).unwrap().places[0][0] else { unreachable!() };
    let mut bytes = fs::read(&path).unwrap();
    // A chunk of 256 bytes is two rows of 64 numbers of two bytes.
    bytes[offset as usize + 256 * 7] ^= 1;
    bytes[offset as usize + 256 * 8] ^= 1;
    bytes[offset as usize + 256 * 20 + 255] ^= 1;
    let report = report(folder.path(), &bytes);
    let part = |rows: std::ops::Range<u64>| Spot::Part {
        tensor: "w".into(),
        part: "data".into(),
        elements: rows.start * 64..rows.end * 64,
        rows: Some(rows),
    };
    let spots: Vec<_> = report.damages.iter().map(|damage| damage.spot.clone()).collect();
    assert_eq!(spots, [part(14..18), part(40..42)]);
    assert_eq!(report.damages[0].bytes, offset + 256 * 7..offset + 256 * 9);
    let shown = format!("tensor 'w', part 'data', rows 14 to 17, elements 896 to 1151 (bytes {} to {} of the file)", offset + 1792, offset + 2303);
    assert!(report.damages[0].to_string().starts_with(&shown), "{}", report.damages[0]);
}

#[test]
fn every_prefix_and_every_suffix_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sound = small_file(folder.path());
    let path = folder.path().join("cut.bqt");
    for len in 0..sound.len() {
        fs::write(&path, &sound[..len]).unwrap();
        assert!(open(input(&path)).is_err(), "{len}");
        assert_eq!(verify(&input(&path), &()).unwrap().damages.len(), 1, "{len}");
    }
    fs::write(&path, [&sound[..], &[0]].concat()).unwrap();
    assert!(open(input(&path)).is_err());
}

#[test]
fn files_and_blobs_are_named() {
    let sound = Sound::new();
    let At::File { offset, .. } = sound.checkpoint.side_files[0].at else { unreachable!() };
    let mut bytes = sound.bytes.clone();
    bytes[offset as usize] ^= 4;
    assert_eq!(report(sound.folder.path(), &bytes).damages[0].spot, Spot::File("config.json".into()));
}
