// Two block quantizers of ggml, and what kernels get wrong, planted into them one by one. A template argument says which bug is in.
#include "../../kernels/quant.cuh"

// Of q8_0: a warp a block of 32. ggml 0.25.3, ggml-quants.c (MIT), `quantize_row_q8_0_ref`.
enum Q8Bug { Q8_GOOD, Q8_TIES_TO_EVEN, Q8_FUSED, Q8_APPROXIMATE, Q8_TRUNCATED_F16, Q8_OFF_BY_ONE, Q8_MISALIGNED, Q8_EXITED, Q8_SHORT_MAXIMUM };

template <Q8Bug BUG>
__device__ __forceinline__ void q8_0(const float* x, u32 n_blocks, u8* out)
{
    const u32 block = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
    if (BUG == Q8_OFF_BY_ONE ? block > n_blocks : block >= n_blocks) return;
    const float v = x[block * 32 + lane];
    if (BUG == Q8_EXITED && v == 0.0f) return;
    u32 greatest = __float_as_uint(v) & 0x7fffffffu;
    for (u32 step = BUG == Q8_SHORT_MAXIMUM ? 8 : 16; step > 0; step /= 2) {
        const u32 other = __shfl_xor_sync(0xffffffffu, greatest, step);
        if (other > greatest) greatest = other;
    }
    const float d = __uint_as_float(greatest) / 127.0f;
    float id = 0.0f;
    if (d != 0.0f) id = BUG == Q8_APPROXIMATE ? __fdividef(1.0f, d) : 1.0f / d;
    // Ties away from zero. Adding the number just below a half never carries a smaller fraction up.
    const float half = 0.49999997f;
    float magnitude = fabsf(v * id) + half;
    if (BUG == Q8_FUSED) magnitude = fmaf(fabsf(v), id, half);
    int q = (int)magnitude;
    if (BUG == Q8_TIES_TO_EVEN) q = __float2int_rn(fabsf(v * id));
    u8* to = out + block * 34;
    to[2 + lane] = (u8)(v < 0.0f ? -q : q);
    if (lane != 0) return;
    const u32 kept = BUG == Q8_TRUNCATED_F16 ? 0xffffe000u : 0xffffffffu;
    const u16 scale = to_f16(__uint_as_float(__float_as_uint(d) & kept));
    if (BUG == Q8_MISALIGNED) *(u32*)to = scale;
    else *(u16*)to = scale;
}

// Of q1_0: a thread an element of a block of 128. ggml 0.25.3, ggml-quants.c (MIT), `quantize_row_q1_0_ref`.
enum Q1Bug { Q1_GOOD, Q1_NO_BARRIER, Q1_NO_LAST_BARRIER, Q1_UNINITIALISED, Q1_DIVERGENT_BARRIER, Q1_SUM_IN_PAIRS, Q1_FLOAT_ATOMIC, Q1_STRICT_SIGN };

template <Q1Bug BUG>
__device__ __forceinline__ void q1_0(const float* x, u8* out)
{
    __shared__ float magnitudes[128];
    __shared__ u32 signs[4];
    __shared__ float sum;
    const u32 i = threadIdx.x;
    const float v = x[blockIdx.x * 128 + i];
    u8* to = out + blockIdx.x * 18;
    if (BUG != Q1_UNINITIALISED || v != 0.0f) magnitudes[i] = fabsf(v);
    const u32 ballot = __ballot_sync(0xffffffffu, BUG == Q1_STRICT_SIGN ? v > 0.0f : v >= 0.0f);
    if (i % 32 == 0) signs[i / 32] = ballot;
    if (BUG == Q1_FLOAT_ATOMIC) {
        if (i == 0) sum = 0.0f;
        __syncthreads();
        atomicAdd(&sum, magnitudes[i]);
    }
    if (BUG == Q1_DIVERGENT_BARRIER) {
        if (i < 64) __syncthreads();
    } else if (BUG != Q1_NO_BARRIER) {
        __syncthreads();
    }
    if (i == 0 && BUG != Q1_FLOAT_ATOMIC) {
        float s = 0.0f;
        if (BUG == Q1_SUM_IN_PAIRS) {
#pragma unroll 1
            for (u32 j = 0; j < 128; j += 2) s += magnitudes[j] + magnitudes[j + 1];
        } else {
#pragma unroll 1
            for (u32 j = 0; j < 128; j++) s += magnitudes[j];
        }
        sum = s;
    }
    if (BUG != Q1_NO_LAST_BARRIER) __syncthreads();
    if (i < 16) to[2 + i] = (u8)(signs[i / 4] >> (i % 4 * 8));
    if (i == 32) *(u16*)to = to_f16(sum / 128.0f);
}

#define Q8(name, BUG)                                                                                                               \
    extern "C" __global__ void __launch_bounds__(128) name(const float* x, u32 n_blocks, u8* out) { q8_0<BUG>(x, n_blocks, out); }

#define Q1(name, BUG)                                                                                                               \
    extern "C" __global__ void __launch_bounds__(128) name(const float* x, u8* out) { q1_0<BUG>(x, out); }

Q8(q8_good, Q8_GOOD)
Q8(q8_ties_to_even, Q8_TIES_TO_EVEN)
Q8(q8_fused, Q8_FUSED)
Q8(q8_approximate, Q8_APPROXIMATE)
Q8(q8_truncated_f16, Q8_TRUNCATED_F16)
Q8(q8_off_by_one, Q8_OFF_BY_ONE)
Q8(q8_misaligned, Q8_MISALIGNED)
Q8(q8_exited, Q8_EXITED)
Q8(q8_short_maximum, Q8_SHORT_MAXIMUM)
Q1(q1_good, Q1_GOOD)
Q1(q1_no_barrier, Q1_NO_BARRIER)
Q1(q1_no_last_barrier, Q1_NO_LAST_BARRIER)
Q1(q1_uninitialised, Q1_UNINITIALISED)
Q1(q1_divergent_barrier, Q1_DIVERGENT_BARRIER)
Q1(q1_sum_in_pairs, Q1_SUM_IN_PAIRS)
Q1(q1_float_atomic, Q1_FLOAT_ATOMIC)
Q1(q1_strict_sign, Q1_STRICT_SIGN)
