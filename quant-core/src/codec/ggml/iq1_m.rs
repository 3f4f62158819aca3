//! IQ1_M: 1.75 bits per weight, three levels on a lattice of 2048 points, a scale for 16 numbers and a shift for eight.
//!
//! **Formula.** x = d·(2s + 1)·(g ± ⅛), g one of −1, 0, 1.
//!
//! **Layout.** 256 numbers, 56 bytes:
//!
//! ```text
//! qs      32 × u8   the low eight bits of the 32 points, of eight numbers each
//! qh      16 × u8   for each point four bits, the first lowest: its three high bits, then whether it is shifted down
//! scales  4 × u16   for each 64 numbers: 4 × 3 bits s; bits 12 to 15 are a quarter of d (f16), the first the lowest
//! ```
//!
//! **Scales.** A number weighs importance·√(2·mean(x²) + x²), the mean that of the block; without importance, x². Each 16 numbers are
//! split, each half with its own shift, and put on the lattice as [`iq1`](super::iq1) has it; if that moved them, their scale is fitted
//! again. With d the greatest scale / 15, s = round((scale/d − 1)/2), 0 to 7. Then d is fitted to it all, and stored times 1.1125.
//!
//! **Rounding.** s: to nearest, ties to even. d: f16, to nearest, ties to even.
//!
//! **Zero block.** All bytes are 0. So are the bits of 16 numbers below 1e-7, or all of importance 0; beside others, whose d is not
//! 0, these become d·(−1 + ⅛).
//!
//! **Source.** ggml 0.25.3, `ggml-quants.c` (MIT): `quantize_row_iq1_m_impl`, `dequantize_row_iq1_m`.

use super::block::{Blocks, Weights};
use super::iq1::{self, AT_ONCE, BLOCK, Best, Group, LANES, Lane, Snapped};
use super::math::{from_f16, nearest_int, to_f16};

/// Numbers of a sub-block.
const SUB: usize = 16;

/// Numbers of eight sub-blocks.
const GROUP: usize = LANES * SUB;

/// A sub-block of lesser numbers stays empty (`GROUP_MAX_EPS_IQ1_M`).
const EPS: f32 = 1e-7;

const QH: usize = 32;
const SCALES: usize = 48;
const BYTES: usize = 56;

pub(crate) struct Iq1M;

impl Blocks for Iq1M {
    const LEN: usize = BLOCK;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn encode(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
        let groups = x.chunks(AT_ONCE * BLOCK).zip(out.chunks_mut(AT_ONCE * BYTES));
        for (group, (x, out)) in groups.enumerate() {
            let variances = iq1::variances(x);
            for (i, (x, out)) in x.chunks_exact(BLOCK).zip(out.chunks_exact_mut(BYTES)).enumerate() {
                let weight = match weights {
                    Some(weights) => iq1::weigh(x, weights.block(AT_ONCE * group + i, BLOCK), variances[i]),
                    None => squares(x),
                };
                encode_block(x, &weight, out);
            }
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (bytes, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(BLOCK)) {
            let scales: [u16; 4] = std::array::from_fn(|i| u16::from_le_bytes([bytes[SCALES + 2 * i], bytes[SCALES + 2 * i + 1]]));
            let d = from_f16(scales[0] >> 12 | scales[1] >> 12 << 4 | scales[2] >> 12 << 8 | scales[3] >> 12 << 12);
            for (ib, out) in out.chunks_exact_mut(SUB).enumerate() {
                let scale = d * f32::from(2 * (scales[ib / 4] >> (3 * (ib % 4)) & 7) + 1);
                for (k, out) in out.chunks_exact_mut(8).enumerate() {
                    let high = u16::from(bytes[QH + ib] >> (4 * k));
                    iq1::decode_point(u16::from(bytes[2 * ib + k]) | (high & 7) << 8, scale, high & 8 != 0, out);
                }
            }
        }
    }
}

#[inline(always)]
fn squares(x: &[f32]) -> [f32; BLOCK] {
    let mut squares = [0f32; BLOCK];
    for (square, x) in squares.iter_mut().zip(x) {
        *square = x * x;
    }
    squares
}

#[inline(always)]
fn encode_block(x: &[f32], weight: &[f32; BLOCK], out: &mut [u8]) {
    let groups = [Group::<SUB>::new(&x[..GROUP], &weight[..GROUP]), Group::<SUB>::new(&x[GROUP..], &weight[GROUP..])];
    let snapped = [groups[0].snap(&best_split(&groups[0]), EPS), groups[1].snap(&best_split(&groups[1]), EPS)];
    put_points(&snapped, out);
    let scales = &mut out[SCALES..];
    scales.fill(0);
    let greatest = snapped[1].greatest_scale(snapped[0].greatest_scale(0.0));
    if greatest == 0.0 {
        return;
    }
    let d = greatest / 15.0;
    let codes = [scale_codes(&snapped[0], 1.0 / d), scale_codes(&snapped[1], 1.0 / d)];
    let d = to_f16(fitted(&groups, &snapped, &codes).unwrap_or(d) * 1.1125);
    for (i, (scale, codes)) in scales.chunks_exact_mut(2).zip(codes.as_flattened().chunks_exact(4)).enumerate() {
        let quarter = (d >> (4 * i)) << 12;
        let codes = codes.iter().rev().fold(0, |all, &code| all << 3 | code as u16);
        scale.copy_from_slice(&(quarter | codes).to_le_bytes());
    }
    for (qh, shifts) in out[QH..SCALES].iter_mut().zip(snapped.iter().flat_map(|s| s.shifts)) {
        *qh |= ((shifts & 2) << 2 | (shifts & 1) << 7) as u8;
    }
}

/// Writes the points, with nothing beside them.
#[inline(always)]
fn put_points(snapped: &[Snapped; 2], out: &mut [u8]) {
    for (ib, points) in snapped.iter().flat_map(|s| &s.points).enumerate() {
        out[2 * ib] = points[0] as u8;
        out[2 * ib + 1] = points[1] as u8;
        out[QH + ib] = (points[0] >> 8 | points[1] >> 8 << 4) as u8;
    }
}

#[inline(always)]
fn scale_codes(snapped: &Snapped, id: f32) -> [i32; LANES] {
    let mut codes = [0; LANES];
    for (code, scale) in codes.iter_mut().zip(snapped.scales) {
        *code = nearest_int(0.5 * (id * scale - 1.0)).clamp(0, 7);
    }
    codes
}

/// The best `d` for all that is chosen.
#[inline(always)]
fn fitted(groups: &[Group<'_, SUB>; 2], snapped: &[Snapped; 2], codes: &[[i32; LANES]; 2]) -> Option<f32> {
    let (mut qx, mut q2) = (0f32, 0f32);
    for ((group, snapped), codes) in groups.iter().zip(snapped).zip(codes) {
        let values = snapped.values::<SUB>();
        let (mut wqx, mut wq2) = ([[0f32; LANES]; SUB], [[0f32; LANES]; SUB]);
        for j in 0..SUB {
            for l in 0..LANES {
                let q = values[j][l] * (2 * codes[l] + 1) as f32;
                wqx[j][l] = group.weight[j][l] * q * group.x[j][l];
                wq2[j][l] = group.weight[j][l] * q * q;
            }
        }
        for l in 0..LANES {
            for j in 0..SUB {
                qx += wqx[j][l];
                q2 += wq2[j][l];
            }
        }
    }
    (q2 > 0.0).then_some(qx / q2)
}

/// Σwx and Σw of half a sub-block.
#[derive(Clone, Copy, Default)]
struct Sums {
    wx: Lane,
    w: Lane,
}

/// Σwqx and Σwq² of half a sub-block, shifted up or down.
#[derive(Clone, Copy, Default)]
struct Fits {
    up: [Lane; 2],
    down: [Lane; 2],
}

#[inline(always)]
fn best_split(group: &Group<'_, SUB>) -> Best {
    let sums = [running_sums(group, 0), running_sums(group, 1)];
    let mut best = Best::none();
    for i1 in 0..=SUB {
        for i2 in i1..=SUB {
            let [a, b] = [fits(&sums[0], i1, i2), fits(&sums[1], i1, i2)];
            best.offer(&add(&a.up[0], &b.up[0]), &add(&a.up[1], &b.up[1]), iq1::candidate(i1, i2, 0));
            best.offer(&add(&a.up[0], &b.down[0]), &add(&a.up[1], &b.down[1]), iq1::candidate(i1, i2, 1));
            best.offer(&add(&a.down[0], &b.up[0]), &add(&a.down[1], &b.up[1]), iq1::candidate(i1, i2, 2));
            best.offer(&add(&a.down[0], &b.down[0]), &add(&a.down[1], &b.down[1]), iq1::candidate(i1, i2, 3));
        }
    }
    best
}

#[inline(always)]
fn add(a: &Lane, b: &Lane) -> Lane {
    let mut sum = *a;
    for l in 0..LANES {
        sum[l] += b[l];
    }
    sum
}

/// Of half a sub-block split at `i1` and `i2`. With levels one apart, Σwqx is that of all numbers on the upper level, less what is
/// below each boundary; Σwq² changes at a boundary by the difference of the squares.
#[inline(always)]
fn fits(sums: &[Sums; SUB + 1], i1: usize, i2: usize) -> Fits {
    let (all, low, high) = (&sums[SUB], &sums[i1], &sums[i2]);
    let mut fits = Fits::default();
    for l in 0..LANES {
        let below = low.wx[l] + high.wx[l];
        fits.up[0][l] = all.wx[l] * 1.125 - below;
        fits.down[0][l] = all.wx[l] * 0.875 - below;
        fits.up[1][l] = all.w[l] * 1.125 * 1.125 + low.w[l] * 0.75 + high.w[l] * -1.25;
        fits.down[1][l] = all.w[l] * 0.875 * 0.875 + low.w[l] * 1.25 + high.w[l] * -0.75;
    }
    fits
}

/// Sums over those of the least numbers, for each number of them, that lie in a half.
#[inline(always)]
fn running_sums(group: &Group<'_, SUB>, half: usize) -> [Sums; SUB + 1] {
    let (mut wx, mut w) = ([[0f32; LANES]; SUB + 1], [[0f32; LANES]; SUB + 1]);
    for j in SUB / 2 * half..SUB / 2 * (half + 1) {
        for l in 0..LANES {
            let place = group.place(j, l);
            wx[place][l] = group.weight[j][l] * group.x[j][l];
            w[place][l] = group.weight[j][l];
        }
    }
    iq1::accumulate(&mut wx);
    iq1::accumulate(&mut w);
    let mut sums = [Sums::default(); SUB + 1];
    for j in 0..=SUB {
        sums[j] = Sums { wx: wx[j], w: w[j] };
    }
    sums
}
