//! A bitsandbytes checkpoint with one defect.

use quant_tests::made::{self, Made};

use super::Refused;

const FILE: &str = "x.safetensors";

/// What a row begins with.
#[derive(Clone, Copy)]
pub enum Base {
    /// `p.weight` of 16 × 8 in NF4.
    Nf4,
    /// The same with double quantization.
    Nested,
    /// `p.weight` of 8 × 16 in LLM.int8().
    Int8,
}

use Base::{Int8, Nested, Nf4};

/// What a row changes.
#[derive(Clone, Copy)]
pub enum Edit {
    /// In the text of the quant_state.
    State(&'static str, &'static str),
    /// The whole quant_state.
    StateIs(&'static [u8]),
    /// The tensor of this name goes.
    Without(&'static str),
    /// The tensor of this name gets another type and shape, and is filled with this byte.
    Other(&'static str, &'static str, &'static [u64], u8),
    /// The tensor gets another name.
    Called(&'static str, &'static str),
}

use Edit::{Called, Other, State, StateIs, Without};

/// Every row of the table below.
pub fn cases() -> Vec<Refused> {
    let case = |&(name, base, edit, reason): &(&'static str, Base, Edit, &'static str)| {
        Refused::new(name, FILE, reason, move |dir| {
            made::write(&dir.join(FILE), &tensors(base, &[edit]));
            dir.join(FILE)
        })
    };
    CASES.iter().map(case).collect()
}

const STATE: &str = "p.weight.quant_state.bitsandbytes__nf4";
const FP4_STATE: &str = "p.weight.quant_state.bitsandbytes__fp4";
const ABSMAX: &str = "p.weight.absmax";
const MAP: &str = "p.weight.quant_map";
const N_ABSMAX: &str = "p.weight.nested_absmax";
const N_MAP: &str = "p.weight.nested_quant_map";

/// The 16 values of NF4: table in section 3 of the QLoRA paper, appendix E (arXiv 2305.14314).
const NF4: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The tensors of a row.
pub fn tensors(base: Base, edits: &[Edit]) -> Vec<Made> {
    let mut tensors = match base {
        Nf4 => four_bit(r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [16, 8]}"#),
        Nested => nested(),
        Int8 => vec![
            Made::raw("p.weight", "I8", &[8, 16], vec![1; 128]),
            Made::f32("p.SCB", &[8], &[1.5; 8]),
            Made::raw("p.weight_format", "U8", &[], vec![0]),
        ],
    };
    edits.iter().for_each(|&edit| apply(edit, &mut tensors));
    tensors
}

fn four_bit(state: &str) -> Vec<Made> {
    vec![
        Made::raw("p.weight", "U8", &[64, 1], (0..64).collect()),
        Made::f32(ABSMAX, &[2], &[0.5, 0.25]),
        Made::f32(MAP, &[16], &NF4),
        Made::raw(STATE, "U8", &[state.len() as u64], state.into()),
    ]
}

fn nested() -> Vec<Made> {
    let more = r#""nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.05"#;
    let mut tensors = four_bit(&format!(r#"{{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [16, 8], {more}}}"#));
    tensors[1] = Made::raw(ABSMAX, "U8", &[2], vec![3, 200]);
    let map: Vec<f32> = (0..256).map(|i| (i as f32 - 127.0) / 128.0).collect();
    tensors.extend([Made::f32(N_ABSMAX, &[1], &[0.01]), Made::f32(N_MAP, &[256], &map)]);
    tensors
}

fn apply(edit: Edit, tensors: &mut Vec<Made>) {
    let at = |name: &str, tensors: &[Made]| tensors.iter().position(|t| t.name == name).unwrap_or_else(|| panic!("no tensor '{name}'"));
    match edit {
        State(from, to) => {
            let state = at(STATE, tensors);
            let text = String::from_utf8_lossy(&tensors[state].bytes).replacen(from, to, 1);
            assert_ne!(text.as_bytes(), tensors[state].bytes, "{from}");
            tensors[state] = Made::raw(STATE, "U8", &[text.len() as u64], text.into());
        }
        StateIs(text) => {
            let state = at(STATE, tensors);
            tensors[state] = Made::raw(STATE, "U8", &[text.len() as u64], text.into());
        }
        Without(name) => drop(tensors.remove(at(name, tensors))),
        Other(name, dtype, shape, byte) => {
            let width = match dtype {
                "I64" => 8,
                "F32" | "I32" => 4,
                "F16" => 2,
                _ => 1,
            };
            let n_bytes = shape.iter().product::<u64>() as usize * width;
            let i = at(name, tensors);
            tensors[i] = Made::raw(name, dtype, shape, vec![byte; n_bytes]);
        }
        Called(from, to) => {
            let i = at(from, tensors);
            tensors[i].name = to.into();
        }
    }
}

static BRACKETS: [u8; 20_000] = [b'['; 20_000];
/// Lists in lists.
const DEEP: &str = match std::str::from_utf8(&BRACKETS) {
    Ok(text) => text,
    Err(_) => "",
};

/// Name, base, defect, reason.
const CASES: [(&str, Base, Edit, &str); 84] = [
    ("state_of_no_bytes", Nf4, StateIs(b""), "the quant_state is not a JSON object"),
    ("state_null", Nf4, StateIs(b"null"), "the quant_state is not a JSON object"),
    ("state_list", Nf4, StateIs(b"[]"), "the quant_state is not a JSON object"),
    ("state_no_json", Nf4, StateIs(b"nf4"), "the quant_state is not a JSON object"),
    ("state_leading_space", Nf4, StateIs(b" {}"), "the quant_state is not a JSON object"),
    ("state_empty_object", Nf4, StateIs(b"{}"), "missing field `quant_type`"),
    ("state_depth_20000", Nf4, State("[16, 8]", DEEP), "invalid type: sequence"),
    ("state_cut", Nf4, State("}", ""), "EOF while parsing an object"),
    ("state_not_utf_8", Nf4, StateIs(b"{\"quant_type\": \"\xff\"}"), "unicode"),
    ("state_trailing_words", Nf4, State("}", "} x"), "trailing characters"),
    ("state_nul_padding", Nf4, State("}", "}\0\0"), "trailing characters"),
    ("state_key_twice", Nf4, State("\"blocksize\": 64", "\"blocksize\": 64, \"blocksize\": 64"), "duplicate field `blocksize`"),
    ("state_key_unknown", Nf4, State("\"blocksize\"", "\"codebook\": \"x\", \"blocksize\""), "unknown field `codebook`"),
    ("state_in_f32", Nf4, Other(STATE, "F32", &[20], b' '), "found a quant_state of type F32, needed U8"),
    ("state_of_65537_bytes", Nf4, Other(STATE, "U8", &[65_537], b' '), "found 65537 bytes, at most 65536 are read"),
    ("type_of_another_book", Nf4, State("\"nf4\"", "\"fp4\""), "the quant_state has quant_type 'fp4', its name says 'nf4'"),
    ("type_unknown", Nf4, Called(STATE, "p.weight.quant_state.bitsandbytes__int4"), "its name says 'int4'"),
    ("type_in_the_name_differs", Nf4, Called(STATE, FP4_STATE), "the quant_state has quant_type 'nf4', its name says 'fp4'"),
    ("type_number", Nf4, State("\"nf4\"", "4"), "invalid type: integer `4`"),
    ("type_missing", Nf4, State("\"quant_type\": \"nf4\", ", ""), "missing field `quant_type`"),
    ("block_0", Nf4, State("64", "0"), "found blocksize 0, needed one of"),
    ("block_1", Nf4, State("64", "1"), "found blocksize 1, needed one of"),
    ("block_63", Nf4, State("64", "63"), "found blocksize 63, needed one of"),
    ("block_8192", Nf4, State("64", "8192"), "found blocksize 8192, needed one of"),
    ("block_2_32_and_64", Nf4, State("64", "4294967360"), "found blocksize 4294967360, needed one of"),
    ("block_2_62", Nf4, State("64", "4611686018427387904"), "found blocksize 4611686018427387904, needed one of"),
    ("block_beyond_64_bits", Nf4, State("64", "18446744073709551616"), "invalid type: floating point"),
    ("block_negative", Nf4, State("64", "-64"), "integer `-64`"),
    ("block_fraction", Nf4, State("64", "64.0"), "invalid type: floating point `64.0`"),
    ("block_text", Nf4, State("64", "\"64\""), "invalid type: string \"64\""),
    ("block_null", Nf4, State("64", "null"), "invalid type: null"),
    ("block_missing", Nf4, State("\"blocksize\": 64, ", ""), "missing field `blocksize`"),
    ("block_of_another_size", Nf4, State("64", "128"), "found 8 bytes of F32, needed 4 of F32 for nf4:128"),
    ("dtype_of_128_bits", Nf4, State("float16", "float128"), "found dtype 'float128'"),
    ("dtype_attribute", Nf4, State("float16", "load"), "found dtype 'load'"),
    ("dtype_dunder", Nf4, State("float16", "__class__"), "found dtype '__class__'"),
    ("dtype_integer", Nf4, State("float16", "int32"), "found dtype 'int32'"),
    ("dtype_empty", Nf4, State("float16", ""), "found dtype ''"),
    ("dtype_number", Nf4, State("\"float16\"", "16"), "invalid type: integer `16`"),
    ("dtype_missing", Nf4, State("\"dtype\": \"float16\", ", ""), "missing field `dtype`"),
    ("shape_missing", Nf4, State(", \"shape\": [16, 8]", ""), "missing field `shape`"),
    ("shape_null", Nf4, State("[16, 8]", "null"), "invalid type: null"),
    ("shape_text", Nf4, State("[16, 8]", "\"16x8\""), "invalid type: string"),
    ("shape_negative", Nf4, State("[16, 8]", "[-16, -8]"), "integer `-16`"),
    ("shape_beyond_64_bits", Nf4, State("[16, 8]", "[18446744073709551616]"), "invalid type: floating point"),
    ("shape_wraps_to_128", Nf4, State("[16, 8]", "[4294967296, 4294967296, 128]"), "has more elements than 64-bit sizes allow"),
    ("shape_of_rank_9", Nf4, State("[16, 8]", "[1, 1, 1, 1, 1, 1, 1, 16, 8]"), "found a shape of 9 dimensions, at most 8"),
    ("shape_scalar", Nf4, State("[16, 8]", "[]"), "found 64 bytes of U8, needed 1 of U8"),
    ("shape_empty", Nf4, State("[16, 8]", "[0, 8]"), "found 64 bytes of U8, needed 0 of U8"),
    ("shape_larger", Nf4, State("[16, 8]", "[16, 9]"), "found 64 bytes of U8, needed 72 of U8"),
    ("shape_smaller", Nf4, State("[16, 8]", "[16, 7]"), "found 64 bytes of U8, needed 56 of U8"),
    ("weight_missing", Nf4, Without("p.weight"), "needs a tensor 'p.weight' beside it"),
    ("weight_in_its_own_shape", Nf4, Other("p.weight", "F32", &[16, 8], 0), "found 512 bytes of F32, needed 64 of U8"),
    ("weight_one_byte_short", Nf4, Other("p.weight", "U8", &[63, 1], 0), "found 63 bytes of U8, needed 64"),
    ("absmax_missing", Nf4, Without(ABSMAX), "needs a tensor 'p.weight.absmax' beside it"),
    ("absmax_short", Nf4, Other(ABSMAX, "F32", &[1], 0), "found 4 bytes of F32, needed 8 of F32"),
    ("absmax_long", Nf4, Other(ABSMAX, "F32", &[3], 0), "found 12 bytes of F32, needed 8 of F32"),
    ("absmax_empty", Nf4, Other(ABSMAX, "F32", &[0], 0), "found 0 bytes of F32, needed 8 of F32"),
    ("absmax_i64", Nf4, Other(ABSMAX, "I64", &[1], 0), "found 8 bytes of I64, needed 8 of F32"),
    ("absmax_f16", Nf4, Other(ABSMAX, "F16", &[4], 0), "found 8 bytes of F16, needed 8 of F32"),
    ("absmax_nested_alone", Nf4, Other(ABSMAX, "U8", &[2], 0), "found 2 bytes of U8, needed 8 of F32"),
    ("map_missing", Nf4, Without(MAP), "needs a tensor 'p.weight.quant_map' beside it"),
    ("map_of_15", Nf4, Other(MAP, "F32", &[15], 0), "found 60 bytes of F32, needed 64 of F32"),
    ("map_of_17", Nf4, Other(MAP, "F32", &[17], 0), "found 68 bytes of F32, needed 64 of F32"),
    ("map_empty", Nf4, Other(MAP, "F32", &[0], 0), "found 0 bytes of F32, needed 64 of F32"),
    ("map_u8", Nf4, Other(MAP, "U8", &[64], 0), "found 64 bytes of U8, needed 64 of F32"),
    ("map_of_zeros", Nf4, Other(MAP, "F32", &[16], 0), "its values are not those of nf4"),
    ("map_of_nan", Nf4, Other(MAP, "F32", &[16], 0xff), "its values are not those of nf4"),
    ("state_missing", Nf4, Without(STATE), "belongs to a quantized weight, but a quant_state is missing beside it"),
    (
        "nested_parts_not_in_the_state",
        Nested,
        State(", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": 0.05", ""),
        "absmax",
    ),
    ("nested_block_missing", Nested, State("\"nested_blocksize\": 256, ", ""), "needs all of nested_blocksize, nested_dtype and nested_offset"),
    ("nested_block_0", Nested, State("256", "0"), "found nested_blocksize 0, needed 256"),
    ("nested_block_text", Nested, State("256", "\"256\""), "invalid type: string \"256\""),
    ("nested_dtype_unknown", Nested, State("\"float32\"", "\"quaternion\""), "found nested_dtype 'quaternion', needed float32"),
    ("nested_offset_null", Nested, State("0.05", "null"), "needs all of nested_blocksize, nested_dtype and nested_offset"),
    ("nested_offset_nan", Nested, State("0.05", "NaN"), "the quant_state is not valid: expected value"),
    ("nested_offset_too_large", Nested, State("0.05", "1e39"), "found nested_offset inf, needed a finite number"),
    ("nested_absmax_missing", Nested, Without(N_ABSMAX), "needs a tensor 'p.weight.nested_absmax' beside it"),
    ("nested_absmax_empty", Nested, Other(N_ABSMAX, "F32", &[0], 0), "found 0 bytes of F32, needed 4 of F32"),
    ("nested_map_missing", Nested, Without(N_MAP), "needs a tensor 'p.weight.nested_quant_map' beside it"),
    ("nested_map_of_255", Nested, Other(N_MAP, "F32", &[255], 0), "found 1020 bytes of F32, needed 1024 of F32"),
    ("nested_map_of_nan", Nested, Other(N_MAP, "F32", &[256], 0xff), "its values are not"),
    ("absmax_f32_although_nested", Nested, Other(ABSMAX, "F32", &[2], 0), "found 8 bytes of F32, needed 2 of U8"),
    ("int8_weight_missing", Int8, Without("p.weight"), "needs a tensor 'p.weight' beside it"),
];

/// The defects of LLM.int8(), and parts that belong to nothing.
pub fn int8_cases() -> Vec<Refused> {
    let case = |&(name, edits, reason): &(&'static str, &'static [Edit], &'static str)| {
        Refused::new(name, FILE, reason, move |dir| {
            made::write(&dir.join(FILE), &tensors(Int8, edits));
            dir.join(FILE)
        })
    };
    INT8.iter().map(case).collect()
}

const INT8: [(&str, &[Edit], &str); 18] = [
    ("scb_short", &[Other("p.SCB", "F32", &[7], 0)], "found F32 of shape [7], needed F32 of shape [8], one scale a row"),
    ("scb_of_the_columns", &[Other("p.SCB", "F32", &[16], 0)], "found F32 of shape [16], needed F32 of shape [8]"),
    ("scb_empty", &[Other("p.SCB", "F32", &[0], 0)], "found F32 of shape [0], needed F32 of shape [8]"),
    ("scb_matrix", &[Other("p.SCB", "F32", &[8, 1], 0)], "found F32 of shape [8, 1], needed F32 of shape [8]"),
    ("scb_i32", &[Other("p.SCB", "I32", &[8], 0)], "found I32 of shape [8], needed F32"),
    ("scb_f16", &[Other("p.SCB", "F16", &[8], 0)], "found F16 of shape [8], needed F32"),
    ("scb_missing", &[Without("p.SCB")], "belongs to a quantized weight, but an SCB is missing beside it"),
    ("int8_weight_u8", &[Other("p.weight", "U8", &[8, 16], 0)], "found the type U8 beside an SCB, needed I8"),
    ("int8_weight_f16", &[Other("p.weight", "F16", &[8, 16], 0)], "found the type F16 beside an SCB, needed I8"),
    ("int8_weight_flat", &[Other("p.weight", "I8", &[8], 0)], "found the shape [8] beside an SCB, needed a matrix"),
    ("int8_weight_of_rank_3", &[Other("p.weight", "I8", &[8, 4, 4], 0)], "found the shape [8, 4, 4] beside an SCB, needed a matrix"),
    ("format_col32", &[Other("p.weight_format", "U8", &[], 1)], "found a weight_format other than 0 (rows)"),
    ("format_unknown", &[Other("p.weight_format", "U8", &[1], 9)], "found a weight_format other than 0 (rows)"),
    ("format_i8", &[Other("p.weight_format", "I8", &[], 0)], "found a weight_format other than 0 (rows)"),
    ("format_of_9_bytes", &[Other("p.weight_format", "U8", &[9], 0)], "found 9 bytes, at most 8 are read"),
    ("orphan_absmax", &[Called("p.SCB", "q.weight.absmax"), Without("p.weight_format")], "tensor 'q.weight.absmax'"),
    ("orphan_quant_map", &[Called("p.SCB", "q.weight.quant_map"), Without("p.weight_format")], "tensor 'q.weight.quant_map'"),
    ("orphan_nested_absmax", &[Called("p.SCB", "q.weight.nested_absmax"), Without("p.weight_format")], "tensor 'q.weight.nested_absmax'"),
];
