// Q2_K to Q6_K: 256 elements in sub-blocks of 16 or 32, whose scales share one scale.
#include "ggml_decode.cuh"

// Two bits of element j: those of 128 elements are in 32 bytes.
__device__ __forceinline__ u32 two_bits(const u8* qs, u32 j) { return qs[j / 128 * 32 + j % 32] >> (j / 32 % 4 * 2) & 3; }

struct Q2K {
    static constexpr u32 LEN = 256;
    static constexpr u32 BYTES = 84;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const u32 scales = block[j / 16];
        const float s = f16_at(block + 80) * (float)(scales & 15);
        const float m = f16_at(block + 82) * (float)(scales >> 4);
        return s * (float)two_bits(block + 16, j) - m;
    }
};

struct Q3K {
    static constexpr u32 LEN = 256;
    static constexpr u32 BYTES = 110;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const u8* scales = block + 96;
        const u32 sub = j / 16;
        const u32 low = nibble(scales, sub, 8);
        const u32 high = scales[8 + sub % 4] >> (sub / 4 * 2) & 3;
        const float s = f16_at(block + 108) * (float)((int)(low | high << 4) - 32);
        const u32 q = two_bits(block + 32, j) | (block[j % 32] >> (j / 32) & 1) << 2;
        return s * (float)((int)q - 4);
    }
};

// Q4_K and Q5_K: six bits each of the scale and the minimum of 8 sub-blocks, in 12 bytes.
struct ScaleAndMin {
    float s, m;

    __device__ __forceinline__ ScaleAndMin(const u8* block, u32 sub)
    {
        const u8* codes = block + 4 + sub % 4;
        const bool late = sub >= 4;
        const u32 s_code = late ? (codes[8] & 15) | (codes[0] >> 6) << 4 : codes[0] & 63;
        const u32 m_code = late ? codes[8] >> 4 | (codes[4] >> 6) << 4 : codes[4] & 63;
        s = f16_at(block) * (float)s_code;
        m = f16_at(block + 2) * (float)m_code;
    }
};

struct Q4K {
    static constexpr u32 LEN = 256;
    static constexpr u32 BYTES = 144;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const ScaleAndMin scale(block, j / 32);
        return scale.s * (float)nibble(block + 16 + j / 64 * 32, j % 64, 32) - scale.m;
    }
};

struct Q5K {
    static constexpr u32 LEN = 256;
    static constexpr u32 BYTES = 176;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const ScaleAndMin scale(block, j / 32);
        const u32 high = block[16 + j % 32] >> (j / 32) & 1;
        return scale.s * (float)(nibble(block + 48 + j / 64 * 32, j % 64, 32) | high << 4) - scale.m;
    }
};

struct Q6K {
    static constexpr u32 LEN = 256;
    static constexpr u32 BYTES = 210;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const u32 q = nibble(block + j / 128 * 64, j % 128, 64) | two_bits(block + 128, j) << 4;
        return f16_at(block + 208) * (float)(signed char)block[192 + j / 16] * (float)((int)q - 32);
    }
};

DECODE(q2_k_decode, Q2K)
DECODE(q3_k_decode, Q3K)
DECODE(q4_k_decode, Q4K)
DECODE(q5_k_decode, Q5K)
DECODE(q6_k_decode, Q6K)
