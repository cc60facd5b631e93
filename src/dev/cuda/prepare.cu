/* prepare.cu - rows of x as products read them: rounded to bf16, or to whole numbers by groups, as
 * quant_x() of dev/weight.h does. Every part's columns are filled up with zeros to whole blocks of
 * X_BLOCK, and the rows to whole tiles. For
 * warpgroups they lie in bricks (warpgroup.h), 32 columns of all rows after one another.
 */
#include "dev/cuda/prepare.h"
#include "dev/cuda/warpgroup.h"

enum { WARPS = 8 };

/* Which piece block `block` of a row belongs to, and which of its blocks that is. */
GPU_INLINE int piece_of_block(const struct product &p, int *block)
{
    for (int k = 0; k < p.n_piece; k++) {
        const int n = parts_of(p.piece[k].cols, X_BLOCK);
        if (*block < n)
            return k;
        *block -= n;
    }
    return -1;
}

/* A warp makes a block of a row. */
template <enum num TYPE> __global__ void rows_kernel(const __grid_constant__ struct product p)
{
    after_previous();
    const int row = (int)blockIdx.x;
    int block = (int)blockIdx.y * WARPS + (int)threadIdx.x / 32;
    const int piece = piece_of_block(p, &block);
    if (piece < 0)
        return;
    const struct piece &k = p.piece[piece];
    const struct ready_row to = {p.ready + (size_t)row * (size_t)p.ready_row + k.ready,
                                 p.scale + (size_t)k.group * (size_t)p.ready_rows + row,
                                 p.ready_rows};
    round_row<TYPE>(to, p.x + (size_t)row * (size_t)p.dim + k.x, row < p.n ? k.cols : 0, k.cols,
                    block);
}

/* A warp makes 32 columns by eight rows: lane 8i + r eight columns of row r. */
__global__ void bricks_kernel(const __grid_constant__ struct product p)
{
    after_previous();
    const int lane = (int)threadIdx.x % 32, row = (int)blockIdx.x * 8 + lane % 8;
    const int quarter = (int)blockIdx.y * WARPS + (int)threadIdx.x / 32;
    int block = quarter / 4;
    const int piece = piece_of_block(p, &block);
    if (piece < 0)
        return;
    const struct piece &k = p.piece[piece];
    const int column = block * X_BLOCK + quarter % 4 * 32 + lane / 8 * 8;
    const float *x = p.x + (size_t)row * (size_t)p.dim + (size_t)(k.x + column);
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; i++)
        v[i] = row < p.n && column + i < k.cols ? x[i] : 0;
    const int first = (k.ready / 2 + column) / 32 * (p.ready_rows / 8) + (int)blockIdx.x;
    uint4 *to = (uint4 *)(p.ready + (size_t)first * 4 * BRICK) + lane;
    *to = make_uint4(to_bf16x2(v[0], v[1]), to_bf16x2(v[2], v[3]), to_bf16x2(v[4], v[5]),
                     to_bf16x2(v[6], v[7]));
}

int product_prepare(void *stream, enum num type, const struct product *p)
{
    int blocks = 0;
    for (int k = 0; k < p->n_piece; k++)
        blocks += parts_of(p->piece[k].cols, X_BLOCK);
    if (!blocks)
        return 0;
    const dim3 threads(32 * WARPS);
    if (p->bricks)
        return LAUNCH_CHAINED(
            bricks_kernel,
            dim3((unsigned)(p->ready_rows / 8), (unsigned)parts_of(4 * blocks, WARPS)), threads, 0,
            stream, *p);
    const dim3 grid((unsigned)p->ready_rows, (unsigned)parts_of(blocks, WARPS));
    return of_format(type, [&](auto kind) {
        return LAUNCH_CHAINED(rows_kernel<kind()>, grid, threads, 0, stream, *p);
    });
}
