//! The searches for a scale (and a minimum) that ggml's block types share.
//!
//! Each finds, for one (sub-)block, the scale that brings Σ w·(x − x̂)² down among a fixed set of trials. They work on `LANES`
//! independent (sub-)blocks at once: `x[i][lane]` is element `i` of the (sub-)block in `lane`, and each lane sees the
//! operations of the scalar algorithm in their order. Where that one leaves early, a lane keeps what it has.
//!
//! An adopted trial is remembered by its parameters; the levels that follow from them are computed once, at the end.
//!
//! 16 lanes are the surest choice: the vectoriser takes a loop over 16 as a loop, but unrolls one over 8 first and then does not
//! always find the vectors again (`make_qkx` has been seen four times slower so).
//!
//! Source: ggml 0.25.3, ggml-quants.c (MIT), `make_qx_quants` (with `rmse_type` 1), `make_q3_quants` (with `do_rmse`),
//! `make_qkx2_quants`, `make_qkx3_quants`, `make_qp_quants`.

use std::hint::select_unpredictable;

use super::math::{EPS, nearest_int};

/// One value for each lane.
type Lanes<const LANES: usize> = [f32; LANES];

/// What a search for levels from a minimum upwards finds: x ≈ `scale`·level − `min`.
#[derive(Clone, Copy)]
pub(crate) struct Asymmetric<const N: usize, const LANES: usize> {
    pub(crate) scale: Lanes<LANES>,
    /// What is to be subtracted (`the_min` of ggml), usually at least 0.
    pub(crate) min: Lanes<LANES>,
    /// 0 ..= nmax.
    pub(crate) levels: [[i32; LANES]; N],
}

impl<const N: usize, const LANES: usize> Asymmetric<N, LANES> {
    /// All zero: a place to put a result.
    pub(crate) const NONE: Self = Self { scale: [0.0; LANES], min: [0.0; LANES], levels: [[0; LANES]; N] };
}

/// `a` where `choice` says so, else `b`. Never a branch: one in a lane would keep the lanes from sharing a vector.
#[inline(always)]
fn select<T: Copy>(choice: bool, a: T, b: T) -> T {
    select_unpredictable(choice, a, b)
}

/// The nearest integer, ties to even, for |v| ≤ 4194303; what [`nearest_int`] gives, without leaving f32.
#[inline(always)]
fn nearest(v: f32) -> f32 {
    (v + 12_582_912.0) - 12_582_912.0
}

/// `v` within `low ..= high`.
#[inline(always)]
fn clamp(v: f32, low: f32, high: f32) -> f32 {
    let v = select(v < high, v, high);
    select(v > low, v, low)
}

/// In each lane, the first element of the greatest magnitude and that magnitude.
#[inline(always)]
fn signed_max<const N: usize, const LANES: usize>(x: &[Lanes<LANES>; N]) -> (Lanes<LANES>, Lanes<LANES>) {
    let (mut greatest, mut signed) = ([0f32; LANES], [0f32; LANES]);
    for x in x {
        for j in 0..LANES {
            let above = x[j].abs() > greatest[j];
            greatest[j] = select(above, x[j].abs(), greatest[j]);
            signed[j] = select(above, x[j], signed[j]);
        }
    }
    (signed, greatest)
}

/// The symmetric search: x ≈ scale·(level − `nmax`), levels 0 .. 2·`nmax`, 19 trials around −`nmax` for the greatest element.
///
/// A lane without an element of at least [`EPS`] has scale 0 and levels 0. `x` is finite; `w` need not be.
#[inline(always)]
pub(crate) fn make_qx<const N: usize, const LANES: usize>(
    nmax: i32,
    x: &[Lanes<LANES>; N],
    w: &[Lanes<LANES>; N],
) -> (Lanes<LANES>, [[i32; LANES]; N]) {
    symmetric::<N, LANES, true>(nmax, x, w)
}

/// [`make_qx`] for `x` that are scales themselves, which overflow where elements are huge.
#[inline(always)]
pub(crate) fn make_qx_of_scales<const N: usize, const LANES: usize>(
    nmax: i32,
    x: &[Lanes<LANES>; N],
    w: &[Lanes<LANES>; N],
) -> (Lanes<LANES>, [[i32; LANES]; N]) {
    symmetric::<N, LANES, false>(nmax, x, w)
}

#[inline(always)]
fn symmetric<const N: usize, const LANES: usize, const FINITE: bool>(
    nmax: i32,
    x: &[Lanes<LANES>; N],
    w: &[Lanes<LANES>; N],
) -> (Lanes<LANES>, [[i32; LANES]; N]) {
    let (signed, greatest) = signed_max(x);
    let mut wx = [[0f32; LANES]; N];
    for i in 0..N {
        for j in 0..LANES {
            wx[i][j] = w[i][j] * x[i][j];
        }
    }
    let (mut inverse, mut scale, mut best) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
    for j in 0..LANES {
        inverse[j] = -(nmax as f32) / signed[j];
    }
    let (sumlx, suml2) = fit::<N, LANES, FINITE>(nmax, &inverse, x, w, &wx);
    for j in 0..LANES {
        scale[j] = select(suml2[j] != 0.0, sumlx[j] / suml2[j], 0.0);
        best[j] = scale[j] * sumlx[j];
    }
    for step in (-9..=9).filter(|step| *step != 0) {
        let mut tried = [0f32; LANES];
        for j in 0..LANES {
            tried[j] = -(nmax as f32 + 0.1 * step as f32) / signed[j];
        }
        let (sumlx, suml2) = fit::<N, LANES, FINITE>(nmax, &tried, x, w, &wx);
        for j in 0..LANES {
            let better = (suml2[j] > 0.0) & (sumlx[j] * sumlx[j] > best[j] * suml2[j]);
            inverse[j] = select(better, tried[j], inverse[j]);
            scale[j] = select(better, sumlx[j] / suml2[j], scale[j]);
            best[j] = select(better, scale[j] * sumlx[j], best[j]);
        }
    }
    let mut levels = [[0i32; LANES]; N];
    for i in 0..N {
        for j in 0..LANES {
            let level = nearest_int(inverse[j] * x[i][j]).min(nmax - 1).max(-nmax) + nmax;
            levels[i][j] = select(greatest[j] < EPS, 0, level);
        }
    }
    for j in 0..LANES {
        scale[j] = select(greatest[j] < EPS, 0.0, scale[j]);
    }
    (scale, levels)
}

/// Σ w·x·level and Σ w·level² for the levels that `inverse` gives: from finite x, within ±(`nmax` + 1), so that they fit [`nearest`].
#[inline(always)]
fn fit<const N: usize, const LANES: usize, const FINITE: bool>(
    nmax: i32,
    inverse: &Lanes<LANES>,
    x: &[Lanes<LANES>; N],
    w: &[Lanes<LANES>; N],
    wx: &[Lanes<LANES>; N],
) -> (Lanes<LANES>, Lanes<LANES>) {
    let (mut sumlx, mut suml2) = ([0f32; LANES], [0f32; LANES]);
    for i in 0..N {
        for j in 0..LANES {
            let level = inverse[j] * x[i][j];
            let level =
                if FINITE { clamp(nearest(level), -nmax as f32, (nmax - 1) as f32) } else { nearest_int(level).min(nmax - 1).max(-nmax) as f32 };
            sumlx[j] += wx[i][j] * level;
            suml2[j] += w[i][j] * level * level;
        }
    }
    (sumlx, suml2)
}

/// The asymmetric search: x ≈ scale·level − min, levels 0 ..= `nmax`, min ≥ 0, `nstep` + 1 trials.
///
/// Trial `is` puts the greatest element at level `rmin` + `rdelta`·`is` + `nmax`, then fits scale and min to the levels. The error
/// is Σ w·|x − x̂| with `use_mad`, else Σ w·(x − x̂)². Later trials start from the min that was adopted last.
#[inline(always)]
pub(crate) fn make_qkx<const N: usize, const LANES: usize>(
    nmax: i32,
    x: &[Lanes<LANES>; N],
    w: &[Lanes<LANES>; N],
    rmin: f32,
    rdelta: f32,
    nstep: i32,
    use_mad: bool,
) -> Asymmetric<N, LANES> {
    let Totals { mut min, max, sum_w, sum_x } = totals(x, w);
    let (mut scale, mut inverse, mut start) = ([0f32; LANES], [0f32; LANES], min);
    let mut constant = [false; LANES];
    let mut levels = [[0f32; LANES]; N];
    for j in 0..LANES {
        constant[j] = max[j] == min[j];
        inverse[j] = nmax as f32 / (max[j] - min[j]);
        scale[j] = 1.0 / inverse[j];
    }
    assign(nmax, &inverse, &min, x, &mut levels);
    let mut best = error(&scale, &min, &levels, x, w, use_mad);
    let steps = if nstep < 1 { 0 } else { nstep + 1 };
    for step in 0..steps {
        let mut tried = [0f32; LANES];
        for j in 0..LANES {
            tried[j] = (rmin + rdelta * step as f32 + nmax as f32) / (max[j] - min[j]);
        }
        let fit = fit_line(nmax, &tried, &min, x, w, &sum_w, &sum_x, &mut levels);
        let found = error(&fit.scale, &fit.min, &levels, x, w, use_mad);
        for j in 0..LANES {
            let better = fit.sound[j] & (found[j] < best[j]) & !constant[j];
            best[j] = select(better, found[j], best[j]);
            scale[j] = select(better, fit.scale[j], scale[j]);
            inverse[j] = select(better, tried[j], inverse[j]);
            start[j] = select(better, min[j], start[j]);
            min[j] = select(better, fit.min[j], min[j]);
        }
    }
    let mut result = Asymmetric { scale, min, levels: [[0i32; LANES]; N] };
    for j in 0..LANES {
        result.scale[j] = select(constant[j], 0.0, scale[j]);
        result.min[j] = -min[j];
    }
    for (levels, x) in result.levels.iter_mut().zip(x) {
        for j in 0..LANES {
            let level = nearest_int(inverse[j] * (x[j] - start[j])).min(nmax).max(0);
            levels[j] = select(constant[j], 0, level);
        }
    }
    result
}

/// What the asymmetric search needs to know of all elements.
struct Totals<const LANES: usize> {
    /// The least element, or 0 if that is above 0.
    min: Lanes<LANES>,
    max: Lanes<LANES>,
    sum_w: Lanes<LANES>,
    /// Σ w·x.
    sum_x: Lanes<LANES>,
}

#[inline(always)]
fn totals<const N: usize, const LANES: usize>(x: &[Lanes<LANES>; N], w: &[Lanes<LANES>; N]) -> Totals<LANES> {
    let (mut min, mut max, mut sum_w, mut sum_x) = (x[0], x[0], w[0], w[0]);
    for j in 0..LANES {
        sum_x[j] = w[0][j] * x[0][j];
    }
    for (x, w) in x.iter().zip(w).skip(1) {
        for j in 0..LANES {
            min[j] = select(x[j] < min[j], x[j], min[j]);
            max[j] = select(x[j] > max[j], x[j], max[j]);
            sum_w[j] += w[j];
            sum_x[j] += w[j] * x[j];
        }
    }
    for min in &mut min {
        *min = select(*min > 0.0, 0.0, *min);
    }
    Totals { min, max, sum_w, sum_x }
}

/// The levels of `x` counted from `min` in steps of 1/`inverse`.
#[inline(always)]
fn assign<const N: usize, const LANES: usize>(
    nmax: i32,
    inverse: &Lanes<LANES>,
    min: &Lanes<LANES>,
    x: &[Lanes<LANES>; N],
    levels: &mut [Lanes<LANES>; N],
) {
    for i in 0..N {
        for j in 0..LANES {
            levels[i][j] = nearest_int(inverse[j] * (x[i][j] - min[j])).min(nmax).max(0) as f32;
        }
    }
}

/// A line through the levels, by weighted least squares.
struct Line<const LANES: usize> {
    scale: Lanes<LANES>,
    min: Lanes<LANES>,
    /// Whether the levels determine a line.
    sound: [bool; LANES],
}

/// Assigns the levels of one trial and fits x ≈ scale·level + min to them, min ≤ 0.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "what one trial of make_qkx reads")]
fn fit_line<const N: usize, const LANES: usize>(
    nmax: i32,
    inverse: &Lanes<LANES>,
    start: &Lanes<LANES>,
    x: &[Lanes<LANES>; N],
    w: &[Lanes<LANES>; N],
    sum_w: &Lanes<LANES>,
    sum_x: &Lanes<LANES>,
    levels: &mut [Lanes<LANES>; N],
) -> Line<LANES> {
    let (mut sum_l, mut sum_l2, mut sum_xl) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
    for i in 0..N {
        for j in 0..LANES {
            let level = nearest_int(inverse[j] * (x[i][j] - start[j])).min(nmax).max(0) as f32;
            levels[i][j] = level;
            let wl = w[i][j] * level;
            sum_l[j] += wl;
            sum_l2[j] += wl * level;
            sum_xl[j] += wl * x[i][j];
        }
    }
    let mut line = Line { scale: [0f32; LANES], min: [0f32; LANES], sound: [false; LANES] };
    for j in 0..LANES {
        let d = sum_w[j] * sum_l2[j] - sum_l[j] * sum_l[j];
        let scale = (sum_w[j] * sum_xl[j] - sum_x[j] * sum_l[j]) / d;
        let min = (sum_l2[j] * sum_x[j] - sum_l[j] * sum_xl[j]) / d;
        line.sound[j] = d > 0.0;
        line.scale[j] = select(min > 0.0, sum_xl[j] / sum_l2[j], scale);
        line.min[j] = select(min > 0.0, 0.0, min);
    }
    line
}

/// Σ w·|x − x̂| with `use_mad`, else Σ w·(x − x̂)², x̂ being scale·level + min.
#[inline(always)]
fn error<const N: usize, const LANES: usize>(
    scale: &Lanes<LANES>,
    min: &Lanes<LANES>,
    levels: &[Lanes<LANES>; N],
    x: &[Lanes<LANES>; N],
    w: &[Lanes<LANES>; N],
    use_mad: bool,
) -> Lanes<LANES> {
    let mut sum = [0f32; LANES];
    for i in 0..N {
        for j in 0..LANES {
            let diff = scale[j] * levels[i][j] + min[j] - x[i][j];
            sum[j] += w[i][j] * if use_mad { diff.abs() } else { diff * diff };
        }
    }
    sum
}

/// The symmetric search by coordinate descent with weights x²: x ≈ scale·(level − `nmax`), levels 0 .. 2·`nmax`.
///
/// Starts with −`nmax` for the greatest element; at most 5 sweeps move one element at a time where that improves the fit.
/// A lane without an element of at least [`EPS`] has scale 0 and levels 0.
#[inline(always)]
pub(crate) fn make_q3<const N: usize, const LANES: usize>(nmax: i32, x: &[Lanes<LANES>; N]) -> (Lanes<LANES>, [[i32; LANES]; N]) {
    let (signed, greatest) = signed_max(x);
    let (mut w, mut wx, mut levels) = ([[0f32; LANES]; N], [[0f32; LANES]; N], [[0f32; LANES]; N]);
    let (mut sumlx, mut suml2) = ([0f32; LANES], [0f32; LANES]);
    for i in 0..N {
        for j in 0..LANES {
            w[i][j] = x[i][j] * x[i][j];
            wx[i][j] = w[i][j] * x[i][j];
            let inverse = -(nmax as f32) / signed[j];
            let level = clamp(nearest(inverse * x[i][j]), -nmax as f32, (nmax - 1) as f32);
            levels[i][j] = level;
            sumlx[j] += wx[i][j] * level;
            suml2[j] += w[i][j] * level * level;
        }
    }
    for _ in 0..5 {
        let mut changed = [0i32; LANES];
        for i in 0..N {
            for j in 0..LANES {
                let old = levels[i][j];
                let slx = sumlx[j] - wx[i][j] * old;
                let sl2 = suml2[j] - w[i][j] * old * old;
                let new = nearest_int(x[i][j] * sl2 / slx).min(nmax - 1).max(-nmax) as f32;
                let moved = (slx > 0.0) & (new != old);
                let slx = slx + wx[i][j] * new;
                let sl2 = sl2 + w[i][j] * new * new;
                let better = moved & (sl2 > 0.0) & (slx * slx * suml2[j] > sumlx[j] * sumlx[j] * sl2);
                levels[i][j] = select(better, new, old);
                sumlx[j] = select(better, slx, sumlx[j]);
                suml2[j] = select(better, sl2, suml2[j]);
                changed[j] |= better as i32;
            }
        }
        if changed == [0; LANES] {
            break;
        }
    }
    let (mut scale, mut shifted) = ([0f32; LANES], [[0i32; LANES]; N]);
    for j in 0..LANES {
        let zero = greatest[j] < EPS;
        scale[j] = select((suml2[j] > 0.0) & !zero, sumlx[j] / suml2[j], 0.0);
    }
    for i in 0..N {
        for j in 0..LANES {
            shifted[i][j] = select(greatest[j] < EPS, 0, levels[i][j] as i32 + nmax);
        }
    }
    (scale, shifted)
}

/// The search for non-negative values, such as scales: x ≈ scale·level, levels 0 ..= `nmax` (as bytes: a negative one wraps).
///
/// The best of 9 trials that put the greatest element near `nmax`, then at most 5 sweeps of coordinate descent. A lane without an
/// element of at least [`EPS`] has scale 0 and levels 0.
#[inline(always)]
pub(crate) fn make_qp<const N: usize, const LANES: usize>(
    nmax: i32,
    x: &[Lanes<LANES>; N],
    w: &[Lanes<LANES>; N],
) -> (Lanes<LANES>, [[u8; LANES]; N]) {
    let mut max = [0f32; LANES];
    for x in x {
        for j in 0..LANES {
            max[j] = select(max[j] > x[j], max[j], x[j]);
        }
    }
    let inverse = best_inverse(nmax, &max, x, w);
    let mut levels = [[0i32; LANES]; N];
    let (mut sumlx, mut suml2) = ([0f32; LANES], [0f32; LANES]);
    for i in 0..N {
        for j in 0..LANES {
            let level = nearest_int(inverse[j] * x[i][j]).min(nmax);
            levels[i][j] = level & 0xff;
            sumlx[j] += w[i][j] * x[i][j] * level as f32;
            suml2[j] += w[i][j] * level as f32 * level as f32;
        }
    }
    for _ in 0..5 {
        let mut changed = [0i32; LANES];
        for i in 0..N {
            for j in 0..LANES {
                let (x, w, old) = (x[i][j], w[i][j], levels[i][j]);
                let slx = sumlx[j] - w * x * old as f32;
                let sl2 = suml2[j] - w * old as f32 * old as f32;
                let new = nearest_int(x * sl2 / slx).min(nmax);
                let moved = (slx > 0.0) & (sl2 > 0.0) & (new != old);
                let slx = slx + w * x * new as f32;
                let sl2 = sl2 + w * new as f32 * new as f32;
                let better = moved & (slx * slx * suml2[j] > sumlx[j] * sumlx[j] * sl2);
                levels[i][j] = select(better, new & 0xff, old);
                sumlx[j] = select(better, slx, sumlx[j]);
                suml2[j] = select(better, sl2, suml2[j]);
                changed[j] |= better as i32;
            }
        }
        if changed == [0; LANES] {
            break;
        }
    }
    let (mut scale, mut bytes) = ([0f32; LANES], [[0u8; LANES]; N]);
    for j in 0..LANES {
        let zero = max[j] < EPS;
        scale[j] = select((suml2[j] > 0.0) & !zero, sumlx[j] / suml2[j], 0.0);
    }
    for i in 0..N {
        for j in 0..LANES {
            bytes[i][j] = select(max[j] < EPS, 0, levels[i][j] as u8);
        }
    }
    (scale, bytes)
}

/// The inverse scale, of 9 that put `max` near `nmax`, that leaves the least Σ w·(x − x̂)².
#[inline(always)]
fn best_inverse<const N: usize, const LANES: usize>(nmax: i32, max: &Lanes<LANES>, x: &[Lanes<LANES>; N], w: &[Lanes<LANES>; N]) -> Lanes<LANES> {
    let (mut inverse, mut best) = ([0f32; LANES], [0f32; LANES]);
    for j in 0..LANES {
        inverse[j] = nmax as f32 / max[j];
    }
    for i in 0..N {
        for j in 0..LANES {
            // This first trial alone is judged by the stored bytes.
            let level = nearest_int(inverse[j] * x[i][j]) & 0xff;
            let diff = x[i][j] - 1.0 / inverse[j] * level as f32;
            best[j] += w[i][j] * diff * diff;
        }
    }
    for step in (-4..=4).filter(|step| *step != 0) {
        let (mut tried, mut scale, mut found) = ([0f32; LANES], [0f32; LANES], [0f32; LANES]);
        for j in 0..LANES {
            tried[j] = (0.1 * step as f32 + nmax as f32) / max[j];
            scale[j] = 1.0 / tried[j];
        }
        for i in 0..N {
            for j in 0..LANES {
                let diff = x[i][j] - scale[j] * nearest_int(tried[j] * x[i][j]).min(nmax) as f32;
                found[j] += w[i][j] * diff * diff;
            }
        }
        for j in 0..LANES {
            let better = found[j] < best[j];
            best[j] = select(better, found[j], best[j]);
            inverse[j] = select(better, tried[j], inverse[j]);
        }
    }
    inverse
}
