// nf4 and fp4: the 4-bit codebooks, block-wise; see quant-core/src/codec/four_bit.rs. Derived from bitsandbytes 0.50.2 (MIT),
// dQuantizeNF4 and dQuantizeFP4.
#include "dynamic8.cuh"

// A divisor below this, 1e-38, is taken as this in profile cpu.
__device__ __forceinline__ float at_least(float absmax)
{
    const float least = __uint_as_float(0x006ce3eeu);
    return absmax > least ? absmax : least;
}

// Thresholds in ascending order, and the code for each number of them below v.
#define BOOK(NAME, TABLE)                                                                                                                               \
    struct NAME {                                                                                                                                       \
        __device__ static float threshold(u32 i) { return __uint_as_float(TABLE[i]); }                                                                  \
        __device__ static u32 code(u32 passed) { return TABLE##_ORDER[passed]; }                                                                        \
    };

BOOK(Nf4Cuda, NF4_CUDA)
BOOK(Nf4Cpu, NF4_CPU)
BOOK(Fp4Cuda, FP4_CUDA)
BOOK(Fp4Cpu, FP4_CPU)

template <class Book, bool CPU>
struct FourBit {
    typedef Greatest Stats;
    struct Step {
        float absmax, inverse;
        bool full;
    };
    static const bool OUTLIERS = false, HIGH_FIRST = true;

    __device__ explicit FourBit(u32) {}
    __device__ u32 bits() const { return 4; }
    __device__ u32 filler() const { return of(0.0f); }
    __device__ static void add(Stats& stats, float v) { add_magnitude(stats, v); }
    // The CUDA kernels of bitsandbytes are built to take subnormal numbers as zero.
    __device__ float prepare(float v, bool& bad) const
    {
        bad |= !is_finite(v);
        return !CPU && fabsf(v) < MIN_POSITIVE ? 0.0f : v;
    }
    __device__ void params(const Stats& stats, bool full, float& p0, float&, bool&) const { p0 = CPU && !full ? at_least(stats.max) : stats.max; }
    __device__ Step step(float absmax, float, bool full) const
    {
        const float inverse = 1.0f / (CPU ? at_least(absmax) : absmax);
        return {absmax, !CPU && inverse < MIN_POSITIVE ? 0.0f : inverse, full};
    }
    __device__ static u32 of(float v)
    {
        u32 passed = 0;
#pragma unroll
        for (u32 i = 0; i < 15; ++i) passed += v > Book::threshold(i);
        return Book::code(passed);
    }
    __device__ u32 code(const Step& step, float v) const
    {
        if (!CPU && step.absmax == 0.0f) return 0;
        return of(CPU && !step.full ? v / step.absmax : v * step.inverse);
    }
};

typedef FourBit<Nf4Cuda, false> Nf4OfCuda;
typedef FourBit<Nf4Cpu, true> Nf4OfCpu;
typedef FourBit<Fp4Cuda, false> Fp4OfCuda;
typedef FourBit<Fp4Cpu, true> Fp4OfCpu;

GROUP_KERNELS(nf4_cuda, Nf4OfCuda)
GROUP_KERNELS(nf4_cpu, Nf4OfCpu)
GROUP_KERNELS(fp4_cuda, Fp4OfCuda)
GROUP_KERNELS(fp4_cpu, Fp4OfCpu)

extern "C" __global__ void __launch_bounds__(256)
    four_bit_decode(const u8* codes, const float* absmax, const float* book, u32 n, u64 at, u64 group, float* out)
{
    group_decode<true>(codes, 4, n, at, group, out, [=](u8 code, u64 index) { return book[code] * absmax[index]; });
}

// Double quantization of scales, 256 by a warp: less their mean, by the dynamic codebook; see quant-core/src/codec/nested.rs.
template <bool CPU>
__device__ __forceinline__ void nested_scales(const float* scales, u32 n, float offset, u8* codes, float* absmax)
{
    const u32 lane = threadIdx.x % 32, block = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    const u32 begin = block * 256, end = n - begin < 256 ? n : begin + 256;
    if (begin >= n) return;
    Greatest stats;
    for (u32 i = begin + lane; i < end; i += 32) add_magnitude(stats, scales[i] - offset);
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) merge_lanes(stats, distance);
    const Dynamic8<CPU> scheme(0);
    const typename Dynamic8<CPU>::Step step = scheme.step(stats.max, 0.0f, true);
    for (u32 i = begin + lane; i < end; i += 32) codes[i] = (u8)scheme.code(step, scales[i] - offset);
    if (lane == 0) absmax[block] = stats.max;
}

extern "C" __global__ void __launch_bounds__(256) nested_scales_cuda(const float* scales, u32 n, float offset, u8* codes, float* absmax)
{
    nested_scales<false>(scales, n, offset, codes, absmax);
}

extern "C" __global__ void __launch_bounds__(256) nested_scales_cpu(const float* scales, u32 n, float offset, u8* codes, float* absmax)
{
    nested_scales<true>(scales, n, offset, codes, absmax);
}

// `first` is the first block's place among the 256 of its nested block.
extern "C" __global__ void __launch_bounds__(256) nested_decode(const u8* codes, const u8* absmax, const float* book, const float* nested_absmax,
                                                                const float* map, float offset, u32 n, u64 at, u64 group, float* out)
{
    const u64 first = at / group % 256;
    group_decode<true>(codes, 4, n, at, group, out, [=](u8 code, u64 index) {
        const float scale = map[absmax[index]] * nested_absmax[(first + index) / 256] + offset;
        return book[code] * scale;
    });
}
