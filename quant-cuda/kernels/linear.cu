// affine and absmax: linear quantization of 2 to 8 bits; see quant-core/src/codec/linear.rs.
#include "groups.cuh"

__device__ __forceinline__ float within(float q, float least, float most)
{
    q = q > least ? q : least;
    return q < most ? q : most;
}

// `setting` is the number of bits, and 256 if 0 is exact.
struct Affine {
    typedef Range Stats;
    struct Step {
        float scale, min;
    };
    static const bool OUTLIERS = false, HIGH_FIRST = false;
    u32 width;
    bool exact_zero;
    float levels;

    __device__ explicit Affine(u32 setting) : width(setting & 0xff), exact_zero(setting >> 8), levels((float)((1u << (setting & 0xff)) - 1)) {}
    __device__ u32 bits() const { return width; }
    __device__ u32 filler() const { return 0; }
    __device__ static void add(Stats& stats, float v) { add_to_range(stats, v, v); }
    __device__ float prepare(float v, bool& bad) const
    {
        bad |= !is_finite(v);
        return v;
    }
    __device__ void params(const Stats& stats, bool, float& p0, float& p1, bool& bad) const
    {
        // Zeros without a sign: which of two is the least depends on the order.
        float min = stats.min == 0.0f ? 0.0f : stats.min, max = stats.max == 0.0f ? 0.0f : stats.max;
        if (exact_zero) {
            min = min < 0.0f ? min : 0.0f;
            max = max > 0.0f ? max : 0.0f;
        }
        p0 = (max - min) / levels;
        p1 = min;
        bad |= !is_finite(p0);
        if (exact_zero && p0 > 0.0f) {
            float zero = rintf(-min / p0);
            zero = zero < levels ? zero : levels;
            p1 = -(zero * p0);
        }
    }
    __device__ Step step(float scale, float min, bool) const { return {scale, min}; }
    __device__ u32 code(const Step& step, float v) const
    {
        return step.scale == 0.0f ? 0 : rounded(within((v - step.min) / step.scale, 0.0f, levels)) & 0xffu;
    }
};

struct Absmax {
    typedef Greatest Stats;
    typedef float Step;
    static const bool OUTLIERS = false, HIGH_FIRST = false;
    u32 width;
    float levels;

    __device__ explicit Absmax(u32 setting) : width(setting), levels((float)((1u << (setting - 1)) - 1)) {}
    __device__ u32 bits() const { return width; }
    __device__ u32 filler() const { return 0; }
    __device__ static void add(Stats& stats, float v) { add_magnitude(stats, v); }
    __device__ float prepare(float v, bool& bad) const
    {
        bad |= !is_finite(v);
        return v;
    }
    __device__ void params(const Stats& stats, bool, float& p0, float&, bool&) const { p0 = stats.max / levels; }
    __device__ Step step(float scale, float, bool) const { return scale; }
    __device__ u32 code(Step scale, float v) const { return scale == 0.0f ? 0 : rounded(within(v / scale, -levels, levels)) & ((1u << width) - 1); }
};

GROUP_KERNELS(affine, Affine)
GROUP_KERNELS(absmax, Absmax)

extern "C" __global__ void __launch_bounds__(256)
    affine_decode(const u8* codes, u32 bits, const float* scales, const float* mins, u32 n, u64 at, u64 group, float* out)
{
    group_decode<false>(codes, bits, n, at, group, out, [=](u8 code, u64 index) { return scales[index] * (float)code + mins[index]; });
}

extern "C" __global__ void __launch_bounds__(256) absmax_decode(const u8* codes, u32 bits, const float* scales, u32 n, u64 at, u64 group, float* out)
{
    const u32 shift = 32 - bits;
    group_decode<false>(codes, bits, n, at, group, out, [=](u8 code, u64 index) { return scales[index] * (float)((int)((u32)code << shift) >> shift); });
}
