// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: a thread takes a block of 32; see quant-core/src/codec/ggml/legacy.rs.
// Derived from ggml 0.25.3, ggml-quants.c (MIT).
#include "blocks.cuh"

const int LEN = 32;

__device__ __forceinline__ float inverse_of(float d) { return d == 0.0f ? 0.0f : 1.0f / d; }

// A number whose low byte is that of floor(v), 0 <= v < 2^22, and 0 for what is not finite.
__device__ __forceinline__ u32 floor_byte(float v)
{
    const float nearest = v + 12582912.0f;
    return nearest != nearest ? 0 : __float_as_uint(nearest) - (nearest - 12582912.0f > v ? 1 : 0);
}

// The same of roundf(v): adding the number just below a half never carries a smaller fraction up.
__device__ __forceinline__ u8 round_byte(float v)
{
    const u32 magnitude = floor_byte(fabsf(v) + __uint_as_float(0x3effffffu));
    return (u8)(v < 0.0f ? 0u - magnitude : magnitude);
}

// Bits of floats as integers in the same order, -0 below 0.
__device__ __forceinline__ int ordered(int bits) { return bits ^ (bits >> 31 & 0x7fffffff); }

__device__ __forceinline__ void extremes(const float (&x)[LEN], float& least, float& greatest)
{
    int low = 0x7fffffff, high = -0x7fffffff - 1;
#pragma unroll
    for (int i = 0; i < LEN; ++i) {
        const int key = ordered(__float_as_int(x[i]));
        low = key < low ? key : low;
        high = key > high ? key : high;
    }
    least = __int_as_float(ordered(low));
    greatest = __int_as_float(ordered(high));
}

// The mean square of each row of a slab of whole rows: a sum from left to right, so a thread takes a row.
extern "C" __global__ void __launch_bounds__(64) row_mean_squares(const void* x, u32 dtype, u32 rows, u64 columns, float* out)
{
    const u32 row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows) return;
    float total = 0.0f;
    for (u64 i = 0; i < columns; ++i) {
        const float v = load(x, dtype, row * columns + i);
        total += v * v;
    }
    out[row] = total / (float)columns;
}

template <int BITS, bool WITH_MIN>
struct Content {
    static const int BYTES = 2 + (WITH_MIN ? 2 : 0) + (BITS == 5 ? 4 : 0) + LEN / 2;
    float d, m;
    u32 low[LEN / 8], fifth;

    // Level i, the low four bits of i and i + 16 in the nibbles of a byte.
    __device__ __forceinline__ void put(int i, u32 level)
    {
        low[i % 16 / 4] |= (level & 15) << (i % 4 * 8 + (i < 16 ? 0 : 4));
        fifth |= (level >> 4 & 1) << i;
    }
};

template <int BITS, bool WITH_MIN>
__device__ __forceinline__ void legacy_encode(const void* x, u32 dtype, u32 blocks, const float* importance, const float* mean_squares, u64 at, u64 columns,
                                              u8* out)
{
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= blocks) return;
    float v[LEN];
    load_finite(x, dtype, (u64)index * LEN, v, out);
    Content<BITS, WITH_MIN> content = {};
    const int half = 1 << (BITS - 1), top = (1 << BITS) - 1;
    if (importance) {
        const float mean_square = mean_squares[(at + (u64)index * LEN) / columns - at / columns];
        float w[LEN];
#pragma unroll
        for (int i = 0; i < LEN; ++i) w[i] = importance[(u64)index * LEN + i] * sqrtf(mean_square + v[i] * v[i]);
        if (WITH_MIN) {
            const Asymmetric found = make_qkx<false>(top, v, w, -0.9f, 0.05f, 36);
            content.d = found.scale;
            content.m = -found.min;
#pragma unroll
            for (int i = 0; i < LEN; ++i) content.put(i, level_of(found, top, v[i]));
        } else {
            const Symmetric found = make_qx<true>(half, v, w);
            content.d = found.scale;
#pragma unroll
            for (int i = 0; i < LEN; ++i) content.put(i, level_of(found, half, v[i]));
        }
    } else if (WITH_MIN) {
        float least, greatest;
        extremes(v, least, greatest);
        if (least == 0.0f) {
            // 0 and -0 are equally small: the first one counts.
#pragma unroll
            for (int i = LEN - 1; i >= 0; --i) least = v[i] == 0.0f ? v[i] : least;
        }
        content.m = least;
        content.d = (greatest - least) / (float)top;
        const float inverse = inverse_of(content.d);
#pragma unroll
        for (int i = 0; i < LEN; ++i) content.put(i, floor_byte((v[i] - least) * inverse + 0.5f) & 0xff);
    } else {
        content.d = signed_max(v) / -(float)half;
        const float inverse = inverse_of(content.d);
#pragma unroll
        for (int i = 0; i < LEN; ++i) {
            const u32 level = floor_byte(v[i] * inverse + ((float)half + 0.5f)) & 0xff;
            content.put(i, level < (u32)top ? level : top);
        }
    }
    u8* block = out + BLOCKS_AT + (u64)index * Content<BITS, WITH_MIN>::BYTES;
    store_u16(block, scale_bits(content.d, out));
    block += 2;
    if (WITH_MIN) {
        store_u16(block, scale_bits(content.m, out));
        block += 2;
    }
    if (BITS == 5) {
        store_u16(block, (u16)content.fifth);
        store_u16(block + 2, (u16)(content.fifth >> 16));
        block += 4;
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) block[i] = (u8)(content.low[i / 4] >> i % 4 * 8);
}

#define LEGACY(NAME, BITS, WITH_MIN)                                                                                                                    \
    extern "C" __global__ void __launch_bounds__(64) NAME##_encode(const void* x, u32 dtype, u32 blocks, const float* importance,                       \
                                                                   const float* mean_squares, u64 at, u64 columns, u8* out)                             \
    {                                                                                                                                                   \
        legacy_encode<BITS, WITH_MIN>(x, dtype, blocks, importance, mean_squares, at, columns, out);                                                    \
    }

LEGACY(q4_0, 4, false)
LEGACY(q4_1, 4, true)
LEGACY(q5_0, 5, false)
LEGACY(q5_1, 5, true)

extern "C" __global__ void __launch_bounds__(64) q8_0_encode(const void* x, u32 dtype, u32 blocks, u8* out)
{
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= blocks) return;
    float v[LEN];
    load_finite(x, dtype, (u64)index * LEN, v, out);
    float greatest = 0.0f;
#pragma unroll
    for (int i = 0; i < LEN; ++i) greatest = fabsf(v[i]) > greatest ? fabsf(v[i]) : greatest;
    const float d = greatest / 127.0f, inverse = inverse_of(d);
    u8* block = out + BLOCKS_AT + (u64)index * 34;
    store_u16(block, scale_bits(d, out));
#pragma unroll
    for (int i = 0; i < LEN; ++i) block[2 + i] = round_byte(v[i] * inverse);
}
