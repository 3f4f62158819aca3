//! Which kernels do a slab, and how their arguments are made. Over [`Queue`], so that the tests run this very code.

pub mod ggml_decode;
pub mod ggml_encode;
pub mod groups;
pub mod inference;
pub mod measure;

use quant_core::codec::{Codec, Slab, Tally};
use quant_core::{Dtype, Scheme};

use crate::queue::{Buffer, DeviceError, Queue};

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

impl Encode<'_> {
    /// Elements of the slab.
    pub fn n(&self) -> u64 {
        self.x.len() as u64 / self.dtype.n_bytes(1).unwrap_or(1).max(1)
    }
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

/// Whether there are kernels that encode a scheme.
pub fn encodes(scheme: Scheme) -> bool {
    match scheme {
        Scheme::Dense(_) | Scheme::Opaque(_) => false,
        Scheme::Ggml(ty) => ggml_encode::encodes(ty),
        _ => true,
    }
}

/// Whether there are kernels that decode a scheme: all but dense types, which are no work.
pub fn decodes(scheme: Scheme) -> bool {
    !matches!(scheme, Scheme::Dense(_) | Scheme::Opaque(_))
}

/// Encodes a slab, as [`Codec::encode`] does.
///
/// # Errors
/// If the device has no room for it, or fails.
pub fn encode(queue: &mut dyn Queue, job: &Encode<'_>, out: &mut [Vec<u8>]) -> Result<Outcome, DeviceError> {
    match job.scheme {
        Scheme::Dense(_) | Scheme::Opaque(_) => Ok(Outcome::Refused),
        Scheme::Ggml(_) => ggml_encode::encode(queue, job, out),
        _ => groups::encode(queue, job, out),
    }
}

/// Decodes elements, as [`Codec::decode`] does. False: there is no kernel for them.
///
/// # Errors
/// If the device has no room for it, or fails.
pub fn decode(queue: &mut dyn Queue, job: &Decode<'_>, out: &mut [f32]) -> Result<bool, DeviceError> {
    match job.scheme {
        Scheme::Dense(_) | Scheme::Opaque(_) => Ok(false),
        Scheme::Ggml(_) => ggml_decode::decode(queue, job, out),
        _ => groups::decode(queue, job, out),
    }
}

/// The number by which kernels know a type of raw input; see `Dtype` in `quant.cuh`.
fn dtype_number(dtype: Dtype) -> Option<u32> {
    match dtype {
        Dtype::F32 => Some(0),
        Dtype::F16 => Some(1),
        Dtype::BF16 => Some(2),
        _ => None,
    }
}

/// Bytes at the start of what a kernel gives. The first four are not 0 if it left the slab to the CPU; what else they say is the kernel's.
const HEAD: usize = 16;

/// Whether a kernel left its slab to the CPU.
fn is_refused(head: &[u8]) -> bool {
    head[..4] != [0; 4]
}

/// Floats as bytes, little-endian.
fn bytes_of(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The floats in a buffer.
fn download_floats(queue: &mut dyn Queue, buffer: Buffer, out: &mut [f32]) -> Result<(), DeviceError> {
    let mut bytes = vec![0; out.len() * 4];
    queue.download(buffer, &mut bytes)?;
    for (v, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *v = f32::from_le_bytes(*bytes);
    }
    Ok(())
}
