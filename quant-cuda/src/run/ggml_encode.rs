//! Encoding of ggml's block types. Kernels: `legacy.cu`, `k_quants.cu`, `iq4.cu`.

use quant_core::Scheme;
use quant_core::codec::{Known, Tally};
use quant_core::ggml::Type;

use super::{Encode, HEAD, Outcome, bytes_of, dtype_number, is_refused};
use crate::queue::{Arg, Buffer, DeviceError, Kernel, Queue};

/// Threads of a block.
const THREADS: u32 = 64;

/// How a type is encoded.
struct Plan {
    plain: Kernel,
    weighted: Kernel,
    /// Threads that a block of the type takes.
    threads: u32,
    /// What is done with importance.
    importance: Importance,
}

/// What a type does with the importance of its elements.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Importance {
    /// Nothing.
    Ignored,
    /// It weighs errors.
    Used,
    /// It weighs errors, together with the mean square of the row.
    WithRows,
}

fn plan(ty: Type) -> Option<Plan> {
    use Importance::{Ignored, Used, WithRows};
    let plan = |module, plain, weighted, threads, importance| Plan {
        plain: Kernel { module, name: plain },
        weighted: Kernel { module, name: weighted },
        threads,
        importance,
    };
    Some(match ty {
        Type::Q4_0 => plan("legacy", "q4_0_encode", "q4_0_encode", 1, WithRows),
        Type::Q4_1 => plan("legacy", "q4_1_encode", "q4_1_encode", 1, WithRows),
        Type::Q5_0 => plan("legacy", "q5_0_encode", "q5_0_encode", 1, WithRows),
        Type::Q5_1 => plan("legacy", "q5_1_encode", "q5_1_encode", 1, WithRows),
        Type::Q8_0 => plan("legacy", "q8_0_encode", "q8_0_encode", 1, Ignored),
        Type::Q2_K => plan("k_quants", "q2_k_encode", "q2_k_encode_weighted", 16, Used),
        Type::Q3_K => plan("k_quants", "q3_k_encode", "q3_k_encode_weighted", 16, Used),
        Type::Q4_K => plan("k_quants", "q4_k_encode", "q4_k_encode_weighted", 8, Used),
        Type::Q5_K => plan("k_quants", "q5_k_encode", "q5_k_encode_weighted", 8, Used),
        Type::Q6_K => plan("k_quants", "q6_k_encode", "q6_k_encode_weighted", 16, Used),
        Type::IQ4_NL => plan("iq4", "iq4_nl_encode", "iq4_nl_encode", 1, Used),
        Type::IQ4_XS => plan("iq4", "iq4_xs_encode", "iq4_xs_encode", 8, Used),
        _ => return None,
    })
}

/// Whether there is a kernel that encodes a type.
pub(super) fn encodes(ty: Type) -> bool {
    plan(ty).is_some()
}

/// Encodes a slab of whole blocks.
///
/// # Errors
/// If the device has no room for it, or fails.
pub fn encode(queue: &mut dyn Queue, job: &Encode<'_>, out: &mut [Vec<u8>]) -> Result<Outcome, DeviceError> {
    let Scheme::Ggml(ty) = job.scheme else { return Ok(Outcome::Refused) };
    let (Some(plan), Some(dtype)) = (plan(ty), dtype_number(job.dtype)) else { return Ok(Outcome::Refused) };
    let (Ok(blocks), Some(out)) = (u32::try_from(job.n() / ty.block_len()), out.first_mut()) else { return Ok(Outcome::Refused) };
    out.clear();
    if blocks == 0 {
        return Ok(Outcome::Done(Tally::default()));
    }
    let x = Arg::Buffer(queue.upload(job.x)?);
    let importance = job.slab.importance.filter(|_| plan.importance != Importance::Ignored);
    let mut args = vec![x, Arg::U32(dtype), Arg::U32(blocks)];
    let weights = match importance {
        Some(importance) => Arg::Buffer(queue.upload(&bytes_of(importance))?),
        None => Arg::Null,
    };
    let is_weighted = importance.is_some();
    if plan.importance == Importance::WithRows {
        let columns = job.shape.last().copied().unwrap_or(1).max(1);
        let rows = if is_weighted { Arg::Buffer(mean_squares(queue, job, x, dtype, columns)?) } else { Arg::Null };
        args.extend([weights, rows, Arg::U64(job.slab.at), Arg::U64(columns)]);
    } else if is_weighted || plan.plain == plan.weighted && plan.importance == Importance::Used {
        args.push(weights);
    }
    let len = blocks as usize * ty.block_bytes() as usize;
    let result = queue.room(HEAD + len)?;
    args.push(Arg::Buffer(result));
    let grid = (u64::from(blocks) * u64::from(plan.threads)).div_ceil(THREADS.into()) as u32;
    queue.launch(if is_weighted { plan.weighted } else { plan.plain }, grid, THREADS, &args)?;
    out.resize(HEAD + len, 0);
    queue.download(result, out)?;
    if is_refused(out) {
        return Ok(Outcome::Refused);
    }
    out.drain(..HEAD);
    Ok(Outcome::Done(Tally::default()))
}

/// The mean square of each row that the slab touches: known from a scan, or made from whole rows.
fn mean_squares(queue: &mut dyn Queue, job: &Encode<'_>, x: Arg, dtype: u32, columns: u64) -> Result<Buffer, DeviceError> {
    let (first, end) = (job.slab.at / columns, (job.slab.at + job.n()).div_ceil(columns));
    if let Known::Rows(means) = job.slab.known {
        let rows = means.get(first as usize..end as usize).unwrap_or_default();
        return queue.upload(&bytes_of(rows));
    }
    let rows = (end - first) as u32;
    let buffer = queue.room(rows as usize * 4)?;
    let kernel = Kernel { module: "legacy", name: "row_mean_squares" };
    queue.launch(kernel, rows.div_ceil(THREADS), THREADS, &[x, Arg::U32(dtype), Arg::U32(rows), Arg::U64(columns), Arg::Buffer(buffer)])?;
    Ok(buffer)
}
