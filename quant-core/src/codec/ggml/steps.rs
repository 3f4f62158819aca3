//! The step between neighbouring values of an element, for the types whose values are evenly spaced.
//!
//! A block with all codes 1 less one with all codes 0, offsets aside, is the step of every element: whatever scales there are,
//! they are found by the decoder itself.

use std::ops::Range;

use super::block::Blocks;
use crate::ggml::Type;

/// Where the codes of a block are.
pub(super) struct Codes {
    /// Bytes that hold low bits of codes, and one of them with every code 1.
    low: Range<usize>,
    one: u8,
    /// From where to where bytes hold high bits of codes, and offsets.
    others: &'static [[usize; 2]],
}

/// The codes of a type with evenly spaced values.
pub(super) fn codes_of(ty: Type) -> Option<&'static Codes> {
    const fn codes(low: Range<usize>, one: u8, others: &'static [[usize; 2]]) -> Codes {
        Codes { low, one, others }
    }
    static Q4_0: Codes = codes(2..18, 0x11, &[]);
    static Q4_1: Codes = codes(4..20, 0x11, &[[2, 4]]);
    static Q5_0: Codes = codes(6..22, 0x11, &[[2, 6]]);
    static Q5_1: Codes = codes(8..24, 0x11, &[[2, 4], [4, 8]]);
    static Q8_0: Codes = codes(2..34, 0x01, &[]);
    static Q2_K: Codes = codes(16..80, 0x55, &[[82, 84]]);
    static Q3_K: Codes = codes(32..96, 0x55, &[[0, 32]]);
    static Q4_K: Codes = codes(16..144, 0x11, &[[2, 4]]);
    static Q5_K: Codes = codes(48..176, 0x11, &[[2, 4], [16, 48]]);
    static Q6_K: Codes = codes(0..128, 0x11, &[[128, 192]]);
    match ty {
        Type::Q4_0 => Some(&Q4_0),
        Type::Q4_1 => Some(&Q4_1),
        Type::Q5_0 => Some(&Q5_0),
        Type::Q5_1 => Some(&Q5_1),
        Type::Q8_0 => Some(&Q8_0),
        Type::Q2_K => Some(&Q2_K),
        Type::Q3_K => Some(&Q3_K),
        Type::Q4_K => Some(&Q4_K),
        Type::Q5_K => Some(&Q5_K),
        Type::Q6_K => Some(&Q6_K),
        _ => None,
    }
}

/// Σs²/12 over the elements `wanted` of these blocks.
#[inline(always)]
pub(super) fn noise<B: Blocks>(codes: &Codes, wanted: Range<usize>, bytes: &[u8]) -> f64 {
    let mut block = [0u8; 256];
    let block = &mut block[..B::BYTES];
    let (mut zero, mut one) = ([0f32; 256], [0f32; 256]);
    let (zero, one) = (&mut zero[..B::LEN], &mut one[..B::LEN]);
    let mut sum = 0.0;
    for (i, stored) in bytes.chunks_exact(B::BYTES).enumerate() {
        block.copy_from_slice(stored);
        codes.others.iter().for_each(|&[from, to]| block[from..to].fill(0));
        block[codes.low.clone()].fill(0);
        B::decode(block, zero);
        block[codes.low.clone()].fill(codes.one);
        B::decode(block, one);
        let within = |at: usize| at.clamp(i * B::LEN, (i + 1) * B::LEN) - i * B::LEN;
        let range = within(wanted.start)..within(wanted.end);
        let mut lanes = [0f64; 4];
        for (zero, one) in zero[range.clone()].chunks(4).zip(one[range].chunks(4)) {
            for ((&zero, &one), lane) in zero.iter().zip(one).zip(&mut lanes) {
                let step = f64::from(one) - f64::from(zero);
                *lane += step * step;
            }
        }
        sum += lanes.into_iter().fold(0.0, |sum, lane| sum + lane) / 12.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use crate::Scheme;
    use crate::backend::difficult;
    use crate::convert::{decode, encode};
    use crate::ggml::Type;

    /// Two values of an element differ by a whole number of steps, and by one where codes are neighbours.
    #[test]
    fn values_lie_on_the_steps() {
        let mut checked = 0;
        for ty in Type::all() {
            let Some(codes) = super::codes_of(ty) else { continue };
            let scheme = Scheme::Ggml(ty);
            let blocks = encode(scheme, &[256], &difficult(512)[..256]).unwrap();
            let codec = scheme.codec(&[256]).unwrap();
            let noise = codec.noise(0, 256, &[&blocks[0]]).unwrap();
            let mut step_of = vec![f64::INFINITY; 256];
            let mut values: Vec<Vec<f64>> = vec![Vec::new(); 256];
            for byte in 0..=255u8 {
                let mut changed = blocks[0].clone();
                for block in changed.chunks_exact_mut(ty.block_bytes() as usize) {
                    block[codes.low.clone()].fill(byte);
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
        let whole = codec.noise(0, 512, &[&blocks[0]]).unwrap();
        let (a, b) = (codec.noise(0, 40, &[&blocks[0][..144]]).unwrap(), codec.noise(40, 472, &[&blocks[0]]).unwrap());
        assert!((a + b - whole).abs() <= 1e-12 * whole);
    }
}
