//! Two primitives of inference that show what the formats are for, each with the same on the CPU: every sum has one order, so both
//! give the same bits. Kernels: `inference.cu`.

use quant_core::codec::four_bit::book_values;
use quant_core::scheme::Book;

use super::{bytes_of, download_floats};
use crate::queue::{Arg, DeviceError, Kernel, Queue};

const THREADS: u32 = 128;
/// Activations of this magnitude make their column an outlier column.
const OUTLIER: f32 = 6.0;
/// 1/127 and 1/127², as bitsandbytes writes them.
const INV_127: f32 = 7.874_016e-3;
const INV_127_SQUARED: f32 = 6.200_012e-5;
/// 1.5·2^23: adding it rounds a float to an integer in its low bits, ties to even.
const ROUND: f32 = 12_582_912.0;

/// Weights of LLM.int8(), as [`quant_core::codec::int8`] lays them out.
#[derive(Clone, Copy)]
pub struct Int8Weights<'a> {
    /// Codes, i8 `[rows, columns]`.
    pub codes: &'a [u8],
    /// The greatest magnitude of each row.
    pub scales: &'a [f32],
    /// Columns; a multiple of 4.
    pub columns: usize,
}

/// A 4-bit matrix, as [`quant_core::codec::four_bit`] lays it out.
#[derive(Clone, Copy)]
pub struct FourBitWeights<'a> {
    /// The codebook.
    pub book: Book,
    /// Elements that share a scale; a multiple of 8.
    pub block: usize,
    /// Codes, two a byte.
    pub codes: &'a [u8],
    /// A scale for each block.
    pub absmax: &'a [f32],
    /// Columns; a multiple of 8.
    pub columns: usize,
}

impl FourBitWeights<'_> {
    fn rows(&self) -> usize {
        self.codes.len() * 2 / self.columns.max(1)
    }
}

fn kernel(name: &'static str) -> Kernel {
    Kernel { module: "inference", name }
}

fn unfit(what: &str) -> DeviceError {
    DeviceError::Failed(format!("the shapes do not fit: {what}"))
}

/// Y = XWᵀ, f32 `[m, rows]`, of activations X, f16 `[m, columns]`, little-endian: columns of X without a magnitude of 6 or more are
/// quantized by row and multiplied as integers, the others as floats. Source: LLM.int8(), Dettmers et al., 2022.
///
/// # Errors
/// If shapes do not fit, the device has no room for it, or fails.
pub fn int8_matmul(queue: &mut dyn Queue, x: &[u8], weights: &Int8Weights<'_>) -> Result<Vec<f32>, DeviceError> {
    let (m, n, k) = shapes(x, weights)?;
    let mut y = vec![0.0; (m * n) as usize];
    if y.is_empty() {
        return Ok(y);
    }
    let [x, w, w_scales] = [x, weights.codes, &bytes_of(weights.scales)].map(|bytes| queue.upload(bytes).map(Arg::Buffer));
    let (x, w, w_scales) = (x?, w?, w_scales?);
    let is_outlier = Arg::Buffer(queue.room(k as usize)?);
    let codes = Arg::Buffer(queue.room((m * k) as usize)?);
    let scales = Arg::Buffer(queue.room(m as usize * 4)?);
    let result = queue.room(y.len() * 4)?;
    let [m, n, k] = [m, n, k].map(|extent| (extent, Arg::U32(extent)));
    queue.launch(kernel("outlier_columns"), k.0.div_ceil(THREADS), THREADS, &[x, m.1, k.1, is_outlier])?;
    queue.launch(kernel("int8_quantize_rows"), m.0.div_ceil(THREADS / 32), THREADS, &[x, m.1, k.1, is_outlier, codes, scales])?;
    let args = [x, codes, scales, is_outlier, w, w_scales, m.1, n.1, k.1, Arg::Buffer(result)];
    queue.launch(kernel("int8_matmul"), (m.0 * n.0).div_ceil(THREADS), THREADS, &args)?;
    download_floats(queue, result, &mut y)?;
    Ok(y)
}

/// Rows of X, rows of W, columns.
fn shapes(x: &[u8], weights: &Int8Weights<'_>) -> Result<(u32, u32, u32), DeviceError> {
    let (n, k) = (weights.scales.len(), weights.columns);
    let fits = k > 0 && k.is_multiple_of(4) && weights.codes.len() == n * k && x.len().is_multiple_of(2 * k);
    let extent = |n: usize| u32::try_from(n).ok();
    let m = x.len() / (2 * k).max(1);
    match (extent(m), extent(n), extent(k), u32::try_from(m as u64 * n as u64)) {
        (Some(m), Some(n), Some(k), Ok(_)) if fits => Ok((m, n, k)),
        _ => Err(unfit("X is [m, columns], W [rows, columns], columns a multiple of 4, and m·rows has 32 bits")),
    }
}

/// [`int8_matmul`] on the CPU.
///
/// # Errors
/// If shapes do not fit.
pub fn int8_matmul_on_cpu(x: &[u8], weights: &Int8Weights<'_>) -> Result<Vec<f32>, DeviceError> {
    let (_, n, k) = shapes(x, weights)?;
    let (n, k) = (n as usize, k as usize);
    let x = quant_core::backend::numbers(quant_core::Dtype::F16, x);
    let is_outlier: Vec<bool> = (0..k).map(|j| x.iter().skip(j).step_by(k).any(|v| v.abs() >= OUTLIER)).collect();
    let mut y = Vec::with_capacity(x.len() / k * n);
    for x in x.chunks_exact(k) {
        let inliers = x.iter().zip(&is_outlier).map(|(&v, &out)| if out { 0.0 } else { v });
        let greatest = inliers.clone().fold(0f32, |m, v| if v.abs() > m { v.abs() } else { m });
        let scale = 127.0 * (1.0 / greatest);
        let codes: Vec<i8> = inliers.map(|v| if greatest == 0.0 { 0 } else { (v * scale + ROUND).to_bits() as i8 }).collect();
        for (w, w_scale) in weights.codes.chunks_exact(k).zip(weights.scales) {
            let sum: i32 = codes.iter().zip(w).map(|(&a, &b)| i32::from(a) * i32::from(b as i8)).sum();
            let outlying = x.iter().zip(w).zip(&is_outlier).filter(|(_, out)| **out);
            let outliers = outlying.fold(0f32, |sum, ((x, &w), _)| sum + x * (f32::from(w as i8) * w_scale * INV_127));
            y.push(sum as f32 * (greatest * w_scale) * INV_127_SQUARED + outliers);
        }
    }
    Ok(y)
}

/// y = Wx for f32 x: weights are decoded in registers, and not stored.
///
/// # Errors
/// If shapes do not fit, the device has no room for it, or fails.
pub fn four_bit_gemv(queue: &mut dyn Queue, weights: &FourBitWeights<'_>, x: &[f32]) -> Result<Vec<f32>, DeviceError> {
    let [rows, columns, block] = four_bit_shapes(weights, x)?;
    let mut y = vec![0.0; rows as usize];
    if y.is_empty() {
        return Ok(y);
    }
    let mut args = Vec::new();
    for bytes in [weights.codes, &bytes_of(weights.absmax), &bytes_of(&book_values(weights.book))] {
        args.push(Arg::Buffer(queue.upload(bytes)?));
    }
    args.extend([rows, columns, block].map(Arg::U32));
    args.push(Arg::Buffer(queue.upload(&bytes_of(x))?));
    let result = queue.room(y.len() * 4)?;
    args.push(Arg::Buffer(result));
    queue.launch(kernel("four_bit_gemv"), rows.div_ceil(THREADS / 32), THREADS, &args)?;
    download_floats(queue, result, &mut y)?;
    Ok(y)
}

fn four_bit_shapes(weights: &FourBitWeights<'_>, x: &[f32]) -> Result<[u32; 3], DeviceError> {
    let FourBitWeights { block, codes, absmax, columns, .. } = *weights;
    let n = codes.len() * 2;
    let fits = columns > 0 && columns.is_multiple_of(8) && n.is_multiple_of(columns) && block > 0 && block.is_multiple_of(8);
    let extents = [weights.rows(), columns, block].map(u32::try_from);
    match extents {
        [Ok(rows), Ok(columns), Ok(block)] if fits && absmax.len() == n.div_ceil(block as usize) && x.len() == columns as usize => {
            Ok([rows, columns, block])
        }
        _ => Err(unfit("W is [rows, columns], columns and blocks multiples of 8, with a scale for each block, and x is [columns]")),
    }
}

/// [`four_bit_gemv`] on the CPU.
///
/// # Errors
/// If shapes do not fit.
pub fn four_bit_gemv_on_cpu(weights: &FourBitWeights<'_>, x: &[f32]) -> Result<Vec<f32>, DeviceError> {
    let [rows, ..] = four_bit_shapes(weights, x)?;
    let (columns, book) = (weights.columns, book_values(weights.book));
    let row = |row: usize| {
        let mut lanes = [0f32; 32];
        for (j, x) in x.iter().enumerate() {
            let i = row * columns + j;
            let code = weights.codes[i / 2] >> if i.is_multiple_of(2) { 4 } else { 0 } & 15;
            let sum = &mut lanes[j / 8 % 32];
            *sum += book[usize::from(code)] * weights.absmax[i / weights.block] * x;
        }
        // Lanes are added to those half as far away, in five steps.
        for distance in [16, 8, 4, 2, 1] {
            lanes = std::array::from_fn(|i| lanes[i] + lanes[i ^ distance]);
        }
        lanes[0]
    };
    Ok((0..rows as usize).map(row).collect())
}
