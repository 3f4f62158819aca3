// MXFP4, NVFP4, TQ1_0, TQ2_0, Q1_0, Q2_0: floats of four bits, levels of two bits and less.
#include "ggml_decode.cuh"

// Twice the value of an E2M1 code: 0, 1, 2, 3, 4, 6, 8, 12 and their negatives, without a zero of its own.
__device__ __forceinline__ float e2m1(u32 code)
{
    const int magnitude = 0xC8643210u >> (4 * (code & 7)) & 15;
    return (float)(code & 8 ? -magnitude : magnitude);
}

// 2^(e - 128).
__device__ __forceinline__ float e8m0_half(u32 e) { return __uint_as_float(e < 2 ? 0x00200000u << e : (e - 1) << 23); }

// Half of what a UE4M3 byte stands for. 0x7F is 0.
__device__ __forceinline__ float ue4m3_half(u32 d)
{
    const u32 exponent = d >> 3 & 15, mantissa = d & 7;
    if (d == 0x7F) return 0.0f;
    if (exponent == 0) return (float)mantissa / 1024.0f;
    return __uint_as_float((exponent + 119) << 23 | mantissa << 20);
}

struct Mxfp4 {
    static constexpr u32 LEN = 32;
    static constexpr u32 BYTES = 17;

    static __device__ __forceinline__ float value(const u8* block, u32 j) { return e2m1(nibble(block + 1, j, 16)) * e8m0_half(block[0]); }
};

struct Nvfp4 {
    static constexpr u32 LEN = 64;
    static constexpr u32 BYTES = 36;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const u32 sub = j / 16;
        return e2m1(nibble(block + 4 + sub * 8, j % 16, 8)) * ue4m3_half(block[sub]);
    }
};

struct Tq1_0 {
    static constexpr u32 LEN = 256;
    static constexpr u32 BYTES = 54;

    // Digit n of a byte that is a fraction in base 3: what is left after the digits before, times 3, has it as its integer part.
    static __device__ __forceinline__ u32 digit(u32 byte, u32 n)
    {
        const u32 power = (u32)(0x511B090301ull >> (8 * n)) & 255;
        return (byte * power & 255) * 3 >> 8;
    }

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        u32 t;
        if (j < 160) t = digit(block[j % 32], j / 32);
        else if (j < 240) t = digit(block[32 + j % 16], (j - 160) / 16);
        else t = digit(block[48 + j % 4], (j - 240) / 4);
        return (float)((int)t - 1) * f16_at(block + 52);
    }
};

struct Tq2_0 {
    static constexpr u32 LEN = 256;
    static constexpr u32 BYTES = 66;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const u32 q = block[j / 128 * 32 + j % 32] >> (j / 32 % 4 * 2) & 3;
        return (float)((int)q - 1) * f16_at(block + 64);
    }
};

struct Q1_0 {
    static constexpr u32 LEN = 128;
    static constexpr u32 BYTES = 18;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const float d = f16_at(block);
        return block[2 + j / 8] >> (j % 8) & 1 ? d : -d;
    }
};

struct Q2_0 {
    static constexpr u32 LEN = 64;
    static constexpr u32 BYTES = 18;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        return (float)((block[2 + j / 4] >> (j % 4 * 2) & 3) - 1) * f16_at(block);
    }
};

DECODE(mxfp4_decode, Mxfp4)
DECODE(nvfp4_decode, Nvfp4)
DECODE(tq1_0_decode, Tq1_0)
DECODE(tq2_0_decode, Tq2_0)
DECODE(q1_0_decode, Q1_0)
DECODE(q2_0_decode, Q2_0)
