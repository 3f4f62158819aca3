// The dynamic 8-bit codebook; see quant-core/src/codec/dynamic8.rs. Derived from bitsandbytes 0.50.2 (MIT), dQuantize.
#pragma once

#include "groups.cuh"

__device__ __forceinline__ float midpoint(u32 i) { return __uint_as_float(DYNAMIC8_MIDPOINTS[i]); }

// How many of the 255 midpoints, in ascending order, are below v.
__device__ __forceinline__ u32 midpoints_below(float v)
{
    u32 below = 0;
#pragma unroll
    for (u32 step = 128; step > 0; step /= 2) {
        if (below + step <= 255 && midpoint(below + step - 1) < v) below += step;
    }
    return below;
}

// The nearest entry, an exact midpoint to the even index.
__device__ __forceinline__ u32 nearest_entry(float v)
{
    const u32 below = midpoints_below(v);
    const bool tie = below < 255 && midpoint(below) == v;
    return below + (tie && below % 2 == 1 ? 1 : 0);
}

// Of 65 536 steps over [-1, 1] the nearest one's number of midpoints.
__device__ __forceinline__ u32 stepped_entry(float v)
{
    v = v < -1.0f ? -1.0f : v;
    v = v > 1.0f ? 1.0f : v;
    const float half = (v + 1.0f) * 0.5f;
    const u32 step = (u32)__double2float_rn((double)half * 65535.0 + 0.5) & 0xffffu;
    return midpoints_below(-1.0f + 2.0f * (float)step / 65535.0f);
}

template <bool CPU>
struct Dynamic8 {
    typedef Greatest Stats;
    struct Step {
        float absmax, inverse;
    };
    static const bool OUTLIERS = false, HIGH_FIRST = false;

    __device__ explicit Dynamic8(u32) {}
    __device__ u32 bits() const { return 8; }
    __device__ u32 filler() const { return 0; }
    __device__ static void add(Stats& stats, float v) { add_magnitude(stats, v); }
    __device__ float prepare(float v, bool& bad) const
    {
        bad |= !is_finite(v);
        return v;
    }
    __device__ void params(const Stats& stats, bool, float& p0, float&, bool&) const { p0 = stats.max; }
    __device__ Step step(float absmax, float, bool) const { return {absmax, 1.0f / absmax}; }
    __device__ u32 code(const Step& step, float v) const
    {
        if (step.absmax == 0.0f) return 0;
        return CPU ? stepped_entry(v * step.inverse) : nearest_entry(v * step.inverse);
    }
};
