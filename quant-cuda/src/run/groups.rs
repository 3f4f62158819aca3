//! Schemes of scaled groups: bitsandbytes' and linear quantization. Kernels: `four_bit.cu`, `dynamic8.cu`, `int8.cu`, `linear.cu`.

use quant_core::Scheme;
use quant_core::codec::{Columns, Fill, Known, Tally};
use quant_core::scheme::{Book, Profile};

use super::{Decode, Encode, HEAD, Outcome, bytes_of, download_floats, dtype_number, is_refused};
use crate::queue::{Arg, Buffer, DeviceError, Kernel, Queue};

/// Threads of a block.
const THREADS: u32 = 256;
/// Groups longer than this are measured by a whole block, not by a warp.
const WARP_GROUP: u64 = 4096;
/// Pieces of the output begin at multiples of this.
const ALIGNMENT: usize = 16;
/// Scales that share a nested scale.
const NESTED: u32 = 256;

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

/// The groups that a slab touches.
struct Touched {
    /// Elements of the slab.
    n: u32,
    first: u64,
    groups: u32,
    /// Whether the first begins in an earlier slab, in whose output it stands.
    begun: bool,
}

impl Touched {
    /// None if they are too many for a kernel.
    fn by(job: &Encode<'_>, group: u64) -> Option<Touched> {
        let (start, n) = (job.slab.at, job.n());
        let first = start / group;
        let groups = if n == 0 { 0 } else { (start + n).div_ceil(group) - first };
        Some(Touched { n: n.try_into().ok()?, first, groups: groups.try_into().ok()?, begun: first * group < start })
    }

    fn nested_blocks(&self) -> u32 {
        self.groups.div_ceil(NESTED)
    }
}

/// Where in what the kernels give which part lies.
struct Layout {
    codes: usize,
    params: Vec<usize>,
    /// The codes of scales, and their own scales.
    nested: Option<(usize, usize)>,
    len: usize,
}

impl Layout {
    fn new(plan: &Plan, slab: &Touched) -> Layout {
        let mut pieces = Pieces::default();
        pieces.add(HEAD);
        let codes = pieces.add(slab.n.div_ceil(8) as usize * plan.bits as usize);
        let params = (0..plan.n_params).map(|_| pieces.add(slab.groups as usize * 4)).collect();
        let nested = plan.nested.map(|_| (pieces.add(slab.groups as usize), pieces.add(slab.nested_blocks() as usize * 4)));
        Layout { codes, params, nested, len: pieces.0 }
    }

    /// Where the bytes of each part begin, in the order of the codec.
    fn parts(&self, slab: &Touched) -> Vec<usize> {
        match self.nested {
            // codes, absmax, quant_map (which is whole), nested_absmax
            Some((scales, absmax)) => vec![self.codes, scales, 0, absmax],
            None => std::iter::once(self.codes).chain(self.params.iter().map(|at| at + usize::from(slab.begun) * 4)).collect(),
        }
    }
}

/// Encodes a slab.
///
/// # Errors
/// If the device has no room for it, or fails.
pub fn encode(queue: &mut dyn Queue, job: &Encode<'_>, out: &mut [Vec<u8>]) -> Result<Outcome, DeviceError> {
    let (Some(plan), Some(dtype)) = (plan(job.scheme, job.shape), dtype_number(job.dtype)) else { return Ok(Outcome::Refused) };
    let Some(slab) = Touched::by(job, plan.group) else { return Ok(Outcome::Refused) };
    let mut tally = Tally::default();
    if slab.n == 0 {
        fill(job, out, &[], &[]);
        return Ok(Outcome::Done(tally));
    }
    let layout = Layout::new(&plan, &slab);
    let result = queue.room(layout.len)?;
    let outliers = if job.scheme == Scheme::Int8 { Some(queue.room(outlier_bytes(plan.group))?) } else { None };
    launch(queue, job, (&plan, dtype, &slab), &layout, result, outliers)?;
    let mut bytes = vec![0; layout.len];
    queue.download(result, &mut bytes)?;
    if is_refused(&bytes) {
        return Ok(Outcome::Refused);
    }
    if let Some(buffer) = outliers.filter(|_| bytes[4..8] != [0; 4]) {
        let mut words = vec![0; buffer.len];
        queue.download(buffer, &mut words)?;
        tally.outlier_columns = columns_of(&words);
    }
    fill(job, out, &bytes, &layout.parts(&slab));
    Ok(Outcome::Done(tally))
}

/// Launches the kernels of a slab: parameters, codes, and scales of scales.
fn launch(
    queue: &mut dyn Queue,
    job: &Encode<'_>,
    (plan, dtype, slab): (&Plan, u32, &Touched),
    layout: &Layout,
    result: Buffer,
    outliers: Option<Buffer>,
) -> Result<(), DeviceError> {
    let at = |offset: usize| Arg::Buffer(result.from(offset));
    let params = |i: usize| layout.params.get(i).map_or(Arg::Null, |&offset| at(offset));
    let total: u64 = job.shape.iter().product();
    let x = Arg::Buffer(queue.upload(job.x)?);
    let known = match job.slab.known {
        Known::Groups(stats) => {
            let touched = slab.first as usize..slab.first as usize + slab.groups as usize;
            Arg::Buffer(queue.upload(&bytes_of(stats.get(touched).unwrap_or_default().as_flattened()))?)
        }
        _ => Arg::Null,
    };
    let of_slab = [x, Arg::U32(dtype), Arg::U32(slab.n), Arg::U64(job.slab.at), Arg::U64(plan.group), Arg::U64(total), Arg::U32(plan.setting)];
    let is_wide = plan.group > WARP_GROUP;
    let blocks = if is_wide { slab.groups } else { slab.groups.div_ceil(THREADS / 32) };
    let own = [known, Arg::U32(is_wide.into()), params(0), params(1), at(0)];
    queue.launch(plan.params, blocks, THREADS, &[&of_slab[..], &own].concat())?;
    let own = [params(0), params(1), at(layout.codes), at(0), outliers.map_or(Arg::Null, Arg::Buffer)];
    queue.launch(plan.codes, slab.n.div_ceil(8).div_ceil(THREADS), THREADS, &[&of_slab[..], &own].concat())?;
    let (Some(kernel), Some((codes, absmax))) = (plan.nested, layout.nested) else { return Ok(()) };
    // Only a tensor without elements has no offset.
    let offset = if let Known::Offset(offset) = *job.slab.known { offset } else { 0.0 };
    let args = [params(0), Arg::U32(slab.groups), Arg::F32(offset), at(codes), at(absmax)];
    queue.launch(kernel, slab.nested_blocks().div_ceil(THREADS / 32), THREADS, &args)
}

/// Puts the pieces of what a kernel gave into the buffers of the streamed parts.
fn fill(job: &Encode<'_>, out: &mut [Vec<u8>], bytes: &[u8], places: &[usize]) {
    let range = job.slab.at..job.slab.at + job.n();
    for (i, (part, out)) in job.codec.parts().iter().zip(out).enumerate() {
        if let Fill::Stream { .. } = part.fill {
            let len = part.encoded(range.clone());
            let len = (len.end - len.start) as usize;
            out.clear();
            out.extend_from_slice(places.get(i).and_then(|&start| bytes.get(start..start + len)).unwrap_or_default());
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
    download_floats(queue, result, out)?;
    Ok(true)
}
