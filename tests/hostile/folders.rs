//! A folder with one defect: its index, its shards, or what lies where a file should.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use super::safetensors::{expanded, file};
use super::{Refused, folder, link, pipe, remove, socket, sparse, write};

pub const INDEX: &str = "model.safetensors.index.json";
const SOUND: &str = r#"{"metadata":{"total_size":8},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#;

/// Every row of the tables below.
pub fn cases() -> Vec<Refused> {
    let indexes = INDEXES.iter().map(|&(name, text, file, reason)| case(name, file, reason, move |dir| write(&dir.join(INDEX), text)));
    let changes = CHANGES.iter().map(|&(name, change, file, reason)| case(name, file, reason, change));
    let paths = PATHS.iter().map(|&(name, make, file, reason)| Refused::new(name, file, reason, make));
    indexes.chain(changes).chain(paths).collect()
}

/// A sound model of two shards, beside another model, with a change.
fn case(name: &'static str, file: &'static str, reason: &'static str, change: impl Fn(&Path) + 'static) -> Refused {
    Refused::new(name, file, reason, move |dir| {
        let model = dir.join("model");
        sound(&model);
        sound(&dir.join("other"));
        change(&model);
        model
    })
}

/// A sound model: tensors `a` and `b`, each of 4 bytes in a shard of its own.
pub fn sound(dir: &Path) {
    folder(dir);
    shard(dir, "1.safetensors", r#"{"a":<0,4>}"#, 4);
    shard(dir, "2.safetensors", r#"{"b":<0,4>}"#, 4);
    write(&dir.join(INDEX), SOUND);
}

/// Writes a file from a header in short form.
pub fn shard(dir: &Path, name: &str, header: &str, n_data: usize) {
    write(&dir.join(name), file(expanded(header).as_bytes(), n_data));
}

const LEAVES: &str = "leaves the model's folder or is not a plain relative path";

/// Name, text of the index, file that the message names, reason.
const INDEXES: [(&str, &str, &str, &str); 45] = [
    ("shard_of_a_sibling", r#"{"weight_map":{"a":"1.safetensors","b":"../other/2.safetensors"}}"#, INDEX, LEAVES),
    ("shard_out_and_back", r#"{"weight_map":{"a":"1.safetensors","b":"../model/2.safetensors"}}"#, INDEX, LEAVES),
    ("shard_inner_dots", r#"{"weight_map":{"a":"1.safetensors","b":"x/../2.safetensors"}}"#, INDEX, LEAVES),
    ("shard_dot_slash", r#"{"weight_map":{"a":"1.safetensors","b":"./2.safetensors"}}"#, INDEX, LEAVES),
    ("shard_absolute", r#"{"weight_map":{"a":"1.safetensors","b":"/etc/passwd"}}"#, INDEX, LEAVES),
    ("shard_absolute_device", r#"{"weight_map":{"a":"1.safetensors","b":"/dev/zero"}}"#, INDEX, LEAVES),
    ("shard_absolute_stdin", r#"{"weight_map":{"a":"1.safetensors","b":"/dev/stdin"}}"#, INDEX, LEAVES),
    ("shard_absolute_memory", r#"{"weight_map":{"a":"1.safetensors","b":"/proc/self/mem"}}"#, INDEX, LEAVES),
    ("shard_backslashes", r#"{"weight_map":{"a":"1.safetensors","b":"..\\other\\2.safetensors"}}"#, INDEX, LEAVES),
    ("shard_drive", r#"{"weight_map":{"a":"1.safetensors","b":"C:2.safetensors"}}"#, INDEX, LEAVES),
    ("shard_nul", r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors\u0000.txt"}}"#, INDEX, LEAVES),
    ("shard_dot", r#"{"weight_map":{"a":"1.safetensors","b":"."}}"#, INDEX, LEAVES),
    ("shard_dot_dot", r#"{"weight_map":{"a":"1.safetensors","b":".."}}"#, INDEX, LEAVES),
    ("shard_empty_name", r#"{"weight_map":{"a":"1.safetensors","b":""}}"#, INDEX, LEAVES),
    ("shard_trailing_slash", r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors/"}}"#, INDEX, LEAVES),
    ("shard_double_slash", r#"{"weight_map":{"a":"1.safetensors","b":"x//2.safetensors"}}"#, INDEX, LEAVES),
    ("shard_missing", r#"{"weight_map":{"a":"1.safetensors","b":"3.safetensors"}}"#, "3.safetensors", "No such file"),
    ("shard_in_another_case", r#"{"weight_map":{"a":"1.safetensors","b":"2.SafeTensors"}}"#, "2.SafeTensors", "No such file"),
    ("shard_tilde", r#"{"weight_map":{"a":"1.safetensors","b":"~/2.safetensors"}}"#, "2.safetensors", "No such file"),
    ("shard_pattern", r#"{"weight_map":{"a":"1.safetensors","b":"?.safetensors"}}"#, "?.safetensors", "No such file"),
    ("shard_is_the_index", r#"{"weight_map":{"a":"1.safetensors","b":"model.safetensors.index.json"}}"#, INDEX, "not a safetensors file"),
    ("tensor_that_is_not_there", r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors","c":"2.safetensors"}}"#, INDEX, "tensor 'c'"),
    (
        "tensor_in_the_other_shard",
        r#"{"weight_map":{"a":"2.safetensors","b":"1.safetensors"}}"#,
        "1.safetensors",
        "tensor 'a': the index has it in '2.safetensors'",
    ),
    ("tensor_mapped_twice", r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors","a":"1.safetensors"}}"#, INDEX, "the key 'a' comes twice"),
    ("tensor_mapped_to_two", r#"{"weight_map":{"a":"1.safetensors","a":"2.safetensors","b":"2.safetensors"}}"#, INDEX, "the key 'a' comes twice"),
    ("tensor_mapped_twice_by_escape", r#"{"weight_map":{"a":"1.safetensors","\u0061":"1.safetensors"}}"#, INDEX, "the key 'a' comes twice"),
    ("map_twice", r#"{"weight_map":{"a":"1.safetensors"},"weight_map":{"b":"2.safetensors"}}"#, INDEX, "the key 'weight_map' comes twice"),
    ("map_empty", r#"{"weight_map":{}}"#, INDEX, "the index has an empty weight_map"),
    ("map_missing", r#"{"metadata":{}}"#, INDEX, "missing field `weight_map`"),
    ("map_list", r#"{"weight_map":["1.safetensors"]}"#, INDEX, "invalid type: sequence, expected an object"),
    ("map_text", r#"{"weight_map":"1.safetensors"}"#, INDEX, "invalid type: string"),
    ("map_null", r#"{"weight_map":null}"#, INDEX, "invalid type: null"),
    ("map_to_null", r#"{"weight_map":{"a":null}}"#, INDEX, "the value of 'a': invalid type: null"),
    ("map_to_list", r#"{"weight_map":{"a":["1.safetensors"]}}"#, INDEX, "the value of 'a': invalid type: sequence"),
    ("map_to_number", r#"{"weight_map":{"a":1}}"#, INDEX, "the value of 'a': invalid type: integer"),
    ("map_nested", r#"{"weight_map":{"a":{"file":"1.safetensors"}}}"#, INDEX, "the value of 'a': invalid type: map"),
    ("index_empty", "", INDEX, "EOF while parsing a value"),
    ("index_no_json", "weights", INDEX, "not a valid index: expected value"),
    ("index_cut", r#"{"weight_map":{"a":"1.safetensors","b":"2.safe"#, INDEX, "EOF while parsing a string"),
    ("index_list", r#"[{"weight_map":{"a":"1.safetensors"}}]"#, INDEX, "invalid type: sequence, expected an object"),
    ("index_null", "null", INDEX, "invalid type: null"),
    ("index_second_value", r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}} {}"#, INDEX, "trailing characters"),
    ("index_byte_order_mark", "\u{feff}{\"weight_map\":{\"a\":\"1.safetensors\"}}", INDEX, "expected value at line 1 column 1"),
    ("index_half_a_surrogate", r#"{"weight_map":{"\udfff":"1.safetensors"}}"#, INDEX, "hex escape"),
    ("index_nul_padding", "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}\0\0", INDEX, "trailing characters"),
];

type Change = fn(&Path);

/// Name, change to the sound model, file that the message names, reason.
const CHANGES: [(&str, Change, &str, &str); 30] = [
    (
        "index_utf_16",
        |d| write(&d.join(INDEX), "\u{feff}{}".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()),
        INDEX,
        "not a valid index",
    ),
    ("index_not_utf_8", |d| write(&d.join(INDEX), b"{\"weight_map\":{\"\xff\":\"1.safetensors\"}}"), INDEX, "unicode"),
    ("index_depth_20000", |d| write(&d.join(INDEX), format!("{{\"x\":{}", "[".repeat(20_000))), INDEX, "recursion limit exceeded"),
    (
        "index_depth_20000_in_metadata",
        |d| write(&d.join(INDEX), format!("{{\"metadata\":{}", "{\"x\":".repeat(20_000))),
        INDEX,
        "recursion limit exceeded",
    ),
    ("index_over_256_mib", |d| sparse(&d.join(INDEX), SOUND.as_bytes(), (256 << 20) + 1), INDEX, "at most 268435456 are read"),
    ("index_of_100001_shards", |d| write(&d.join(INDEX), shards(100_001)), INDEX, "found 100001 shards, at most 100000"),
    ("index_is_a_folder", |d| replace(&d.join(INDEX), folder), INDEX, "is a folder; needed a regular file"),
    ("index_is_a_pipe", |d| replace(&d.join(INDEX), pipe), INDEX, "is a named pipe"),
    ("index_is_a_loop", |d| replace(&d.join(INDEX), |p| link(INDEX, p)), INDEX, "symbolic links"),
    ("index_leads_nowhere", |d| replace(&d.join(INDEX), |p| link("nowhere", p)), INDEX, "No such file"),
    ("index_is_a_device", |d| replace(&d.join(INDEX), |p| link("/dev/zero", p)), INDEX, "is a device"),
    ("index_of_the_kernel", |d| replace(&d.join(INDEX), |p| link("/proc/self/status", p)), INDEX, "made up by the kernel"),
    (
        "indexes_two_of_other_names",
        |d| rename_and_copy(d, INDEX, ["x.safetensors.index.json", "y.safetensors.index.json"]),
        "model",
        "found 2 indexes",
    ),
    ("shard_one_byte_short", |d| cut(&d.join("2.safetensors"), -1), "2.safetensors", "found 3 bytes of data, needed 4"),
    ("shard_one_byte_long", |d| cut(&d.join("2.safetensors"), 1), "2.safetensors", "1 bytes lie after the last tensor"),
    ("shard_of_no_bytes", |d| write(&d.join("2.safetensors"), ""), "2.safetensors", "found 0 bytes, needed at least 8"),
    ("shard_with_a_bad_header", |d| shard(d, "2.safetensors", r#"{"b":<0,4>,"b":<0,4>}"#, 4), "2.safetensors", "the key 'b' comes twice"),
    (
        "shard_with_a_tensor_not_named",
        |d| shard(d, "2.safetensors", r#"{"b":<0,4>,"c":<4,8>}"#, 8),
        "2.safetensors",
        "tensor 'c': the index does not name it",
    ),
    (
        "shard_with_a_tensor_of_another",
        |d| shard(d, "2.safetensors", r#"{"b":<0,4>,"a":<4,8>}"#, 8),
        "2.safetensors",
        "tensor 'a': the index has it in '1.safetensors'",
    ),
    ("shard_with_another_tensor", |d| shard(d, "2.safetensors", r#"{"c":<0,4>}"#, 4), "2.safetensors", "tensor 'c': the index does not name it"),
    (
        "shard_without_its_tensor",
        |d| shard(d, "2.safetensors", r#"{}"#, 0),
        INDEX,
        "tensor 'b': the index has it in '2.safetensors', which does not hold it",
    ),
    ("shard_is_a_folder", |d| replace(&d.join("2.safetensors"), folder), "2.safetensors", "is a folder"),
    ("shard_is_a_pipe", |d| replace(&d.join("2.safetensors"), pipe), "2.safetensors", "is a named pipe"),
    ("shard_is_a_socket", |d| replace(&d.join("2.safetensors"), socket), "2.safetensors", "is a socket"),
    ("shard_is_a_loop", |d| replace(&d.join("2.safetensors"), |p| link("2.safetensors", p)), "2.safetensors", "symbolic links"),
    ("shard_leads_nowhere", |d| replace(&d.join("2.safetensors"), |p| link("nowhere", p)), "2.safetensors", "No such file"),
    ("shard_is_a_device", |d| replace(&d.join("2.safetensors"), |p| link("/dev/zero", p)), "2.safetensors", "is a device"),
    ("shard_of_the_kernel", |d| replace(&d.join("2.safetensors"), |p| link("/proc/self/maps", p)), "2.safetensors", "made up by the kernel"),
    ("shard_name_of_5000_bytes", |d| write(&d.join(INDEX), format!("{{\"weight_map\":{{\"a\":\"{}\"}}}}", "x".repeat(5000))), "xxxxx", "too long"),
    ("shards_without_an_index", |d| remove(&d.join(INDEX)), "model", "found 2 safetensors files without an index; the set is incomplete"),
];

type Make = fn(&Path) -> PathBuf;

/// Name, builder, file that the message names, reason.
const PATHS: [(&str, Make, &str, &str); 18] = [
    ("path_of_nothing", |d| d.join("nothing"), "nothing", "No such file"),
    ("path_below_a_file", |d| made(d, "x", |p| write(p, "x")).join("y"), "x/y", "Not a directory"),
    ("path_of_a_pipe", |d| made(d, "x.safetensors", pipe), "x.safetensors", "is a named pipe"),
    ("path_of_a_socket", |d| made(d, "x.safetensors", socket), "x.safetensors", "is a socket"),
    ("path_of_a_device", |_| "/dev/zero".into(), "/dev/zero", "is a device"),
    ("path_of_stdin", |_| "/dev/stdin".into(), "/dev/stdin", "is a device"),
    ("path_of_the_kernel", |_| "/proc/self/status".into(), "/proc/self/status", "made up by the kernel"),
    ("path_to_a_device", |d| made(d, "x.safetensors", |p| link("/dev/null", p)), "x.safetensors", "is a device"),
    ("path_to_itself", |d| made(d, "x.safetensors", |p| link("x.safetensors", p)), "x.safetensors", "symbolic links"),
    ("path_to_nowhere", |d| made(d, "x.safetensors", |p| link("nowhere", p)), "x.safetensors", "No such file"),
    ("folder_empty", |d| made(d, "m", folder), "m", "found no model.safetensors"),
    ("folder_of_other_files", |d| one(d, "config.json", "{}"), "m", "found no model.safetensors"),
    ("folder_of_pytorch_weights", |d| one(d, "pytorch_model.bin", "PK"), "m", "found no model.safetensors"),
    ("folder_with_a_hidden_model", |d| one(d, ".model.safetensors", "x"), "m", "found no model.safetensors"),
    ("folder_with_a_folder_model", |d| made(d, "m/model.safetensors", folder).parent().expect("m").into(), "model.safetensors", "is a folder"),
    ("first_shard_of_two_alone", |d| lone(d, "model-00001-of-00002.safetensors"), "model-00001-of-00002.safetensors", "incomplete"),
    ("last_shard_of_two_alone", |d| lone(d, "model-00002-of-00002.safetensors"), "model-00002-of-00002.safetensors", "incomplete"),
    ("numbered_set_without_an_index", numbered, "m", "found 3 safetensors files without an index; the set is incomplete"),
];

fn made(dir: &Path, name: &str, make: impl Fn(&Path)) -> PathBuf {
    make(&dir.join(name));
    dir.join(name)
}

fn one(dir: &Path, name: &str, text: &str) -> PathBuf {
    let model = made(dir, "m", folder);
    write(&model.join(name), text);
    model
}

fn lone(dir: &Path, name: &str) -> PathBuf {
    let model = made(dir, "m", folder);
    shard(&model, name, r#"{"a":<0,4>}"#, 4);
    model
}

fn numbered(dir: &Path) -> PathBuf {
    let model = made(dir, "m", folder);
    for i in 1..=3 {
        shard(&model, &format!("model-0000{i}-of-00003.safetensors"), &format!("{{\"t{i}\":<0,4>}}"), 4);
    }
    model
}

fn replace(path: &Path, make: impl Fn(&Path)) {
    remove(path);
    make(path);
}

fn rename_and_copy(dir: &Path, from: &str, to: [&str; 2]) {
    for to in to {
        std::fs::copy(dir.join(from), dir.join(to)).expect("copied");
    }
    remove(&dir.join(from));
}

/// Makes a file shorter or longer.
fn cut(path: &Path, by: i64) {
    let file = OpenOptions::new().write(true).open(path).expect("it is there");
    let length = file.metadata().expect("its length").len();
    file.set_len(length.strict_add_signed(by)).expect("cut");
}

fn shards(n: usize) -> String {
    let entries: Vec<String> = (0..n).map(|i| format!("\"{i}\":\"{i}\"")).collect();
    format!("{{\"weight_map\":{{{}}}}}", entries.join(","))
}
