//! Which kernels do a slab, and how their arguments are made. Over [`Queue`](crate::queue::Queue), so that the tests run this very code.

pub mod bnb;
pub mod ggml_decode;
pub mod ggml_encode;
pub mod inference;
pub mod measure;

use quant_core::codec::{Codec, Slab, Tally};
use quant_core::{Dtype, Scheme};

use crate::queue::{DeviceError, Queue};

/// A slab to be encoded.
pub struct Encode<'a> {
    /// The scheme.
    pub scheme: Scheme,
    /// The shape of the tensor.
    pub shape: &'a [u64],
    /// The codec of both.
    pub codec: &'a dyn Codec,
    /// Where the slab is, and what is known of the tensor.
    pub slab: &'a Slab<'a>,
    /// The type of the numbers: f32, f16 or bf16.
    pub dtype: Dtype,
    /// The numbers, little-endian.
    pub x: &'a [u8],
}

/// What became of a slab.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is encoded.
    Done(Tally),
    /// The CPU has to do it: there is no kernel for it, or a number that the kernel refuses.
    Refused,
}

/// A slab to be decoded.
pub struct Decode<'a> {
    /// The scheme.
    pub scheme: Scheme,
    /// The shape of the tensor.
    pub shape: &'a [u64],
    /// The codec of both.
    pub codec: &'a dyn Codec,
    /// The index of the first element, as for [`Codec::decode`].
    pub at: u64,
    /// The parts, as for [`Codec::decode`].
    pub parts: &'a [&'a [u8]],
}

/// Encodes a slab, as [`Codec::encode`] does.
///
/// # Errors
/// If the device has no room for it, or fails.
pub fn encode(_queue: &mut dyn Queue, _job: &Encode<'_>, _out: &mut [Vec<u8>]) -> Result<Outcome, DeviceError> {
    Ok(Outcome::Refused)
}

/// Decodes elements, as [`Codec::decode`] does. False: there is no kernel for them.
///
/// # Errors
/// If the device has no room for it, or fails.
pub fn decode(_queue: &mut dyn Queue, _job: &Decode<'_>, _out: &mut [f32]) -> Result<bool, DeviceError> {
    Ok(false)
}
