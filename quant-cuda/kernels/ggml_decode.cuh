// Decoding of ggml's blocks: a thread an element. What an element is, each type says: `value(block, j)`, j in 0..LEN.
//
// Any bytes decode to something. Operations are those of quant-core (codec/ggml), which has the formulas and the layouts.
// Source: ggml 0.25.3, ggml-quants.c (MIT), `dequantize_row_*`.
#pragma once

#include "quant.cuh"

#define THREADS 256

// Elements skip.. skip + n of blocks.
template <class Type>
__device__ __forceinline__ void decode_blocks(const u8* blocks, u32 skip, u64 n, float* out)
{
    const u64 i = (u64)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n) return;
    const u64 at = skip + i;
    out[i] = Type::value(blocks + at / Type::LEN * Type::BYTES, (u32)(at % Type::LEN));
}

#define DECODE(name, Type)                                                                                                          \
    extern "C" __global__ void __launch_bounds__(THREADS) name(const u8* blocks, u32 skip, u64 n, float* out)                       \
    {                                                                                                                               \
        decode_blocks<Type>(blocks, skip, n, out);                                                                                  \
    }

__device__ __forceinline__ float f16_at(const u8* p) { return from_f16(load_u16(p)); }

__device__ __forceinline__ u32 load_u32(const u8* p) { return load_u16(p) | (u32)load_u16(p + 2) << 16; }

// Half a byte of qs, of which the low halves are the first `half` elements and the high ones the others.
__device__ __forceinline__ u32 nibble(const u8* qs, u32 j, u32 half) { return qs[j % half] >> (j / half * 4) & 15; }
