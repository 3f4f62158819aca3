//! Decoding of ggml's types.

use quant_core::Scheme;
use quant_core::ggml::Type;

use super::{Decode, download_floats};
use crate::queue::{Arg, DeviceError, Kernel, Queue};

/// Threads of a block, an element each.
const THREADS: usize = 256;

/// Decodes a slab. False if it is none of ggml's types: then the CPU does it.
///
/// # Errors
/// If the device fails.
pub fn decode(queue: &mut dyn Queue, job: &Decode<'_>, out: &mut [f32]) -> Result<bool, DeviceError> {
    let (Scheme::Ggml(ty), Ok(grid)) = (job.scheme, u32::try_from(out.len().div_ceil(THREADS))) else { return Ok(false) };
    if out.is_empty() {
        return Ok(true);
    }
    let skip = job.at % ty.block_len();
    let blocks = (skip + out.len() as u64).div_ceil(ty.block_len());
    let wanted = blocks * ty.block_bytes();
    let Some(bytes) = job.parts.first().and_then(|bytes| bytes.get(..usize::try_from(wanted).ok()?)) else { return Ok(false) };
    let blocks = queue.upload(bytes)?;
    let numbers = queue.room(4 * out.len())?;
    let args = [Arg::Buffer(blocks), Arg::U32(skip as u32), Arg::U64(out.len() as u64), Arg::Buffer(numbers)];
    queue.launch(kernel(ty), grid, THREADS as u32, &args)?;
    download_floats(queue, numbers, out)?;
    Ok(true)
}

/// The kernel of a type.
fn kernel(ty: Type) -> Kernel {
    let (module, name) = match ty {
        Type::Q4_0 => ("ggml_decode_legacy", "q4_0_decode"),
        Type::Q4_1 => ("ggml_decode_legacy", "q4_1_decode"),
        Type::Q5_0 => ("ggml_decode_legacy", "q5_0_decode"),
        Type::Q5_1 => ("ggml_decode_legacy", "q5_1_decode"),
        Type::Q8_0 => ("ggml_decode_legacy", "q8_0_decode"),
        Type::Q2_K => ("ggml_decode_k", "q2_k_decode"),
        Type::Q3_K => ("ggml_decode_k", "q3_k_decode"),
        Type::Q4_K => ("ggml_decode_k", "q4_k_decode"),
        Type::Q5_K => ("ggml_decode_k", "q5_k_decode"),
        Type::Q6_K => ("ggml_decode_k", "q6_k_decode"),
        Type::IQ2_XXS => ("ggml_decode_iq", "iq2_xxs_decode"),
        Type::IQ2_XS => ("ggml_decode_iq", "iq2_xs_decode"),
        Type::IQ3_XXS => ("ggml_decode_iq", "iq3_xxs_decode"),
        Type::IQ1_S => ("ggml_decode_iq", "iq1_s_decode"),
        Type::IQ4_NL => ("ggml_decode_iq", "iq4_nl_decode"),
        Type::IQ3_S => ("ggml_decode_iq", "iq3_s_decode"),
        Type::IQ2_S => ("ggml_decode_iq", "iq2_s_decode"),
        Type::IQ4_XS => ("ggml_decode_iq", "iq4_xs_decode"),
        Type::IQ1_M => ("ggml_decode_iq", "iq1_m_decode"),
        Type::TQ1_0 => ("ggml_decode_small", "tq1_0_decode"),
        Type::TQ2_0 => ("ggml_decode_small", "tq2_0_decode"),
        Type::MXFP4 => ("ggml_decode_small", "mxfp4_decode"),
        Type::NVFP4 => ("ggml_decode_small", "nvfp4_decode"),
        Type::Q1_0 => ("ggml_decode_small", "q1_0_decode"),
        Type::Q2_0 => ("ggml_decode_small", "q2_0_decode"),
    };
    Kernel { module, name }
}
