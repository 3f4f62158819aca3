// Q2_K to Q6_K: a thread takes a sub-block, 8 or 16 of them a super-block of 256; see quant-core/src/codec/ggml/k_scales.rs and q2_k.rs to
// q6_k.rs. Derived from ggml 0.25.3, ggml-quants.c (MIT).
#include "blocks.cuh"

const int QK_K = 256;
const int THREADS = 64;

// What the threads of a super-block tell each other.
template <int SUBS>
struct Shared {
    float scale[SUBS], min[SUBS], sum_w[SUBS];
    float d, dmin;
    u16 d_bits, dmin_bits;
    u8 ls[SUBS], lm[SUBS];
    u8 packed[16];
    u8 levels[QK_K];
};

// Where a thread works. Threads beyond the last super-block do the work of the last one again, so that all meet at the barriers.
template <int SUBS>
struct Place {
    static const int N = QK_K / SUBS, SUPERS = THREADS / SUBS;
    u32 sub, in_block;
    u64 index;
    bool active;

    __device__ __forceinline__ explicit Place(u32 supers) : sub(threadIdx.x % SUBS), in_block(threadIdx.x / SUBS)
    {
        index = (u64)blockIdx.x * SUPERS + in_block;
        active = index < supers;
        if (!active) index = supers - 1;
    }
    __device__ __forceinline__ u64 first() const { return index * QK_K + sub * N; }
};

template <int N>
__device__ __forceinline__ void weigh(const float* importance, u64 first, float sigma2, const float (&x)[N], float (&w)[N])
{
#pragma unroll
    for (int i = 0; i < N; ++i) w[i] = importance[first + i] * sqrtf(sigma2 + x[i] * x[i]);
}

// The sum of squares of a super-block, from left to right; each of its threads makes it.
__device__ __forceinline__ float square_sum(const void* x, u32 dtype, u64 index)
{
    float total = 0.0f;
    for (int i = 0; i < QK_K; ++i) {
        const float v = load(x, dtype, index * QK_K + i);
        total += v * v;
    }
    return total;
}

// Levels from LOW to HIGH for the final scale, less LOW; those of the search where that is 0.
template <int LOW, int HIGH, int N, class Found>
__device__ __forceinline__ void final_levels(const float (&x)[N], float d, float m, Found found, u8* levels)
{
#pragma unroll
    for (int i = 0; i < N; ++i) levels[i] = (u8)(d == 0.0f ? found(i) : clamp(nearest_int((x[i] + m) / d), LOW, HIGH) - LOW);
}

// The greatest of the values of a super-block's sub-blocks, or 0.
template <int SUBS>
__device__ __forceinline__ float greatest(const float* values)
{
    float found = 0.0f;
    for (int i = 0; i < SUBS; ++i) found = values[i] > found ? values[i] : found;
    return found;
}

template <int SUBS>
__device__ __forceinline__ void copy(const float* from, float (&to)[SUBS])
{
#pragma unroll
    for (int i = 0; i < SUBS; ++i) to[i] = from[i];
}

// Codes of scales (first thread) and minima (second thread) by a search of their own.
template <int SUBS>
__device__ __forceinline__ void search_scales(int nmax, u32 sub, Shared<SUBS>& shared, u8* head)
{
    if (sub > 1) return;
    float x[SUBS], w[SUBS];
    copy(sub == 0 ? shared.scale : shared.min, x);
    copy(shared.sum_w, w);
    u8 codes[SUBS];
    const u16 bits = scale_bits(make_qp(nmax, x, w, codes), head);
    u8* to = sub == 0 ? shared.ls : shared.lm;
#pragma unroll
    for (int i = 0; i < SUBS; ++i) to[i] = codes[i];
    (sub == 0 ? shared.d_bits : shared.dmin_bits) = bits;
}

// Q4_K and Q5_K up to their levels.
template <int NMAX, bool WEIGHTED>
__device__ __forceinline__ void eights(const void* x, u32 dtype, const Place<8>& place, const float* importance, float rmin, float rdelta, int nstep, u8 limit,
                                       Shared<8>& shared, u8* head)
{
    float v[32], w[32];
    load_finite(x, dtype, place.first(), v, head);
    if (WEIGHTED) {
        weigh(importance, place.first(), 2.0f * square_sum(x, dtype, place.index) / (float)QK_K, v, w);
    } else {
#pragma unroll
        for (int i = 0; i < 32; ++i) w[i] = v[i] * v[i];
        const float mean = sqrtf(sum(w) / 32.0f);
#pragma unroll
        for (int i = 0; i < 32; ++i) w[i] = mean + fabsf(v[i]);
    }
    const Asymmetric found = make_qkx<false>(NMAX, v, w, rmin, rdelta, nstep);
    shared.scale[place.sub] = found.scale;
    shared.min[place.sub] = found.min;
    if (WEIGHTED) shared.sum_w[place.sub] = sum(w);
    __syncthreads();
    if (WEIGHTED) {
        search_scales(63, place.sub, shared, head);
    } else {
        const float scale = greatest<8>(shared.scale), min = greatest<8>(shared.min);
        const float to_scale = scale > 0.0f ? 63.0f / scale : 0.0f, to_min = min > 0.0f ? 63.0f / min : 0.0f;
        const u8 ls = (u8)nearest_int(to_scale * found.scale), lm = (u8)nearest_int(to_min * found.min);
        shared.ls[place.sub] = ls < 63 ? ls : 63;
        shared.lm[place.sub] = lm < 63 ? lm : 63;
        if (place.sub == 0) {
            shared.d_bits = scale_bits(scale / 63.0f, head);
            shared.dmin_bits = scale_bits(min / 63.0f, head);
        }
    }
    __syncthreads();
    // Each of four threads packs what two sub-blocks share. Codes above 63 run into the bits of others.
    if (place.sub < 4) {
        const u32 j = place.sub;
        const u8 ls = shared.ls[j] < limit ? shared.ls[j] : limit, ls4 = shared.ls[j + 4] < limit ? shared.ls[j + 4] : limit;
        const u8 lm = shared.lm[j] < limit ? shared.lm[j] : limit, lm4 = shared.lm[j + 4] < limit ? shared.lm[j + 4] : limit;
        shared.packed[j] = (u8)(ls | (ls4 >> 4) << 6);
        shared.packed[j + 4] = (u8)(lm | (lm4 >> 4) << 6);
        shared.packed[j + 8] = (u8)((ls4 & 0xf) | (lm4 & 0xf) << 4);
    }
    __syncthreads();
    const u32 j = place.sub % 4;
    const u8 a = shared.packed[j], b = shared.packed[j + 4], c = shared.packed[j + 8];
    const bool low = place.sub < 4;
    const float d = from_f16(shared.d_bits) * (float)(low ? a & 63 : (c & 0xf) | (a >> 6) << 4);
    const float m = from_f16(shared.dmin_bits) * (float)(low ? b & 63 : (c >> 4) | (b >> 6) << 4);
    final_levels<0, NMAX>(v, d, m, [&](int i) { return level_of(found, NMAX, v[i]); }, shared.levels + place.sub * 32);
    __syncthreads();
}

// d, dmin and the packed scales, the first 16 bytes of a block.
__device__ __forceinline__ void put_head(const Place<8>& place, const Shared<8>& shared, u8* block)
{
    if (place.sub == 0) {
        store_u16(block, shared.d_bits);
        store_u16(block + 2, shared.dmin_bits);
    } else if (place.sub < 7) {
        block[2 * place.sub + 2] = shared.packed[2 * place.sub - 2];
        block[2 * place.sub + 3] = shared.packed[2 * place.sub - 1];
    }
}

template <bool WEIGHTED>
__device__ __forceinline__ void q4_k_encode(const void* x, u32 dtype, u32 supers, const float* importance, u8* out)
{
    __shared__ Shared<8> all[Place<8>::SUPERS];
    const Place<8> place(supers);
    Shared<8>& shared = all[place.in_block];
    eights<15, WEIGHTED>(x, dtype, place, importance, WEIGHTED ? -0.9f : -1.0f, WEIGHTED ? 0.05f : 0.1f, WEIGHTED ? 36 : 20, 255, shared, out);
    if (!place.active) return;
    u8* block = out + BLOCKS_AT + place.index * 144;
    put_head(place, shared, block);
    for (u32 i = place.sub; i < 128; i += 8) {
        const u8* levels = shared.levels + i / 32 * 64 + i % 32;
        block[16 + i] = levels[0] | levels[32] << 4;
    }
}

template <bool WEIGHTED>
__device__ __forceinline__ void q5_k_encode(const void* x, u32 dtype, u32 supers, const float* importance, u8* out)
{
    __shared__ Shared<8> all[Place<8>::SUPERS];
    const Place<8> place(supers);
    Shared<8>& shared = all[place.in_block];
    eights<31, WEIGHTED>(x, dtype, place, importance, WEIGHTED ? -0.9f : -0.5f, WEIGHTED ? 0.05f : 0.1f, WEIGHTED ? 36 : 15, 63, shared, out);
    if (!place.active) return;
    u8* block = out + BLOCKS_AT + place.index * 176;
    put_head(place, shared, block);
    for (u32 i = place.sub; i < 32; i += 8) {
        u32 fifth = 0;
        for (int j = 0; j < 8; ++j) fifth |= (u32)(shared.levels[32 * j + i] >> 4) << j;
        block[16 + i] = (u8)fifth;
    }
    for (u32 i = place.sub; i < 128; i += 8) {
        const u8* levels = shared.levels + i / 32 * 64 + i % 32;
        block[48 + i] = (levels[0] & 0xf) | levels[32] << 4;
    }
}

template <bool WEIGHTED>
__device__ __forceinline__ void q2_k_encode(const void* x, u32 dtype, u32 supers, const float* importance, u8* out)
{
    __shared__ Shared<16> all[Place<16>::SUPERS];
    const Place<16> place(supers);
    Shared<16>& shared = all[place.in_block];
    float v[16], w[16];
    load_finite(x, dtype, place.first(), v, out);
    if (WEIGHTED) {
        weigh(importance, place.first(), square_sum(x, dtype, place.index) / (float)QK_K, v, w);
    } else {
#pragma unroll
        for (int i = 0; i < 16; ++i) w[i] = fabsf(v[i]);
    }
    const Asymmetric found = WEIGHTED ? make_qkx<false>(3, v, w, -0.9f, 0.05f, 36) : make_qkx<true>(3, v, w, -0.5f, 0.1f, 15);
    shared.scale[place.sub] = found.scale;
    shared.min[place.sub] = found.min;
    if (WEIGHTED) shared.sum_w[place.sub] = sum(w);
    __syncthreads();
    if (WEIGHTED) {
        search_scales(15, place.sub, shared, out);
        __syncthreads();
        // Codes above 15 run into each other's bits.
        shared.packed[place.sub] = (u8)(shared.ls[place.sub] | shared.lm[place.sub] << 4);
    } else {
        const float scale = greatest<16>(shared.scale), min = greatest<16>(shared.min);
        const int ls = scale > 0.0f ? nearest_int(15.0f / scale * found.scale) : 0, lm = min > 0.0f ? nearest_int(15.0f / min * found.min) : 0;
        shared.packed[place.sub] = (u8)(ls | lm << 4);
        if (place.sub == 0) {
            shared.d_bits = scale > 0.0f ? scale_bits(scale / 15.0f, out) : 0;
            shared.dmin_bits = min > 0.0f ? scale_bits(min / 15.0f, out) : 0;
        }
    }
    __syncthreads();
    const u8 packed = shared.packed[place.sub];
    const float d = from_f16(shared.d_bits) * (float)(packed & 0xf), m = from_f16(shared.dmin_bits) * (float)(packed >> 4);
    final_levels<0, 3>(v, d, m, [&](int i) { return level_of(found, 3, v[i]); }, shared.levels + place.sub * 16);
    __syncthreads();
    if (!place.active) return;
    u8* block = out + BLOCKS_AT + place.index * 84;
    block[place.sub] = packed;
    for (u32 i = place.sub; i < 64; i += 16) {
        const u8* levels = shared.levels + i / 32 * 128 + i % 32;
        block[16 + i] = (u8)(levels[0] | levels[32] << 2 | levels[64] << 4 | levels[96] << 6);
    }
    if (place.sub == 0) {
        store_u16(block + 80, shared.d_bits);
        store_u16(block + 82, shared.dmin_bits);
    }
}

template <bool WEIGHTED>
__device__ __forceinline__ void q3_k_encode(const void* x, u32 dtype, u32 supers, const float* importance, u8* out)
{
    __shared__ Shared<16> all[Place<16>::SUPERS];
    const Place<16> place(supers);
    Shared<16>& shared = all[place.in_block];
    float v[16];
    int found[16];
    load_finite(x, dtype, place.first(), v, out);
    if (WEIGHTED) {
        float w[16];
        weigh(importance, place.first(), 2.0f * square_sum(x, dtype, place.index) / (float)QK_K, v, w);
        const Symmetric search = make_qx<true>(4, v, w);
        shared.scale[place.sub] = search.scale;
        shared.sum_w[place.sub] = sum(w);
#pragma unroll
        for (int i = 0; i < 16; ++i) found[i] = level_of(search, 4, v[i]);
    } else {
        shared.scale[place.sub] = make_q3(4, v, found);
    }
    __syncthreads();
    if (WEIGHTED) {
        if (place.sub == 0) {
            float scales[16], w[16];
            copy(shared.scale, scales);
            copy(shared.sum_w, w);
            const Symmetric search = make_qx<false>(32, scales, w);
            shared.d_bits = scale_bits(search.scale, out);
#pragma unroll
            for (int i = 0; i < 16; ++i) shared.ls[i] = (u8)level_of(search, 32, scales[i]);
        }
    } else {
        float scales[16];
        copy(shared.scale, scales);
        const float largest = signed_max(scales), inverse = -32.0f / largest;
        shared.ls[place.sub] = largest == 0.0f ? 0 : (u8)(clamp((int)(signed char)nearest_int(inverse * shared.scale[place.sub]), -32, 31) + 32);
        if (place.sub == 0) shared.d_bits = largest == 0.0f ? 0 : scale_bits(1.0f / inverse, out);
    }
    __syncthreads();
    const float d = from_f16(shared.d_bits) * (float)((int)(shared.ls[place.sub] & 63) - 32);
    final_levels<-4, 3>(v, d, 0.0f, [&](int i) { return found[i]; }, shared.levels + place.sub * 16);
    __syncthreads();
    if (!place.active) return;
    u8* block = out + BLOCKS_AT + place.index * 110;
    const u8 *codes = shared.ls, *levels = shared.levels;
    for (u32 i = place.sub; i < 32; i += 16) {
        u32 high = 0;
        for (int c = 0; c < 8; ++c) high |= (u32)(levels[32 * c + i] >> 2) << c;
        block[i] = (u8)high;
    }
    for (u32 i = place.sub; i < 64; i += 16) {
        const u8* of = levels + i / 32 * 128 + i % 32;
        block[32 + i] = (u8)((of[0] & 3) | (of[32] & 3) << 2 | (of[64] & 3) << 4 | of[96] << 6);
    }
    const u32 j = place.sub;
    if (j < 8) {
        block[96 + j] = (codes[j] & 0xf) | (codes[j + 8] & 0xf) << 4;
    } else if (j < 12) {
        block[96 + j] = (u8)(codes[j - 8] >> 4 | codes[j - 4] >> 4 << 2 | codes[j] >> 4 << 4 | codes[j + 4] >> 4 << 6);
    } else if (j == 12) {
        store_u16(block + 108, shared.d_bits);
    }
}

template <bool WEIGHTED>
__device__ __forceinline__ void q6_k_encode(const void* x, u32 dtype, u32 supers, const float* importance, u8* out)
{
    __shared__ Shared<16> all[Place<16>::SUPERS];
    const Place<16> place(supers);
    Shared<16>& shared = all[place.in_block];
    float v[16], w[16];
    load_finite(x, dtype, place.first(), v, out);
#pragma unroll
    for (int i = 0; i < 16; ++i) w[i] = WEIGHTED ? importance[place.first() + i] : v[i] * v[i];
    const Symmetric found = make_qx<true>(32, v, w);
    shared.scale[place.sub] = found.scale;
    __syncthreads();
    float scales[16];
    copy(shared.scale, scales);
    const float largest = signed_max(scales), inverse = -128.0f / largest;
    const bool zero = fabsf(largest) < EPS;
    const u16 d_bits = zero ? 0 : scale_bits(1.0f / inverse, out);
    const int code = zero ? 0 : clamp(nearest_int(inverse * found.scale), -2147483647 - 1, 127);
    const float d = from_f16(d_bits) * (float)(signed char)code;
    final_levels<-32, 31>(v, d, 0.0f, [&](int i) { return level_of(found, 32, v[i]); }, shared.levels + place.sub * 16);
    __syncthreads();
    if (!place.active) return;
    u8* block = out + BLOCKS_AT + place.index * 210;
    const u8* levels = shared.levels;
    for (u32 i = place.sub; i < 128; i += 16) {
        const u8* of = levels + i / 64 * 128 + i % 64;
        block[i] = zero ? 0 : (of[0] & 0xf) | of[64] << 4;
    }
    for (u32 i = place.sub; i < 64; i += 16) {
        const u8* of = levels + i / 32 * 128 + i % 32;
        block[128 + i] = zero ? 0 : (u8)(of[0] >> 4 | of[32] >> 4 << 2 | of[64] >> 4 << 4 | of[96] >> 4 << 6);
    }
    block[192 + place.sub] = (u8)code;
    if (place.sub == 0) store_u16(block + 208, d_bits);
}

#define K_QUANT(NAME)                                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS) NAME##_encode(const void* x, u32 dtype, u32 supers, u8* out)                                  \
    {                                                                                                                                                   \
        NAME##_encode<false>(x, dtype, supers, nullptr, out);                                                                                           \
    }                                                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS)                                                                                               \
        NAME##_encode_weighted(const void* x, u32 dtype, u32 supers, const float* importance, u8* out)                                                  \
    {                                                                                                                                                   \
        NAME##_encode<true>(x, dtype, supers, importance, out);                                                                                         \
    }

K_QUANT(q2_k)
K_QUANT(q3_k)
K_QUANT(q4_k)
K_QUANT(q5_k)
K_QUANT(q6_k)
