//! IQ1_S: 1.5625 bits per weight, three levels on a lattice of 2048 points, one shift and one scale for 32 numbers.
//!
//! **Formula.** x = d·(2s + 1)·(g ± ⅛), g one of −1, 0, 1.
//!
//! **Layout.** 256 numbers, 50 bytes:
//!
//! ```text
//! d      f16
//! qs     32 × u8    the low eight bits of the 32 points, of eight numbers each
//! qh     8 × u16    for each 32 numbers: 4 × 3 bits, the high bits of their points; s in bits 12 to 14; bit 15: shifted down
//! ```
//!
//! **Scales.** A number weighs importance·√(2·mean(x²) + x²), the mean that of the block. Each 32 numbers are split and put on the
//! lattice as [`iq1`](super::iq1) has it; if that moved them, their scale is fitted again. d is the greatest scale / 15, and stored
//! times 1.125; s = round((scale/d − 1)/2), 0 to 7.
//!
//! **Rounding.** s: to nearest, ties to even. d: f16, to nearest, ties to even.
//!
//! **Zero block.** All bytes are 0. So are the bits of 32 numbers below 1e-12, or all of importance 0; beside others, whose d is not
//! 0, these become d·(−1 + ⅛).
//!
//! **Importance.** ggml insists on it; without, all numbers are of importance 1.
//!
//! **Source.** ggml 0.25.3, `ggml-quants.c` (MIT): `quantize_row_iq1_s_impl`, `dequantize_row_iq1_s`.

use super::block::{Blocks, Weights};
use super::iq1::{self, AT_ONCE, BLOCK, Best, Group, LANES, Lane, Snapped};
use super::math::{f16_at, nearest_int, put_f16};

/// Numbers of a sub-block.
const SUB: usize = 32;

/// A sub-block of lesser numbers stays empty (`GROUP_MAX_EPS_IQ1_S`).
const EPS: f32 = 1e-12;

const QS: usize = 2;
const QH: usize = 34;
const BYTES: usize = 50;

pub(crate) struct Iq1S;

impl Blocks for Iq1S {
    const LEN: usize = BLOCK;
    const BYTES: usize = BYTES;

    #[inline(always)]
    fn encode(x: &[f32], weights: Option<Weights<'_>>, out: &mut [u8]) {
        let groups = x.chunks(AT_ONCE * BLOCK).zip(out.chunks_mut(AT_ONCE * BYTES));
        for (group, (x, out)) in groups.enumerate() {
            let variances = iq1::variances(x);
            for (i, (x, out)) in x.chunks_exact(BLOCK).zip(out.chunks_exact_mut(BYTES)).enumerate() {
                let importance = weights.map_or(&[1f32; BLOCK][..], |weights| weights.block(AT_ONCE * group + i, BLOCK));
                encode_block(x, &iq1::weigh(x, importance, variances[i]), out);
            }
        }
    }

    #[inline(always)]
    fn decode(bytes: &[u8], out: &mut [f32]) {
        for (bytes, out) in bytes.chunks_exact(BYTES).zip(out.chunks_exact_mut(BLOCK)) {
            let d = f16_at(bytes, 0);
            for (ib, out) in out.chunks_exact_mut(SUB).enumerate() {
                let qh = u16::from_le_bytes([bytes[QH + 2 * ib], bytes[QH + 2 * ib + 1]]);
                let scale = d * f32::from(2 * (qh >> 12 & 7) + 1);
                for (k, out) in out.chunks_exact_mut(8).enumerate() {
                    let point = u16::from(bytes[QS + 4 * ib + k]) | (qh >> (3 * k) & 7) << 8;
                    iq1::decode_point(point, scale, qh >> 15 != 0, out);
                }
            }
        }
    }
}

#[inline(always)]
fn encode_block(x: &[f32], weight: &[f32; BLOCK], out: &mut [u8]) {
    let group = Group::<SUB>::new(x, weight);
    let snapped = group.snap(&best_split(&group), EPS);
    put_points(&snapped, out);
    let greatest = snapped.greatest_scale(0.0);
    if greatest == 0.0 {
        out[..QS].fill(0);
        return;
    }
    let d = greatest / 15.0;
    put_f16(out, 0, d * 1.125);
    let id = 1.0 / d;
    for l in 0..LANES {
        let s = nearest_int(0.5 * (id * snapped.scales[l] - 1.0)).clamp(0, 7);
        out[QH + 2 * l + 1] |= (s << 4 | (snapped.shifts[l] & 1) << 7) as u8;
    }
}

/// Writes the points, with nothing beside them.
#[inline(always)]
fn put_points(snapped: &Snapped, out: &mut [u8]) {
    for (l, points) in snapped.points.iter().enumerate() {
        let mut qh = 0;
        for (k, point) in points.iter().enumerate() {
            out[QS + 4 * l + k] = *point as u8;
            qh |= point >> 8 << (3 * k);
        }
        out[QH + 2 * l..][..2].copy_from_slice(&qh.to_le_bytes());
    }
}

#[inline(always)]
fn best_split(group: &Group<'_, SUB>) -> Best {
    let (sx, sw) = running_sums(group);
    let mut right = [Outer::default(); SUB + 1];
    for i2 in 0..=SUB {
        right[i2] = Outer::new(&sx[SUB], &sx[i2], &sw[SUB], &sw[i2], 1.0);
    }
    let mut best = Best::none();
    for i1 in 0..=SUB {
        let left = Outer::new(&sx[i1], &sx[0], &sw[i1], &sw[0], -1.0);
        for i2 in i1..=SUB {
            let (right, mut up, mut down) = (&right[i2], [[0f32; LANES]; 2], [[0f32; LANES]; 2]);
            for l in 0..LANES {
                // The middle is 0 ± ⅛: a power of two, so that the sign is the only difference.
                let (qx, q2) = ((sx[i2][l] - sx[i1][l]) * 0.125, (sw[i2][l] - sw[i1][l]) * 0.125 * 0.125);
                up[0][l] = left.up[0][l] + qx + right.up[0][l];
                up[1][l] = left.up[1][l] + q2 + right.up[1][l];
                down[0][l] = left.down[0][l] - qx + right.down[0][l];
                down[1][l] = left.down[1][l] + q2 + right.down[1][l];
            }
            best.offer(&up[0], &up[1], iq1::candidate(i1, i2, 0));
            best.offer(&down[0], &down[1], iq1::candidate(i1, i2, 3));
        }
    }
    best
}

/// Σwx and Σw of the least numbers, for each number of them.
#[inline(always)]
fn running_sums(group: &Group<'_, SUB>) -> ([Lane; SUB + 1], [Lane; SUB + 1]) {
    let (mut sx, mut sw) = ([[0f32; LANES]; SUB + 1], [[0f32; LANES]; SUB + 1]);
    for j in 0..SUB {
        for l in 0..LANES {
            let place = group.place(j, l);
            sx[place][l] = group.weight[j][l] * group.x[j][l];
            sw[place][l] = group.weight[j][l];
        }
    }
    iq1::accumulate(&mut sx);
    iq1::accumulate(&mut sw);
    (sx, sw)
}

/// What the run below or above the boundaries adds to Σwqx and Σwq², shifted up or down.
#[derive(Clone, Copy, Default)]
struct Outer {
    up: [Lane; 2],
    down: [Lane; 2],
}

impl Outer {
    #[inline(always)]
    fn new(sx: &Lane, sx_before: &Lane, sw: &Lane, sw_before: &Lane, level: f32) -> Self {
        let (up, down) = (level + 0.125, level - 0.125);
        let mut outer = Outer::default();
        for l in 0..LANES {
            let (wx, w) = (sx[l] - sx_before[l], sw[l] - sw_before[l]);
            outer.up[0][l] = wx * up;
            outer.up[1][l] = w * up * up;
            outer.down[0][l] = wx * down;
            outer.down[1][l] = w * down * down;
        }
        outer
    }
}
