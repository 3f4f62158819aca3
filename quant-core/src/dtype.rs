//! The element types that a tensor file can name.
//!
//! The set, the names and the order are those of safetensors 0.8; its writer sorts tensors by this order, descending.

use std::fmt;
use std::str::FromStr;

/// An element type. The order of the variants is the sort order of safetensors 0.8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs, reason = "the names are the field's own")]
pub enum Dtype {
    Bool,
    F4,
    F6E2M3,
    F6E3M2,
    U8,
    I8,
    F8E5M2,
    F8E4M3,
    F8E8M0,
    F8E4M3Fnuz,
    F8E5M2Fnuz,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64,
}

use Dtype::*;

/// Every type with its name and its width in bits.
const TABLE: [(Dtype, &str, u64); 22] = [
    (Bool, "BOOL", 8),
    (F4, "F4", 4),
    (F6E2M3, "F6_E2M3", 6),
    (F6E3M2, "F6_E3M2", 6),
    (U8, "U8", 8),
    (I8, "I8", 8),
    (F8E5M2, "F8_E5M2", 8),
    (F8E4M3, "F8_E4M3", 8),
    (F8E8M0, "F8_E8M0", 8),
    (F8E4M3Fnuz, "F8_E4M3FNUZ", 8),
    (F8E5M2Fnuz, "F8_E5M2FNUZ", 8),
    (I16, "I16", 16),
    (U16, "U16", 16),
    (F16, "F16", 16),
    (BF16, "BF16", 16),
    (I32, "I32", 32),
    (U32, "U32", 32),
    (F32, "F32", 32),
    (C64, "C64", 64),
    (F64, "F64", 64),
    (I64, "I64", 64),
    (U64, "U64", 64),
];

impl Dtype {
    /// Every type, in safetensors' order.
    pub fn all() -> impl Iterator<Item = Dtype> {
        TABLE.iter().map(|row| row.0)
    }

    /// The name in a safetensors header, for example `F8_E4M3`.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// The width of one element in bits.
    pub fn bits(self) -> u64 {
        TABLE[self as usize].2
    }

    /// The bytes of `n_elements`, or `None` if the number overflows or is not whole.
    pub fn n_bytes(self, n_elements: u64) -> Option<u64> {
        let bits = n_elements.checked_mul(self.bits())?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Whether values of this type are weights that a dense conversion may turn into another type.
    ///
    /// Integers, booleans, complex numbers, sub-byte floats, scales (`F8_E8M0`) and the FNUZ variants are data:
    /// they are only ever copied.
    pub fn is_weight(self) -> bool {
        matches!(self, F64 | F32 | F16 | BF16 | F8E4M3 | F8E5M2)
    }

    /// The name that PyTorch gives to a floating type, as it appears in configuration files.
    pub fn torch_name(self) -> Option<&'static str> {
        Some(match self {
            F64 => "float64",
            F32 => "float32",
            F16 => "float16",
            BF16 => "bfloat16",
            F8E4M3 => "float8_e4m3fn",
            F8E5M2 => "float8_e5m2",
            _ => return None,
        })
    }

    /// The reverse of [`Dtype::torch_name`].
    pub fn from_torch_name(name: &str) -> Option<Dtype> {
        Dtype::all().find(|d| d.torch_name() == Some(name))
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Dtype {
    type Err = ();

    /// Reads the exact name of a safetensors header.
    fn from_str(name: &str) -> Result<Self, ()> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0).ok_or(())
    }
}

/// The number of elements of `shape`, or `None` if the non-zero dimensions overflow, zero dimensions or not.
///
/// The order of the dimensions never changes the answer.
pub fn n_elements(shape: &[u64]) -> Option<u64> {
    let product = shape.iter().filter(|&&d| d != 0).try_fold(1u64, |n, &d| n.checked_mul(d))?;
    Some(if shape.contains(&0) { 0 } else { product })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_indexed_by_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
            assert_eq!(row.1.parse(), Ok(row.0));
        }
    }

    #[test]
    fn sizes_never_wrap() {
        assert_eq!(F4.n_bytes(3), None);
        assert_eq!(F4.n_bytes(4), Some(2));
        assert_eq!(F64.n_bytes(1 << 58), None);
        assert_eq!(n_elements(&[0, 1 << 63, 1 << 63]), None);
        assert_eq!(n_elements(&[1 << 63, 1 << 63, 0]), None);
        assert_eq!(n_elements(&[3, 0, 5]), Some(0));
        assert_eq!(n_elements(&[]), Some(1));
    }
}
