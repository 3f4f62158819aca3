//! Small or sparse files that ask for much memory.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::safetensors::expanded;
use super::sparse;

/// The longest header that is read.
const LIMIT: u64 = 100_000_000;

type Make = fn(&Path);

/// Name, builder, reason. The whole length is at the limit or lies.
pub const CASES: [(&str, Make, &str); 11] = [
    ("sparse_header_of_zeros", |p| sparse(p, &(LIMIT - 8).to_le_bytes(), LIMIT), "the header does not begin with '{'"),
    ("sparse_header_after_a_brace", |p| sparse(p, &begin(LIMIT - 8, "{"), LIMIT), "key must be a string"),
    ("sparse_name", |p| sparse(p, &begin(LIMIT - 8, "{\""), LIMIT), "control character"),
    (
        "header_of_a_tebibyte",
        |p| sparse(p, &begin(1 << 40, "{\"a\":"), 1 << 41),
        "say that the header has 1099511627776 bytes, at most 100000000 are allowed",
    ),
    ("tensor_of_a_tebibyte", |p| sparse(p, &whole(r#"{"a":<0,1099511627776>}"#), 1 << 20), "the file ends inside its data"),
    ("nested_lists", |p| filled(p, "{\"a\":{\"x\":", "[", ""), "recursion limit exceeded"),
    ("nested_objects", |p| filled(p, "{\"a\":{\"x\":", "{\"y\":", ""), "recursion limit exceeded"),
    ("flat_list_in_an_unknown_field", |p| filled(p, "{\"a\":{\"x\":[0", ",0", "]}}"), "missing field `dtype`"),
    ("shape_of_fifty_million_numbers", |p| filled(p, "{\"a\":{\"shape\":[1", ",1", "]}}"), "at most 1024"),
    ("name_of_a_hundred_megabytes", |p| filled(p, "{\"", "x", "\":{\"dtype\":\"F128\"}}"), "a string is longer than 8388608 bytes"),
    ("dtype_of_a_hundred_megabytes", |p| filled(p, "{\"a\":{\"data_offsets\":[0,\"", "x", "\"]}}"), "a string is longer than 8388608 bytes"),
];

fn begin(length: u64, header: &str) -> Vec<u8> {
    [&length.to_le_bytes(), header.as_bytes()].concat()
}

fn whole(header: &str) -> Vec<u8> {
    let header = expanded(header);
    begin(header.len() as u64, &header)
}

/// A header of nearly the longest length: `before`, as many of `middle` as fit, `after`.
fn filled(path: &Path, before: &str, middle: &str, after: &str) {
    let n = (LIMIT as usize - before.len() - after.len()) / middle.len();
    let length = before.len() + n * middle.len() + after.len();
    let piece = middle.repeat(1000);
    let mut file = BufWriter::new(File::create(path).expect("created"));
    file.write_all(&(length as u64).to_le_bytes()).expect("written");
    let mut write = |text: &str| file.write_all(text.as_bytes()).expect("written");
    write(before);
    (0..n / 1000).for_each(|_| write(&piece));
    write(&middle.repeat(n % 1000));
    write(after);
    file.flush().expect("written");
}
