// The searches for a scale (and a minimum) that ggml's block types share: one lane for each (sub-)block, every operation in the order of
// quant-core/src/codec/ggml/search.rs. Derived from ggml 0.25.3, ggml-quants.c (MIT).
//
// Arrays are indexed by constants only once loops are unrolled, so they stay in registers. Levels that a trial gives are computed again
// where they are needed again: that costs less than to keep them.
#pragma once

#include "quant.cuh"

// Scales below this are taken for zero.
const float EPS = 1e-15f;

// The nearest integer, ties to even, for |v| <= 4194303; beyond that what ggml's nearest_int gives, also for NaN, whose bits are the
// processor's own.
__device__ __forceinline__ int nearest_int(float v)
{
    const float sum = v + 12582912.0f;
    return sum != sum ? 0 : (int)(__float_as_uint(sum) & 0x7fffffu) - 0x400000;
}

__device__ __forceinline__ float nearest(float v) { return (v + 12582912.0f) - 12582912.0f; }

__device__ __forceinline__ int clamp(int v, int low, int high)
{
    v = v < high ? v : high;
    return v > low ? v : low;
}

__device__ __forceinline__ float clamp(float v, float low, float high)
{
    v = v < high ? v : high;
    return v > low ? v : low;
}

// The first element of the greatest magnitude, or 0.
template <int N>
__device__ __forceinline__ float signed_max(const float (&x)[N])
{
    float greatest = 0.0f, found = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const bool above = fabsf(x[i]) > greatest;
        greatest = above ? fabsf(x[i]) : greatest;
        found = above ? x[i] : found;
    }
    return found;
}

// The sum, from the first to the last.
template <int N>
__device__ __forceinline__ float sum(const float (&x)[N])
{
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) total += x[i];
    return total;
}

// x = scale * (level - nmax), levels from 0 to 2 nmax - 1.
struct Symmetric {
    float scale, inverse;
    bool zero;
};

template <bool FINITE>
__device__ __forceinline__ float symmetric_level(int nmax, float v)
{
    return FINITE ? clamp(nearest(v), (float)-nmax, (float)(nmax - 1)) : (float)clamp(nearest_int(v), -nmax, nmax - 1);
}

template <bool FINITE, int N>
__device__ __forceinline__ void fit_symmetric(int nmax, float inverse, const float (&x)[N], const float (&w)[N], float& sumlx, float& suml2)
{
    sumlx = suml2 = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const float level = symmetric_level<FINITE>(nmax, inverse * x[i]);
        sumlx += w[i] * x[i] * level;
        suml2 += w[i] * level * level;
    }
}

// 19 trials around -nmax for the greatest element. FINITE: x are numbers, not scales, which may overflow.
template <bool FINITE, int N>
__device__ __forceinline__ Symmetric make_qx(int nmax, const float (&x)[N], const float (&w)[N])
{
    const float greatest = signed_max(x);
    Symmetric found;
    found.zero = fabsf(greatest) < EPS;
    found.inverse = -(float)nmax / greatest;
    float sumlx, suml2;
    fit_symmetric<FINITE>(nmax, found.inverse, x, w, sumlx, suml2);
    found.scale = suml2 != 0.0f ? sumlx / suml2 : 0.0f;
    float best = found.scale * sumlx;
#pragma unroll 1
    for (int step = -9; step <= 9; ++step) {
        if (step == 0) continue;
        const float tried = -((float)nmax + 0.1f * (float)step) / greatest;
        fit_symmetric<FINITE>(nmax, tried, x, w, sumlx, suml2);
        if (suml2 > 0.0f && sumlx * sumlx > best * suml2) {
            found.inverse = tried;
            found.scale = sumlx / suml2;
            best = found.scale * sumlx;
        }
    }
    if (found.zero) found.scale = 0.0f;
    return found;
}

// The level of an element, plus nmax.
__device__ __forceinline__ int level_of(const Symmetric& found, int nmax, float x)
{
    return found.zero ? 0 : clamp(nearest_int(found.inverse * x), -nmax, nmax - 1) + nmax;
}

// x = scale * level - min, levels from 0 to nmax.
struct Asymmetric {
    float scale, min, inverse, start;
    bool constant;
};

__device__ __forceinline__ int asymmetric_level(int nmax, float inverse, float start, float x) { return clamp(nearest_int(inverse * (x - start)), 0, nmax); }

__device__ __forceinline__ int level_of(const Asymmetric& found, int nmax, float x)
{
    return found.constant ? 0 : asymmetric_level(nmax, found.inverse, found.start, x);
}

// The weighted error of levels made with `inverse` and `start`.
template <bool MAD, int N>
__device__ __forceinline__ float line_error(int nmax, float scale, float min, float inverse, float start, const float (&x)[N], const float (&w)[N])
{
    float total = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const float diff = scale * (float)asymmetric_level(nmax, inverse, start, x[i]) + min - x[i];
        total += w[i] * (MAD ? fabsf(diff) : diff * diff);
    }
    return total;
}

// nstep + 1 trials that put the greatest element at level rmin + rdelta * step + nmax, each fitted by weighted least squares.
template <bool MAD, int N>
__device__ __forceinline__ Asymmetric make_qkx(int nmax, const float (&x)[N], const float (&w)[N], float rmin, float rdelta, int nstep)
{
    float min = x[0], max = x[0], sum_w = w[0], sum_x = w[0] * x[0];
#pragma unroll
    for (int i = 1; i < N; ++i) {
        min = x[i] < min ? x[i] : min;
        max = x[i] > max ? x[i] : max;
        sum_w += w[i];
        sum_x += w[i] * x[i];
    }
    min = min > 0.0f ? 0.0f : min;
    Asymmetric found;
    found.constant = max == min;
    found.inverse = (float)nmax / (max - min);
    found.scale = 1.0f / found.inverse;
    found.start = min;
    float best = line_error<MAD>(nmax, found.scale, min, found.inverse, min, x, w);
#pragma unroll 1
    for (int step = 0; step <= nstep; ++step) {
        const float tried = (rmin + rdelta * (float)step + (float)nmax) / (max - min);
        float sum_l = 0.0f, sum_l2 = 0.0f, sum_xl = 0.0f;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float level = (float)asymmetric_level(nmax, tried, min, x[i]), wl = w[i] * level;
            sum_l += wl;
            sum_l2 += wl * level;
            sum_xl += wl * x[i];
        }
        const float d = sum_w * sum_l2 - sum_l * sum_l;
        float scale = (sum_w * sum_xl - sum_x * sum_l) / d, this_min = (sum_l2 * sum_x - sum_l * sum_xl) / d;
        if (this_min > 0.0f) {
            scale = sum_xl / sum_l2;
            this_min = 0.0f;
        }
        const float error = line_error<MAD>(nmax, scale, this_min, tried, min, x, w);
        if (d > 0.0f && error < best && !found.constant) {
            best = error;
            found.scale = scale;
            found.inverse = tried;
            found.start = min;
            min = this_min;
        }
    }
    if (found.constant) found.scale = 0.0f;
    found.min = -min;
    return found;
}

// Coordinate descent with weights x * x, at most 5 sweeps; levels from -nmax to nmax - 1 are left in `levels`, plus nmax.
template <int N>
__device__ __forceinline__ float make_q3(int nmax, const float (&x)[N], int (&levels)[N])
{
    const float greatest = signed_max(x);
    float level_f[N], sumlx = 0.0f, suml2 = 0.0f;
    const float inverse = -(float)nmax / greatest;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const float w = x[i] * x[i];
        level_f[i] = symmetric_level<true>(nmax, inverse * x[i]);
        sumlx += w * x[i] * level_f[i];
        suml2 += w * level_f[i] * level_f[i];
    }
#pragma unroll 1
    for (int sweep = 0; sweep < 5; ++sweep) {
        bool changed = false;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float w = x[i] * x[i], wx = w * x[i], old = level_f[i];
            float slx = sumlx - wx * old, sl2 = suml2 - w * old * old;
            const float level = (float)clamp(nearest_int(x[i] * sl2 / slx), -nmax, nmax - 1);
            const bool moved = slx > 0.0f && level != old;
            slx = slx + wx * level;
            sl2 = sl2 + w * level * level;
            if (moved && sl2 > 0.0f && slx * slx * suml2 > sumlx * sumlx * sl2) {
                level_f[i] = level;
                sumlx = slx;
                suml2 = sl2;
                changed = true;
            }
        }
        if (!changed) break;
    }
    const bool zero = fabsf(greatest) < EPS;
#pragma unroll
    for (int i = 0; i < N; ++i) levels[i] = zero ? 0 : (int)level_f[i] + nmax;
    return suml2 > 0.0f && !zero ? sumlx / suml2 : 0.0f;
}

// x = scale * level for non-negative x, such as scales; levels from 0 to nmax, as bytes.
template <int N>
__device__ __forceinline__ float make_qp(int nmax, const float (&x)[N], const float (&w)[N], u8 (&codes)[N])
{
    float max = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) max = max > x[i] ? max : x[i];
    float inverse = (float)nmax / max, best = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        // This first trial alone is judged by the stored bytes.
        const float diff = x[i] - 1.0f / inverse * (float)(nearest_int(inverse * x[i]) & 0xff);
        best += w[i] * diff * diff;
    }
#pragma unroll 1
    for (int step = -4; step <= 4; ++step) {
        if (step == 0) continue;
        const float tried = (0.1f * (float)step + (float)nmax) / max, scale = 1.0f / tried;
        float found = 0.0f;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const int level = nearest_int(tried * x[i]);
            const float diff = x[i] - scale * (float)(level < nmax ? level : nmax);
            found += w[i] * diff * diff;
        }
        if (found < best) {
            best = found;
            inverse = tried;
        }
    }
    int levels[N];
    float sumlx = 0.0f, suml2 = 0.0f;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        int level = nearest_int(inverse * x[i]);
        level = level < nmax ? level : nmax;
        levels[i] = level & 0xff;
        sumlx += w[i] * x[i] * (float)level;
        suml2 += w[i] * (float)level * (float)level;
    }
#pragma unroll 1
    for (int sweep = 0; sweep < 5; ++sweep) {
        bool changed = false;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float old = (float)levels[i];
            float slx = sumlx - w[i] * x[i] * old, sl2 = suml2 - w[i] * old * old;
            int level = nearest_int(x[i] * sl2 / slx);
            level = level < nmax ? level : nmax;
            const bool moved = slx > 0.0f && sl2 > 0.0f && level != levels[i];
            slx = slx + w[i] * x[i] * (float)level;
            sl2 = sl2 + w[i] * (float)level * (float)level;
            if (moved && slx * slx * suml2 > sumlx * sumlx * sl2) {
                levels[i] = level & 0xff;
                sumlx = slx;
                suml2 = sl2;
                changed = true;
            }
        }
        if (!changed) break;
    }
    const bool zero = max < EPS;
#pragma unroll
    for (int i = 0; i < N; ++i) codes[i] = zero ? 0 : (u8)levels[i];
    return suml2 > 0.0f && !zero ? sumlx / suml2 : 0.0f;
}
