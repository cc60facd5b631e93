/* attend_bf16.h - the arithmetic of attention over a bf16 cache, by tensor cores. One definition,
 * of which attend_tiles.cu and attend_split.cu are two arrangements:
 *
 *   - queries and exponentials are rounded to bf16; scores, sums and outputs are f32;
 *   - a score is one chain of m16n8k16 steps over the head's dimensions, ascending;
 *   - keys come in blocks of BLOCK_KEYS, anchored at position 0, with an online softmax:
 *         top = the largest score so far;  p = 2^((score - top) * c),  c = scale / ln 2
 *         out, sum = (out, sum) * 2^((top before - top) * c) + p * (values, 1)
 *     where p * (values, 1) are m16n8k16 steps over sixteen keys each, ascending, and a key that
 * the row does not see has p = 0: a block without any changes nothing;
 *   - a segment of SEGMENT_KEYS starts afresh, and segments are merged ascending.
 *
 * In every step a row's numbers meet only numbers of this row and of the cache, so they do not
 * depend on the other rows of a tile. (But where a key that some rows of a tile do not see yet has
 * an infinite value or none, these get none too: 0 * infinity.)
 */
#ifndef TANDEM_CUDA_ATTEND_BF16_H
#define TANDEM_CUDA_ATTEND_BF16_H

#include "dev/cuda/attend.h"

enum {
    BLOCK_KEYS = 64,
    BLOCK_PAGES = BLOCK_KEYS / KV_PAGE,
    SEGMENT_KEYS = 512,
    ATTEND_THREADS = 128,
    ATTEND_WARPS = ATTEND_THREADS / 32,
    KEY_ROW = KV_PAGE * 2, /* bytes of a dimension of a page's keys */
    PAD = 16               /* bytes after a row in shared memory, so that eight rows of a matrix
                              lie in different banks */
};

/* c: scores become exponents of 2. */
GPU_INLINE float exponent_unit(const struct gpu_heads *h) { return __fmul_rn(h->scale, EXP_LOG2E); }

/* What a row's largest score is subtracted as: nothing seen yet leaves all at 2^-infinity. */
GPU_INLINE float top_or_zero(float top) { return top == -INFINITY ? 0.0f : top; }

/* 2^((score - top) * c) */
GPU_INLINE float weight_of(float score, float top, float c)
{
    return fast_exp2(__fmaf_rn(score, c, -__fmul_rn(top_or_zero(top), c)));
}

/* What sums shrink by when the largest score grows. */
GPU_INLINE float keep_of(float before, float top, float c)
{
    return fast_exp2(__fmul_rn(before - top_or_zero(top), c));
}

/* The results of some segments, and how one more joins: number by number
 *     all = all * a + one * b. */
struct joined {
    float top, a, b;
};

GPU_INLINE struct joined join_segment(float all_top, float top, float c)
{
    const float most = fmaxf(all_top, top);
    return {most, keep_of(all_top, most, c), keep_of(top, most, c)};
}

GPU_INLINE float join_number(float all, float one, struct joined j)
{
    return __fmaf_rn(all, j.a, __fmul_rn(one, j.b));
}

/* + 0: a sum that underflowed to -0 must not tell how many blocks changed nothing. */
GPU_INLINE float settled(float out, float sum)
{
    return __fadd_rn(__fmul_rn(out, __fdiv_rn(1, sum)), 0);
}

/* ------------------------------------------------------------------------------- the cache */

/* The pages that some rows read in one head of a sequence, and the keys that any of them sees. */
struct reading {
    int seq, head;
    struct keys keys;
};

/* Sixteen bytes, eight keys, of a dimension: their place is turned by the dimension's bit 2, so
 * that eight dimensions lie in different banks. */
template <int WIDE> GPU_INLINE char *key_at(char *keys, int page, int dim, int half)
{
    return keys + ((page * WIDE + dim) * 2 + (half ^ (dim >> 2 & 1))) * 16;
}

template <int N> GPU_INLINE char *row_of(char *rows, int row) { return rows + row * (N * 2 + PAD); }

/* Begin copying the keys from position `block` on: [page][WIDE][16 keys]. Dimensions that are not
 * there and pages that nobody reads become zeros. */
template <int WIDE>
GPU_INLINE void fetch_keys(char *to, const struct attending *a, const struct reading *r, int block)
{
    for (int i = threadIdx.x; i < BLOCK_PAGES * WIDE * 2; i += ATTEND_THREADS) {
        const int page = i / (WIDE * 2), dim = i / 2 % WIDE, pos = block + page * KV_PAGE;
        const bool there =
            dim < a->cache.head_dim && pos + KV_PAGE > r->keys.lo && pos < r->keys.hi;
        const char *from =
            there ? page_of(a, r->seq, r->head, pos) + dim * KEY_ROW + i % 2 * 16 : a->cache.at;
        copy_async(key_at<WIDE>(to, page, dim, i % 2), from, there);
    }
    copy_commit();
}

/* The same of N numbers of values from number `first` on: [BLOCK_KEYS][N]. What nobody sees becomes
 * zeros: it may be anything, and 0 times anything is not always 0. */
template <int N>
GPU_INLINE void fetch_values(char *to, const struct attending *a, const struct reading *r,
                             int block, int first)
{
    for (int i = threadIdx.x; i < BLOCK_KEYS * N / 8; i += ATTEND_THREADS) {
        const int row = i / (N / 8), number = first + i % (N / 8) * 8, pos = block + row;
        const bool there = number < a->wide && pos >= r->keys.lo && pos < r->keys.hi;
        const char *from = there ? page_of(a, r->seq, r->head, pos) + a->values_at +
                                       ((size_t)(pos % KV_PAGE) * a->wide + number) * 2
                                 : a->cache.at;
        copy_async(row_of<N>(to, row) + i % (N / 8) * 16, from, there);
    }
    copy_commit();
}

/* Queries of `n` rows from row `first` on, rounded: [rows][WIDE]; zeros after them. By thread
 * `thread` of some. */
template <int WIDE>
GPU_INLINE void fetch_queries(char *to, const struct attending *a, const struct queries *of,
                              int first, int n, int rows, int thread, int threads)
{
    for (int i = thread; i < rows * WIDE / 2; i += threads) {
        const int row = i / (WIDE / 2), number = i % (WIDE / 2) * 2;
        float x[2] = {0, 0};
        for (int k = 0; k < 2; k++)
            if (row < n && number + k < a->heads.head_dim)
                x[k] = a->q[row_at(a, of, first + row) + number + k];
        *(uint32_t *)(row_of<WIDE>(to, row) + number * 2) = to_bf16x2(x[0], x[1]);
    }
}

/* ------------------------------------------------------------------------------- fragments */

GPU_INLINE int my_lane(void) { return threadIdx.x % 32; }
GPU_INLINE int my_warp(void) { return threadIdx.x / 32; }

/* a of rows first .. first + 15 and numbers 16k .. 16k + 15. */
template <int N> GPU_INLINE void load_a(uint32_t a[4], char *rows, int first, int k)
{
    const int lane = my_lane();
    load_matrix_x4(a, row_of<N>(rows, first + lane % 16) + k * 32 + lane / 16 * 16);
}

/* Two b: dimensions 16k .. 16k + 15 of the sixteen keys of a page. */
template <int WIDE> GPU_INLINE void load_keys(uint32_t b[4], char *keys, int page, int k)
{
    const int lane = my_lane();
    load_matrix_x4_trans(b, key_at<WIDE>(keys, page, k * 16 + lane % 16, lane / 16));
}

/* Two b: the sixteen keys of a page of values' numbers 16k .. 16k + 15. */
template <int N> GPU_INLINE void load_values(uint32_t b[4], char *values, int page, int k)
{
    const int lane = my_lane();
    load_matrix_x4_trans(b,
                         row_of<N>(values, page * KV_PAGE + lane % 16) + k * 32 + lane / 16 * 16);
}

/* The sum of p is a product with ones: the very p that values are multiplied with. */
GPU_INLINE void add_ones(float sum[4], const uint32_t p[4])
{
    const uint32_t ones[2] = {0x3f803f80, 0x3f803f80};
    mma_bf16(sum, p, ones);
}

#endif
