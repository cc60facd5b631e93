/* attend.h - what the kernels of attention share: which rows a block works on, what these see, and
 * where the pages of the cache are.
 *
 * A row is a query head of a token. The query heads of one head of the cache stand together: rows
 * are counted token by token, and head by head inside a token (grouped queries). They read the same
 * pages, so a tile of them needs each page once.
 */
#ifndef TANDEM_CUDA_ATTEND_H
#define TANDEM_CUDA_ATTEND_H

#include "dev/cuda/kernels.h"
#include "dev/cuda/number.h"
#include "dev/cuda/page.h"

enum { ATTEND_SHORT = 64 }; /* rows of a run that attend_split may have: see there */

/* One call of gpu_attend(). */
struct attending {
    float *y;
    const float *q;
    int dim, n_head;  /* numbers of a row of q and y; query heads in it */
    size_t values_at; /* bytes from a page's begin to its values */
    int wide;         /* head_dim rounded up to 16: numbers of a value in the cache */
    float *part;      /* results of segments, for attend_merge; NULL: one block does them all */
    int segments;     /* how many of them at most; 1 without part */
    struct gpu_kv cache;
    struct gpu_heads heads;
    struct gpu_batch batch;
};

struct keys {
    int lo, hi;
};

/* Query heads [lo, hi) of the rank read head `head` of its cache. */
struct queries {
    int lo, n;
};

GPU_INLINE struct queries queries_of(const struct gpu_heads *h, int n_head, int head)
{
    const int first = (h->kv_first + head) * h->group - h->q_first;
    const int lo = max(first, 0), hi = min(first + h->group, n_head);
    return {lo, max(hi - lo, 0)};
}

GPU_INLINE struct keys keys_of(const struct gpu_heads *h, int pos)
{
    return {h->window && pos >= h->window ? pos - h->window + 1 : 0, pos + 1};
}

/* Where the number 0 of a row is in q and in y. */
GPU_INLINE size_t row_at(const struct attending *a, const struct queries *of, int row)
{
    return (size_t)(row / of->n) * a->dim + (size_t)(of->lo + row % of->n) * a->heads.head_dim;
}

GPU_INLINE const char *page_of(const struct attending *a, int seq, int head, int pos)
{
    const size_t page = a->batch.page[(size_t)seq * a->batch.stride + pos / KV_PAGE];
    return a->cache.at + page * a->cache.page_bytes + head * a->cache.head_bytes;
}

/* The most tokens of a sequence whose rows are few. All query heads of a head are counted, also
 * where the rank has some of them only, so that all heads agree. */
__host__ __device__ static inline int short_run(const struct attending *a)
{
    return ATTEND_SHORT / (a->heads.group < a->n_head ? a->heads.group : a->n_head);
}

#endif
