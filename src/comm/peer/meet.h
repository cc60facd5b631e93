/* meet.h - how blocks of kernels on the GPUs of a group meet (kernels.h), and how what they bring
 * is added. Who reads what another GPU may have written does so by plain loads after an acquire,
 * never through a cache that is not coherent.
 */
#ifndef TANDEM_PEER_MEET_H
#define TANDEM_PEER_MEET_H

#include "comm/peer/kernels.h"
#include "dev/cuda/gpu.h"

enum {
    PEER_THREADS = 256,
    HOT = 64,         /* looks at a word before resting in between */
    STOP_EVERY = 256, /* looks before looking at the host's word, which takes a microsecond */
};

/* As many blocks as have something to do, the same on all ranks. */
static inline unsigned peer_blocks(size_t bytes)
{
    const size_t n = (bytes + PEER_THREADS * 16 - 1) / (PEER_THREADS * 16);
    return n < 1 ? 1 : n < PEER_BLOCKS ? (unsigned)n : (unsigned)PEER_BLOCKS;
}

/* ------------------------------------------------------------------------------- meeting */

GPU_INLINE bool reached(const uint32_t *word, uint32_t at)
{
    return (int32_t)(load_acquire(word) - at) >= 0;
}

/* Until the word has come to `at`; false: the host says stop. */
GPU_INLINE bool await(const peer_view &v, const uint32_t *word, uint32_t at)
{
    for (unsigned looks = 1; !reached(word, at); looks++) {
        if (looks % STOP_EVERY == 0 && load_acquire(v.stop)) {
            store_release(v.failed, 1);
            return false;
        }
        if (looks > HOT)
            gpu_pause();
    }
    return true;
}

/* What one thread found, told to all of the block. Called by all. */
GPU_INLINE bool all_told(bool good)
{
    __shared__ int told;
    if (threadIdx.x == 0)
        told = good;
    __syncthreads();
    return told;
}

/* Meet this block of the other ranks. What the block wrote before, they read after. */
GPU_INLINE bool meet(const peer_view &v, uint32_t turn)
{
    const int lane = (int)threadIdx.x;
    bool good = true;
    __syncthreads();
    if (lane < 32) {
        const bool other = lane < v.size && lane != v.rank;
        if (other)
            store_release(&v.state[lane]->arrived[v.rank][blockIdx.x], turn);
        __syncwarp(); /* all are told before anyone is waited for */
        if (other)
            good = await(v, &v.state[v.rank]->arrived[lane][blockIdx.x], turn);
        good = __all_sync(0xffffffffu, good);
    }
    return all_told(good);
}

GPU_INLINE uint32_t turns(const peer_view &v) { return v.state[v.rank]->turn[blockIdx.x]; }

/* At the end of a kernel: it has come to so many meetings. */
GPU_INLINE void end_at(const peer_view &v, uint32_t turn)
{
    __syncthreads(); /* all have read the old one */
    if (threadIdx.x == 0)
        v.state[v.rank]->turn[blockIdx.x] = turn;
}

/* ------------------------------------------------------------------------------- numbers */

struct alignas(16) whole2 {
    long long x, y;
};

GPU_INLINE float add(float a, float b) { return __fadd_rn(a, b); }

GPU_INLINE float4 add(float4 a, float4 b)
{
    return make_float4(add(a.x, b.x), add(a.y, b.y), add(a.z, b.z), add(a.w, b.w));
}

/* As whole_add() of base/whole.h. */
GPU_INLINE long long add(long long a, long long b)
{
    const long long none = INT64_MIN;
    return a == none || b == none ? none : (long long)((uint64_t)a + (uint64_t)b);
}

GPU_INLINE whole2 add(whole2 a, whole2 b) { return {add(a.x, b.x), add(a.y, b.y)}; }

#endif
