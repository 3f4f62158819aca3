// The sums of an audit over blocks of 256 pairs of a weight and what stands for it; see quant-core/src/audit/measure.rs.
//
// Four threads take a block, as the four lanes of the CPU: thread l has the elements l, l + 4, … and adds them in order, in f64; the four
// sums are added in order, too. So every sum has the bits of the CPU's.
#include "quant.cuh"

const u32 BLOCK = 256, LANES = 4, THREADS = 128, BINS = 4096, BIN_SHIFT = 19;

// Of a block; quant-cuda/src/run/measure.rs reads it.
struct Sums {
    double d1, d2, d3, d4, e, e2, de, greatest, he2, hw2;
    float min, max;
    u32 zeros, first;
};

// The sum of four lanes, from the first to the last.
__device__ __forceinline__ double total(double lane)
{
    double sum = 0.0;
#pragma unroll
    for (u32 i = 0; i < LANES; ++i) sum += __shfl_sync(0xffffffffu, lane, i, LANES);
    return sum;
}

// `counts` has a bin for every 2^19 floats of the magnitude of q - w.
extern "C" __global__ void __launch_bounds__(THREADS)
    error_stats(const float* w, const float* q, const float* importance, u32 n, Sums* out, u32* counts, u32* refused)
{
    __shared__ u32 bins[BINS];
    for (u32 i = threadIdx.x; i < BINS; i += THREADS) bins[i] = 0;
    __syncthreads();
    const u32 lane = threadIdx.x % LANES, index = (blockIdx.x * THREADS + threadIdx.x) / LANES;
    const u32 start = index * BLOCK, len = start >= n ? 0 : n - start < BLOCK ? n - start : BLOCK;
    w += start;
    q += start;
    const double pivot = len > 0 ? w[0] : 0.0f;
    double d1 = 0.0, d2 = 0.0, d3 = 0.0, d4 = 0.0, e1 = 0.0, e2 = 0.0, de = 0.0, greatest = 0.0, he2 = 0.0, hw2 = 0.0;
    float min = (float)pivot, max = min;
    u32 zeros = 0;
    for (u32 i = lane; i < len; i += LANES) {
        const double a = w[i], e = (double)q[i] - a, d = a - pivot, square = d * d;
        d1 += d;
        d2 += square;
        d3 = __fma_rn(square, d, d3);
        d4 = __fma_rn(square, square, d4);
        e1 += e;
        e2 += e * e;
        de = __fma_rn(d, e, de);
        greatest = fabs(e) > greatest ? fabs(e) : greatest;
        min = w[i] < min ? w[i] : min;
        max = w[i] > max ? w[i] : max;
        zeros += w[i] == 0.0f;
        if (importance) {
            const double h = importance[start + i];
            he2 += h * (e * e);
            hw2 += h * (a * a);
        }
        atomicAdd(&bins[(__float_as_uint(q[i] - w[i]) & 0x7fffffffu) >> BIN_SHIFT], 1);
    }
    d2 = total(d2);
    e2 = total(e2);
    // A sum of squares of f32 in f64 overflows for no finite number.
    if (len > 0 && !(d2 + e2 < __longlong_as_double(0x7ff0000000000000ll))) refuse(refused);
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2) {
        const double other = __shfl_xor_sync(0xffffffffu, greatest, distance);
        const float low = __shfl_xor_sync(0xffffffffu, min, distance), high = __shfl_xor_sync(0xffffffffu, max, distance);
        greatest = other > greatest ? other : greatest;
        min = low < min ? low : min;
        max = high > max ? high : max;
        zeros += __shfl_xor_sync(0xffffffffu, zeros, distance);
    }
    u32 first = BLOCK;
    for (u32 i = lane; i < len; i += LANES) {
        if (fabs((double)q[i] - (double)w[i]) == greatest && i < first) first = i;
    }
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2) {
        const u32 other = __shfl_xor_sync(0xffffffffu, first, distance);
        first = other < first ? other : first;
    }
    d1 = total(d1);
    d3 = total(d3);
    d4 = total(d4);
    e1 = total(e1);
    de = total(de);
    he2 = total(he2);
    hw2 = total(hw2);
    if (lane == 0 && len > 0) out[index] = {d1, d2, d3, d4, e1, e2, de, greatest, he2, hw2, min, max, zeros, first};
    __syncthreads();
    for (u32 i = threadIdx.x; i < BINS; i += THREADS) {
        if (bins[i] > 0) atomicAdd(&counts[i], bins[i]);
    }
}
