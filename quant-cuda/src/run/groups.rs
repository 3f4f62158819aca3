//! Schemes of scaled groups: bitsandbytes' and linear quantization. Kernels: `four_bit.cu`, `dynamic8.cu`, `int8.cu`, `linear.cu`.

use quant_core::Scheme;
use quant_core::codec::{Columns, Fill, Known, Tally};
use quant_core::scheme::{Book, Profile};

use super::{Decode, Encode, Outcome, dtype_number};
use crate::queue::{Arg, Buffer, DeviceError, Kernel, Queue};

/// Threads of a block.
const THREADS: u32 = 256;
/// Groups longer than this are measured by a whole block, not by a warp.
const WARP_GROUP: u64 = 4096;
/// Bytes before what a kernel gives: see `Head` in `groups.cuh`.
const HEAD: usize = 16;
/// Pieces of the output begin at multiples of this.
const ALIGNMENT: usize = 16;
/// Scales that share a nested scale.
const NESTED: u64 = 256;

/// How a scheme is done.
struct Plan {
    params: Kernel,
    codes: Kernel,
    /// What the kernels are told of the scheme.
    setting: u32,
    /// Bits of a code.
    bits: u32,
    /// Elements of a group.
    group: u64,
    /// Parameters of a group.
    n_params: usize,
    /// The kernel that quantizes scales.
    nested: Option<Kernel>,
}

/// The kernels for the parameters and for the codes.
fn kernels(module: &'static str, params: &'static str, codes: &'static str) -> (Kernel, Kernel) {
    (Kernel { module, name: params }, Kernel { module, name: codes })
}

fn plan(scheme: Scheme, shape: &[u64]) -> Option<Plan> {
    let plan = |(params, codes), setting, bits, group: u64, n_params| Plan { params, codes, setting, bits, group, n_params, nested: None };
    Some(match scheme {
        Scheme::Affine { bits, group, exact_zero } => {
            let setting = u32::from(bits) | u32::from(exact_zero) << 8;
            plan(kernels("linear", "affine_params", "affine_codes"), setting, bits.into(), group.len(shape), 2)
        }
        Scheme::Absmax { bits, group } => plan(kernels("linear", "absmax_params", "absmax_codes"), bits.into(), bits.into(), group.len(shape), 1),
        Scheme::Int8 => plan(kernels("int8", "int8_params", "int8_codes"), 0, 8, row(shape), 1),
        Scheme::Int8Block { block, profile: Profile::Cuda } => {
            plan(kernels("dynamic8", "int8_block_cuda_params", "int8_block_cuda_codes"), 0, 8, block.into(), 1)
        }
        Scheme::Int8Block { block, profile: Profile::Cpu } => {
            plan(kernels("dynamic8", "int8_block_cpu_params", "int8_block_cpu_codes"), 0, 8, block.into(), 1)
        }
        Scheme::FourBit { book, block, nested, profile } => {
            let kernels = match (book, profile) {
                (Book::Nf4, Profile::Cuda) => kernels("four_bit", "nf4_cuda_params", "nf4_cuda_codes"),
                (Book::Nf4, Profile::Cpu) => kernels("four_bit", "nf4_cpu_params", "nf4_cpu_codes"),
                (Book::Fp4, Profile::Cuda) => kernels("four_bit", "fp4_cuda_params", "fp4_cuda_codes"),
                (Book::Fp4, Profile::Cpu) => kernels("four_bit", "fp4_cpu_params", "fp4_cpu_codes"),
            };
            let name = if profile == Profile::Cuda { "nested_scales_cuda" } else { "nested_scales_cpu" };
            Plan { nested: nested.then_some(Kernel { module: "four_bit", name }), ..plan(kernels, 0, 4, block.into(), 1) }
        }
        Scheme::Dense(_) | Scheme::Ggml(_) | Scheme::Opaque(_) => return None,
    })
}

fn row(shape: &[u64]) -> u64 {
    shape.last().copied().unwrap_or(1).max(1)
}

/// Pieces of one buffer, so that one copy brings them all.
#[derive(Default)]
struct Pieces(usize);

impl Pieces {
    fn add(&mut self, len: usize) -> usize {
        let start = self.0;
        self.0 = (start + len).next_multiple_of(ALIGNMENT);
        start
    }
}

fn at(buffer: Buffer, offset: usize) -> Arg {
    Arg::Buffer(Buffer { address: buffer.address + offset as u64, len: buffer.len - offset })
}

/// Encodes a slab.
///
/// # Errors
/// If the device has no room for it, or fails.
pub fn encode(queue: &mut dyn Queue, job: &Encode<'_>, out: &mut [Vec<u8>]) -> Result<Outcome, DeviceError> {
    let (Some(plan), Some(dtype)) = (plan(job.scheme, job.shape), dtype_number(job.dtype)) else { return Ok(Outcome::Refused) };
    let n = job.n();
    let (start, end, group) = (job.slab.at, job.slab.at + n, plan.group);
    let total: u64 = job.shape.iter().product();
    let first = start / group;
    let touched = if n == 0 { 0 } else { end.div_ceil(group) - first };
    let (Ok(n32), Ok(groups)) = (u32::try_from(n), u32::try_from(touched)) else { return Ok(Outcome::Refused) };
    // Groups that begin in an earlier slab stand in that slab's output.
    let begun = (first * group < start) as usize;
    let offset = match job.slab.known {
        Known::Offset(offset) => *offset,
        _ => 0.0,
    };
    let params_len = groups as usize * 4;
    let nested_blocks = touched.div_ceil(NESTED) as usize;
    let mut pieces = Pieces::default();
    pieces.add(HEAD);
    let codes_at = pieces.add(n.div_ceil(8) as usize * plan.bits as usize);
    let params_at: Vec<usize> = (0..plan.n_params).map(|_| pieces.add(params_len)).collect();
    let nested_at = plan.nested.map(|kernel| (kernel, pieces.add(groups as usize), pieces.add(nested_blocks * 4)));
    let result = queue.room(pieces.0)?;
    if n > 0 {
        let x = queue.upload(job.x)?;
        let known = match job.slab.known {
            Known::Groups(stats) => {
                let pairs = stats.get(first as usize..(first + touched) as usize).unwrap_or_default();
                Arg::Buffer(queue.upload(&pairs.iter().flatten().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?)
            }
            _ => Arg::Null,
        };
        let outliers = if job.scheme == Scheme::Int8 { Some(queue.room(outlier_bytes(group))?) } else { None };
        let slab = [Arg::Buffer(x), Arg::U32(dtype), Arg::U32(n32), Arg::U64(start), Arg::U64(group), Arg::U64(total), Arg::U32(plan.setting)];
        let p = |i: usize| params_at.get(i).map_or(Arg::Null, |&offset| at(result, offset));
        let is_wide = group > WARP_GROUP;
        let blocks = if is_wide { groups } else { groups.div_ceil(THREADS / 32) };
        let own = [known, Arg::U32(is_wide.into()), p(0), p(1), at(result, 0)];
        queue.launch(plan.params, blocks, THREADS, &[&slab[..], &own].concat())?;
        let outliers_arg = outliers.map_or(Arg::Null, Arg::Buffer);
        let own = [p(0), p(1), at(result, codes_at), at(result, 0), outliers_arg];
        queue.launch(plan.codes, n32.div_ceil(8).div_ceil(THREADS), THREADS, &[&slab[..], &own].concat())?;
        if let Some((kernel, codes, absmax)) = nested_at {
            let args = [p(0), Arg::U32(groups), Arg::F32(offset), at(result, codes), at(result, absmax)];
            queue.launch(kernel, (nested_blocks as u32).div_ceil(THREADS / 32), THREADS, &args)?;
        }
        let mut bytes = vec![0; pieces.0];
        queue.download(result, &mut bytes)?;
        let head = |i: usize| bytes[i * 4..][..4] != [0; 4];
        if head(0) {
            return Ok(Outcome::Refused);
        }
        let mut tally = Tally::default();
        if let Some(buffer) = outliers.filter(|_| head(1)) {
            let mut words = vec![0; buffer.len];
            queue.download(buffer, &mut words)?;
            tally.outlier_columns = columns_of(&words);
        }
        let params = |i: usize| (params_at[i] + begun * 4, params_len - begun * 4);
        let places: Vec<(usize, usize)> = match nested_at {
            // codes, absmax, quant_map, nested_absmax
            Some((_, scales, absmax)) => vec![(codes_at, 0), (scales, groups as usize), (0, 0), (absmax, nested_blocks * 4)],
            None => std::iter::once((codes_at, 0)).chain((0..plan.n_params).map(params)).collect(),
        };
        fill(job, out, &bytes, &places);
        return Ok(Outcome::Done(tally));
    }
    fill(job, out, &[], &[]);
    Ok(Outcome::Done(Tally::default()))
}

/// Puts the pieces of what a kernel gave into the buffers of the streamed parts.
fn fill(job: &Encode<'_>, out: &mut [Vec<u8>], bytes: &[u8], places: &[(usize, usize)]) {
    let range = job.slab.at..job.slab.at + job.n();
    for (i, (part, out)) in job.codec.parts().iter().zip(out).enumerate() {
        if let Fill::Stream { .. } = part.fill {
            let len = part.encoded(range.clone());
            let len = (len.end - len.start) as usize;
            out.clear();
            out.extend_from_slice(places.get(i).and_then(|(start, _)| bytes.get(*start..start + len)).unwrap_or_default());
        }
    }
}

/// Bytes of the set of outlier columns.
fn outlier_bytes(columns: u64) -> usize {
    (columns.min(Columns::LIMIT + 1).div_ceil(32) * 4) as usize
}

fn columns_of(words: &[u8]) -> Columns {
    let bits = words.iter().enumerate().flat_map(|(i, &byte)| (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| i as u64 * 8 + bit));
    bits.collect()
}

/// Decodes elements. False: there is no kernel for them.
///
/// # Errors
/// If the device has no room for it, or fails.
pub fn decode(queue: &mut dyn Queue, job: &Decode<'_>, out: &mut [f32]) -> Result<bool, DeviceError> {
    let (Some(plan), Ok(n)) = (plan(job.scheme, job.shape), u32::try_from(out.len())) else { return Ok(false) };
    if n == 0 {
        return Ok(true);
    }
    let (module, name) = match job.scheme {
        Scheme::Affine { .. } => ("linear", "affine_decode"),
        Scheme::Absmax { .. } => ("linear", "absmax_decode"),
        Scheme::Int8 => ("int8", "int8_decode"),
        Scheme::Int8Block { .. } => ("dynamic8", "int8_block_decode"),
        Scheme::FourBit { nested: true, .. } => ("four_bit", "nested_decode"),
        _ => ("four_bit", "four_bit_decode"),
    };
    let mut args = Vec::new();
    for (i, bytes) in job.parts.iter().enumerate() {
        let part = &job.codec.parts()[i];
        if part.name == "offset" {
            let bytes = bytes.get(..4).and_then(|b| b.try_into().ok()).unwrap_or_default();
            args.push(Arg::F32(f32::from_le_bytes(bytes)));
            continue;
        }
        args.push(Arg::Buffer(queue.upload(bytes)?));
        if i == 0 && module == "linear" {
            args.push(Arg::U32(plan.bits));
        }
    }
    let result = queue.room(out.len() * 4)?;
    args.extend([Arg::U32(n), Arg::U64(job.at), Arg::U64(plan.group), Arg::Buffer(result)]);
    queue.launch(Kernel { module, name }, n.div_ceil(8).div_ceil(THREADS), THREADS, &args)?;
    super::download_floats(queue, result, out)?;
    Ok(true)
}
