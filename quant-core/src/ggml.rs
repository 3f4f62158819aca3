//! The tensor types of ggml 0.25.3: names, numbers, block sizes.
//!
//! Dense types are [`Scheme::Dense`]; what ggml quantizes is [`Scheme::Ggml`] of a [`Type`]; the rest cannot be decoded here
//! and is [`Scheme::Opaque`].
//!
//! Source: `ggml.h` and `ggml-common.h` of ggml 0.25.3.

use std::fmt;
use std::str::FromStr;

use crate::{Dtype, Scheme};

/// A type of blocks that ggml quantizes to. Names as in ggml.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs, non_camel_case_types, reason = "the names are the field's own")]
pub enum Type {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ2_XXS,
    IQ2_XS,
    IQ3_XXS,
    IQ1_S,
    IQ4_NL,
    IQ3_S,
    IQ2_S,
    IQ4_XS,
    IQ1_M,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
    Q1_0,
    Q2_0,
}

/// What there is to know about a type.
struct Row {
    ty: Type,
    name: &'static str,
    id: u32,
    block_len: u64,
    block_bytes: u64,
    /// Where in a block the f16 scales are that must be finite.
    scales: &'static [usize],
}

const fn row(ty: Type, name: &'static str, id: u32, block_len: u64, block_bytes: u64, scales: &'static [usize]) -> Row {
    Row { ty, name, id, block_len, block_bytes, scales }
}

const TABLE: [Row; 25] = [
    row(Type::Q4_0, "q4_0", 2, 32, 18, &[0]),
    row(Type::Q4_1, "q4_1", 3, 32, 20, &[0, 2]),
    row(Type::Q5_0, "q5_0", 6, 32, 22, &[0]),
    row(Type::Q5_1, "q5_1", 7, 32, 24, &[0, 2]),
    row(Type::Q8_0, "q8_0", 8, 32, 34, &[0]),
    row(Type::Q2_K, "q2_k", 10, 256, 84, &[80, 82]),
    row(Type::Q3_K, "q3_k", 11, 256, 110, &[108]),
    row(Type::Q4_K, "q4_k", 12, 256, 144, &[0, 2]),
    row(Type::Q5_K, "q5_k", 13, 256, 176, &[0, 2]),
    row(Type::Q6_K, "q6_k", 14, 256, 210, &[208]),
    row(Type::IQ2_XXS, "iq2_xxs", 16, 256, 66, &[0]),
    row(Type::IQ2_XS, "iq2_xs", 17, 256, 74, &[0]),
    row(Type::IQ3_XXS, "iq3_xxs", 18, 256, 98, &[0]),
    row(Type::IQ1_S, "iq1_s", 19, 256, 50, &[0]),
    row(Type::IQ4_NL, "iq4_nl", 20, 32, 18, &[0]),
    row(Type::IQ3_S, "iq3_s", 21, 256, 110, &[0]),
    row(Type::IQ2_S, "iq2_s", 22, 256, 82, &[0]),
    row(Type::IQ4_XS, "iq4_xs", 23, 256, 136, &[0]),
    row(Type::IQ1_M, "iq1_m", 29, 256, 56, &[]),
    row(Type::TQ1_0, "tq1_0", 34, 256, 54, &[52]),
    row(Type::TQ2_0, "tq2_0", 35, 256, 66, &[64]),
    row(Type::MXFP4, "mxfp4", 39, 32, 17, &[]),
    row(Type::NVFP4, "nvfp4", 40, 64, 36, &[]),
    row(Type::Q1_0, "q1_0", 41, 128, 18, &[0]),
    row(Type::Q2_0, "q2_0", 42, 64, 18, &[0]),
];

impl Type {
    /// Every type, by number.
    pub fn all() -> impl Iterator<Item = Type> {
        TABLE.iter().map(|row| row.ty)
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The name, as ggml prints it but in lower case, for example `iq2_xxs`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The number in GGUF files.
    pub fn id(self) -> u32 {
        self.row().id
    }

    /// Elements of a block.
    pub fn block_len(self) -> u64 {
        self.row().block_len
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> u64 {
        self.row().block_bytes
    }

    /// Whether ggml's quantizer does not work without an importance matrix.
    pub fn needs_importance(self) -> bool {
        matches!(self, Type::IQ2_XXS | Type::IQ2_XS | Type::IQ1_S)
    }

    /// Whether the scales of an encoded block are finite: what ggml asks of a block before it is stored.
    pub(crate) fn is_valid(self, block: &[u8]) -> bool {
        let finite = |at: usize| !matches!(block.get(at..at + 2), Some(&[_, high]) if high & 0x7c == 0x7c);
        match self {
            // The f16 scale is spread over the high nibbles of the four scale words.
            Type::IQ1_M => !matches!(block.get(53..56), Some(&[low, _, high]) if high & 0x70 == 0x70 && low & 0xc0 == 0xc0),
            Type::MXFP4 => block.first() != Some(&0xff),
            _ => self.row().scales.iter().all(|&at| finite(at)),
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Type {
    type Err = ();

    /// Reads a name, whatever its case.
    fn from_str(name: &str) -> Result<Type, ()> {
        TABLE.iter().find(|row| row.name.eq_ignore_ascii_case(name)).map(|row| row.ty).ok_or(())
    }
}

/// The dense types of GGUF files.
const DENSE: [(u32, Dtype); 8] =
    [(0, Dtype::F32), (1, Dtype::F16), (24, Dtype::I8), (25, Dtype::I16), (26, Dtype::I32), (27, Dtype::I64), (28, Dtype::F64), (30, Dtype::BF16)];

/// Types that exist for activations only: number, name, block length, bytes.
const ACTIVATIONS: [(u32, &str, u64, u64); 2] = [(9, "q8_1", 32, 36), (15, "q8_K", 256, 292)];

/// Numbers of types that ggml has given up, with the names they had.
const REMOVED: [(u32, &str); 8] =
    [(4, "q4_2"), (5, "q4_3"), (31, "q4_0_4_4"), (32, "q4_0_4_8"), (33, "q4_0_8_8"), (36, "iq4_nl_4_4"), (37, "iq4_nl_4_8"), (38, "iq4_nl_8_8")];

/// The type number of a scheme in a GGUF file, if it has one.
pub fn id_of(scheme: Scheme) -> Option<u32> {
    match scheme {
        Scheme::Dense(dtype) => DENSE.iter().find(|row| row.1 == dtype).map(|row| row.0),
        Scheme::Ggml(ty) => Some(ty.id()),
        Scheme::Opaque(id) => Some(id),
        _ => None,
    }
}

/// The scheme of a type number. What is not known is [`Scheme::Opaque`].
///
/// # Errors
/// If ggml has given the type up, naming it.
pub fn scheme_of(id: u32) -> Result<Scheme, &'static str> {
    if let Some((_, name)) = REMOVED.iter().find(|row| row.0 == id) {
        return Err(name);
    }
    let dense = || DENSE.iter().find(|row| row.0 == id).map(|row| Scheme::Dense(row.1));
    let blocks = || TABLE.iter().find(|row| row.id == id).map(|row| Scheme::Ggml(row.ty));
    Ok(blocks().or_else(dense).unwrap_or(Scheme::Opaque(id)))
}

/// Elements and bytes of a block of a type number, if the type is known.
pub fn block_of(id: u32) -> Option<(u64, u64)> {
    let activation = || ACTIVATIONS.iter().find(|row| row.0 == id).map(|row| (row.2, row.3));
    match scheme_of(id) {
        Ok(Scheme::Dense(dtype)) => Some((1, dtype.bits() / 8)),
        Ok(Scheme::Ggml(ty)) => Some((ty.block_len(), ty.block_bytes())),
        _ => activation(),
    }
}

/// The name of a type that exists for activations only.
pub fn activation_name(id: u32) -> Option<&'static str> {
    ACTIVATIONS.iter().find(|row| row.0 == id).map(|row| row.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_indexed_by_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.ty as usize, index);
            assert_eq!(row.name.parse(), Ok(row.ty));
            assert_eq!(scheme_of(row.id), Ok(Scheme::Ggml(row.ty)));
            assert_eq!(id_of(Scheme::Ggml(row.ty)), Some(row.id));
        }
        assert_eq!(scheme_of(4), Err("q4_2"));
        assert_eq!(scheme_of(99), Ok(Scheme::Opaque(99)));
        assert_eq!((block_of(9), block_of(99), block_of(30)), (Some((32, 36)), None, Some((1, 2))));
    }
}
