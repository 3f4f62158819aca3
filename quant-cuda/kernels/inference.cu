// What the formats are for: the matrix product of LLM.int8(), and a product of a 4-bit matrix and a vector that never stores its weights.
// The order of every sum is fixed, and quant-cuda/src/run/inference.rs has it again for the CPU.
//
// Dettmers et al., "LLM.int8()", 2022; the constants are those of bitsandbytes 0.50.2 (MIT).
#include "quant.cuh"

// Marks the columns of x, f16 [m, k], with a magnitude of 6 or more.
extern "C" __global__ void __launch_bounds__(128) outlier_columns(const u16* x, u32 m, u32 k, u8* is_outlier)
{
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= k) return;
    bool found = false;
    for (u32 row = 0; row < m; ++row) found |= fabsf(from_f16(x[(u64)row * k + column])) >= 6.0f;
    is_outlier[column] = found;
}

// Quantizes the rows of x but for outlier columns, whose codes are 0: a warp takes a row. `scales` are greatest magnitudes.
extern "C" __global__ void __launch_bounds__(128)
    int8_quantize_rows(const u16* x, u32 m, u32 k, const u8* is_outlier, signed char* codes, float* scales)
{
    const u32 lane = threadIdx.x % 32, row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= m) return;
    x += (u64)row * k;
    codes += (u64)row * k;
    float greatest = 0.0f;
    for (u32 j = lane; j < k; j += 32) {
        const float magnitude = is_outlier[j] ? 0.0f : fabsf(from_f16(x[j]));
        greatest = magnitude > greatest ? magnitude : greatest;
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, greatest, distance);
        greatest = other > greatest ? other : greatest;
    }
    const float scale = 127.0f * (1.0f / greatest);
    for (u32 j = lane; j < k; j += 32) codes[j] = greatest == 0.0f || is_outlier[j] ? 0 : (signed char)rounded(from_f16(x[j]) * scale);
    if (lane == 0) scales[row] = greatest;
}

// y = x wᵀ, f32 [m, n]: a thread takes an output. Codes are multiplied as integers, four at a time; columns of outliers as floats, in
// ascending order, with weights as they decode. k is a multiple of 4.
extern "C" __global__ void __launch_bounds__(128)
    int8_matmul(const u16* x, const signed char* codes, const float* scales, const u8* is_outlier, const signed char* w, const float* w_scales, u32 m, u32 n,
                u32 k, float* y)
{
    const u32 out = blockIdx.x * blockDim.x + threadIdx.x;
    if (out >= m * n) return;
    const u32 row = out / n, column = out % n;
    x += (u64)row * k;
    const int* a = (const int*)(codes + (u64)row * k);
    const int* b = (const int*)(w + (u64)column * k);
    int sum = 0;
    for (u32 j = 0; j < k / 4; ++j) sum = __dp4a(a[j], b[j], sum);
    float outliers = 0.0f;
    for (u32 j = 0; j < k; ++j) {
        if (!is_outlier[j]) continue;
        const float weight = (float)w[(u64)column * k + j] * w_scales[column] * 7.874016e-3f;
        outliers += from_f16(x[j]) * weight;
    }
    y[out] = (float)sum * (scales[row] * w_scales[column]) * 6.200012e-5f + outliers;
}

// y = W x for a matrix of 4-bit codes, the first of two in the high nibble, with a scale a block of elements: a warp takes a row. Lane l sums
// the eights from 8 l, 256 + 8 l, … on; the lanes are added in a tree. `columns` is a multiple of 8, x and y are f32.
extern "C" __global__ void __launch_bounds__(128)
    four_bit_gemv(const u8* codes, const float* absmax, const float* book, u32 rows, u32 columns, u32 block, const float* x, float* y)
{
    __shared__ float values[16];
    if (threadIdx.x < 16) values[threadIdx.x] = book[threadIdx.x];
    __syncthreads();
    const u32 lane = threadIdx.x % 32, row = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
    if (row >= rows) return;
    float sum = 0.0f;
    for (u32 j = lane * 8; j < columns; j += 256) {
        const u64 first = (u64)row * columns + j;
        const u32 eight = *(const u32*)(codes + first / 2);
        const float scale = absmax[first / block];
#pragma unroll
        for (u32 i = 0; i < 8; ++i) sum += values[eight >> (i ^ 1) * 4 & 15] * scale * x[j + i];
    }
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    if (lane == 0) y[row] = sum;
}
