/* experts_prepare.cu - rows as products of experts read them, rounded to bf16 or to whole numbers:
 * those of x, and what stands between up and down, silu(gate) * up, which is worked out on the way.
 * Rows that no expert of this rank has are left out.
 */
#include "dev/cuda/experts.h"
#include "dev/cuda/number.h"
#include "dev/cuda/prepare.h"

enum { WARPS = 8 };

/* Numbers of a row between up and down. */
struct between {
    const float *gate, *up;
    __device__ float operator[](int i) const { return num_swiglu(gate[i], up[i]); }
};

/* A warp rounds a block of X_BLOCK columns of row blockIdx.x. */
template <enum num TYPE>
__global__ static void __launch_bounds__(32 * WARPS)
    prepare_x(const __grid_constant__ struct experts e)
{
    const int row = (int)blockIdx.x, block = (int)blockIdx.y * WARPS + (int)threadIdx.x / 32;
    const struct ready_row to = {e.ready + (size_t)row * (size_t)x_ready_row(e), e.x_scale + row,
                                 e.n};
    if (block < parts_of(e.dim, X_BLOCK))
        round_row<TYPE>(to, e.x + (size_t)row * (size_t)e.dim, e.dim, e.dim, block);
}

/* The same of sorted rows, by the shares of their expert. */
template <enum num TYPE>
__global__ static void __launch_bounds__(32 * WARPS)
    prepare_down(const __grid_constant__ struct experts e)
{
    const int row = (int)blockIdx.x;
    int block = (int)blockIdx.y * WARPS + (int)threadIdx.x / 32, part = 0;
    if (e.owner[row] < 0)
        return;
    const struct gpu_weight *w = &e.expert[3 * e.owner[row] + 2];
    while (part < w->n_part && block >= parts_of(w->part[part].cols, X_BLOCK))
        block -= parts_of(w->part[part++].cols, X_BLOCK);
    if (part == w->n_part)
        return;
    const struct piece k = down_piece(e, w, part);
    const size_t at = (size_t)row * (size_t)e.columns + (size_t)k.x;
    const struct ready_row to = {e.ready + (size_t)row * (size_t)down_ready_row(e) + k.ready,
                                 e.x_scale + (size_t)k.group * (size_t)e.rows + row, e.rows};
    const struct between x = {e.gate + at, e.up + at};
    round_row<TYPE>(to, x, k.cols, k.cols, block);
}

template <enum num TYPE> static int prepare(void *stream, const struct experts *e, bool down)
{
    const int blocks =
        (down ? down_ready_row(*e) : x_ready_row(*e)) / ready_bytes(e->type) / X_BLOCK;
    const dim3 grid((unsigned)(down ? e->rows : e->n), (unsigned)parts_of(blocks, WARPS));
    return down ? LAUNCH(prepare_down<TYPE>, grid, dim3(32 * WARPS), 0, stream, *e)
                : LAUNCH(prepare_x<TYPE>, grid, dim3(32 * WARPS), 0, stream, *e);
}

int experts_prepare(void *stream, const struct experts *e, bool down)
{
    return of_format(e->type, [&](auto kind) { return prepare<kind()>(stream, e, down); });
}
