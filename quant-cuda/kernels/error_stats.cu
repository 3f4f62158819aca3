// The sums of an audit over blocks of 256 pairs of a weight and what stands for it; see quant-core/src/audit/measure.rs.
//
// Four threads take a block, as the four lanes of the CPU: thread l has the elements l, l + 4, … and adds them in order, in f64; the four
// sums are added in order, too. So every sum has the bits of the CPU's.
#include "quant.cuh"

const u32 BLOCK = 256, LANES = 4, THREADS = 128, BINS = 4096, BIN_SHIFT = 19;

// Of a block; quant-cuda/src/run/measure.rs reads it.
struct Sums {
    double mean, m2, m3, m4, w2, q2, wq, e, e2, greatest, he2, hw2;
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
    double sum = 0.0, w2 = 0.0, q2 = 0.0, wq = 0.0, e1 = 0.0, e2 = 0.0, greatest = 0.0, he2 = 0.0, hw2 = 0.0;
    float min = __int_as_float(0x7f800000), max = -min;
    u32 zeros = 0;
    for (u32 i = lane; i < len; i += LANES) {
        const double a = w[i], b = q[i], e = b - a;
        sum += a;
        w2 += a * a;
        q2 += b * b;
        wq += a * b;
        e1 += e;
        e2 += e * e;
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
    const double mean = total(sum) / (double)len;
    w2 = total(w2);
    q2 = total(q2);
    // A sum of squares of f32 in f64 overflows for no finite number.
    if (len > 0 && !(w2 + q2 < __longlong_as_double(0x7ff0000000000000ll))) refuse(refused);
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2) {
        const double other = __shfl_xor_sync(0xffffffffu, greatest, distance);
        const float low = __shfl_xor_sync(0xffffffffu, min, distance), high = __shfl_xor_sync(0xffffffffu, max, distance);
        greatest = other > greatest ? other : greatest;
        min = low < min ? low : min;
        max = high > max ? high : max;
        zeros += __shfl_xor_sync(0xffffffffu, zeros, distance);
    }
    double m2 = 0.0, m3 = 0.0, m4 = 0.0;
    u32 first = BLOCK;
    const u32 whole = len / LANES * LANES;
    for (u32 i = lane; i < len; i += LANES) {
        const double e = (double)q[i] - (double)w[i];
        if (fabs(e) == greatest && i < first) first = i;
        if (i < whole) {
            const double d = (double)w[i] - mean, d2 = d * d;
            m2 += d2;
            m3 += d2 * d;
            m4 += d2 * d2;
        }
    }
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2) {
        const u32 other = __shfl_xor_sync(0xffffffffu, first, distance);
        first = other < first ? other : first;
    }
    m2 = total(m2);
    m3 = total(m3);
    m4 = total(m4);
    for (u32 i = whole; i < len; ++i) {
        const double d = (double)w[i] - mean;
        m2 += d * d;
        m3 += d * d * d;
        m4 += d * d * (d * d);
    }
    wq = total(wq);
    e1 = total(e1);
    e2 = total(e2);
    he2 = total(he2);
    hw2 = total(hw2);
    if (lane == 0 && len > 0) out[index] = {mean, m2, m3, m4, w2, q2, wq, e1, e2, greatest, he2, hw2, min, max, zeros, first};
    __syncthreads();
    for (u32 i = threadIdx.x; i < BINS; i += THREADS) {
        if (bins[i] > 0) atomicAdd(&counts[i], bins[i]);
    }
}
