//! [`Scheme`]: **what** — how numbers become bytes. A small value that prints and parses as users type it.
//!
//! ```text
//! bf16  f16  f32  f64  f8_e4m3  f8_e5m2      dense
//! affine4  affine4-zero:32  affine8:row      asymmetric linear, 2…8 bits
//! absmax8  absmax4:128      absmax8:tensor   symmetric linear, 2…8 bits
//! int8                                       LLM.int8(), row-wise
//! int8-block  int8-block:256@cpu             dynamic 8-bit, block-wise
//! nf4  nf4-dq  fp4:128  nf4-dq:64@cpu        4-bit codebooks, with double quantization
//! q4_0  q6_k  iq4_xs  mxfp4                  block types of ggml
//! ggml:99                                    a type number of GGUF that is only copied
//! ```

use std::fmt;
use std::str::FromStr;

use crate::{Dtype, ggml};

/// How the numbers of a tensor become bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    /// One number after the other.
    Dense(Dtype),
    /// Linear between the least and the greatest number of a group; see [`crate::codec::linear`].
    Affine {
        /// Bits of a code, 2 to 8.
        bits: u8,
        /// Which elements share a scale and a minimum.
        group: Group,
        /// Whether 0 is represented exactly.
        exact_zero: bool,
    },
    /// Linear and symmetric around zero; see [`crate::codec::linear`].
    Absmax {
        /// Bits of a code, 2 to 8.
        bits: u8,
        /// Which elements share a scale.
        group: Group,
    },
    /// LLM.int8(), one scale a row; see [`crate::codec::int8`].
    Int8,
    /// The dynamic 8-bit codebook of bitsandbytes, one scale a block; see [`crate::codec::dynamic8`].
    Int8Block {
        /// Elements that share a scale.
        block: u32,
        /// Whose bytes.
        profile: Profile,
    },
    /// A 4-bit codebook of bitsandbytes; see [`crate::codec::four_bit`].
    FourBit {
        /// Which codebook.
        book: Book,
        /// Elements that share a scale.
        block: u32,
        /// Double quantization: the scales are quantized too; see [`crate::codec::nested`].
        nested: bool,
        /// Whose bytes.
        profile: Profile,
    },
    /// A block type of ggml.
    Ggml(ggml::Type),
    /// A type number of GGUF whose bytes are only ever copied: unknown, or for activations only.
    Opaque(u32),
}

/// A 4-bit codebook.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Book {
    /// NormalFloat, the quantiles of a normal distribution.
    Nf4,
    /// A 4-bit float with a sign.
    Fp4,
}

impl Book {
    /// The name in scheme texts and in bitsandbytes' `quant_type`.
    pub fn name(self) -> &'static str {
        match self {
            Book::Nf4 => "nf4",
            Book::Fp4 => "fp4",
        }
    }
}

/// Which elements share the parameters of a linear scheme.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Group {
    /// So many consecutive elements, row-major, running over the ends of rows; the last block may be short.
    Block(u32),
    /// One row: the last dimension.
    Row,
    /// The whole tensor.
    Tensor,
}

impl Group {
    /// The elements of one group in a tensor of `shape`; at least 1.
    pub fn len(self, shape: &[u64]) -> u64 {
        let len = match self {
            Group::Block(n) => n.into(),
            Group::Row => shape.last().copied().unwrap_or(1),
            Group::Tensor => shape.iter().product(),
        };
        len.max(1)
    }
}

/// Whose bytes, where the backends of bitsandbytes 0.50 differ.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Profile {
    /// The CUDA kernels, which made practically every published checkpoint.
    #[default]
    Cuda,
    /// The CPU backend.
    Cpu,
}

/// The block sizes that bitsandbytes knows for its 4-bit types and that are taken for dynamic 8-bit.
pub const BNB_BLOCKS: [u32; 8] = [32, 64, 128, 256, 512, 1024, 2048, 4096];

const FOUR_BIT_BLOCK: u32 = 64;
const INT8_BLOCK: u32 = 4096;
const LINEAR_BLOCK: u32 = 64;

impl Scheme {
    /// Whether the scheme loses more than a change of float width: everything but [`Scheme::Dense`].
    pub fn is_quantized(self) -> bool {
        !matches!(self, Scheme::Dense(_))
    }

    /// The same scheme with the bytes of `profile`, where that makes a difference.
    #[must_use]
    pub fn with_profile(mut self, wanted: Profile) -> Scheme {
        if let Scheme::Int8Block { profile, .. } | Scheme::FourBit { profile, .. } = &mut self {
            *profile = wanted;
        }
        self
    }

    /// Whether bytes of one scheme are read like bytes of the other: equal but for the profile, which only encoding knows.
    pub fn reads_like(self, other: Scheme) -> bool {
        self.with_profile(Profile::Cuda) == other.with_profile(Profile::Cuda)
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let zero = |exact| if exact { "-zero" } else { "" };
        let text = match *self {
            Scheme::Dense(dtype) => dtype.name().to_ascii_lowercase(),
            Scheme::Affine { bits, group, exact_zero } => format!("affine{bits}{}{}", zero(exact_zero), shown_group(group)),
            Scheme::Absmax { bits, group } => format!("absmax{bits}{}", shown_group(group)),
            Scheme::Int8 => "int8".into(),
            Scheme::Int8Block { block, profile } => format!("int8-block{}", shown_block(block, INT8_BLOCK, profile)),
            Scheme::FourBit { book, block, nested, profile } => {
                let dq = if nested { "-dq" } else { "" };
                format!("{}{dq}{}", book.name(), shown_block(block, FOUR_BIT_BLOCK, profile))
            }
            Scheme::Ggml(ty) => ty.name().into(),
            Scheme::Opaque(id) => format!("ggml:{id}"),
        };
        f.pad(&text)
    }
}

fn shown_group(group: Group) -> String {
    match group {
        Group::Block(LINEAR_BLOCK) => String::new(),
        Group::Block(n) => format!(":{n}"),
        Group::Row => ":row".into(),
        Group::Tensor => ":tensor".into(),
    }
}

fn shown_block(block: u32, default: u32, profile: Profile) -> String {
    let block = if block == default { String::new() } else { format!(":{block}") };
    let profile = if profile == Profile::Cpu { "@cpu" } else { "" };
    block + profile
}

/// A scheme text that cannot be read, with what can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown scheme '{text}': {problem}")]
pub struct BadScheme {
    text: String,
    problem: String,
}

const KNOWN: &str = "known are f64 f32 f16 bf16 f8_e4m3 f8_e5m2, affine2…affine8, absmax2…absmax8, int8, int8-block, nf4, nf4-dq, fp4, fp4-dq, \
                     the types of ggml (q4_0, q6_k, iq4_xs, …), with :BLOCK (or :row, :tensor for affine and absmax) and @cpu";

impl FromStr for Scheme {
    type Err = BadScheme;

    fn from_str(text: &str) -> Result<Scheme, BadScheme> {
        parse(text).map_err(|problem| BadScheme { text: text.into(), problem })
    }
}

fn parse(text: &str) -> Result<Scheme, String> {
    let lower = text.to_ascii_lowercase();
    let (rest, profile) = match lower.split_once('@') {
        None => (lower.as_str(), None),
        Some((rest, "cpu")) => (rest, Some(Profile::Cpu)),
        Some((rest, "cuda")) => (rest, Some(Profile::Cuda)),
        Some((_, other)) => return Err(format!("profile '{other}' is neither cuda nor cpu")),
    };
    let (name, group) = match rest.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (rest, None),
    };
    let scheme = parse_name(name, group)?;
    match profile {
        None => Ok(scheme),
        Some(_) if scheme.with_profile(Profile::Cpu) == scheme.with_profile(Profile::Cuda) => Err("a profile makes no difference to it".into()),
        Some(profile) => Ok(scheme.with_profile(profile)),
    }
}

fn parse_name(name: &str, group: Option<&str>) -> Result<Scheme, String> {
    let four_bit = |book, nested| Ok(Scheme::FourBit { book, nested, block: bnb_block(group, FOUR_BIT_BLOCK)?, profile: Profile::Cuda });
    match name {
        "nf4" => return four_bit(Book::Nf4, false),
        "nf4-dq" => return four_bit(Book::Nf4, true),
        "fp4" => return four_bit(Book::Fp4, false),
        "fp4-dq" => return four_bit(Book::Fp4, true),
        "int8-block" => return Ok(Scheme::Int8Block { block: bnb_block(group, INT8_BLOCK)?, profile: Profile::Cuda }),
        _ => {}
    }
    if let Some(bits) = name.strip_prefix("affine") {
        let (bits, exact_zero) = bits.strip_suffix("-zero").map_or((bits, false), |bits| (bits, true));
        return Ok(Scheme::Affine { bits: linear_bits(bits)?, group: linear_group(group)?, exact_zero });
    }
    if let Some(bits) = name.strip_prefix("absmax") {
        return Ok(Scheme::Absmax { bits: linear_bits(bits)?, group: linear_group(group)? });
    }
    if let ("ggml", Some(id)) = (name, group) {
        return id.parse().map(Scheme::Opaque).map_err(|_| format!("'{id}' is not the number of a type"));
    }
    if group.is_some() {
        return Err(format!("'{name}' takes no block size; {KNOWN}"));
    }
    if let Ok(ty) = name.parse() {
        return Ok(Scheme::Ggml(ty));
    }
    if name == "int8" {
        return Ok(Scheme::Int8);
    }
    let upper = name.to_ascii_uppercase();
    match upper.parse::<Dtype>() {
        Ok(dtype) => Ok(Scheme::Dense(dtype)),
        Err(()) => Err(KNOWN.into()),
    }
}

fn linear_bits(text: &str) -> Result<u8, String> {
    text.parse().ok().filter(|bits| (2..=8).contains(bits)).ok_or_else(|| format!("'{text}' is not a number of bits from 2 to 8"))
}

fn linear_group(text: Option<&str>) -> Result<Group, String> {
    match text {
        None => Ok(Group::Block(LINEAR_BLOCK)),
        Some("row") => Ok(Group::Row),
        Some("tensor") => Ok(Group::Tensor),
        Some(text) => match text.parse() {
            Ok(n @ 16..=4096) => Ok(Group::Block(n)),
            _ => Err(format!("'{text}' is neither a block size from 16 to 4096, nor 'row', nor 'tensor'")),
        },
    }
}

fn bnb_block(text: Option<&str>, default: u32) -> Result<u32, String> {
    let Some(text) = text else { return Ok(default) };
    text.parse().ok().filter(|n| BNB_BLOCKS.contains(n)).ok_or_else(|| format!("block size '{text}' is not one of {BNB_BLOCKS:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_prints_as_it_parses() {
        let texts = [
            "bf16",
            "f8_e4m3",
            "i64",
            "bool",
            "affine4",
            "affine2-zero:32",
            "affine8:row",
            "affine3:tensor",
            "absmax8:4096",
            "absmax5:row",
            "int8",
            "int8-block",
            "int8-block:64@cpu",
            "nf4",
            "nf4-dq",
            "nf4-dq:4096@cpu",
            "fp4:32",
            "fp4-dq@cpu",
            "q4_k",
            "iq2_xxs",
            "ggml:99",
        ];
        for text in texts {
            assert_eq!(text.parse::<Scheme>().unwrap().to_string(), text);
        }
        assert_eq!("NF4:64@cuda".parse::<Scheme>().unwrap().to_string(), "nf4");
    }

    #[test]
    fn what_no_codec_can_do_is_refused() {
        for text in
            ["", "nf5", "nf4:63", "affine1", "affine9", "affine4:8", "affine4:8192", "int8:64", "bf16:64", "int8@cpu", "nf4@tpu", "absmax", "nf4:"]
        {
            assert!(text.parse::<Scheme>().is_err(), "{text}");
        }
    }
}
