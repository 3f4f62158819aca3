// What all kernels share: raw input of three types, conversions, the flag that sends a slab back to the CPU.
//
// Kernels promise the bytes of quant-core. So: every f32 operation that decides a byte is an explicit _rn intrinsic or a bare
// operator under -fmad=false, in the order of the Rust code; no fast math, no float atomics; reductions in a fixed order; tables
// come from tables.cuh as bit patterns.
#pragma once

#include "tables.cuh"

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// The type of raw input.
enum Dtype : u32 { DTYPE_F32 = 0, DTYPE_F16 = 1, DTYPE_BF16 = 2 };

__device__ __forceinline__ float from_f16(u16 h)
{
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}

// Rounds to nearest, ties to even.
__device__ __forceinline__ u16 to_f16(float f)
{
    u16 h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
}

__device__ __forceinline__ float from_bf16(u16 h) { return __uint_as_float((u32)h << 16); }

// Element i of raw input.
__device__ __forceinline__ float load(const void* x, u32 dtype, u64 i)
{
    if (dtype == DTYPE_F32) return ((const float*)x)[i];
    const u16 h = ((const u16*)x)[i];
    return dtype == DTYPE_F16 ? from_f16(h) : from_bf16(h);
}

__device__ __forceinline__ bool is_finite(float f) { return (__float_as_uint(f) & 0x7f800000u) != 0x7f800000u; }

__device__ __forceinline__ u16 load_u16(const u8* p) { return (u16)(p[0] | p[1] << 8); }

__device__ __forceinline__ void store_u16(u8* p, u16 v)
{
    p[0] = (u8)v;
    p[1] = (u8)(v >> 8);
}

// Says that the slab cannot be encoded here: the CPU does it again, and names the element if it cannot either.
__device__ __forceinline__ void refuse(u32* refused) { *refused = 1u; }

// The nearest integer, ties to even, in the low bits, for magnitudes below 2^22.
__device__ __forceinline__ u32 rounded(float f) { return __float_as_uint(f + 12582912.0f); }
