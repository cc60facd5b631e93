/* example.cc - see example.h. */
#include "example.h"

#include "dev/cuda/gpu.h"

static __global__ void sum_kernel(int *to, const int *from, bool barrier)
{
    int *shared = gpu_shared<int>();
    shared[threadIdx.x] = from[blockIdx.x * blockDim.x + threadIdx.x];
    for (unsigned half = blockDim.x / 2; half; half /= 2) {
        if (barrier)
            __syncthreads();
        if (threadIdx.x < half)
            shared[threadIdx.x] += shared[threadIdx.x + half];
    }
    if (!threadIdx.x)
        to[blockIdx.x] = shared[0];
}

int example_sum(void *stream, int *to, const int *from, int blocks, bool barrier)
{
    return LAUNCH(sum_kernel, dim3((unsigned)blocks), dim3(256), 1024, stream, to, from, barrier);
}

static __global__ void multiply_kernel(float *to, const uint16_t *a, const uint16_t *b)
{
    const unsigned g = threadIdx.x / 4, t = threadIdx.x % 4;
    float c[4] = {0, 0, 0, 0};
    uint32_t ra[4], rb[2];
    for (unsigned i = 0; i < 4; i++) {
        const uint16_t *at = a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
        ra[i] = (uint32_t)at[1] << 16 | at[0];
    }
    for (unsigned i = 0; i < 2; i++) {
        const uint16_t *at = b + (2 * t + 8 * i) * 8 + g;
        rb[i] = (uint32_t)at[8] << 16 | at[0];
    }
    mma_bf16(c, ra, rb);
    for (unsigned i = 0; i < 4; i++)
        to[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i];
}

int example_multiply(void *stream, float *to, const uint16_t *a, const uint16_t *b)
{
    return LAUNCH(multiply_kernel, dim3(1), dim3(32), 0, stream, to, a, b);
}

static __global__ void transpose_kernel(uint16_t *to, const uint16_t *from, bool wait)
{
    uint16_t *shared = gpu_shared<uint16_t>();
    uint32_t r[2];
    if (threadIdx.x < 8)
        copy_async(shared + 8 * threadIdx.x, from + 8 * threadIdx.x, true);
    copy_commit();
    if (wait)
        copy_wait<0>();
    __syncwarp();
    load_matrix_x2_trans(r, shared + threadIdx.x % 8 * 8);
    uint16_t *at = to + threadIdx.x / 4 * 8 + threadIdx.x % 4 * 2;
    at[0] = (uint16_t)r[0];
    at[1] = (uint16_t)(r[0] >> 16);
}

int example_transpose(void *stream, uint16_t *to, const uint16_t *from, bool wait)
{
    return LAUNCH(transpose_kernel, dim3(1), dim3(32), 128, stream, to, from, wait);
}

static __global__ void wrong_kernel(enum example which, const int *from)
{
    char *shared = gpu_shared<char>();
    if (which == EXAMPLE_LEAVES) {
        if (threadIdx.x >= 32)
            return;
        __syncthreads();
    } else if (which == EXAMPLE_DIVIDED) {
        if (threadIdx.x % 32 < 16)
            __shfl_xor_sync(0xffffffffu, 1, 1);
        else
            __ballot_sync(0xffffffffu, 1);
    } else {
        copy_async(shared + 4, from, true);
    }
}

int example_wrong(void *stream, enum example which, const int *from)
{
    return LAUNCH(wrong_kernel, dim3(2), dim3(64), 64, stream, which, from);
}

static __global__ void race_kernel(enum example_race which, int *to)
{
    int *mine = to + blockIdx.x;
    const int thread = (int)threadIdx.x;
    switch (which) {
    case EXAMPLE_ATOMICS: atomicAdd(to, 1); break;
    case EXAMPLE_BYTES:
        if (thread < 4)
            reinterpret_cast<char *>(mine)[thread] = 1;
        break;
    case EXAMPLE_BARRIER:
    case EXAMPLE_OF_WARPS:
        if (thread == 40)
            *mine = 1;
        if (which == EXAMPLE_BARRIER)
            __syncthreads();
        if (thread == 4 && *mine)
            *mine = 2;
        break;
    case EXAMPLE_SYNCWARP:
    case EXAMPLE_OF_LANES:
        if (thread == 1)
            *mine = 1;
        if (which == EXAMPLE_SYNCWARP)
            __syncwarp();
        else
            __ballot_sync(0xffffffffu, 1);
        if (thread == 9 && *mine)
            *mine = 2;
        break;
    case EXAMPLE_OF_BLOCKS:
        if (thread == 0)
            *to = 1;
        break;
    }
}

int example_race(void *stream, enum example_race which, int *to)
{
    return LAUNCH(race_kernel, dim3(2), dim3(64), 0, stream, which, to);
}
