//! One safetensors file with one defect.

use super::Refused;

/// The file that every row makes.
const FILE: &str = "x.safetensors";

/// Every row of the tables below.
pub fn cases() -> Vec<Refused> {
    let headers = HEADERS.iter().map(|&(name, header, n_data, reason)| case(name, file(expanded(header).as_bytes(), n_data), reason));
    let fields = FIELDS.iter().map(|&(name, fields, reason)| case(name, file(format!("{{\"a\":{{{fields}}}}}").as_bytes(), 4), reason));
    let raw = RAW.iter().map(|&(name, make, reason)| case(name, make(), reason));
    headers.chain(fields).chain(raw).collect()
}

fn case(name: &'static str, bytes: Vec<u8>, reason: &'static str) -> Refused {
    Refused::new(name, FILE, reason, move |dir| {
        std::fs::write(dir.join(FILE), &bytes).expect("written");
        dir.join(FILE)
    })
}

/// A file: the length of its header, the header, so many bytes of data.
pub fn file(header: &[u8], n_data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend((1..=n_data).map(|i| i as u8));
    bytes
}

/// A sound header of two tensors.
pub const TWO: &str = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[4],"data_offsets":[8,12]}}"#;

/// `<4,6>` in a header stands for the description of a U8 tensor that lies there.
pub fn expanded(header: &str) -> String {
    let mut pieces = header.split('<');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (range, rest) = piece.split_once('>').expect("a closing '>'");
        let (start, end): (u64, u64) = range.split_once(',').map(|(s, e)| (s.parse().expect("start"), e.parse().expect("end"))).expect("two numbers");
        text += &format!("{{\"dtype\":\"U8\",\"shape\":[{}],\"data_offsets\":[{start},{end}]}}{rest}", end - start);
    }
    text
}

/// Name, header, bytes of data, reason.
const HEADERS: [(&str, &str, usize, &str); 46] = [
    ("hole_at_the_start", r#"{"a":<8,12>}"#, 12, "tensor 'a': its data leaves a hole before it: found a start of 8, needed 0"),
    ("hole_in_the_middle", r#"{"a":<0,4>,"b":<8,12>}"#, 12, "tensor 'b': its data leaves a hole before it: found a start of 8, needed 4"),
    ("hole_before_nothing", r#"{"a":<0,4>,"b":<1099511627776,1099511627776>}"#, 4, "found a start of 1099511627776, needed 4"),
    ("overlap_whole", r#"{"a":<0,4>,"b":<0,4>}"#, 4, "tensor 'b': its data overlaps the tensor before it"),
    ("overlap_part", r#"{"a":<0,4>,"b":<2,6>}"#, 6, "found a start of 2, needed 4"),
    ("overlap_in_another_order", r#"{"b":<2,6>,"a":<0,4>}"#, 6, "tensor 'b': its data overlaps"),
    ("trailing_byte", r#"{"a":<0,4>}"#, 5, "1 bytes lie after the last tensor"),
    ("trailing_eight_bytes", r#"{"a":<0,4>}"#, 12, "8 bytes lie after the last tensor"),
    ("data_without_tensors", r#"{}"#, 4, "4 bytes lie after the last tensor"),
    ("data_missing", r#"{"a":<0,4>}"#, 0, "the file ends inside its data: found 0 bytes of data, needed 4"),
    ("data_one_byte_short", r#"{"a":<0,4>}"#, 3, "found 3 bytes of data, needed 4"),
    ("data_of_the_second_short", r#"{"a":<0,4>,"b":<4,8>}"#, 7, "tensor 'b': the file ends inside its data"),
    ("data_of_a_tebibyte", r#"{"a":<0,1099511627776>}"#, 4, "found 4 bytes of data, needed 1099511627776"),
    ("name_twice", r#"{"a":<0,4>,"a":<4,8>}"#, 8, "the key 'a' comes twice"),
    ("name_twice_same_range", r#"{"a":<0,4>,"a":<0,4>}"#, 4, "the key 'a' comes twice"),
    ("name_twice_by_escape", r#"{"a":<0,4>,"\u0061":<4,8>}"#, 8, "the key 'a' comes twice"),
    ("name_twice_apart", r#"{"a":<0,4>,"b":<4,8>,"a":<8,12>}"#, 12, "the key 'a' comes twice"),
    ("metadata_twice", r#"{"__metadata__":{},"a":<0,4>,"__metadata__":{}}"#, 4, "the key '__metadata__' comes twice"),
    ("metadata_twice_by_escape", r#"{"__metadata__":{},"__metadata_\u005f":{}}"#, 0, "the key '__metadata__' comes twice"),
    ("metadata_key_twice", r#"{"__metadata__":{"k":"1","k":"2"}}"#, 0, "the key 'k' comes twice"),
    ("metadata_key_twice_by_escape", r#"{"__metadata__":{"k":"1","\u006b":"1"}}"#, 0, "the key 'k' comes twice"),
    ("metadata_of_numbers", r#"{"__metadata__":{"k":1}}"#, 0, "the value of 'k': invalid type: integer"),
    ("metadata_of_objects", r#"{"__metadata__":{"k":{"l":"m"}}}"#, 0, "the value of 'k': invalid type: map"),
    ("metadata_value_null", r#"{"__metadata__":{"k":null}}"#, 0, "the value of 'k': invalid type: null"),
    ("metadata_list", r#"{"__metadata__":["k","v"]}"#, 0, "invalid type: sequence, expected an object"),
    ("metadata_text", r#"{"__metadata__":"k"}"#, 0, "invalid type: string"),
    ("tensor_list", r#"{"a":["U8",[4],[0,4]]}"#, 4, "tensor 'a': invalid type: sequence, expected an object"),
    ("tensor_null", r#"{"a":null}"#, 0, "tensor 'a': invalid type: null"),
    ("tensor_number", r#"{"a":1}"#, 0, "tensor 'a': invalid type: integer"),
    ("trailing_comma", r#"{"a":<0,4>,}"#, 4, "trailing comma"),
    ("missing_comma", r#"{"a":<0,4>"b":<4,8>}"#, 8, "expected `,` or `}`"),
    ("single_quotes", r#"{'a':<0,4>}"#, 4, "key must be a string"),
    ("key_without_quotes", r#"{a:<0,4>}"#, 4, "key must be a string"),
    ("comment", r#"{/**/"a":<0,4>}"#, 4, "key must be a string"),
    ("unclosed", r#"{"a":<0,4>"#, 4, "EOF while parsing an object"),
    ("unclosed_text", r#"{"a"#, 0, "EOF while parsing a string"),
    ("second_value", r#"{"a":<0,4>}{}"#, 4, "trailing characters"),
    ("escape_unknown", r#"{"\x41":<0,4>}"#, 4, "invalid escape"),
    ("escape_half_a_surrogate", r#"{"\ud800":<0,4>}"#, 4, "hex escape"),
    ("control_character_in_name", "{\"a\u{1b}\":<0,4>}", 4, "control character"),
    ("top_is_a_list", "[1,2,3]", 0, "the header does not begin with '{'"),
    ("top_is_a_text", r#""a""#, 0, "the header does not begin with '{'"),
    ("top_is_a_number", "12345678", 0, "the header does not begin with '{'"),
    ("top_is_null", "null", 0, "the header does not begin with '{'"),
    ("only_spaces", "        ", 0, "the header does not begin with '{'"),
    ("leading_space", r#" {"a":<0,4>}"#, 4, "the header does not begin with '{'"),
];

/// Name, fields of the one tensor `a` before 4 bytes of data, reason.
const FIELDS: [(&str, &str, &str); 59] = [
    ("dtype_missing", r#""shape":[4],"data_offsets":[0,4]"#, "tensor 'a': missing field `dtype`"),
    ("shape_missing", r#""dtype":"U8","data_offsets":[0,4]"#, "tensor 'a': missing field `shape`"),
    ("offsets_missing", r#""dtype":"U8","shape":[4]"#, "tensor 'a': missing field `data_offsets`"),
    ("fields_missing", "", "tensor 'a': missing field"),
    ("dtype_unknown", r#""dtype":"F128","shape":[4],"data_offsets":[0,4]"#, "tensor 'a': unknown dtype 'F128'"),
    ("dtype_in_lower_case", r#""dtype":"u8","shape":[4],"data_offsets":[0,4]"#, "unknown dtype 'u8'"),
    ("dtype_of_torch", r#""dtype":"torch.uint8","shape":[4],"data_offsets":[0,4]"#, "unknown dtype 'torch.uint8'"),
    ("dtype_of_gguf", r#""dtype":"Q4_0","shape":[4],"data_offsets":[0,4]"#, "unknown dtype 'Q4_0'"),
    ("dtype_empty", r#""dtype":"","shape":[4],"data_offsets":[0,4]"#, "unknown dtype ''"),
    ("dtype_number", r#""dtype":8,"shape":[4],"data_offsets":[0,4]"#, "invalid type: integer `8`"),
    ("dtype_null", r#""dtype":null,"shape":[4],"data_offsets":[0,4]"#, "invalid type: null"),
    ("dtype_list", r#""dtype":["U8"],"shape":[4],"data_offsets":[0,4]"#, "invalid type: sequence"),
    ("dtype_twice", r#""dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]"#, "the key 'dtype' comes twice"),
    ("shape_twice", r#""dtype":"U8","shape":[4],"shape":[2,2],"data_offsets":[0,4]"#, "the key 'shape' comes twice"),
    ("shape_twice_by_escape", r#""dtype":"U8","shape":[4],"sh\u0061pe":[4],"data_offsets":[0,4]"#, "the key 'shape' comes twice"),
    ("offsets_twice", r#""dtype":"U8","shape":[4],"data_offsets":[0,4],"data_offsets":[0,4]"#, "the key 'data_offsets' comes twice"),
    ("unknown_field_twice", r#""dtype":"U8","shape":[4],"data_offsets":[0,4],"x":1,"x":1"#, "the key 'x' comes twice"),
    ("shape_fraction", r#""dtype":"U8","shape":[4.0],"data_offsets":[0,4]"#, "invalid type: floating point `4.0`"),
    ("shape_text", r#""dtype":"U8","shape":["4"],"data_offsets":[0,4]"#, "invalid type: string \"4\""),
    ("shape_null", r#""dtype":"U8","shape":null,"data_offsets":[0,4]"#, "invalid type: null"),
    ("shape_object", r#""dtype":"U8","shape":{},"data_offsets":[0,4]"#, "invalid type: map"),
    ("shape_number", r#""dtype":"U8","shape":4,"data_offsets":[0,4]"#, "invalid type: integer `4`"),
    ("shape_negative", r#""dtype":"U8","shape":[-4],"data_offsets":[0,4]"#, "integer `-4`"),
    ("shape_two_negatives", r#""dtype":"U8","shape":[-2,-2],"data_offsets":[0,4]"#, "integer `-2`"),
    ("shape_bool", r#""dtype":"U8","shape":[true],"data_offsets":[0,4]"#, "invalid type: boolean"),
    ("shape_nested", r#""dtype":"U8","shape":[[4]],"data_offsets":[0,4]"#, "invalid type: sequence"),
    ("shape_beyond_64_bits", r#""dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,4]"#, "invalid type: floating point"),
    ("offsets_three", r#""dtype":"U8","shape":[4],"data_offsets":[0,2,4]"#, "invalid length 3"),
    ("offsets_one", r#""dtype":"U8","shape":[4],"data_offsets":[4]"#, "data_offsets needs two numbers"),
    ("offsets_none", r#""dtype":"U8","shape":[4],"data_offsets":[]"#, "data_offsets needs two numbers"),
    ("offsets_object", r#""dtype":"U8","shape":[4],"data_offsets":{"start":0,"end":4}"#, "invalid type: map"),
    ("offsets_null", r#""dtype":"U8","shape":[4],"data_offsets":null"#, "invalid type: null"),
    ("offsets_bool", r#""dtype":"U8","shape":[1],"data_offsets":[false,true]"#, "invalid type: boolean"),
    ("offsets_fraction", r#""dtype":"U8","shape":[4],"data_offsets":[0,4.0]"#, "invalid type: floating point `4.0`"),
    ("offsets_negative", r#""dtype":"U8","shape":[4],"data_offsets":[-4,0]"#, "integer `-4`"),
    ("offsets_minus_zero", r#""dtype":"U8","shape":[4],"data_offsets":[-0,4]"#, "floating point `-0.0`"),
    ("offsets_out_of_range", r#""dtype":"U8","shape":[4],"data_offsets":[0,1e400]"#, "number out of range"),
    ("offsets_nan", r#""dtype":"U8","shape":[4],"data_offsets":[0,NaN]"#, "expected value"),
    ("offsets_leading_zero", r#""dtype":"U8","shape":[4],"data_offsets":[0,04]"#, "invalid number"),
    ("offsets_reversed", r#""dtype":"U8","shape":[4],"data_offsets":[4,0]"#, "found a start of 4, needed 0"),
    ("offsets_end_first", r#""dtype":"U8","shape":[4],"data_offsets":[0,0]"#, "found the data offsets 0 to 0, needed 4 bytes"),
    ("offsets_greatest", r#""dtype":"U8","shape":[4],"data_offsets":[18446744073709551612,18446744073709551615]"#, "leaves a hole before it"),
    ("shape_too_small", r#""dtype":"U8","shape":[3],"data_offsets":[0,4]"#, "needed 3 bytes for [3] of U8"),
    ("shape_too_large", r#""dtype":"U8","shape":[5],"data_offsets":[0,4]"#, "needed 5 bytes for [5] of U8"),
    ("shape_empty_with_bytes", r#""dtype":"U8","shape":[2,0],"data_offsets":[0,4]"#, "needed 0 bytes for [2, 0] of U8"),
    ("scalar_with_four_bytes", r#""dtype":"U8","shape":[],"data_offsets":[0,4]"#, "needed 1 bytes for [] of U8"),
    ("elements_wrap_to_0", r#""dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]"#, "that 64 bits can hold"),
    ("elements_wrap_to_4", r#""dtype":"U8","shape":[4194305,4194305,211106198978564],"data_offsets":[0,4]"#, "that 64 bits can hold"),
    ("elements_greatest", r#""dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,4]"#, "that 64 bits can hold"),
    ("bytes_wrap_to_0", r#""dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]"#, "that 64 bits can hold"),
    ("bytes_wrap_to_4", r#""dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]"#, "that 64 bits can hold"),
    ("bits_wrap_to_0", r#""dtype":"U8","shape":[2305843009213693952],"data_offsets":[0,0]"#, "that 64 bits can hold"),
    ("bits_wrap_f64", r#""dtype":"F64","shape":[288230376151711744],"data_offsets":[0,0]"#, "that 64 bits can hold"),
    ("zero_then_huge", r#""dtype":"U8","shape":[0,9223372036854775808,9223372036854775808],"data_offsets":[0,0]"#, "that 64 bits can hold"),
    ("huge_then_zero", r#""dtype":"U8","shape":[9223372036854775808,9223372036854775808,0],"data_offsets":[0,0]"#, "that 64 bits can hold"),
    ("an_exbibyte", r#""dtype":"U8","shape":[1152921504606846976],"data_offsets":[0,1152921504606846976]"#, "the file ends inside its data"),
    ("half_bytes", r#""dtype":"F4","shape":[9],"data_offsets":[0,4]"#, "is not a whole number of bytes"),
    ("six_bit_floats", r#""dtype":"F6_E2M3","shape":[5],"data_offsets":[0,4]"#, "is not a whole number of bytes"),
    ("unclosed_list", r#""dtype":"U8","shape":[4,"data_offsets":[0,4]"#, "tensor 'a': invalid type: string"),
];

type Make = fn() -> Vec<u8>;

/// Name, bytes of the file, reason.
const RAW: [(&str, Make, &str); 37] = [
    ("no_bytes", Vec::new, "found 0 bytes, needed at least 8"),
    ("seven_bytes", || vec![2, 0, 0, 0, 0, 0, 0], "found 7 bytes, needed at least 8"),
    ("length_alone", || lying(2, b"", 0), "the file ends inside its header: found 0 bytes, needed 2"),
    ("length_0", || lying(0, TWO.as_bytes(), 12), "the header does not begin with '{'"),
    ("length_one_less", || lying(TWO.len() as u64 - 1, TWO.as_bytes(), 12), "EOF while parsing"),
    ("length_one_more", || lying(TWO.len() as u64 + 1, TWO.as_bytes(), 12), "trailing characters"),
    ("length_whole_file", || lying(TWO.len() as u64 + 12, TWO.as_bytes(), 12), "trailing characters"),
    ("length_beyond_the_file", || lying(TWO.len() as u64 + 13, TWO.as_bytes(), 12), "the file ends inside its header"),
    ("length_at_the_limit", || lying(100_000_000, TWO.as_bytes(), 12), "the file ends inside its header"),
    ("length_over_the_limit", || lying(100_000_001, TWO.as_bytes(), 12), "say that the header has 100000001 bytes, at most 100000000 are allowed"),
    ("length_1_gib", || lying(1 << 30, TWO.as_bytes(), 12), "say that the header has 1073741824 bytes, at most 100000000 are allowed"),
    ("length_2_32", || lying(1 << 32, TWO.as_bytes(), 12), "say that the header has 4294967296 bytes, at most 100000000 are allowed"),
    (
        "length_2_63_less_1",
        || lying((1 << 63) - 1, TWO.as_bytes(), 12),
        "say that the header has 9223372036854775807 bytes, at most 100000000 are allowed",
    ),
    ("length_2_63", || lying(1 << 63, TWO.as_bytes(), 12), "say that the header has 9223372036854775808 bytes, at most 100000000 are allowed"),
    (
        "length_minus_8",
        || lying(u64::MAX - 7, TWO.as_bytes(), 12),
        "say that the header has 18446744073709551608 bytes, at most 100000000 are allowed",
    ),
    ("length_minus_1", || lying(u64::MAX, TWO.as_bytes(), 12), "say that the header has 18446744073709551615 bytes, at most 100000000 are allowed"),
    ("length_big_endian", || [(TWO.len() as u64).to_be_bytes().as_slice(), TWO.as_bytes()].concat(), "say that the header has"),
    ("byte_order_mark", || file(format!("\u{feff}{TWO}").as_bytes(), 12), "the header does not begin with '{'"),
    ("utf_16", || file(&TWO.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>(), 12), "the header is not valid"),
    (
        "utf_16_with_mark",
        || file(&format!("\u{feff}{TWO}").encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>(), 12),
        "does not begin with '{'",
    ),
    ("nul_padding", || file(format!("{TWO}\0\0\0\0").as_bytes(), 12), "trailing characters"),
    ("name_not_utf_8", || file(&replaced(TWO, b'b', 0xff), 12), "unicode"),
    ("zeros", || vec![0; 4096], "the header does not begin with '{'"),
    ("ones", || vec![0xff; 4096], "say that the header has 18446744073709551615 bytes, at most 100000000 are allowed"),
    ("web_page", || b"<!DOCTYPE html><html><body>404</body></html>".to_vec(), "not a safetensors file"),
    ("git_lfs_pointer", || b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec(), "not a safetensors file"),
    ("pickle", || b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01cposix\nsystem\nq\x02.".to_vec(), "not a safetensors file"),
    ("zip_appended", || [file(TWO.as_bytes(), 12), b"PK\x05\x06".to_vec(), vec![0; 18]].concat(), "22 bytes lie after the last tensor"),
    ("gguf", || [b"GGUF\x03\0\0\0".as_slice(), &[0; 16]].concat(), "is a GGUF file, whatever its name says; rename it to .gguf"),
    ("depth_20000_as_tensor", || file(&nested("{\"a\":", "[", 20_000), 0), "invalid type: sequence"),
    ("depth_20000_in_field", || file(&nested("{\"a\":{\"x\":", "[", 20_000), 0), "recursion limit exceeded"),
    ("depth_20000_of_objects", || file(&nested("{\"a\":{\"x\":", "{\"y\":", 20_000), 0), "recursion limit exceeded"),
    ("depth_20000_in_metadata", || file(&nested("{\"__metadata__\":{\"k\":", "[", 20_000), 0), "the value of 'k'"),
    ("rank_1025", || file(format!("{{\"a\":{{\"dtype\":\"U8\",\"shape\":[1{}]", ",1".repeat(1024)).as_bytes(), 0), "at most 1024"),
    ("last_of_5000_is_wrong", || file(many(5000, ",\"last\":<4999,5000>").as_bytes(), 5000), "tensor 'last': its data overlaps"),
    ("overlap_bomb", || file(expanded(&bomb(1000)).as_bytes(), 8), "its data overlaps the tensor before it"),
    ("sum_wraps", || file(sum_of_exbibytes().as_bytes(), 0), "the file ends inside its data"),
];

/// A file whose header has another length than it says.
fn lying(length: u64, header: &[u8], n_data: usize) -> Vec<u8> {
    let mut bytes = file(header, n_data);
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    bytes
}

fn replaced(text: &str, from: u8, to: u8) -> Vec<u8> {
    let at = text.find(&format!("\"{}\"", from as char)).expect("a name");
    let mut bytes = text.as_bytes().to_vec();
    bytes[at + 1] = to;
    bytes
}

fn nested(before: &str, bracket: &str, depth: usize) -> Vec<u8> {
    format!("{before}{}", bracket.repeat(depth)).into_bytes()
}

/// So many tensors of one byte, and more.
pub fn many(n: usize, more: &str) -> String {
    let entries: Vec<String> = (0..n).map(|i| format!("\"t{i}\":<{i},{}>", i + 1)).collect();
    expanded(&format!("{{{}{more}}}", entries.join(",")))
}

fn bomb(n: usize) -> String {
    let entries: Vec<String> = (0..n).map(|i| format!("\"t{i}\":<0,8>")).collect();
    format!("{{{}}}", entries.join(","))
}

/// 17 tensors of 2^60 bytes: the sum does not fit 64 bits, so the last offsets wrap.
fn sum_of_exbibytes() -> String {
    let size = 1u64 << 60;
    let entry = |i: u64| {
        format!("\"t{i}\":{{\"dtype\":\"U8\",\"shape\":[{size}],\"data_offsets\":[{},{}]}}", i.wrapping_mul(size), (i + 1).wrapping_mul(size))
    };
    let entries: Vec<String> = (0..17).map(entry).collect();
    format!("{{{}}}", entries.join(","))
}
