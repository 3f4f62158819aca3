//! The error of rounding that the types whose values are evenly spaced would have.

use std::ops::Range;

use super::block::Blocks;
use crate::codec::cut;

/// Σs²/12 over each `every` elements of `range`; the blocks begin with that of its first element.
#[inline(always)]
pub(super) fn noise<B: Blocks>(range: Range<u64>, every: u64, bytes: &[u8]) -> Option<Vec<f64>> {
    let skip = (range.start % B::LEN as u64) as usize;
    let mut sums = Vec::with_capacity((range.end - range.start).div_ceil(every) as usize);
    for part in cut(range.clone(), every) {
        let wanted = skip + (part.start - range.start) as usize..skip + (part.end - range.start) as usize;
        let first = wanted.start / B::LEN;
        let blocks = &bytes[first * B::BYTES..wanted.end.div_ceil(B::LEN) * B::BYTES];
        sums.push(noise_of::<B>(wanted.start - first * B::LEN..wanted.end - first * B::LEN, blocks)?);
    }
    Some(sums)
}

/// Σs²/12 over the elements `wanted` of these blocks.
#[inline(always)]
fn noise_of<B: Blocks>(wanted: Range<usize>, bytes: &[u8]) -> Option<f64> {
    let piece = B::LEN / 16;
    let blocks = bytes.chunks_exact(B::BYTES);
    let squares = |block: &[u8]| Some(B::steps(block)?.map(|step| f64::from(step) * f64::from(step)));
    if wanted == (0..blocks.len() * B::LEN) {
        let mut lanes = [0.0; 4];
        for block in blocks {
            let squares = squares(block)?;
            lanes = std::array::from_fn(|i| lanes[i] + ((squares[i] + squares[4 + i]) + (squares[8 + i] + squares[12 + i])));
        }
        return Some(lanes.iter().sum::<f64>() * piece as f64 / 12.0);
    }
    let mut sum = 0.0;
    for (i, block) in blocks.enumerate() {
        for (j, square) in squares(block)?.iter().enumerate() {
            let at = i * B::LEN + j * piece;
            let n = wanted.end.min(at + piece).saturating_sub(wanted.start.max(at));
            sum += n as f64 * square;
        }
    }
    Some(sum / 12.0)
}

#[cfg(test)]
mod tests {
    use crate::Scheme;
    use crate::backend::difficult;
    use crate::convert::{decode, encode};
    use crate::ggml::Type;

    /// Where the bytes are that hold the low bits of codes.
    fn low_codes(ty: Type) -> Option<std::ops::Range<usize>> {
        match ty {
            Type::Q4_0 => Some(2..18),
            Type::Q4_1 => Some(4..20),
            Type::Q5_0 => Some(6..22),
            Type::Q5_1 => Some(8..24),
            Type::Q8_0 => Some(2..34),
            Type::Q2_K => Some(16..80),
            Type::Q3_K => Some(32..96),
            Type::Q4_K => Some(16..144),
            Type::Q5_K => Some(48..176),
            Type::Q6_K => Some(0..128),
            _ => None,
        }
    }

    /// Two values of an element differ by a whole number of steps, and by one where codes are neighbours.
    #[test]
    fn values_lie_on_the_steps() {
        let mut checked = 0;
        for ty in Type::all() {
            let scheme = Scheme::Ggml(ty);
            let blocks = encode(scheme, &[256], &difficult(512)[..256]).unwrap();
            let codec = scheme.codec(&[256]).unwrap();
            let noise = codec.noise(0..256, 256, &[&blocks[0]]).map(|of| of[0]);
            assert_eq!(noise.is_some(), low_codes(ty).is_some(), "{ty}");
            let (Some(codes), Some(noise)) = (low_codes(ty), noise) else { continue };
            let mut step_of = vec![f64::INFINITY; 256];
            let mut values: Vec<Vec<f64>> = vec![Vec::new(); 256];
            for byte in 0..=255u8 {
                let mut changed = blocks[0].clone();
                for block in changed.chunks_exact_mut(ty.block_bytes() as usize) {
                    block[codes.clone()].fill(byte);
                }
                for (i, v) in decode(scheme, &[256], &[changed]).unwrap().into_iter().enumerate() {
                    values[i].push(v.into());
                }
            }
            for (values, step) in values.iter_mut().zip(&mut step_of) {
                values.sort_by(f64::total_cmp);
                for pair in values.windows(2).filter(|pair| pair[1] > pair[0]) {
                    *step = step.min(pair[1] - pair[0]);
                }
                *step = if step.is_finite() { *step } else { 0.0 };
            }
            let expected: f64 = step_of.iter().map(|s| s * s / 12.0).sum();
            assert!((noise - expected).abs() <= 1e-5 * expected, "{ty}: {noise} {expected}");
            checked += 1;
        }
        assert_eq!(checked, 10);
    }

    #[test]
    fn a_part_of_the_elements_has_its_part_of_the_noise() {
        let scheme = Scheme::Ggml(Type::Q4_K);
        let blocks = encode(scheme, &[512], &difficult(512)).unwrap();
        let codec = scheme.codec(&[512]).unwrap();
        let whole = codec.noise(0..512, 512, &[&blocks[0]]).unwrap()[0];
        let (a, b) = (codec.noise(0..40, 256, &[&blocks[0][..144]]).unwrap(), codec.noise(40..512, 256, &[&blocks[0]]).unwrap());
        assert_eq!((a.len(), b.len()), (1, 2));
        assert!((a[0] + b[0] + b[1] - whole).abs() <= 1e-12 * whole);
        // In parts it is what it is alone.
        let each = codec.noise(0..512, 256, &[&blocks[0]]).unwrap();
        let alone = codec.noise(256..512, 256, &[&blocks[0][144..]]).unwrap();
        assert_eq!(each[1..], alone);
    }
}
