/* attend_exact.h - attention in the CPU's bits: what the threads of a block make of one block of
 * keys and values, for attend_exact.cu. Sums are one thread's, ascending, or those of sixteen
 * threads that stand for the CPU's sixteen partial sums; products of whole numbers are exact.
 */
#ifndef TANDEM_CUDA_ATTEND_EXACT_H
#define TANDEM_CUDA_ATTEND_EXACT_H

#include "dev/cuda/attend.h"

enum { THREADS = KV_BLOCK, LANES = 16, ROWS = THREADS / LANES };

struct exact_tile {
    struct queries of;
    int first, n, seq, head;
    struct keys keys;
};

/* What a row is known of after some keys; the sixteen threads of a row have the same. */
struct soft {
    float max, sum;
};

/* Shared memory of a block. */
struct scratch {
    float *query;      /* [head_dim][ROWS]; of an int8 cache pairs, [words of four][2][ROWS] */
    float *out, *all;  /* [ROWS][wide]: of this segment, of all */
    float *p;          /* [ROWS][KV_BLOCK] */
    int *pair;         /* weights of an int8 cache's values: [KV_BLOCK / 4][2][ROWS] */
    float *asks;       /* [ROWS] of an int8 cache: the query's scale */
    float *by, *then;  /* [ROWS] what outputs are multiplied with; then: the segment's */
    int *live;         /* [ROWS] does the row see any of it? */
    struct keys *sees; /* [ROWS] positions that a row sees */
    const char **page; /* of the block's pages */
};

static size_t query_floats(enum num type, int dim)
{
    return (size_t)(type == NUM_INT8 ? (dim + 3) / 4 * 2 : dim) * ROWS;
}

static size_t scratch_bytes(const struct attending *a)
{
    return (query_floats(a->cache.type, a->heads.head_dim) + 2 * ROWS * (size_t)a->wide +
            ROWS * KV_BLOCK + KV_BLOCK / 2 * ROWS + 6 * ROWS) *
               sizeof(float) +
           KV_BLOCK / KV_PAGE * sizeof(char *);
}

GPU_INLINE struct scratch scratch_of(const struct attending *a)
{
    const int dim = a->heads.head_dim;
    struct scratch s;
    s.page = gpu_shared<const char *>();
    s.query = (float *)(s.page + KV_BLOCK / KV_PAGE);
    s.out = s.query + (a->cache.type == NUM_INT8 ? (dim + 3) / 4 * 2 : dim) * ROWS;
    s.all = s.out + ROWS * a->wide;
    s.p = s.all + ROWS * a->wide;
    s.pair = (int *)(s.p + ROWS * KV_BLOCK);
    s.asks = (float *)(s.pair + KV_BLOCK / 2 * ROWS);
    s.by = s.asks + ROWS, s.then = s.by + ROWS, s.live = (int *)(s.then + ROWS);
    s.sees = (struct keys *)(s.live + ROWS);
    return s;
}

GPU_INLINE int my_row(void) { return threadIdx.x / LANES; }
GPU_INLINE int my_part(void) { return threadIdx.x % LANES; }

/* ------------------------------------------------------------------------------- whole numbers */

/* The largest of sixteen threads' bits of magnitudes, as top_of() of dev/kv.c. */
GPU_INLINE float join_top(uint32_t top)
{
    for (int h = 8; h; h /= 2)
        top = max(top, __shfl_xor_sync(0xffffffffu, top, h));
    return __uint_as_float(top < 0x7f800000u ? top : 0x7fc00000u);
}

GPU_INLINE uint32_t magnitude(float f) { return __float_as_uint(f) & 0x7fffffffu; }

/* What kv_round_factor() multiplies with; 0: all numbers are 0. */
GPU_INLINE float factor_of(float top, float *scale)
{
    *scale = top != top ? top : 0;
    if (!(top >= 1e-30f))
        return 0;
    *scale = __fdiv_rn(top, 32767);
    return __fdiv_rn(32767, top);
}

GPU_INLINE uint32_t whole_of(float x, float by)
{
    return by != 0 ? __float_as_uint(__fadd_rn(__fmul_rn(x, by), 0x1.8p23f)) & 0xffffu : 0;
}

/* Four numbers as two pairs, of the first and third and of the second and fourth: so the bytes of a
 * word of the cache stand (kv.h). */
GPU_INLINE void put_pairs(int *to, const float x[4], float by)
{
    to[0] = (int)(whole_of(x[0], by) | whole_of(x[2], by) << 16);
    to[ROWS] = (int)(whole_of(x[1], by) | whole_of(x[3], by) << 16);
}

GPU_INLINE int multiply_word(uint32_t word, const int *pair, int sum)
{
    const int bytes = (int)(word ^ 0x80808080u);
    return __dp2a_hi(pair[ROWS], bytes, __dp2a_lo(pair[0], bytes, sum));
}

/* ------------------------------------------------------------------------------- queries */

GPU_INLINE void fetch_whole_query(const struct scratch *s, const float *q, int dim)
{
    uint32_t top = 0;
    for (int i = my_part(); i < dim; i += LANES)
        top = max(top, magnitude(q ? q[i] : 0));
    float scale;
    const float by = factor_of(join_top(top), &scale);
    if (my_part() == 0)
        s->asks[my_row()] = scale;
    for (int w = my_part(); w < (dim + 3) / 4; w += LANES) {
        float x[4];
        for (int k = 0; k < 4; k++)
            x[k] = q && 4 * w + k < dim ? q[4 * w + k] : 0;
        put_pairs((int *)s->query + w * 2 * ROWS + my_row(), x, by);
    }
}

template <enum num TYPE>
GPU_INLINE void fetch_queries(const struct scratch *s, const struct attending *a,
                              const struct exact_tile *t)
{
    const float *q = my_row() < t->n ? a->q + row_at(a, &t->of, t->first + my_row()) : NULL;
    const int dim = a->heads.head_dim;
    if (TYPE == NUM_INT8)
        fetch_whole_query(s, q, dim);
    else
        for (int i = my_part(); i < dim; i += LANES)
            s->query[i * ROWS + my_row()] = q ? q[i] : 0;
}

/* ------------------------------------------------------------------------------- scores */

template <enum num TYPE> GPU_INLINE float number_at(const void *at, size_t i)
{
    return TYPE == NUM_F32 ? ((const float *)at)[i] : num_from_bf16(((const uint16_t *)at)[i]);
}

/* This thread's key for all rows, of an int8 cache. */
GPU_INLINE void score_whole(const struct scratch *s, const struct attending *a, const char *page,
                            int lane)
{
    const uint32_t *word = (const uint32_t *)(page + KV_SCALES) + lane;
    const float scale = num_from_bf16(((const uint16_t *)page)[lane]);
    int sum[ROWS] = {0};
    for (int w = 0; w < (a->heads.head_dim + 3) / 4; w++)
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r] = multiply_word(word[w * KV_PAGE], (int *)s->query + w * 2 * ROWS + r, sum[r]);
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        s->p[r * KV_BLOCK + threadIdx.x] =
            __fmul_rn((float)sum[r], __fmul_rn(scale, __fmul_rn(s->asks[r], a->heads.scale)));
}

template <enum num TYPE>
GPU_INLINE void score_floats(const struct scratch *s, const struct attending *a, const char *page,
                             int lane)
{
    const int dim = a->heads.head_dim;
    float sum[ROWS] = {0};
    for (int i = 0; i < dim; i++) {
        const float key = number_at<TYPE>(page, (size_t)i * KV_PAGE + lane);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r] = __fmaf_rn(key, s->query[i * ROWS + r], sum[r]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        s->p[r * KV_BLOCK + threadIdx.x] = __fmul_rn(sum[r], a->heads.scale);
}

template <enum num TYPE>
GPU_INLINE void score_key(const struct scratch *s, const struct attending *a, const char *page,
                          int lane)
{
    if (TYPE == NUM_INT8)
        score_whole(s, a, page, lane);
    else
        score_floats<TYPE>(s, a, page, lane);
}

/* ------------------------------------------------------------------------------- exponentials */

GPU_INLINE float largest(float a, float b) { return b > a ? b : a; } /* never a NaN b */

/* Exponentials become whole numbers; by[row] is then their scale. */
GPU_INLINE void weigh_whole(const struct scratch *s, struct keys see)
{
    const int row = my_row();
    float weight[KV_BLOCK / LANES];
    uint32_t top = 0;
    /* A thread has keys 4l .. 4l + 3 and 64 + 4l ..: whole words. */
    for (int k = 0; k < KV_BLOCK / LANES; k++) {
        const int key = k / 4 * 64 + my_part() * 4 + k % 4;
        weight[k] = 0;
        if (see.lo <= key && key < see.hi) {
            const uint16_t *scale = (const uint16_t *)s->page[key / KV_PAGE] + KV_PAGE;
            weight[k] = __fmul_rn(s->p[row * KV_BLOCK + key], num_from_bf16(scale[key % KV_PAGE]));
        }
        top = max(top, magnitude(weight[k]));
    }
    float scale_of_all;
    const float by = factor_of(join_top(top), &scale_of_all);
    if (my_part() == 0)
        s->then[row] = scale_of_all;
    for (int k = 0; k < KV_BLOCK / LANES; k += 4)
        put_pairs(s->pair + (k / 4 * 16 + my_part()) * 2 * ROWS + row, weight + k, by);
}

/* One row's scores of a block, of which it sees `see`, counted from the block's begin. */
template <enum num TYPE>
GPU_INLINE void soften(const struct scratch *s, struct soft *of, struct keys see)
{
    float *p = s->p + my_row() * KV_BLOCK, max = of->max, sum = 0;
    const bool live = see.lo < KV_BLOCK && see.hi > 0;
    for (int i = my_part(); i < KV_BLOCK; i += LANES)
        max = see.lo <= i && i < see.hi ? largest(max, p[i]) : max;
    for (int h = 8; h; h /= 2)
        max = largest(max, __shfl_xor_sync(0xffffffffu, max, h));
    for (int i = my_part(); i < KV_BLOCK; i += LANES) {
        p[i] = see.lo <= i && i < see.hi ? num_exp(p[i] - max) : 0;
        sum = __fadd_rn(sum, p[i]);
    }
    sum = num_join(sum);
    const float keep = live ? num_exp(of->max - max) : 1;
    if (live)
        of->sum = __fmaf_rn(of->sum, keep, sum), of->max = max;
    if (my_part() == 0)
        s->by[my_row()] = keep, s->live[my_row()] = live;
    __syncwarp();
    if (TYPE == NUM_INT8)
        weigh_whole(s, see);
}

/* ------------------------------------------------------------------------------- values */

GPU_INLINE void add_whole(const struct scratch *s, const struct attending *a, struct keys pages,
                          int number)
{
    int sum[ROWS] = {0};
    for (int i = pages.lo * (KV_PAGE / 4); i < pages.hi * (KV_PAGE / 4); i++) {
        const char *page = s->page[i / (KV_PAGE / 4)] + a->values_at;
        const uint32_t word =
            ((const uint32_t *)page)[(size_t)(i % (KV_PAGE / 4)) * a->wide + number];
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            sum[r] = multiply_word(word, s->pair + i * 2 * ROWS + r, sum[r]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        float *out = s->out + r * a->wide + number;
        if (s->live[r])
            *out = __fmaf_rn((float)sum[r], s->then[r], __fmul_rn(*out, s->by[r]));
    }
}

template <enum num TYPE>
GPU_INLINE void add_floats(const struct scratch *s, const struct attending *a, int block,
                           struct keys any, int number)
{
    struct keys see[ROWS];
    float out[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        out[r] = __fmul_rn(s->out[r * a->wide + number], s->by[r]);
        see[r] = {s->sees[r].lo - block, s->sees[r].hi - block};
    }
    for (int i = any.lo; i < any.hi; i++) {
        const char *page = s->page[i / KV_PAGE] + a->values_at;
        const float value = number_at<TYPE>(page, (size_t)(i % KV_PAGE) * a->wide + number);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
            if (see[r].lo <= i && i < see[r].hi)
                out[r] = __fmaf_rn(value, s->p[r * KV_BLOCK + i], out[r]);
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        s->out[r * a->wide + number] = out[r];
}

#endif
