/* row_norm.cu - norms of rows that ranks share out: sums of squares by share, and the norm by their
 * sum; and numbers that are clipped. The CPU's bits (dev/cpu/ref.c, in the same order).
 */
#include "dev/cuda/kernels.h"
#include "dev/cuda/number.h"

enum { LANES = 16, THREADS = 256, ALL = GPU_PARTS * LANES };

struct planes {
    float *at[GPU_PLANES];
};

/* Sixteen lanes per share, then a thread per subtree. */
__global__ static void squares(struct planes to, int n_plane, int columns, int column,
                               const float *x, int dim, struct gpu_runs runs)
{
    after_previous();
    __shared__ float leaf[GPU_PARTS];
    const int share = threadIdx.x / LANES, lane = threadIdx.x % LANES, plane = threadIdx.x;
    const float *row = x + (size_t)blockIdx.x * dim;
    const int lo = share < runs.n ? runs.begin[share] : 0;
    const int hi = share < runs.n ? runs.begin[share + 1] : 0;
    float s = 0;
    for (int i = lo + lane; i < hi; i += LANES)
        s = __fmaf_rn(row[i], row[i], s);
    s = num_join(s);
    if (lane == 0)
        leaf[share] = s;
    __syncthreads();
    if (plane >= n_plane)
        return;
    const int first = runs.tree[plane], end = runs.tree[plane + 1];
    for (int w = 1; w < end - first; w *= 2)
        for (int i = first; i < end; i += 2 * w)
            leaf[i] = __fadd_rn(leaf[i], leaf[i + w]);
    to.at[plane][(size_t)blockIdx.x * columns + column] = leaf[first];
}

extern "C" int gpu_squares(void *stream, float *const plane[GPU_PLANES], int n_plane, int columns,
                           int column, const float *x, int n, int dim, const struct gpu_runs *runs)
{
    struct planes to;
    for (int i = 0; i < GPU_PLANES; i++)
        to.at[i] = i < n_plane ? plane[i] : NULL;
    return LAUNCH_CHAINED(squares, n, ALL, 0, stream, to, n_plane, columns, column, x, dim, *runs);
}

__global__ static void norm_by(float *x, int part, const float *sum, int columns, int column,
                               const float *w, int dim, float eps)
{
    after_previous();
    const int i = blockIdx.y * THREADS + threadIdx.x;
    const float by = num_norm_factor(sum[(size_t)blockIdx.x * columns + column], dim, eps);
    float *at = x + (size_t)blockIdx.x * part + i;
    if (i < part)
        *at = num_scaled(*at, by, w[i]);
}

extern "C" int gpu_norm_by(void *stream, float *x, int n, int part, const float *sum, int columns,
                           int column, const float *w, int dim, float eps)
{
    return LAUNCH_CHAINED(norm_by, dim3(n, (part + THREADS - 1) / THREADS), THREADS, 0, stream, x,
                          part, sum, columns, column, w, dim, eps);
}

__global__ static void clip(float *x, size_t n, float limit)
{
    after_previous();
    const size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n)
        return;
    const float low = -limit > x[i] ? -limit : x[i]; /* a NaN stays */
    x[i] = limit < low ? limit : low;
}

extern "C" int gpu_clip(void *stream, float *x, int n, int dim, float limit)
{
    const size_t all = (size_t)n * dim;
    return LAUNCH_CHAINED(clip, (int)((all + THREADS - 1) / THREADS), THREADS, 0, stream, x, all,
                          limit);
}
