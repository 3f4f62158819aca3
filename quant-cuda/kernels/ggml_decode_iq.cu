// IQ1_S to IQ4_XS: 4-bit codes into fixed values, and points of lattices.
#include "ggml_decode.cuh"

// Seven signs, and the eighth that makes them even.
__device__ __forceinline__ u32 even_signs(u32 bits)
{
    const u32 seven = bits & 127;
    return seven | (__popc(seven) & 1) << 7;
}

// IQ1: coordinate i of a point with its shift.
__device__ __forceinline__ float iq1_value(float scale, u32 point, bool is_down, u32 i)
{
    const int level = (int)(GRID_1BIT_2048[point] >> (2 * i) & 3) - 1;
    return scale * ((float)level + (is_down ? -0.125f : 0.125f));
}

struct Iq1S {
    static constexpr u32 LEN = 256;
    static constexpr u32 BYTES = 50;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const u32 qh = load_u16(block + 34 + j / 32 * 2);
        const float scale = f16_at(block) * (float)(2 * (qh >> 12 & 7) + 1);
        const u32 point = block[2 + j / 8] | (qh >> (j / 8 % 4 * 3) & 7) << 8;
        return iq1_value(scale, point, qh >> 15 != 0, j % 8);
    }
};

struct Iq1M {
    static constexpr u32 LEN = 256;
    static constexpr u32 BYTES = 56;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const u8* scales = block + 48;
        const u32 d = scales[1] >> 4 | (scales[3] >> 4) << 4 | (scales[5] >> 4) << 8 | (scales[7] >> 4) << 12;
        const u32 s = load_u16(scales + j / 64 * 2) >> (j / 16 % 4 * 3) & 7;
        const u32 high = block[32 + j / 16] >> (j / 8 % 2 * 4);
        return iq1_value(from_f16((u16)d) * (float)(2 * s + 1), block[j / 8] | (high & 7) << 8, (high & 8) != 0, j % 8);
    }
};

// IQ2: the scale of a sub-block.
__device__ __forceinline__ float iq2_scale(const u8* block, u32 l) { return f16_at(block) * (0.5f + (float)l) * 0.25f; }

// IQ2: coordinate i of a packed point with its sign.
__device__ __forceinline__ float iq2_value(float d, u32 point, u32 signs, u32 i)
{
    const u32 level = point >> (2 * i) & 3;
    const float magnitude = level == 0 ? 8.0f : level == 1 ? 25.0f : 43.0f;
    return d * magnitude * (signs >> i & 1 ? -1.0f : 1.0f);
}

struct Iq2Xxs {
    static constexpr u32 LEN = 256;
    static constexpr u32 BYTES = 66;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const u8* qs = block + 2 + j / 32 * 8;
        const u32 rest = load_u32(qs + 4);
        const u32 group = j / 8 % 4;
        return iq2_value(iq2_scale(block, rest >> 28), GRID_2BIT_256[qs[group]], even_signs(rest >> (7 * group)), j % 8);
    }
};

struct Iq2Xs {
    static constexpr u32 LEN = 256;
    static constexpr u32 BYTES = 74;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const u32 q = load_u16(block + 2 + j / 8 * 2);
        const float d = iq2_scale(block, block[66 + j / 32] >> (j / 16 % 2 * 4) & 15);
        return iq2_value(d, GRID_2BIT_512[q & 511], even_signs(q >> 9), j % 8);
    }
};

struct Iq2S {
    static constexpr u32 LEN = 256;
    static constexpr u32 BYTES = 82;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const u32 high = block[66 + j / 32] >> (j / 8 % 4 * 2) & 3;
        const float d = iq2_scale(block, block[74 + j / 32] >> (j / 16 % 2 * 4) & 15);
        return iq2_value(d, GRID_2BIT_1024[block[2 + j / 8] | high << 8], block[34 + j / 8], j % 8);
    }
};

struct Iq3Xxs {
    static constexpr u32 LEN = 256;
    static constexpr u32 BYTES = 98;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const u32 word = load_u32(block + 66 + j / 32 * 4);
        const float scale = f16_at(block) * (0.5f + (float)(word >> 28)) * 0.5f;
        const u32 level = GRID_3BIT_256[block[2 + j / 4]] >> (j % 4 * 3) & 7;
        const float value = scale * (level == 7 ? 62.0f : (float)(8 * level + 4));
        return even_signs(word >> (j / 8 % 4 * 7)) >> (j % 8) & 1 ? -value : value;
    }
};

struct Iq3S {
    static constexpr u32 LEN = 256;
    static constexpr u32 BYTES = 110;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const u32 s = block[106 + j / 64] >> (j / 32 % 2 * 4) & 15;
        const u32 high = block[66 + j / 32] >> (j / 4 % 8) & 1;
        const u32 level = GRID_3BIT_512[block[2 + j / 4] | high << 8] >> (j % 4 * 3) & 7;
        const float value = f16_at(block) * (float)(1 + 2 * s) * (float)(2 * level + 1);
        return block[74 + j / 8] >> (j % 8) & 1 ? -value : value;
    }
};

// IQ4: the value of a code.
__device__ __forceinline__ float iq4_value(float d, u32 code) { return d * __uint_as_float(IQ4_VALUES[code]); }

struct Iq4Nl {
    static constexpr u32 LEN = 32;
    static constexpr u32 BYTES = 18;

    static __device__ __forceinline__ float value(const u8* block, u32 j) { return iq4_value(f16_at(block), nibble(block + 2, j, 16)); }
};

struct Iq4Xs {
    static constexpr u32 LEN = 256;
    static constexpr u32 BYTES = 136;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const u32 sub = j / 32;
        const u32 ls = (block[4 + sub / 2] >> (sub % 2 * 4) & 15) | (load_u16(block + 2) >> (2 * sub) & 3) << 4;
        return iq4_value(f16_at(block) * (float)((int)ls - 32), nibble(block + 8 + sub * 16, j % 32, 16));
    }
};

DECODE(iq1_s_decode, Iq1S)
DECODE(iq1_m_decode, Iq1M)
DECODE(iq2_xxs_decode, Iq2Xxs)
DECODE(iq2_xs_decode, Iq2Xs)
DECODE(iq2_s_decode, Iq2S)
DECODE(iq3_xxs_decode, Iq3Xxs)
DECODE(iq3_s_decode, Iq3S)
DECODE(iq4_nl_decode, Iq4Nl)
DECODE(iq4_xs_decode, Iq4Xs)
