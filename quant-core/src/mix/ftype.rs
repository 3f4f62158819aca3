//! [`Ftype`]: the file types of llama.cpp, by name and by number.

use std::fmt;
use std::str::FromStr;

use crate::ggml::Type;
use crate::{Dtype, Error, Result, Scheme};

/// What a GGUF file mostly consists of: `general.file_type`. Names as `llama-quantize` prints them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs, non_camel_case_types, reason = "the names are the field's own")]
pub enum Ftype {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q8_0,
    Q5_0,
    Q5_1,
    Q2_K,
    Q3_K_S,
    Q3_K_M,
    Q3_K_L,
    Q4_K_S,
    Q4_K_M,
    Q5_K_S,
    Q5_K_M,
    Q6_K,
    IQ2_XXS,
    IQ2_XS,
    Q2_K_S,
    IQ3_XS,
    IQ3_XXS,
    IQ1_S,
    IQ4_NL,
    IQ3_S,
    IQ3_M,
    IQ2_S,
    IQ2_M,
    IQ4_XS,
    IQ1_M,
    BF16,
    TQ1_0,
    TQ2_0,
    MXFP4_MOE,
    NVFP4,
    Q1_0,
    Q2_0,
}

/// What there is to know about a file type.
struct Row {
    ftype: Ftype,
    name: &'static str,
    id: u32,
    default: Scheme,
}

const fn dense(ftype: Ftype, name: &'static str, id: u32, dtype: Dtype) -> Row {
    Row { ftype, name, id, default: Scheme::Dense(dtype) }
}

const fn row(ftype: Ftype, name: &'static str, id: u32, ty: Type) -> Row {
    Row { ftype, name, id, default: Scheme::Ggml(ty) }
}

/// By number. The numbers that are missing were given up.
const TABLE: [Row; 36] = [
    dense(Ftype::F32, "F32", 0, Dtype::F32),
    dense(Ftype::F16, "F16", 1, Dtype::F16),
    row(Ftype::Q4_0, "Q4_0", 2, Type::Q4_0),
    row(Ftype::Q4_1, "Q4_1", 3, Type::Q4_1),
    row(Ftype::Q8_0, "Q8_0", 7, Type::Q8_0),
    row(Ftype::Q5_0, "Q5_0", 8, Type::Q5_0),
    row(Ftype::Q5_1, "Q5_1", 9, Type::Q5_1),
    row(Ftype::Q2_K, "Q2_K", 10, Type::Q2_K),
    row(Ftype::Q3_K_S, "Q3_K_S", 11, Type::Q3_K),
    row(Ftype::Q3_K_M, "Q3_K_M", 12, Type::Q3_K),
    row(Ftype::Q3_K_L, "Q3_K_L", 13, Type::Q3_K),
    row(Ftype::Q4_K_S, "Q4_K_S", 14, Type::Q4_K),
    row(Ftype::Q4_K_M, "Q4_K_M", 15, Type::Q4_K),
    row(Ftype::Q5_K_S, "Q5_K_S", 16, Type::Q5_K),
    row(Ftype::Q5_K_M, "Q5_K_M", 17, Type::Q5_K),
    row(Ftype::Q6_K, "Q6_K", 18, Type::Q6_K),
    row(Ftype::IQ2_XXS, "IQ2_XXS", 19, Type::IQ2_XXS),
    row(Ftype::IQ2_XS, "IQ2_XS", 20, Type::IQ2_XS),
    row(Ftype::Q2_K_S, "Q2_K_S", 21, Type::Q2_K),
    row(Ftype::IQ3_XS, "IQ3_XS", 22, Type::IQ3_S),
    row(Ftype::IQ3_XXS, "IQ3_XXS", 23, Type::IQ3_XXS),
    row(Ftype::IQ1_S, "IQ1_S", 24, Type::IQ1_S),
    row(Ftype::IQ4_NL, "IQ4_NL", 25, Type::IQ4_NL),
    row(Ftype::IQ3_S, "IQ3_S", 26, Type::IQ3_S),
    row(Ftype::IQ3_M, "IQ3_M", 27, Type::IQ3_S),
    // The next two are not misprints.
    row(Ftype::IQ2_S, "IQ2_S", 28, Type::IQ2_XS),
    row(Ftype::IQ2_M, "IQ2_M", 29, Type::IQ2_S),
    row(Ftype::IQ4_XS, "IQ4_XS", 30, Type::IQ4_XS),
    row(Ftype::IQ1_M, "IQ1_M", 31, Type::IQ1_M),
    dense(Ftype::BF16, "BF16", 32, Dtype::BF16),
    row(Ftype::TQ1_0, "TQ1_0", 36, Type::TQ1_0),
    row(Ftype::TQ2_0, "TQ2_0", 37, Type::TQ2_0),
    row(Ftype::MXFP4_MOE, "MXFP4_MOE", 38, Type::MXFP4),
    row(Ftype::NVFP4, "NVFP4", 39, Type::NVFP4),
    row(Ftype::Q1_0, "Q1_0", 40, Type::Q1_0),
    row(Ftype::Q2_0, "Q2_0", 41, Type::Q2_0),
];

/// Other names that `llama-quantize` takes.
const ALIASES: [(&str, Ftype); 3] = [("Q3_K", Ftype::Q3_K_M), ("Q4_K", Ftype::Q4_K_M), ("Q5_K", Ftype::Q5_K_M)];

/// Set in `general.file_type` by programs that guessed it from the tensors.
const GUESSED: u32 = 1024;

impl Ftype {
    /// Every file type, by number.
    pub fn all() -> impl Iterator<Item = Ftype> {
        TABLE.iter().map(|row| row.ftype)
    }

    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The name, as `llama-quantize` prints it, for example `Q4_K_M`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The number in `general.file_type`.
    pub fn id(self) -> u32 {
        self.row().id
    }

    /// The file type of a number in `general.file_type`, whether or not it is marked as guessed.
    pub fn from_id(id: u32) -> Option<Ftype> {
        TABLE.iter().find(|row| row.id == id & !GUESSED).map(|row| row.ftype)
    }

    /// The scheme of the tensors that no rule of the mix names.
    pub fn default_scheme(self) -> Scheme {
        self.row().default
    }

    /// Whether it can be asked for. NVFP4 files are converted from checkpoints that hold NVFP4, never quantized to.
    pub fn is_selectable(self) -> bool {
        self != Ftype::NVFP4
    }
}

impl fmt::Display for Ftype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Ftype {
    type Err = Error;

    /// Reads what `llama-quantize` takes for a type, but for `COPY`, which is no mix: a name in any case, an alias, or a number.
    fn from_str(text: &str) -> Result<Ftype> {
        let number: Option<u32> = text.parse().ok();
        let named = TABLE.iter().find(|row| row.name.eq_ignore_ascii_case(text) || Some(row.id) == number).map(|row| row.ftype);
        let alias = || ALIASES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, ftype)| *ftype);
        named.or_else(alias).filter(|ftype| ftype.is_selectable()).ok_or_else(|| unknown(text))
    }
}

fn unknown(text: &str) -> Error {
    let names: Vec<&str> = Ftype::all().filter(|f| f.is_selectable()).map(Ftype::name).chain(ALIASES.map(|(name, _)| name)).collect();
    Error::request(format!("unknown mix '{text}': known are {} and their numbers in general.file_type", names.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_indexed_by_the_enum() {
        for (index, row) in TABLE.iter().enumerate() {
            assert_eq!(row.ftype as usize, index);
            assert_eq!(format!("{:?}", row.ftype), row.name);
            assert_eq!(Ftype::from_id(row.id), Some(row.ftype));
            assert_eq!(Ftype::from_id(row.id | GUESSED), Some(row.ftype));
        }
        assert!(TABLE.is_sorted_by(|a, b| a.id < b.id));
    }

    #[test]
    fn names_aliases_and_numbers_are_read() {
        for ftype in Ftype::all().filter(|f| f.is_selectable()) {
            assert_eq!(ftype.name().to_lowercase().parse::<Ftype>().unwrap(), ftype);
            assert_eq!(ftype.id().to_string().parse::<Ftype>().unwrap(), ftype);
        }
        let aliases = ["q3_k", "Q4_K", "q5_K"].map(|text| text.parse::<Ftype>().unwrap());
        assert_eq!(aliases, [Ftype::Q3_K_M, Ftype::Q4_K_M, Ftype::Q5_K_M]);
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused_with_what_can() {
        for text in ["", "Q4", "NVFP4", "39", "4", "1024", "-1", "COPY", "q4_k_m ", "MXFP4"] {
            let error = text.parse::<Ftype>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("unknown mix '{text}': known are F32 F16 Q4_0 ")), "{error}");
            assert!(error.ends_with(" Q1_0 Q2_0 Q3_K Q4_K Q5_K and their numbers in general.file_type"), "{error}");
        }
    }
}
