//! Files that lie about themselves, under correct checksums.

use serde_json::{Value, json};

use super::*;
use crate::bqt::header::{HEADER, Header};
use crate::bqt::index::header_of;

/// One F32 tensor of two elements, a file of three bytes, a blob of four, with empty `crc32` replaced by correct ones.
fn valid() -> (Value, Vec<u8>) {
    let mut data = vec![0; 516];
    data[..8].copy_from_slice(&[0, 0, 128, 63, 0, 0, 0, 64]);
    data[256..259].copy_from_slice(b"{ }");
    data[512..].copy_from_slice(b"head");
    let at = |offset: usize, bytes: usize| {
        let sum = format!("{:08x}", crc32fast::hash(&data[offset..offset + bytes]));
        json!({"offset": offset, "bytes": bytes, "crc32": sum})
    };
    let part = json!({"name": "data", "dtype": "F32", "shape": [2], "at": at(0, 8)});
    let index = json!({
        "format": "BQT", "required": [], "chunk_bytes": 256,
        "tensors": [{"name": "x", "shape": [2], "scheme": "f32", "dtype": "F32", "parts": [part]}],
        "files": [{"name": "f", "at": at(256, 3)}], "blobs": [at(512, 4)],
    });
    (index, data)
}

/// The file of an index and its data, sealed.
fn sealed(index: &str, data: &[u8]) -> Vec<u8> {
    let len = (HEADER as usize + index.len()).next_multiple_of(256) - HEADER as usize;
    let index = [index.as_bytes(), &vec![b' '; len - index.len()]].concat();
    let header = header_of(&index, data.len() as u64);
    [&header.bytes()[..], &index, data].concat()
}

fn opened(bytes: &[u8]) -> quant_core::Result<Checkpoint> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.bqt");
    fs::write(&path, bytes).unwrap();
    let report = verify(&input(&path), &()).unwrap();
    let opened = open(input(&path));
    assert_eq!(opened.is_ok(), report.damages.is_empty(), "{report:?}");
    opened
}

/// Opens the valid file with the value at `pointer` replaced; the message if it is refused.
fn with(pointer: &str, value: Value) -> Result<Checkpoint, String> {
    let (mut index, data) = valid();
    match index.pointer_mut(pointer) {
        Some(place) => *place = value,
        None => {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            index.pointer_mut(parent).unwrap()[key] = value;
        }
    }
    opened(&sealed(&index.to_string(), &data)).map_err(|e| e.to_string())
}

fn refused(pointer: &str, value: Value, needed: &str) {
    let message = with(pointer, value.clone()).map(|_| ()).unwrap_err();
    assert!(message.contains(needed), "{pointer} = {value}: {message}");
    assert!(message.contains("x.bqt") && !message.contains('\n'), "{message}");
}

#[test]
fn the_valid_file_is_valid() {
    let (index, data) = valid();
    let checkpoint = opened(&sealed(&index.to_string(), &data)).unwrap();
    let mut bytes = [0; 8];
    checkpoint.read_at(&checkpoint.places[0][0], 0, &mut bytes).unwrap();
    assert_eq!(bytes, data[..8]);
}

#[test]
fn unknown_optional_fields_are_ignored() {
    for pointer in ["/new", "/tensors/0/new", "/tensors/0/parts/0/new", "/tensors/0/parts/0/at/new", "/files/0/new"] {
        assert!(with(pointer, json!({"a": [1, -2.5, null, {"b": "c"}]})).is_ok(), "{pointer}");
    }
}

#[test]
fn places_that_do_not_fit_are_refused() {
    let offset = "/files/0/at/offset";
    refused(offset, json!(0), "overlaps");
    refused(offset, json!(255), "overlaps");
    refused(offset, json!(257), "hole");
    refused("/blobs/0/offset", json!(768), "hole");
    refused("/blobs/0/offset", json!(u64::MAX), "hole");
    refused("/blobs/0/offset", json!(u64::MAX - 255), "hole");
    refused("/blobs/0/bytes", json!(5), "beyond");
    refused("/blobs/0/bytes", json!(256), "beyond");
    refused("/blobs/0/bytes", json!(3), "the extents of the index end at byte 515 of the data, the file at 516");
    refused("/blobs/0/bytes", json!(u64::MAX), "checksums");
    refused("/blobs/0/offset", json!(-1), "invalid value");
    refused("/blobs/0/offset", json!(512.0), "invalid type");
    refused("/blobs", json!([]), "end at byte 259");
    refused("/chunk_bytes", json!(0), "power of two");
    refused("/chunk_bytes", json!(u64::MAX), "power of two");
    refused("/chunk_bytes", json!(384), "power of two");
}

#[test]
fn what_is_not_a_tensor_is_refused_with_its_name() {
    refused("/tensors/0/scheme", json!("nf5"), "tensor 'x': unknown scheme 'nf5'");
    refused("/tensors/0/scheme", json!("nf4"), "tensor 'x': nf4 needs a part 'codes'");
    refused("/tensors/0/scheme", json!("f16"), "tensor 'x': found type F32");
    refused("/tensors/0/scheme", json!("\u{1b}[2J"), "\\u{1b}");
    refused("/tensors/0/dtype", json!("F33"), "tensor 'x': unknown type 'F33'");
    refused("/tensors/0/shape", json!([3]), "tensor 'x': f32 of shape [3] needs 12 bytes of 'data', found 8");
    refused("/tensors/0/shape", json!([1u64 << 63, 1u64 << 63, 0]), "more elements than 64-bit");
    refused("/tensors/0/shape", json!([4_194_305u64, 4_194_305u64, 211_106_198_978_564u64]), "more elements than 64-bit");
    refused("/tensors/0/shape", json!(vec![1; 1025]), "1024 dimensions");
    refused("/tensors/0/parts/0/shape", json!([1]), "tensor 'x': part 'data': F32 [1] needs 4 bytes, found 8");
    refused("/tensors/0/parts/0/shape", json!([u64::MAX]), "64 bits cannot hold");
    refused("/tensors/0/parts/0/dtype", json!("F8"), "part 'data': unknown type 'F8'");
    refused("/tensors/0/parts/0/name", json!("codes"), "f32 needs a part 'data'");
    refused("/tensors/0/parts", json!([]), "hole");
    refused("/tensors/0/parts/0/at/crc32", json!(""), "found 0 checksums for 8 bytes, needed 1");
    refused("/tensors/0/parts/0/at/crc32", json!("+1234567"), "8 hexadecimal digits");
    refused("/tensors/0/parts/0/at/crc32", json!("0123456"), "8 hexadecimal digits");
    refused("/tensors/0/parts/0", json!(["data", "F32", [2], {}]), "expected an object");
    refused("/tensors/0", json!(["x"]), "expected an object");
    refused("/tensors/0/source", json!({"name": "", "scheme": "", "sha256": "00"}), "64 hexadecimal digits");
}

#[test]
fn other_formats_and_features_are_refused() {
    refused("/required", json!(["shards"]), "needs the feature \"shards\"");
    refused("/required", json!("shards"), "an array of features");
    refused("/format", json!("GGUF"), "needed \"BQT\"");
}

#[test]
fn names_are_plain_and_their_own() {
    for name in ["", ".", "..", "a/b", "/etc/passwd", "..\\x", "a\u{0}", "a\nb", &"n".repeat(256)] {
        let message = with("/files/0/name", json!(name)).map(|_| ()).unwrap_err();
        assert!(message.contains("file '") && message.contains("name"), "{message}");
    }
    assert!(with("/files/0/name", json!("..x")).is_ok());
    let (index, _) = valid();
    let mut file = index["files"][0].clone();
    file["at"] = json!({"offset": 0, "bytes": 0, "crc32": ""});
    refused("/files", json!([index["files"][0], file]), "file 'f': its name comes twice");
    let mut tensor = index["tensors"][0].clone();
    tensor["shape"] = json!([0]);
    tensor["parts"][0]["shape"] = json!([0]);
    tensor["parts"][0]["at"] = file["at"].clone();
    refused("/tensors", json!([index["tensors"][0], tensor]), "tensor 'x': its name comes twice");
    let (part, mut more) = (index["tensors"][0]["parts"][0].clone(), tensor["parts"][0].clone());
    refused("/tensors/0/parts", json!([part, more]), "two of its parts have one name");
    more["name"] = json!("extra");
    assert!(with("/tensors/0/parts", json!([part, more])).is_ok());
}

#[test]
fn origins_that_could_not_be_restored_are_refused() {
    let origin = |name: &str, bytes: u64, head: u64| json!({"files": [{"name": name, "bytes": bytes, "head": head}]});
    let placed = |origin: Value, place: Value| {
        let (mut index, data) = valid();
        index["origin"] = origin;
        index["tensors"][0]["parts"][0]["place"] = place;
        opened(&sealed(&index.to_string(), &data)).map(|c| c.origin.is_some()).map_err(|e| e.to_string())
    };
    assert_eq!(placed(origin("", 12, 0), json!([0, 4])), Ok(true));
    for (origin, place, needed) in [
        (origin("../x", 12, 0), json!([0, 4]), "file '../x'"),
        (origin("f", 12, 0), json!([0, 4]), "file 'f': its name comes twice"),
        (origin("m", 12, 1), json!([0, 4]), "head of file 0"),
        (origin("m", 12, 0), json!([1, 4]), "no file 1"),
        (origin("m", 12, 0), json!([0, 3]), "a part at byte 3, needed one at 4"),
        (origin("m", 12, 0), json!([0, 5]), "a part at byte 5, needed one at 4"),
        (origin("m", 13, 0), json!([0, 4]), "has 13 bytes, its head and parts 12"),
        (origin("m", 12, 0), json!([0, u64::MAX]), "needed one at 4"),
        (origin("m", 12, 0), Value::Null, "its head and parts 4"),
        (json!({"files": [], "index": {"name": "i", "blob": 1}}), Value::Null, "blob of its index"),
    ] {
        let message = placed(origin, place).unwrap_err();
        assert!(message.contains(needed), "{message}");
    }
}

#[test]
fn json_that_readers_disagree_about_is_refused() {
    let (index, data) = valid();
    let text = index.to_string();
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    let extended = |field: &str| opened(&sealed(&format!("{},{field}}}", &text[..text.len() - 1]), &data)).map(|_| ()).map_err(|e| e.to_string());
    assert_eq!(extended(r#""a":1"#), Ok(()));
    assert_eq!(extended(&format!("\"a\":{}", deep(126))), Ok(()));
    for (field, needed) in [
        (r#""format":"BQT""#, "duplicate key"),
        (r#""a":1,"\u0061":2"#, "duplicate key"),
        (r#""a":[{"b":{"c":1,"c":2}}]"#, "duplicate key"),
        (r#""metadata":{"a":"1","a":"2"}"#, "duplicate key"),
        (r#""metadata":{"a":1}"#, "a string"),
        (r#""a":"\ud800\n""#, "hex escape"),
        (r#""a":01"#, "invalid number"),
        (r#""a":NaN"#, "expected value"),
        (&format!("\"a\":{}", deep(200_000)), "recursion limit"),
        (&format!("\"a\":{{{}}}", (0..=65_536).map(|i| format!("\"{i}\":0")).collect::<Vec<_>>().join(",")), "more than 65536 keys"),
    ] {
        let message = extended(field).unwrap_err();
        assert!(message.contains(needed), "{:.60}: {message}", field);
    }
    for text in ["", "[]", "null", &format!("{text}x"), &format!("{text}{text}"), "{"] {
        assert!(opened(&sealed(text, &data)).is_err(), "{text}");
    }
    let mut not_utf8 = sealed(&text.replace("\"x\"", "\"xy\""), &data);
    let y = not_utf8.windows(4).position(|w| w == b"\"xy\"").unwrap() + 2;
    not_utf8[y] = 0xff;
    let index_end = not_utf8.len() - data.len();
    let header = header_of(&not_utf8[32..index_end], data.len() as u64);
    not_utf8[..32].copy_from_slice(&header.bytes());
    assert!(opened(&not_utf8).map(|_| ()).unwrap_err().to_string().contains("unicode"));
}

#[test]
fn lengths_that_do_not_fit_cost_nothing() {
    let (index, data) = valid();
    let sound = sealed(&index.to_string(), &data);
    let len = sound.len() as u64;
    for index_len in [0, 1, 224, len - 32, len - 31, len, (4 << 30) - 32, 1 << 30, u64::MAX, u64::MAX - 31, u64::MAX - 255] {
        let mut bytes = sound.clone();
        bytes[..32].copy_from_slice(&Header { crc32: 0, index_len, file_len: len }.bytes());
        assert!(opened(&bytes).is_err(), "{index_len}");
    }
    let mut text_mode = sound.clone();
    text_mode.remove(4);
    assert!(opened(&text_mode).map(|_| ()).unwrap_err().to_string().contains("transferred as text"));
}
