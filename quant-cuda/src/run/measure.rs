//! The sums of an audit. Kernel: `error_stats.cu`.

use quant_core::audit::{BLOCK, BlockSums, DeviceSums};

use crate::queue::{Arg, DeviceError, Kernel, Queue};

/// Threads of a block, four for each block of pairs.
const THREADS: u32 = 128;
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
    let (counts_at, blocks_at) = (16, 16 + DeviceSums::BINS * 4);
    let result = queue.room(blocks_at + blocks as usize * BlockSums::BYTES)?;
    let at = |offset: usize| Arg::Buffer(crate::queue::Buffer { address: result.address + offset as u64, len: result.len - offset });
    let args = [w, q, importance, Arg::U32(n), at(blocks_at), at(counts_at), at(0)];
    queue.launch(KERNEL, (blocks * 4).div_ceil(THREADS), THREADS, &args)?;
    let mut bytes = vec![0; result.len];
    queue.download(result, &mut bytes)?;
    if bytes[..4] != [0; 4] {
        return Ok(None);
    }
    let (head, sums) = bytes.split_at(blocks_at);
    let counts = head[counts_at..].as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    let blocks = sums.as_chunks::<{ BlockSums::BYTES }>().0.iter().map(BlockSums::from_bytes).collect();
    Ok(Some(DeviceSums { blocks, counts }))
}
