/* prepare.cu - rows of x as products read them: rounded to whole numbers by groups, as quant_x() of
 * dev/weight.h does. Every part's columns are filled up with zeros to whole blocks of X_BLOCK, and
 * the rows to whole tiles.
 */
#include "dev/cuda/product.h"

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

/* A warp rounds 128 columns, four in each lane. */
template <int GROUP> __global__ void whole_kernel(const __grid_constant__ struct product p)
{
    const int lane = (int)threadIdx.x % 32, row = (int)blockIdx.y;
    int block = (int)blockIdx.x * WARPS + (int)threadIdx.x / 32;
    const int piece = piece_of_block(p, &block);
    if (piece < 0)
        return;
    const struct piece &k = p.piece[piece];
    const int column = block * X_BLOCK + 4 * lane;
    const float *x = p.x + (size_t)row * (size_t)p.dim + (size_t)(k.x + column);
    float v[4];
    unsigned most = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[i] = row < p.n && column + i < k.cols ? x[i] : 0;
        most = max(most, __float_as_uint(v[i]) & 0x7fffffffu);
    }
    for (int by = 1; by < GROUP / 4; by *= 2)
        most = max(most, __shfl_xor_sync(0xffffffffu, most, by));
    const float top = __uint_as_float(most);
    const bool none = most >= 0x7f800000u, nothing = none || top < 1e-30f;
    const float by_this = nothing ? 0 : __fdiv_rn(127, top);
    unsigned word = 0;
    int total = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int q = nothing ? 0 : __float2int_rn(__fmul_rn(v[i], by_this));
        word |= ((unsigned)q & 255) << 8 * i;
        total += q;
    }
    for (int by = 1; by < GROUP / 4; by *= 2)
        total += __shfl_xor_sync(0xffffffffu, total, by);
    *(unsigned *)(p.ready + (size_t)row * (size_t)p.ready_row + (size_t)(k.ready + column)) = word;
    if (lane % (GROUP / 4) || column >= k.cols)
        return;
    p.scale[(size_t)row * (size_t)p.groups + (size_t)(k.group + column / GROUP)] = {
        none      ? __uint_as_float(0x7fc00000u)
        : nothing ? 0
                  : __fdiv_rn(top, 127),
        total};
}

int product_prepare(void *stream, enum num type, const struct product *p, int rows)
{
    int blocks = 0;
    for (int k = 0; k < p->n_piece; k++)
        blocks += parts_of(p->piece[k].cols, X_BLOCK);
    const dim3 grid((unsigned)parts_of(blocks, WARPS), (unsigned)rows), block(32 * WARPS);
    switch (format_group(type)) {
    case 128: return LAUNCH(whole_kernel<128>, grid, block, 0, stream, *p);
    case 64: return LAUNCH(whole_kernel<64>, grid, block, 0, stream, *p);
    default: return LAUNCH(whole_kernel<32>, grid, block, 0, stream, *p);
    }
}
