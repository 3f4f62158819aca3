// IQ4_NL and IQ4_XS: a thread takes a (sub-)block of 32; see quant-core/src/codec/ggml/iq4.rs. Derived from ggml 0.25.3, ggml-quants.c (MIT).
//
// quant-core knows for each element between which two values it can fall in all tries. Here each try looks for the nearest value anew,
// which gives the same.
#include "blocks.cuh"

const int SUB = 32, SUPER = 256;

__device__ __forceinline__ float bound(int i) { return __uint_as_float(IQ4_BOUNDS[i]); }
__device__ __forceinline__ float iq4_value(int i) { return __uint_as_float(IQ4_VALUES[i]); }

__device__ __forceinline__ float nearest_value(float v)
{
    float q = iq4_value(0);
#pragma unroll
    for (int i = 0; i < 15; ++i) q = v < bound(i) ? q : iq4_value(i + 1);
    return q;
}

__device__ __forceinline__ u32 nearest_code(float v)
{
    u32 code = 15;
#pragma unroll
    for (int i = 0; i < 15; ++i) code -= v < bound(i);
    return code;
}

__device__ __forceinline__ float reciprocal(float scale) { return scale != 0.0f ? 1.0f / scale : 0.0f; }

__device__ __forceinline__ void fit(float inverse, const float (&x)[SUB], const float (&w)[SUB], float& qx, float& q2)
{
    qx = q2 = 0.0f;
#pragma unroll
    for (int i = 0; i < SUB; ++i) {
        const float q = nearest_value(inverse * x[i]), wq = w[i] * q;
        qx += wq * x[i];
        q2 += wq * q;
    }
}

// The scale that leaves the least weighted error: with the greatest magnitude at 127, or at -134 to -120.
__device__ __forceinline__ float best_scale(const float (&x)[SUB], const float (&w)[SUB])
{
    const float max = signed_max(x);
    float qx, q2;
    fit(1.0f / (max / 127.0f), x, w, qx, q2);
    float scale = q2 > 0.0f ? qx / q2 : 0.0f, score = scale * qx;
#pragma unroll 1
    for (int target = -134; target <= -120; ++target) {
        fit((float)target / max, x, w, qx, q2);
        if (q2 > 0.0f && qx * qx > score * q2) {
            scale = qx / q2;
            score = scale * qx;
        }
    }
    return fabsf(max) < EPS ? 0.0f : scale;
}

__device__ __forceinline__ void weigh(const float* importance, u64 first, float sigma2, const float (&x)[SUB], float (&w)[SUB])
{
#pragma unroll
    for (int i = 0; i < SUB; ++i) w[i] = importance ? importance[first + i] * sqrtf(sigma2 + x[i] * x[i]) : x[i] * x[i];
}

__device__ __forceinline__ void put_codes(const float (&x)[SUB], float inverse, u8* qs)
{
#pragma unroll
    for (int i = 0; i < SUB / 2; ++i) qs[i] = (u8)(nearest_code(inverse * x[i]) | nearest_code(inverse * x[i + SUB / 2]) << 4);
}

extern "C" __global__ void __launch_bounds__(64) iq4_nl_encode(const void* x, u32 dtype, u32 blocks, const float* importance, u8* out)
{
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= blocks) return;
    const u64 first = (u64)index * SUB;
    float v[SUB], w[SUB];
    load_finite(x, dtype, first, v, out);
    float sum_x2 = 0.0f;
#pragma unroll
    for (int i = 0; i < SUB; ++i) sum_x2 += v[i] * v[i];
    weigh(importance, first, sum_x2 * (2.0f / (float)SUB), v, w);
    const float scale = best_scale(v, w);
    u8* block = out + BLOCKS_AT + (u64)index * 18;
    store_u16(block, scale_bits(scale, out));
    put_codes(v, reciprocal(scale), block + 2);
}

extern "C" __global__ void __launch_bounds__(64) iq4_xs_encode(const void* x, u32 dtype, u32 supers, const float* importance, u8* out)
{
    __shared__ float all[8][8];
    const u32 sub = threadIdx.x % 8, in_block = threadIdx.x / 8;
    u64 index = (u64)blockIdx.x * 8 + in_block;
    const bool active = index < supers;
    // Threads beyond the last super-block do its work again, so that all meet at the barrier.
    if (!active) index = supers - 1;
    const u64 first = index * SUPER + sub * SUB;
    float v[SUB], w[SUB];
    load_finite(x, dtype, first, v, out);
    float sum_x2 = 0.0f;
    if (importance) {
        for (int i = 0; i < SUPER; ++i) {
            const float x_i = load(x, dtype, index * SUPER + i);
            sum_x2 += x_i * x_i;
        }
    }
    weigh(importance, first, sum_x2 * (2.0f / (float)SUPER), v, w);
    all[in_block][sub] = best_scale(v, w);
    __syncthreads();
    float scales[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) scales[i] = all[in_block][i];
    const float d = -signed_max(scales) / 32.0f, inverse = reciprocal(d);
    u32 low = 0, high = 0;
    int own = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const int l = clamp(nearest_int(inverse * scales[i]), -32, 31);
        own = i == sub ? l : own;
        low |= ((u32)(l + 32) & 0xf) << 4 * i;
        high |= (u32)(l + 32) >> 4 << 2 * i;
    }
    if (!active) return;
    u8* block = out + BLOCKS_AT + index * 136;
    if (sub == 0) {
        store_u16(block, scale_bits(d, out));
        store_u16(block + 2, (u16)high);
        store_u16(block + 4, (u16)low);
        store_u16(block + 6, (u16)(low >> 16));
    }
    put_codes(v, reciprocal(d * (float)own), block + 8 + sub * (SUB / 2));
}
