/* rows.cu - operations on rows of activations: the CPU's bits (dev/cpu/ref.c, in the same order).
 *
 * All are bound by memory or, with few rows, by their launch; so each is one kernel that reads no
 * number more than twice.
 */
#include "dev/cuda/kernels.h"
#include "dev/cuda/number.h"

enum {
    THREADS = 256,
    LANES = 16,  /* partial sums of a row */
    SHORT = 512, /* the longest run that sixteen lanes add up by themselves */
    RUNS = THREADS / LANES,
    NORM_THREADS = 1024,
    AT_ONCE = 4
};

static int blocks_of(size_t n, int size) { return (int)((n + size - 1) / size); }

/* A block for every row and THREADS of its numbers. */
static dim3 by_row(int n, int dim) { return dim3(n, blocks_of(dim, THREADS)); }

__device__ static inline int my_column(void) { return blockIdx.y * THREADS + threadIdx.x; }

/* ------------------------------------------------------------------------------- norm */

/* Sixteen lanes per run: single heads. */
__global__ static void norm_short(float *y, const float *x, int runs, int dim, const float *w,
                                  float eps)
{
    after_previous();
    const int run = blockIdx.x * RUNS + threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const int n = run < runs ? dim : 0;
    const float *from = x + (size_t)run * dim;
    float *to = y + (size_t)run * dim, s = 0;
    for (int i = lane; i < n; i += LANES)
        s = __fmaf_rn(from[i], from[i], s);
    const float by = num_norm_factor(num_join(s), dim, eps);
    for (int i = lane; i < n; i += LANES)
        to[i] = num_scaled(from[i], by, w[i]);
}

GPU_INLINE float number_of(const float *y) { return *y; }
GPU_INLINE float number_of(const int64_t *y) { return num_from_whole(*y); }

/* A run in shared memory = x, or x += y, then += bias. Several numbers are read before any is
 * written: their latencies overlap. */
template <class SUM>
GPU_INLINE void take_run(float *run, float *x, const SUM *y, const float *bias, int dim)
{
    for (int first = threadIdx.x; first < dim; first += AT_ONCE * NORM_THREADS) {
        float v[AT_ONCE];
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            const int i = first + j * NORM_THREADS;
            v[j] = i < dim ? x[i] : 0;
            if (y && i < dim)
                v[j] = __fadd_rn(v[j], number_of(y + i));
            if (bias && i < dim)
                v[j] = __fadd_rn(v[j], bias[i]);
        }
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            const int i = first + j * NORM_THREADS;
            if (i < dim)
                run[i] = v[j];
            if (y && i < dim)
                x[i] = v[j];
        }
    }
}

/* A block per run: h = the norm of x, to which y is added before (NULL: nothing is). Sixteen lanes
 * add up; the chain of fused operations is the most of it. */
template <class SUM>
__global__ static void __launch_bounds__(NORM_THREADS)
    norm_long(float *h, float *x, const SUM *y, const float *bias, int dim, const float *w,
              float eps)
{
    __shared__ float factor;
    float *run = gpu_shared<float>();
    const size_t at = (size_t)blockIdx.x * dim;
    prefetch_weights(w, dim, threadIdx.x, NORM_THREADS);
    prefetch_weights(bias, dim, threadIdx.x, NORM_THREADS);
    after_previous();
    take_run(run, x + at, y ? y + at : NULL, bias, dim);
    __syncthreads();
    if (threadIdx.x < 2 * LANES) {
        float s = 0;
#pragma unroll 16
        for (int i = threadIdx.x % LANES; i < dim; i += LANES)
            s = __fmaf_rn(run[i], run[i], s);
        s = num_join(s);
        if (threadIdx.x == 0)
            factor = num_norm_factor(s, dim, eps);
    }
    __syncthreads();
    const float by = factor;
#pragma unroll 4
    for (int i = threadIdx.x; i < dim; i += NORM_THREADS)
        h[at + i] = num_scaled(run[i], by, w[i]);
}

template <class SUM>
static int launch_long(void *stream, float *h, float *x, const SUM *y, const float *bias, int n,
                       int dim, const float *w, float eps)
{
    return LAUNCH_CHAINED(norm_long<SUM>, n, NORM_THREADS, (size_t)dim * sizeof(float), stream, h,
                          x, y, bias, dim, w, eps);
}

extern "C" int gpu_norm(void *stream, float *y, const float *x, int n, int dim, const float *w,
                        int w_dim, float eps)
{
    const int runs = n * (dim / w_dim);
    if (w_dim <= SHORT)
        return LAUNCH_CHAINED(norm_short, blocks_of(runs, RUNS), THREADS, 0, stream, y, x, runs,
                              w_dim, w, eps);
    return launch_long<float>(stream, y, (float *)x, NULL, NULL, runs, w_dim, w, eps);
}

extern "C" int gpu_add_norm(void *stream, float *h, float *x, const void *y, bool whole,
                            const float *bias, int n, int dim, const float *w, float eps)
{
    return whole ? launch_long(stream, h, x, (const int64_t *)y, NULL, n, dim, w, eps)
                 : launch_long(stream, h, x, (const float *)y, bias, n, dim, w, eps);
}

/* ------------------------------------------------------------------------------- by number */

__global__ static void add_rows(float *x, const float *y, const float *bias, int dim)
{
    after_previous();
    const int i = my_column();
    if (i >= dim)
        return;
    float *to = x + (size_t)blockIdx.x * dim + i;
    float sum = __fadd_rn(*to, y[(size_t)blockIdx.x * dim + i]);
    *to = bias ? __fadd_rn(sum, bias[i]) : sum;
}

extern "C" int gpu_add(void *stream, float *x, const float *y, const float *bias, int n, int dim)
{
    return LAUNCH_CHAINED(add_rows, by_row(n, dim), THREADS, 0, stream, x, y, bias, dim);
}

__global__ static void swiglu_rows(float *gate, const float *up, int dim)
{
    after_previous();
    const int i = my_column();
    if (i >= dim)
        return;
    const size_t at = (size_t)blockIdx.x * dim + i;
    gate[at] = num_swiglu(gate[at], up[at]);
}

extern "C" int gpu_swiglu(void *stream, float *gate, const float *up, int n, int dim)
{
    return LAUNCH_CHAINED(swiglu_rows, by_row(n, dim), THREADS, 0, stream, gate, up, dim);
}

__global__ static void settle_rows(float *x, const int64_t *y, int dim)
{
    after_previous();
    const int i = my_column();
    if (i >= dim)
        return;
    const size_t at = (size_t)blockIdx.x * dim + i;
    x[at] = __fadd_rn(x[at], num_from_whole(y[at]));
}

extern "C" int gpu_settle(void *stream, float *x, const int64_t *y, int n, int dim)
{
    return LAUNCH_CHAINED(settle_rows, by_row(n, dim), THREADS, 0, stream, x, y, dim);
}

/* ------------------------------------------------------------------------------- copies */

__global__ static void pick_rows(float *y, const float *x, const int *row, int dim)
{
    after_previous();
    const int i = my_column();
    if (i < dim)
        y[(size_t)blockIdx.x * dim + i] = x[(size_t)row[blockIdx.x] * dim + i];
}

extern "C" int gpu_pick(void *stream, float *y, const float *x, const int *row, int n, int dim)
{
    return LAUNCH_CHAINED(pick_rows, by_row(n, dim), THREADS, 0, stream, y, x, row, dim);
}
