/* prepare.h - rounding rows of x to what products read: to whole numbers by groups, as quant_x() of
 * dev/weight.h does, or to bf16. */
#ifndef TANDEM_CUDA_PREPARE_H
#define TANDEM_CUDA_PREPARE_H

#include "dev/cuda/product.h"

/* A warp rounds X_BLOCK columns of a piece, four in each lane: x[column], floats or what gives
 * them; of its `cols` columns the first `there` are there, the others are 0. ready, scale and x are
 * the row's, from the piece's begin on; the scale of group g is scale[g * ready_rows]. */
template <int GROUP, bool FOUR_BITS, class X>
GPU_INLINE void round_block(char *ready, struct x_scale *scale, int ready_rows, X x, int there,
                            int cols, int block)
{
    const int lane = (int)threadIdx.x % 32, column = block * X_BLOCK + 4 * lane;
    float v[4];
    unsigned most = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        v[i] = column + i < there ? x[column + i] : 0;
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
    const int four = lane % 8, place = FOUR_BITS ? four / 2 + four % 2 * 4 : four;
    *(unsigned *)(ready + column - 4 * four + 4 * place) = word;
    if (lane % (GROUP / 4) || column >= cols)
        return;
    scale[(size_t)(column / GROUP) * (size_t)ready_rows] = {none      ? __uint_as_float(0x7fc00000u)
                                                            : nothing ? 0
                                                                      : __fdiv_rn(top, 127),
                                                            total};
}

/* The same for e4m3: rounded to bf16, of each 16 columns first the first halves of all fours. */
template <class X> GPU_INLINE void pair_block(char *ready, X x, int there, int block)
{
    const int lane = (int)threadIdx.x % 32, column = block * X_BLOCK + 4 * lane, four = lane % 4;
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        v[i] = column + i < there ? x[column + i] : 0;
    unsigned *to = (unsigned *)(ready + 2 * (column - 4 * four)) + four;
    to[0] = to_bf16x2(v[0], v[1]);
    to[4] = to_bf16x2(v[2], v[3]);
}

/* Where a piece of a row goes. */
struct ready_row {
    char *at;
    struct x_scale *scale;
    int rows; /* from one group's scale to the next one's */
};

/* Block `block` of a piece of `cols` columns, of which `there` are there, for weights of TYPE. */
template <enum num TYPE, class X>
GPU_INLINE void round_row(const struct ready_row &to, X x, int there, int cols, int block)
{
    if constexpr (TYPE == NUM_BF16) {
        const int column = block * X_BLOCK + (int)threadIdx.x % 32 * 4;
        float v[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            v[i] = column + i < there ? x[column + i] : 0;
        *(uint2 *)(to.at + 2 * column) = make_uint2(to_bf16x2(v[0], v[1]), to_bf16x2(v[2], v[3]));
    } else if constexpr (TYPE == NUM_FP8) {
        pair_block(to.at, x, there, block);
    } else {
        round_block<format_group(TYPE), format_bits(TYPE) == 4>(to.at, to.scale, to.rows, x, there,
                                                                cols, block);
    }
}

#endif
