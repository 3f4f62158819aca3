//! The reader in Python, and the example of the specification.

use std::process::Command;

use quant_core::convert::decode;

use super::*;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");

/// What Python prints, and whether it was content; none if there is no Python here.
fn python(arguments: &[&str]) -> Option<(bool, String)> {
    let Ok(output) = Command::new("python3").arg("-B").args(arguments).env("PYTHONPATH", DOCS).output() else {
        eprintln!("SKIPPED: python3 is not here, docs/bqt.py was not tried");
        return None;
    };
    let ok = output.status.success();
    Some((ok, String::from_utf8(if ok { output.stdout } else { output.stderr }).unwrap()))
}

/// What `python3 docs/bqt.py` prints.
fn reader(arguments: &[&str]) -> Option<(bool, String)> {
    python(&[&[concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/bqt.py")], arguments].concat())
}

/// Decodes every tensor, for each a line with its name and one for each number.
const DECODE_ALL: &str = "
import bqt, sys
index, fetch = bqt.load(sys.argv[1])
for t in index['tensors']:
    print(t['name'], *map(repr, bqt.decode(t['scheme'], t['shape'], {p['name']: fetch(p['at']) for p in t['parts']})), sep='\\n')
";

#[test]
fn it_agrees_with_every_codec() {
    let folder = tempfile::tempdir().unwrap();
    let shapes: [&[u64]; 5] = [&[], &[0], &[67], &[5, 129], &[300, 55]];
    let all = shapes.into_iter().flat_map(|shape| schemes().map(move |text| tensor(&format!("{text} {shape:?}"), text, shape)));
    let made = checkpoint(all.collect());
    let path = write(&made, &plan(&made, None), folder.path(), 4096);
    let Some((ok, text)) = python(&["-c", DECODE_ALL, path.to_str().unwrap()]) else { return };
    assert!(ok, "{text}");
    let mut lines = text.lines();
    for (tensor, places) in made.tensors.iter().zip(&made.places) {
        let bytes = |at: &At| if let At::Bytes(bytes) = at { bytes.clone() } else { unreachable!() };
        let expected = decode(tensor.scheme, &tensor.shape, &places.iter().map(bytes).collect::<Vec<_>>()).unwrap();
        assert_eq!(lines.next(), Some(&*tensor.name));
        for (i, x) in expected.iter().enumerate() {
            let found: f64 = lines.next().unwrap().parse().unwrap();
            assert_eq!(found.to_bits(), f64::from(*x).to_bits(), "{} element {i}: {found} {x}", tensor.name);
        }
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn it_lists_and_prints() {
    let folder = tempfile::tempdir().unwrap();
    small_file(folder.path());
    let path = folder.path().join("model.bqt");
    let path = path.to_str().unwrap();
    let Some(listing) = reader(&[path]) else { return };
    assert_eq!(listing, (true, "q nf4-dq:32 [40, 33]\nn bf16 [65]\nl affine3 [8, 64]\n".into()));
    assert_eq!(reader(&[path, "q"]).unwrap().1.lines().count(), 40 * 33);
}

#[test]
fn it_notices_damage() {
    let folder = tempfile::tempdir().unwrap();
    let sound = small_file(folder.path());
    let path = folder.path().join("damaged.bqt");
    let At::File { offset, .. } = open(input(&folder.path().join("model.bqt"))).unwrap().places[0][0] else { unreachable!() };
    for byte in [0, 8, 12, 16, 24, 40, offset as usize] {
        let mut bytes = sound.clone();
        bytes[byte] ^= 1;
        fs::write(&path, bytes).unwrap();
        let Some((ok, text)) = reader(&[path.to_str().unwrap()]) else { return };
        assert!(!ok && text.contains("damaged") && !text.contains("Traceback"), "{byte}: {text}");
    }
}

/// The bytes of the hex dump in the specification, which was made by hand.
fn example() -> Vec<u8> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/format.md")).unwrap();
    let (_, dump) = text.rsplit_once("```text\n").unwrap();
    let (dump, _) = dump.split_once("```").unwrap();
    let bytes = dump.lines().flat_map(|line| line[8..58].split_whitespace());
    bytes.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

#[test]
fn the_example_of_the_specification_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("example.bqt");
    fs::write(&path, example()).unwrap();
    assert_eq!(verify(&input(&path), &()).unwrap().damages, []);
    let opened = open(input(&path)).unwrap();
    let mut bytes = vec![0; 8];
    opened.read_at(&opened.places[0][0], 0, &mut bytes).unwrap();
    assert_eq!(decode(opened.tensors[0].scheme, &[2, 2], &[bytes]).unwrap(), [1.0, -2.0, 0.5, 3.140625]);
    let Some(printed) = reader(&[path.to_str().unwrap(), "x"]) else { return };
    assert_eq!(printed, (true, "1.0\n-2.0\n0.5\n3.140625\n".into()));
}
