// Kernels with one mistake each. bugs.ptx is made of this file:
//     nvcc -O3 -fmad=false -std=c++17 -arch=compute_75 -ptx bugs.cu -o bugs.ptx
// without the comments.

// Reads what another warp writes, with no __syncthreads between.
extern "C" __global__ void missing_barrier(float* out)
{
    __shared__ float room[256];
    room[threadIdx.x] = (float)threadIdx.x;
    out[threadIdx.x] = room[255 - threadIdx.x];
}

// The last thread writes behind the end.
extern "C" __global__ void out_of_bounds(float* out) { out[threadIdx.x + 1] = 1.0f; }

// Eight lanes have left when all shuffle.
extern "C" __global__ void exited_lane(float* out)
{
    if (threadIdx.x >= 24) return;
    float x = (float)threadIdx.x;
    x += __shfl_xor_sync(0xffffffff, x, 16);
    out[threadIdx.x] = x;
}

// Threads of one warp wait at different barriers.
extern "C" __global__ void divergent_barrier(float* out)
{
    if (threadIdx.x < 100) {
        __syncthreads();
        out[threadIdx.x] = 1.0f;
    } else {
        out[threadIdx.x] = 2.0f;
        __syncthreads();
        out[threadIdx.x] += 2.0f;
    }
}

// Nobody writes the seventh element.
extern "C" __global__ void uninitialised(float* out)
{
    __shared__ float room[256];
    if (threadIdx.x != 7) room[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = room[threadIdx.x];
}

// Words at odd halves of words.
extern "C" __global__ void misaligned(unsigned char* out) { *(unsigned*)(out + 2 + 4 * threadIdx.x) = 1; }

// Lanes of a warp read what others of it write, with no __syncwarp between.
extern "C" __global__ void missing_warp_sync(float* out)
{
    __shared__ volatile float room[32];
    room[threadIdx.x] = (float)threadIdx.x;
    if (threadIdx.x < 16) room[threadIdx.x] += room[threadIdx.x + 16];
    out[threadIdx.x] = room[0];
}

// The sum depends on the order of the threads.
extern "C" __global__ void float_atomic(float* out) { atomicAdd(out, 1.0f); }

// e^x and a quotient, but not to the last bit.
extern "C" __global__ void approximate_function(float* out) { out[threadIdx.x] = __expf(out[threadIdx.x]); }

extern "C" __global__ void approximate_division(float* out) { out[threadIdx.x] = __fdividef(1.0f, out[threadIdx.x]); }

// What the mistakes above should have been.
extern "C" __global__ void no_mistake(float* out)
{
    __shared__ float room[256];
    room[threadIdx.x] = (float)threadIdx.x;
    __syncthreads();
    float x = room[255 - threadIdx.x];
    x += __shfl_xor_sync(0xffffffff, x, 16);
    __syncthreads();
    room[threadIdx.x] = __fdiv_rn(x, 2.0f);
    __syncwarp();
    out[threadIdx.x] = room[threadIdx.x ^ 1];
}
