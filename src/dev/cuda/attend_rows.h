/* attend_rows.h - a tile of rows of a long run of tokens, sixteen rows to a warp: which rows and
 * keys it has, and what becomes of scores and outputs between products. For attend_tiles.cu and
 * attend_wgmma.cu, whose matrices lie in the same registers.
 */
#ifndef TANDEM_CUDA_ATTEND_ROWS_H
#define TANDEM_CUDA_ATTEND_ROWS_H

#include "dev/cuda/attend_bf16.h"

enum { SCORES = BLOCK_KEYS / 8 };

/* The rows of a tile: of one sequence, ascending. */
struct tile {
    struct queries of;
    int first, n;
    struct reading read;
    struct keys common; /* keys that all rows see */
};

/* What a lane knows of its two rows, g and g + 8 of the warp's sixteen. */
template <int VALUES> struct outputs {
    float top[2], sum[4], out[VALUES / 8][4];
};

template <int VALUES> GPU_INLINE void clear_outputs(struct outputs<VALUES> *o)
{
    o->top[0] = o->top[1] = -INFINITY;
    for (int e = 0; e < 4; e++)
        o->sum[e] = 0;
#pragma unroll
    for (int i = 0; i < VALUES / 8; i++)
        for (int e = 0; e < 4; e++)
            o->out[i][e] = 0;
}

/* Does the run of this token have more tokens than attend_split takes? */
GPU_INLINE bool in_long_run(const struct attending *a, int token)
{
    const int *seq = a->batch.seq, most = short_run(a);
    int first = token;
    if (token >= most && seq[token - most] == seq[token])
        return true;
    while (first > 0 && seq[first - 1] == seq[token])
        first--;
    return first + most < a->batch.n_tok && seq[first + most] == seq[token];
}

/* The end of the rows from `first` on that are the same sequence's. */
GPU_INLINE int end_of_run(const struct attending *a, int heads, int first, int end)
{
    const int *seq = a->batch.seq, token = first / heads;
    if (seq[(end - 1) / heads] == seq[token])
        return end;
    int next = token + 1;
    while (seq[next] == seq[token])
        next++;
    return next * heads;
}

GPU_INLINE struct tile make_tile(const struct attending *a, struct queries of, int head, int first,
                                 int end)
{
    const int *pos = a->batch.pos, from = first / of.n, last = (end - 1) / of.n;
    const struct keys low = keys_of(&a->heads, pos[from]), high = keys_of(&a->heads, pos[last]);
    struct tile t;
    t.of = of, t.first = first, t.n = end - first;
    t.read.seq = a->batch.seq[from], t.read.head = head;
    t.read.keys.lo = low.lo, t.read.keys.hi = high.hi;
    t.common.lo = high.lo, t.common.hi = low.hi;
    return t;
}

/* ------------------------------------------------------------------------------- numbers */

/* Scores of keys that a row does not see become -infinity. Few blocks have such. */
GPU_INLINE void hide(float score[SCORES][4], const struct attending *a, const struct tile *t,
                     int block)
{
    for (int h = 0; h < 2; h++) {
        const int row = min(my_warp() * 16 + my_lane() / 4 + 8 * h, t->n - 1);
        const struct keys see = keys_of(&a->heads, a->batch.pos[(t->first + row) / t->of.n]);
#pragma unroll
        for (int i = 0; i < SCORES; i++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                const int key = block + 8 * i + my_lane() % 4 * 2 + e;
                if (key < see.lo || see.hi <= key)
                    score[i][2 * h + e] = -INFINITY;
            }
    }
}

/* Scores become what values are multiplied with, and all so far shrinks by as much. */
template <int VALUES>
GPU_INLINE void soften(struct outputs<VALUES> *o, uint32_t p[BLOCK_PAGES][4],
                       float score[SCORES][4], float c)
{
    float keep[2];
    for (int h = 0; h < 2; h++) {
        float top = o->top[h];
#pragma unroll
        for (int i = 0; i < SCORES; i++)
            top = fmaxf(top, fmaxf(score[i][2 * h], score[i][2 * h + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        keep[h] = keep_of(o->top[h], top, c);
        o->top[h] = top;
#pragma unroll
        for (int i = 0; i < SCORES; i++)
            p[i / 2][i % 2 * 2 + h] = to_bf16x2(weight_of(score[i][2 * h], top, c),
                                                weight_of(score[i][2 * h + 1], top, c));
    }
#pragma unroll
    for (int e = 0; e < 4; e++)
        o->sum[e] = __fmul_rn(o->sum[e], keep[e / 2]);
#pragma unroll
    for (int i = 0; i < VALUES / 8; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            o->out[i][e] = __fmul_rn(o->out[i][e], keep[e / 2]);
}

template <int VALUES>
GPU_INLINE void join_outputs(struct outputs<VALUES> *all, const struct outputs<VALUES> *one,
                             float c)
{
    struct joined j[2];
    for (int h = 0; h < 2; h++) {
        j[h] = join_segment(all->top[h], one->top[h], c);
        all->top[h] = j[h].top;
    }
    for (int h = 0; h < 2; h++) /* a sum is there twice */
        all->sum[2 * h] = join_number(all->sum[2 * h], one->sum[2 * h], j[h]);
#pragma unroll
    for (int i = 0; i < VALUES / 8; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            all->out[i][e] = join_number(all->out[i][e], one->out[i][e], j[e / 2]);
}

template <int VALUES>
GPU_INLINE void write_rows(const struct attending *a, const struct tile *t, int value,
                           const struct outputs<VALUES> *all)
{
    for (int h = 0; h < 2; h++) {
        const int row = my_warp() * 16 + my_lane() / 4 + 8 * h;
        if (row >= t->n)
            continue;
        float *to = a->y + row_at(a, &t->of, t->first + row);
#pragma unroll
        for (int i = 0; i < VALUES / 8; i++)
            for (int e = 0; e < 2; e++) {
                const int number = value + 8 * i + my_lane() % 4 * 2 + e;
                if (number < a->heads.head_dim)
                    to[number] = settled(all->out[i][2 * h + e], all->sum[2 * h]);
            }
    }
}

#endif
