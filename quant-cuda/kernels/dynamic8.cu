// int8-block: the dynamic 8-bit codebook, block-wise.
#include "dynamic8.cuh"

GROUP_KERNELS(int8_block_cuda, Dynamic8<false>)
GROUP_KERNELS(int8_block_cpu, Dynamic8<true>)

extern "C" __global__ void __launch_bounds__(256)
    int8_block_decode(const u8* codes, const float* absmax, const float* map, u32 n, u64 at, u64 group, float* out)
{
    group_decode<false>(codes, 8, n, at, group, out, [=](u8 code, u64 index) { return map[code] * absmax[index]; });
}
