// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: 32 elements that share one scale.
#include "ggml_decode.cuh"

template <u32 BITS, bool WITH_MIN, u32 SIZE>
struct Legacy {
    static constexpr u32 LEN = 32;
    static constexpr u32 BYTES = SIZE;

    static __device__ __forceinline__ float value(const u8* block, u32 j)
    {
        const float d = f16_at(block);
        u32 q = nibble(block + BYTES - 16, j, 16);
        if (BITS == 5) q |= (block[BYTES - 20 + j / 8] >> (j % 8) & 1) << 4;
        if (WITH_MIN) return (float)q * d + f16_at(block + 2);
        return (float)((int)q - (1 << (BITS - 1))) * d;
    }
};

struct Q8_0 {
    static constexpr u32 LEN = 32;
    static constexpr u32 BYTES = 34;

    static __device__ __forceinline__ float value(const u8* block, u32 j) { return (float)(signed char)block[2 + j] * f16_at(block); }
};

typedef Legacy<4, false, 18> Q4_0;
typedef Legacy<4, true, 20> Q4_1;
typedef Legacy<5, false, 22> Q5_0;
typedef Legacy<5, true, 24> Q5_1;

DECODE(q4_0_decode, Q4_0)
DECODE(q4_1_decode, Q4_1)
DECODE(q5_0_decode, Q5_0)
DECODE(q5_1_decode, Q5_1)
DECODE(q8_0_decode, Q8_0)
