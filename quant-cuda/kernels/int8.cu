// int8: the weights of LLM.int8(), one scale a row; see quant-core/src/codec/int8.rs. Derived from bitsandbytes 0.50.2 (MIT),
// int8_vectorwise_quant.
#include "groups.cuh"

struct Int8 {
    typedef Greatest Stats;
    struct Step {
        float absmax, scale;
    };
    static const bool OUTLIERS = true, HIGH_FIRST = false;

    __device__ explicit Int8(u32) {}
    __device__ u32 bits() const { return 8; }
    __device__ u32 filler() const { return 0; }
    __device__ static void add(Stats& stats, float v) { add_magnitude(stats, v); }
    // Rounded to f16, which holds nothing of this magnitude.
    __device__ float prepare(float v, bool& bad) const
    {
        const bool fits = fabsf(v) < 65520.0f;
        bad |= !fits;
        return from_f16(to_f16(v));
    }
    __device__ void params(const Stats& stats, bool, float& p0, float&, bool&) const { p0 = stats.max; }
    __device__ Step step(float absmax, float, bool) const { return {absmax, 127.0f * (1.0f / absmax)}; }
    __device__ u32 code(const Step& step, float v) const { return step.absmax == 0.0f ? 0 : rounded(v * step.scale) & 0xffu; }
};

GROUP_KERNELS(int8, Int8)

extern "C" __global__ void __launch_bounds__(256) int8_decode(const u8* codes, const float* absmax, u32 n, u64 at, u64 group, float* out)
{
    group_decode<false>(codes, 8, n, at, group, out, [=](u8 code, u64 index) { return (float)(signed char)code * absmax[index] * 7.874016e-3f; });
}
