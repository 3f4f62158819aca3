//! Odd but legal: these must be read, and converted without loss.

use std::path::{Path, PathBuf};

use quant_tests::made::{self, Made};

use super::bnb::{Base, Edit, tensors};
use super::folders::{INDEX, shard, sound};
use super::safetensors::{expanded, file, many};
use super::{folder, link, pipe, requests, write};

/// Makes an input in an empty folder, and gives the path to open.
pub type Make = fn(&Path) -> PathBuf;

/// Name, builder, number of tensors, their bytes, part of a note that must be shown.
pub const CASES: [(&str, Make, usize, u64, &str); 55] = [
    ("two_tensors", |d| one(d, r#"{"a":<0,4>,"b":<4,8>}"#, 8), 2, 8, ""),
    ("no_tensors", |d| one(d, "{}", 0), 0, 0, ""),
    ("only_metadata", |d| one(d, r#"{"__metadata__":{"k":"v"}}"#, 0), 0, 0, ""),
    ("metadata_empty", |d| one(d, r#"{"__metadata__":{},"a":<0,4>}"#, 4), 1, 4, ""),
    ("metadata_null", |d| one(d, r#"{"__metadata__":null,"a":<0,4>}"#, 4), 1, 4, ""),
    ("metadata_last", |d| one(d, r#"{"a":<0,4>,"__metadata__":{"k":"v"}}"#, 4), 1, 4, ""),
    ("metadata_of_6000_pairs", |d| one(d, &metadata(6000), 0), 0, 0, ""),
    ("unsorted", |d| one(d, r#"{"b":<4,8>,"a":<0,4>}"#, 8), 2, 8, ""),
    ("pretty_printed", |d| one(d, "{\n  \"a\" : <0,4>,\n\t\"b\":\r\n<4,8>\n}\n", 8), 2, 8, ""),
    ("padded_with_4000_spaces", |d| one(d, &format!("{{\"a\":<0,4>}}{}", " ".repeat(4000)), 4), 1, 4, ""),
    ("name_by_escapes", |d| one(d, r#"{"\u0061\ud83d\ude00\/":<0,4>}"#, 4), 1, 4, ""),
    ("name_empty", |d| one(d, r#"{"":<0,4>}"#, 4), 1, 4, ""),
    ("name_of_a_path", |d| one(d, r#"{"../../etc/passwd":<0,4>}"#, 4), 1, 4, ""),
    ("name_of_100000_bytes", |d| one(d, &format!("{{\"{}\":<0,4>}}", "n".repeat(100_000)), 4), 1, 4, ""),
    ("names_that_differ_in_case", |d| one(d, r#"{"a":<0,4>,"A":<4,8>}"#, 8), 2, 8, ""),
    ("names_that_look_alike", |d| one(d, r#"{"\u00e9":<0,4>,"e\u0301":<4,8>}"#, 8), 2, 8, ""),
    ("fields_unknown", |d| fields(d, r#""dtype":"U8","shape":[4],"data_offsets":[0,4],"strides":[1],"x":{"y":[null,1.5]}"#, 4), 1, 4, ""),
    ("fields_in_another_order", |d| fields(d, r#""data_offsets":[0,4],"shape":[4],"dtype":"U8""#, 4), 1, 4, ""),
    ("scalar", |d| fields(d, r#""dtype":"F32","shape":[],"data_offsets":[0,4]"#, 4), 1, 4, ""),
    ("zero_size", |d| one(d, r#"{"a":<0,0>,"b":<0,4>,"c":<4,4>}"#, 4), 3, 4, ""),
    ("zero_size_at_one_place", |d| one(d, r#"{"a":<4,4>,"b":<0,4>,"c":<4,4>,"d":<4,8>}"#, 8), 4, 8, ""),
    ("zero_size_inner", |d| fields(d, r#""dtype":"F32","shape":[3,0,5],"data_offsets":[0,0]"#, 0), 1, 0, ""),
    ("zero_size_8000_tensors", |d| one(d, &many_empty(8000), 0), 8000, 0, ""),
    ("tensors_5000", |d| one(d, &many(5000, ""), 5000), 5000, 5000, ""),
    ("rank_64", |d| fields(d, &format!("\"dtype\":\"U8\",\"shape\":[1{}],\"data_offsets\":[0,1]", ",1".repeat(63)), 1), 1, 1, ""),
    ("rank_1000", |d| fields(d, &format!("\"dtype\":\"U8\",\"shape\":[1{}],\"data_offsets\":[0,1]", ",1".repeat(999)), 1), 1, 1, ""),
    ("unaligned", |d| one(d, r#"{"a":<0,1>,"b":{"dtype":"F64","shape":[1],"data_offsets":[1,9]}}"#, 9), 2, 9, ""),
    ("header_not_padded", |d| one(d, r#"{"ab":{"dtype":"F64","shape":[1],"data_offsets":[0,8]} }"#, 8), 1, 8, ""),
    ("bool_of_other_bytes", |d| fields(d, r#""dtype":"BOOL","shape":[4],"data_offsets":[0,4]"#, 4), 1, 4, ""),
    ("half_bytes", |d| fields(d, r#""dtype":"F4","shape":[3,2],"data_offsets":[0,3]"#, 3), 1, 3, ""),
    ("every_dtype", every_dtype, 22, 22 * 24, ""),
    ("file_without_an_ending", |d| named(d, "weights"), 1, 4, ""),
    ("file_of_a_dash", |d| named(d, "-rf.safetensors"), 1, 4, ""),
    ("file_of_a_line_end", |d| named(d, "a\nb.safetensors"), 1, 4, ""),
    ("file_by_a_link", by_link, 1, 4, ""),
    ("two_shards", |d| changed(d, |_| {}), 2, 8, ""),
    ("two_shards_by_their_index", |d| changed(d, |_| {}).join(INDEX), 2, 8, ""),
    ("index_with_more_keys", |d| indexed(d, r#"{"x":[1,{"y":null}],"weight_map":{"a":"1.safetensors","b":"2.safetensors"},"z":1.5}"#), 2, 8, ""),
    ("index_without_metadata", |d| indexed(d, r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#), 2, 8, ""),
    ("index_total_wrong", |d| total(d, "7"), 2, 8, "total_size is 7, the tensors have 8 bytes"),
    ("index_total_negative", |d| total(d, "-1"), 2, 8, ""),
    ("index_total_beyond_64_bits", |d| total(d, "1180591620717411303424"), 2, 8, ""),
    ("index_total_text", |d| total(d, "\"8\""), 2, 8, ""),
    ("index_shards_in_a_sub_folder", in_a_sub_folder, 2, 8, ""),
    ("index_shards_of_odd_names", odd_names, 2, 8, ""),
    ("shard_that_the_index_does_not_name", |d| changed(d, |m| shard(m, "3.safetensors", r#"{"c":<0,4>}"#, 4)), 2, 8, "3.safetensors"),
    ("model_beside_another", |d| beside(d, "consolidated.safetensors"), 5, 32_896, "consolidated.safetensors"),
    ("hugging_face_cache", hugging_face_cache, 2, 8, ""),
    ("config_unreadable", |d| configured(d, "{\"model_type\": \"llama\""), 5, 32_896, "config.json cannot be read and was not used"),
    ("config_depth_20000", |d| configured(d, &"{\"x\":".repeat(20_000)), 5, 32_896, "config.json cannot be read and was not used"),
    ("config_is_a_pipe", config_is_a_pipe, 5, 32_896, "left behind: config.json (not a regular file)"),
    ("bnb_of_rank_1", |d| bnb(d, Base::Nf4, &[Edit::State("[16, 8]", "[128]")]), 1, 64 + 8 + 64 + 74, ""),
    ("bnb_packed_flat", |d| bnb(d, Base::Nf4, &[Edit::Other("p.weight", "U8", &[64], 3)]), 1, 64 + 8 + 64 + 76, ""),
    ("bnb_in_another_storage", |d| bnb(d, Base::Nf4, &[Edit::Other("p.weight", "F16", &[32, 1], 3)]), 1, 64 + 8 + 64 + 76, ""),
    ("int8_without_format", |d| bnb(d, Base::Int8, &[Edit::Without("p.weight_format")]), 1, 128 + 32, ""),
];

fn one(dir: &Path, header: &str, n_data: usize) -> PathBuf {
    shard(dir, "x.safetensors", header, n_data);
    dir.join("x.safetensors")
}

fn fields(dir: &Path, fields: &str, n_data: usize) -> PathBuf {
    one(dir, &format!("{{\"a\":{{{fields}}}}}"), n_data)
}

fn named(dir: &Path, name: &str) -> PathBuf {
    shard(dir, name, r#"{"a":<0,4>}"#, 4);
    dir.join(name)
}

fn metadata(n: usize) -> String {
    let pairs: Vec<String> = (0..n).map(|i| format!("\"k{i}\":\"v\"")).collect();
    format!("{{\"__metadata__\":{{{}}}}}", pairs.join(","))
}

fn many_empty(n: usize) -> String {
    let entries: Vec<String> = (0..n).map(|i| format!("\"t{i}\":<0,0>")).collect();
    format!("{{{}}}", entries.join(","))
}

/// 24 bytes of each type that the safetensors crate knows.
fn every_dtype(dir: &Path) -> PathBuf {
    let types = [
        ("BOOL", 8),
        ("F4", 4),
        ("F6_E2M3", 6),
        ("F6_E3M2", 6),
        ("U8", 8),
        ("I8", 8),
        ("F8_E5M2", 8),
        ("F8_E4M3", 8),
        ("F8_E8M0", 8),
        ("F8_E4M3FNUZ", 8),
        ("F8_E5M2FNUZ", 8),
        ("I16", 16),
        ("U16", 16),
        ("F16", 16),
        ("BF16", 16),
        ("I32", 32),
        ("U32", 32),
        ("F32", 32),
        ("C64", 64),
        ("F64", 64),
        ("I64", 64),
        ("U64", 64),
    ];
    let entry = |(i, (dtype, bits)): (usize, &(&str, u64))| {
        let (start, end) = (i * 24, i * 24 + 24);
        format!("\"{dtype}\":{{\"dtype\":\"{dtype}\",\"shape\":[{}],\"data_offsets\":[{start},{end}]}}", 24 * 8 / bits)
    };
    let entries: Vec<String> = types.iter().enumerate().map(entry).collect();
    one(dir, &format!("{{{}}}", entries.join(",")), types.len() * 24)
}

fn by_link(dir: &Path) -> PathBuf {
    named(dir, "real");
    link("real", &dir.join("x.safetensors"));
    dir.join("x.safetensors")
}

fn changed(dir: &Path, change: fn(&Path)) -> PathBuf {
    let model = dir.join("model");
    sound(&model);
    change(&model);
    model
}

fn indexed(dir: &Path, index: &str) -> PathBuf {
    let model = dir.join("model");
    sound(&model);
    write(&model.join(INDEX), index);
    model
}

fn total(dir: &Path, total: &str) -> PathBuf {
    indexed(dir, &format!("{{\"metadata\":{{\"total_size\":{total}}},\"weight_map\":{{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}}}"))
}

fn in_a_sub_folder(dir: &Path) -> PathBuf {
    let model = indexed(dir, r#"{"weight_map":{"a":"1.safetensors","b":"deep/er/2.safetensors"}}"#);
    folder(&model.join("deep/er"));
    std::fs::rename(model.join("2.safetensors"), model.join("deep/er/2.safetensors")).expect("moved");
    model
}

fn odd_names(dir: &Path) -> PathBuf {
    let model = indexed(dir, r#"{"weight_map":{"a":"1.safetensors","b":" ..\u00fc -x %2e.safetensors"}}"#);
    std::fs::rename(model.join("2.safetensors"), model.join(" ..ü -x %2e.safetensors")).expect("moved");
    model
}

/// What the hub's cache looks like: `snapshots/REVISION/NAME` leads to `blobs/HASH`.
fn hugging_face_cache(dir: &Path) -> PathBuf {
    let (blobs, snapshot) = (dir.join("models--x--y/blobs"), dir.join("models--x--y/snapshots/0123abcd"));
    sound(&blobs);
    folder(&snapshot);
    for (i, name) in ["1.safetensors", "2.safetensors", INDEX].into_iter().enumerate() {
        std::fs::rename(blobs.join(name), blobs.join(format!("hash{i}"))).expect("moved");
        link(format!("../../blobs/hash{i}"), &snapshot.join(name));
    }
    snapshot
}

fn configured(dir: &Path, config: &str) -> PathBuf {
    requests::model(&dir.join("m"), config);
    dir.join("m")
}

fn beside(dir: &Path, other: &str) -> PathBuf {
    let model = configured(dir, "{}");
    write(&model.join(other), file(expanded(r#"{"z":<0,4>}"#).as_bytes(), 4));
    model
}

fn config_is_a_pipe(dir: &Path) -> PathBuf {
    let model = configured(dir, "{}");
    super::remove(&model.join("config.json"));
    pipe(&model.join("config.json"));
    model
}

fn bnb(dir: &Path, base: Base, edits: &[Edit]) -> PathBuf {
    let tensors: Vec<Made> = tensors(base, edits);
    made::write(&dir.join("x.safetensors"), &tensors);
    dir.join("x.safetensors")
}
