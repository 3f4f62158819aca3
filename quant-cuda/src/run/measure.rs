//! The sums of an audit. Kernel: `error_stats.cu`.

use quant_core::audit::{BLOCK, BlockSums, DeviceSums, Sums};

use super::{HEAD, is_refused};
use crate::queue::{Arg, DeviceError, Kernel, Queue};

/// Threads of a block, four for each block of pairs.
const THREADS: u32 = 128;
/// Bytes of the sums of a block: ten doubles, two floats, two numbers; `Sums` in the kernel.
const BYTES: usize = 10 * 8 + 4 * 4;
const KERNEL: Kernel = Kernel { module: "error_stats", name: "error_stats" };

/// The sums over blocks of errors; `w`, `q` and the importance are floats, little-endian. None where a number is not finite.
///
/// # Errors
/// If the device has no room for it, or fails.
pub fn measure(queue: &mut dyn Queue, w: &[u8], q: &[u8], importance: Option<&[u8]>) -> Result<Option<DeviceSums>, DeviceError> {
    let Ok(n) = u32::try_from(w.len() / 4) else { return Ok(None) };
    if n == 0 {
        return Ok(Some(DeviceSums { blocks: Vec::new(), counts: vec![0; DeviceSums::BINS] }));
    }
    let [w, q] = [queue.upload(w)?, queue.upload(q)?].map(Arg::Buffer);
    let importance = importance.map(|bytes| queue.upload(bytes)).transpose()?.map_or(Arg::Null, Arg::Buffer);
    // The flag, the bins, the blocks.
    let blocks = n.div_ceil(BLOCK as u32);
    let blocks_at = HEAD + DeviceSums::BINS * 4;
    let result = queue.room(blocks_at + blocks as usize * BYTES)?;
    let at = |offset: usize| Arg::Buffer(result.from(offset));
    let args = [w, q, importance, Arg::U32(n), at(blocks_at), at(HEAD), at(0)];
    queue.launch(KERNEL, (blocks * 4).div_ceil(THREADS), THREADS, &args)?;
    let mut bytes = vec![0; result.len];
    queue.download(result, &mut bytes)?;
    if is_refused(&bytes) {
        return Ok(None);
    }
    let (head, sums) = bytes.split_at(blocks_at);
    let counts = head[HEAD..].as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    let blocks = sums.as_chunks::<BYTES>().0.iter().map(block).collect();
    Ok(Some(DeviceSums { blocks, counts }))
}

/// The sums of a block, in the order of the kernel.
fn block(bytes: &[u8; BYTES]) -> BlockSums {
    let words = bytes.as_chunks::<8>().0;
    let double = |i: usize| f64::from_le_bytes(words[i]);
    let number = |i: usize| (u64::from_le_bytes(words[10 + i / 2]) >> (i % 2 * 32)) as u32;
    BlockSums {
        sums: Sums {
            d: [double(0), double(1), double(2), double(3)],
            e: double(4),
            e2: double(5),
            de: double(6),
            greatest: double(7),
            min: f32::from_bits(number(0)),
            max: f32::from_bits(number(1)),
        },
        weighted: [double(8), double(9)],
        zeros: number(2),
        first: number(3),
    }
}
