/* kernels.cu - see kernels.h. */
#include "comm/nccl/kernels.h"
#include "dev/cuda/gpu.h"

namespace
{

enum {
    THREADS = 256,
    DEPTH = 6, /* terms on the stack: log2 of the most shares, and one */
};

GPU_INLINE float add(float a, float b) { return __fadd_rn(a, b); }

/* As whole_add() of base/whole.h. */
GPU_INLINE long long add(long long a, long long b)
{
    const long long none = INT64_MIN;
    return a == none || b == none ? none : (long long)((uint64_t)a + (uint64_t)b);
}

/* Terms are a stack that moves, so that it stays in registers. */
template <class V>
__global__ void __launch_bounds__(THREADS) add_planes(V *to, const size_t n, const nccl_terms x)
{
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    V stack[DEPTH] = {};
    if (i >= n)
        return;
    const uint32_t need = x.need ? x.need[i / x.dim] : ~0u;
    for (int p = 0; p < x.n_plane; p++) {
#pragma unroll
        for (int k = DEPTH - 1; k > 0; k--)
            stack[k] = stack[k - 1];
        stack[0] = need >> p & 1 ? static_cast<const V *>(x.plane[p])[i] : V(0);
        for (int left = x.adds[p]; left > 0; left--) {
            stack[0] = add(stack[1], stack[0]);
#pragma unroll
            for (int k = 1; k < DEPTH - 1; k++)
                stack[k] = stack[k + 1];
        }
    }
    to[i] = stack[0];
}

__global__ void __launch_bounds__(THREADS)
    place_columns(float *to, const int to_dim, const int lo, const float *from, const size_t n,
                  const int dim)
{
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < n)
        to[i / dim * to_dim + lo + i % dim] = from[i];
}

unsigned blocks_for(size_t n) { return (unsigned)((n + THREADS - 1) / THREADS); }

} // namespace

int nccl_add(void *stream, void *to, size_t n, const struct nccl_terms *x)
{
    if (x->whole)
        return LAUNCH(add_planes<long long>, blocks_for(n), THREADS, 0, stream,
                      static_cast<long long *>(to), n, *x);
    return LAUNCH(add_planes<float>, blocks_for(n), THREADS, 0, stream, static_cast<float *>(to), n,
                  *x);
}

int nccl_columns(void *stream, float *to, int to_dim, int lo, const float *from, int n, int dim)
{
    const size_t all = (size_t)n * dim;
    return LAUNCH(place_columns, blocks_for(all), THREADS, 0, stream, to, to_dim, lo, from, all,
                  dim);
}
