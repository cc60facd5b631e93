/* rows.cu - operations on rows of activations: the CPU's bits (dev/cpu/ref.c, in the same order).
 *
 * All are bound by memory or, with few rows, by their launch; so each is one kernel that reads no
 * number more than twice.
 */
#include "dev/cuda/kernels.h"
#include "dev/cuda/number.h"

enum {
    THREADS = 256,
    LANES = 16,   /* partial sums of a row */
    CHUNK = 4096, /* numbers of a row that wait for their partial sums */
    SHORT = 512,  /* the longest run that sixteen lanes add up by themselves */
    RUNS = THREADS / LANES
};

static int blocks_of(size_t n, int size) { return (int)((n + size - 1) / size); }

/* A block for every row and THREADS of its numbers. */
static dim3 by_row(int n, int dim) { return dim3(n, blocks_of(dim, THREADS)); }

__device__ static inline int my_column(void) { return blockIdx.y * THREADS + threadIdx.x; }

/* ------------------------------------------------------------------------------- norm */

__device__ static inline float norm_factor(float joined, int dim, float eps)
{
    return __fdiv_rn(1, __fsqrt_rn(__fadd_rn(__fdiv_rn(joined, (float)dim), eps)));
}

__device__ static inline float scaled(float x, float by, float w)
{
    return __fmul_rn(__fmul_rn(x, by), w);
}

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
    const float by = norm_factor(num_join(s), dim, eps);
    for (int i = lane; i < n; i += LANES)
        to[i] = scaled(from[i], by, w[i]);
}

/* A block per run. Sixteen threads add; the others fetch for them. */
__global__ static void norm_long(float *y, const float *x, int dim, const float *w, float eps)
{
    after_previous();
    __shared__ float chunk[CHUNK], factor;
    const float *from = x + (size_t)blockIdx.x * dim;
    float *to = y + (size_t)blockIdx.x * dim, s = 0;
    for (int lo = 0; lo < dim; lo += CHUNK) {
        const int n = min((int)CHUNK, dim - lo);
        for (int i = threadIdx.x; i < n; i += THREADS)
            chunk[i] = from[lo + i];
        __syncthreads();
        if (threadIdx.x < LANES)
            for (int i = threadIdx.x; i < n; i += LANES)
                s = __fmaf_rn(chunk[i], chunk[i], s);
        __syncthreads();
    }
    if (threadIdx.x < 2 * LANES) {
        s = num_join(s);
        if (threadIdx.x == 0)
            factor = norm_factor(s, dim, eps);
    }
    __syncthreads();
    const float by = factor;
    for (int i = threadIdx.x; i < dim; i += THREADS)
        to[i] = scaled(from[i], by, w[i]);
}

extern "C" int gpu_norm(void *stream, float *y, const float *x, int n, int dim, const float *w,
                        int w_dim, float eps)
{
    const int runs = n * (dim / w_dim);
    if (w_dim <= SHORT)
        return LAUNCH_CHAINED(norm_short, blocks_of(runs, RUNS), THREADS, 0, stream, y, x, runs,
                              w_dim, w, eps);
    return LAUNCH_CHAINED(norm_long, runs, THREADS, 0, stream, y, x, w_dim, w, eps);
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

__global__ static void rope_rows(float *x, int dim, int head_dim, const float *angle)
{
    after_previous();
    const int half = head_dim / 2, pair = my_column(), i = pair % half;
    if (pair >= dim / 2)
        return;
    float *lo = x + (size_t)blockIdx.x * dim + pair / half * head_dim + i, *hi = lo + half;
    const float *turn = angle + (size_t)blockIdx.x * head_dim;
    const float cosine = turn[i], sine = turn[half + i], a = *lo, b = *hi;
    *lo = __fmaf_rn(a, cosine, -__fmul_rn(b, sine));
    *hi = __fmaf_rn(b, cosine, __fmul_rn(a, sine));
}

extern "C" int gpu_rope(void *stream, float *x, int n, int dim, int head_dim, const float *angle)
{
    return LAUNCH_CHAINED(rope_rows, by_row(n, dim / 2), THREADS, 0, stream, x, dim, head_dim,
                          angle);
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
