// What the encoders of ggml's block types share.
#pragma once

#include "search.cuh"

// The start of the output says whether the slab is left to the CPU; the blocks follow.
const u32 BLOCKS_AT = 16;

// Elements `first` to `first + N`; others than finite ones send the slab back.
template <int N>
__device__ __forceinline__ void load_finite(const void* x, u32 dtype, u64 first, float (&out)[N], u8* head)
{
    bool bad = false;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        out[i] = load(x, dtype, first + i);
        bad |= !is_finite(out[i]);
    }
    if (bad) refuse((u32*)head);
}

// Writes a scale as f16; one that f16 cannot hold sends the slab back.
__device__ __forceinline__ u16 scale_bits(float d, u8* head)
{
    const u16 bits = to_f16(d);
    if ((bits & 0x7c00) == 0x7c00) refuse((u32*)head);
    return bits;
}
