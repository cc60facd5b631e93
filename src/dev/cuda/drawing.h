/* drawing.h - drawing tokens: what draw.cu and draw_choose.cu share. run/sample.c is the
 * definition.
 *
 * A row of logits is cut into spans, a block of threads each. Weights are multiples of 2^-32, here
 * counted in whole numbers, so that no order of additions matters. All that top-k, top-p and min-p
 * keep is the beginning of the row's words in the order of their rank, and what is drawn is the
 * word at which the sum of weights in that order exceeds a number: so nothing is ever sorted, and
 * three searches by digits of the rank are enough (draw_choose.cu).
 *
 * Of words in slices every GPU looks through its own, and what it finds stays in its room, where
 * the others read it between two meetings: the largest of spans, what tiers weigh, the gathered
 * words. Then each chooses by itself, and all the same.
 */
#ifndef TANDEM_CUDA_DRAWING_H
#define TANDEM_CUDA_DRAWING_H

#include "dev/cuda/kernels.h"
#include "dev/cuda/number.h"
#include "dev/weigh.h"

enum {
    DRAW_THREADS = 256,
    DRAW_SPAN = 2048,
    DRAW_EACH = DRAW_SPAN / DRAW_THREADS,
    DRAW_ROWS = 64, /* at once; the room is for so many */
    TIERS = 9,      /* of weights, by factors of 16; the last is of the smallest */
    COUNT_AT = 48 /* a tier of a span: the sum of its weights, and from this bit on their number */
};

typedef unsigned long long whole; /* as atomicAdd() has it */

/* Some rows, and what of the room is theirs. Words are counted from the slice's first on, but where
 * it says numbers. */
struct drawing {
    struct gpu_draw_rows draws;
    int *token;
    float *logits; /* of the slice, of all rows; the first of these is row `row` there */
    int row;
    int slices, own, first[GPU_SLICES + 1];
    ptrdiff_t away[GPU_SLICES];
    int width, spans; /* words of the longest slice, and its spans */
    float *most;      /* [n][spans] the largest of a span, NaN when one is; its first number: */
    int *most_at;     /* [n][spans] */
    whole *tier;      /* [n][spans][TIERS]; of rows without top-k and top-p the first is all */
    int *n_list;      /* [n] */
    int *list;        /* [n][width] words whose tiers are enough for top-k and top-p */
    int *times;       /* [n][width] how often a token was seen */
};

/* Where slice i has what is at `here` in this one. */
template <class T> GPU_INLINE const T *of_slice(const struct drawing *d, int i, const T *here)
{
    return (const T *)((const char *)here + d->away[i]);
}

GPU_INLINE int words_of(const struct drawing *d, int i) { return d->first[i + 1] - d->first[i]; }

GPU_INLINE const float *logits_of(const struct drawing *d, int i, int row)
{
    return of_slice(d, i, d->logits) + (size_t)(d->row + row) * words_of(d, i);
}

GPU_INLINE float *own_logits(const struct drawing *d, int row)
{
    return d->logits + (size_t)(d->row + row) * words_of(d, d->own);
}

GPU_INLINE bool is_ranked(const struct gpu_draw_row *r) { return r->top_k > 0 || r->top_p < 1; }

/* weigh() of dev/weigh.c, operation by operation. */
GPU_INLINE float weight_of(float x, float most, float scale)
{
    const float below = __fmul_rn(__fsub_rn(x, most), scale);
    if (!(below > WEIGH_MIN))
        return 0;
    const float n = __fsub_rn(__fadd_rn(__fmul_rn(below, WEIGH_LOG2E), WEIGH_ROUND), WEIGH_ROUND);
    const float r =
        __fsub_rn(__fsub_rn(below, __fmul_rn(n, WEIGH_LN2_HI)), __fmul_rn(n, WEIGH_LN2_LO));
    float q = __fadd_rn(__fmul_rn(r, 1.0f / 5040), 1.0f / 720);
    q = __fadd_rn(__fmul_rn(q, r), 1.0f / 120);
    q = __fadd_rn(__fmul_rn(q, r), 1.0f / 24);
    q = __fadd_rn(__fmul_rn(q, r), 1.0f / 6);
    q = __fadd_rn(__fmul_rn(q, r), 0.5f);
    q = __fadd_rn(__fmul_rn(q, r), 1);
    q = __fadd_rn(__fmul_rn(q, r), 1);
    const float e = __fmul_rn(q, __uint_as_float((uint32_t)((int)n + 127) << 23));
    return e < WEIGH_WHOLE ? __fsub_rn(__fadd_rn(e, WEIGH_WHOLE), WEIGH_WHOLE) : e;
}

/* A weight in units; it is at most 1. */
GPU_INLINE whole units_of(float weight) { return (whole)__float2ll_rn(weight * 0x1p32f); }

/* Of a weight that is not 0. */
GPU_INLINE int tier_of(float weight) { return (127 - (int)(__float_as_uint(weight) >> 23)) / 4; }

/* ------------------------------------------------------------------------------- blocks */

/* The largest of the whole row; all threads of the block get it. NaN when any is. */
GPU_INLINE float row_most(const struct drawing *d, int row)
{
    __shared__ float most;
    if (threadIdx.x < 32) {
        float m = -INFINITY;
        bool bad = false;
        for (int i = threadIdx.x; i < d->slices * d->spans; i += 32) {
            const float x = of_slice(d, i / d->spans, d->most)[row * d->spans + i % d->spans];
            bad |= x != x;
            m = fmaxf(m, x);
        }
        for (int h = 16; h; h /= 2)
            m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, h));
        bad = __any_sync(0xffffffffu, bad);
        if (threadIdx.x == 0)
            most = bad ? __uint_as_float(0x7fc00000u) : m;
    }
    __syncthreads();
    return most;
}

/* The row's tiers, each with those before it: sums of weights, and how many. All threads may read
 * them then. */
struct tiers {
    whole mass[TIERS];
    int count[TIERS];
};

GPU_INLINE void row_tiers(const struct drawing *d, int row, struct tiers *to)
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
    for (int t = warp; t < TIERS; t += warps) {
        whole mass = 0;
        int count = 0;
        for (int i = lane; i < d->slices * d->spans; i += 32) {
            const whole both =
                of_slice(d, i / d->spans, d->tier)[(row * d->spans + i % d->spans) * TIERS + t];
            mass += both & (((whole)1 << COUNT_AT) - 1);
            count += (int)(both >> COUNT_AT);
        }
        for (int h = 16; h; h /= 2) {
            mass += __shfl_xor_sync(0xffffffffu, mass, h);
            count += __shfl_xor_sync(0xffffffffu, count, h);
        }
        if (lane == 0)
            to->mass[t] = mass, to->count[t] = count;
    }
    __syncthreads();
    if (threadIdx.x == 0)
        for (int t = 1; t < TIERS; t++)
            to->mass[t] += to->mass[t - 1], to->count[t] += to->count[t - 1];
    __syncthreads();
}

/* Parts of draw_choose.cu that draw.cu enqueues. */
int draw_gather(void *stream, const struct drawing *d, int n);
int draw_choose(void *stream, const struct drawing *d, int n);

#endif
