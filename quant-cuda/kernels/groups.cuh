// Scaled groups: parameters a group of elements, then a code an element. What quant-core/src/codec/groups.rs does for a slab.
//
// A scheme is a struct with
//   Stats, add(stats, v), merge(stats, other)   what a group is measured for; the order does not matter
//   prepare(v, bad)                             what is quantized for v; sets `bad` for what the scheme cannot hold
//   params(stats, full, p0, p1, bad)            the stored parameters of a group; `full` is false for a last, short group
//   Step, step(p0, p1, full)                    what all elements of a group need
//   code(step, v)                               the code of a prepared element
//   bits(), HIGH_FIRST, filler()                how codes lie in bytes
//   OUTLIERS                                    whether columns with a magnitude of 6 or more are told
//
// Codes are packed eight at a time: that many fill whole bytes whatever their width.
#pragma once

#include "quant.cuh"

// The start of the output: the slab is left to the CPU; a column is an outlier.
enum Head : u32 { HEAD_REFUSED = 0, HEAD_OUTLIERS = 1 };

// Columns from this one on are not told apart.
const u64 COLUMN_LIMIT = 1 << 20;

const float INFINITE = __builtin_huge_valf();
const float MIN_POSITIVE = 0x1p-126f;

struct Greatest {
    float max;
    __device__ Greatest() : max(0.0f) {}
};

__device__ __forceinline__ void add_magnitude(Greatest& stats, float v)
{
    const float magnitude = fabsf(v);
    if (magnitude > stats.max) stats.max = magnitude;
}

__device__ __forceinline__ void merge_lanes(Greatest& stats, int distance)
{
    add_magnitude(stats, __shfl_xor_sync(0xffffffffu, stats.max, distance));
}

struct Range {
    float min, max;
    __device__ Range() : min(INFINITE), max(-INFINITE) {}
};

__device__ __forceinline__ void add_to_range(Range& stats, float min, float max)
{
    if (min < stats.min) stats.min = min;
    if (max > stats.max) stats.max = max;
}

__device__ __forceinline__ void merge_lanes(Range& stats, int distance)
{
    const float min = __shfl_xor_sync(0xffffffffu, stats.min, distance);
    const float max = __shfl_xor_sync(0xffffffffu, stats.max, distance);
    add_to_range(stats, min, max);
}

__device__ __forceinline__ Greatest known_stats(const float* pair, Greatest)
{
    Greatest stats;
    stats.max = pair[1];
    return stats;
}

__device__ __forceinline__ Range known_stats(const float* pair, Range)
{
    Range stats;
    stats.min = pair[0];
    stats.max = pair[1];
    return stats;
}

__device__ __forceinline__ void merge_warps(Greatest& stats, Greatest other) { add_magnitude(stats, other.max); }
__device__ __forceinline__ void merge_warps(Range& stats, Range other) { add_to_range(stats, other.min, other.max); }

// The parameters of the groups that a slab touches. A warp takes a group; if `wide`, a whole block does. `known` has the statistics of
// these groups where they are longer than a slab.
template <class Scheme>
__device__ __forceinline__ void group_params(const Scheme& scheme, const void* x, u32 dtype, u32 n, u64 at, u64 group, u64 total, const float* known,
                                             u32 wide, float* p0, float* p1, u32* head)
{
    typedef typename Scheme::Stats Stats;
    __shared__ float shared[8 * 2];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u64 index = wide ? blockIdx.x : blockIdx.x * (blockDim.x / 32) + warp;
    const u64 begin = (at / group + index) * group;
    if (begin >= at + n) return;
    Stats stats;
    bool bad = false;
    if (known) {
        stats = known_stats(known + 2 * index, stats);
    } else {
        const u64 end = (begin + group < at + n ? begin + group : at + n) - at;
        const u32 lanes = wide ? blockDim.x : 32;
        for (u64 i = begin - at + (wide ? threadIdx.x : lane); i < end; i += lanes) Scheme::add(stats, scheme.prepare(load(x, dtype, i), bad));
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2) merge_lanes(stats, distance);
        if (wide) {
            Stats* of_warps = (Stats*)shared;
            if (lane == 0) of_warps[warp] = stats;
            __syncthreads();
            for (u32 other = 0; other < blockDim.x / 32; ++other) merge_warps(stats, of_warps[other]);
        }
    }
    if (wide ? threadIdx.x == 0 : lane == 0) {
        const bool full = begin + group <= total;
        float a = 0.0f, b = 0.0f;
        scheme.params(stats, full, a, b, bad);
        p0[index] = a;
        if (p1) p1[index] = b;
    }
    if (bad) refuse(head + HEAD_REFUSED);
}

// The codes of a slab, eight by a thread.
template <class Scheme>
__device__ __forceinline__ void group_codes(const Scheme& scheme, const void* x, u32 dtype, u32 n, u64 at, u64 group, u64 total, const float* p0,
                                            const float* p1, u8* out, u32* head, u32* outliers)
{
    const u64 item = (u64)blockIdx.x * blockDim.x + threadIdx.x, start = item * 8;
    if (start >= n) return;
    const u32 count = n - start < 8 ? (u32)(n - start) : 8, bits = scheme.bits();
    const u64 first = at / group;
    u64 index = (at + start) / group, next = (index + 1) * group;
    bool bad = false;
    typename Scheme::Step step = scheme.step(p0[index - first], p1 ? p1[index - first] : 0.0f, next <= total);
    u64 word = 0;
#pragma unroll
    for (u32 j = 0; j < 8; ++j) {
        if (j >= count) continue;
        if (at + start + j >= next) {
            ++index;
            next += group;
            step = scheme.step(p0[index - first], p1 ? p1[index - first] : 0.0f, next <= total);
        }
        const float v = scheme.prepare(load(x, dtype, start + j), bad);
        if (Scheme::OUTLIERS && fabsf(v) >= 6.0f) {
            // Such groups are rows.
            const u64 column = at + start + j + group - next, place = column < COLUMN_LIMIT ? column : COLUMN_LIMIT;
            atomicOr(outliers + place / 32, 1u << place % 32);
            head[HEAD_OUTLIERS] = 1;
        }
        const u64 code = scheme.code(step, v);
        word |= code << (Scheme::HIGH_FIRST ? (j ^ 1) * 4 : j * bits);
    }
    if (bad) refuse(head + HEAD_REFUSED);
    if (Scheme::HIGH_FIRST && count % 2 == 1) word |= (u64)scheme.filler() << (count - 1) * 4;
    out += item * bits;
    const u32 n_bytes = (count * bits + 7) / 8;
    if (count == 8 && bits == 8) {
        *(u64*)out = word;
    } else if (count == 8 && bits == 4) {
        *(u32*)out = (u32)word;
    } else {
        for (u32 i = 0; i < n_bytes; ++i) out[i] = (u8)(word >> 8 * i);
    }
}

// The eight codes from byte `item * bits` on, of which there are `count`.
__device__ __forceinline__ u64 packed(const u8* codes, u64 item, u32 bits, u32 count)
{
    const u32 n_bytes = (count * bits + 7) / 8;
    u64 word = 0;
    for (u32 i = 0; i < n_bytes; ++i) word |= (u64)codes[item * bits + i] << 8 * i;
    return word;
}

// Code j of eight.
template <bool HIGH_FIRST>
__device__ __forceinline__ u8 unpacked(u64 word, u32 j, u32 bits)
{
    return (u8)(word >> (HIGH_FIRST ? (j ^ 1) * 4 : j * bits) & ((1u << bits) - 1));
}

// Decodes the elements from `at` on, a multiple of eight. `value(code, group)` is the number of a code, groups being counted from the first.
template <bool HIGH_FIRST, class Value>
__device__ __forceinline__ void group_decode(const u8* codes, u32 bits, u32 n, u64 at, u64 group, float* out, Value value)
{
    const u64 item = (u64)blockIdx.x * blockDim.x + threadIdx.x, start = item * 8;
    if (start >= n) return;
    const u32 count = n - start < 8 ? (u32)(n - start) : 8;
    const u64 first = at / group, word = packed(codes, item, bits, count);
    u64 index = (at + start) / group, next = (index + 1) * group;
#pragma unroll
    for (u32 j = 0; j < 8; ++j) {
        if (j >= count) continue;
        if (at + start + j >= next) {
            ++index;
            next += group;
        }
        out[start + j] = value(unpacked<HIGH_FIRST>(word, j, bits), index - first);
    }
}

#define GROUP_KERNELS(NAME, SCHEME)                                                                                                                     \
    extern "C" __global__ void __launch_bounds__(256) NAME##_params(const void* x, u32 dtype, u32 n, u64 at, u64 group, u64 total, u32 setting,         \
                                                                    const float* known, u32 wide, float* p0, float* p1, u32* head)                      \
    {                                                                                                                                                   \
        group_params(SCHEME(setting), x, dtype, n, at, group, total, known, wide, p0, p1, head);                                                        \
    }                                                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(256)                                                                                                   \
        NAME##_codes(const void* x, u32 dtype, u32 n, u64 at, u64 group, u64 total, u32 setting, const float* p0, const float* p1, u8* out, u32* head,  \
                     u32* outliers)                                                                                                                     \
    {                                                                                                                                                   \
        group_codes(SCHEME(setting), x, dtype, n, at, group, total, p0, p1, out, head, outliers);                                              \
    }
