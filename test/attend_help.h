/* attend_help.h - for tests of attention: sequences in a cache of shuffled pages, in which slots
 * that hold nothing are NaN, and attention as its formula says, in double. */
#ifndef TANDEM_ATTEND_HELP_H
#define TANDEM_ATTEND_HELP_H

#include "dev_help.h"

#include <math.h>

/* Sequences in a cache of shuffled pages. Slots that hold nothing are NaN. */
struct scene {
    struct help h;
    struct heads heads;
    struct kv cache;
    struct batch batch;
    struct mat q, k, v; /* k, v: every position of every sequence, sequence by sequence */
    int *first;         /* row of a sequence's position 0 in k and v */
    int n_head;         /* of queries */
};

enum { MAX_TOK = 256 };

static const enum num every_type[] = {NUM_F32, NUM_BF16, NUM_INT8};

static inline void fill_nan(void *at, size_t bytes) { memset(at, 0xff, bytes); }

static inline void make_pages(struct scene *s, const int *length)
{
    int n_seq = s->batch.n_seq, used = 0, longest = 0;
    for (int i = 0; i < n_seq; i++)
        longest = max_int(longest, length[i]);
    s->batch.stride = longest / KV_PAGE + 1;
    int total = n_seq * s->batch.stride, *page = pool_get(&s->h.pool, (size_t)total * sizeof(int));
    for (int i = 0; i < total; i++) { /* shuffled as they are dealt */
        int other = help_draw(&s->h, used + 1);
        page[used++] = page[other];
        page[other] = i;
    }
    s->batch.page = page;
    s->cache.head_bytes = kv_head_bytes(s->cache.type, s->cache.head_dim);
    s->cache.page_bytes = s->cache.head_bytes * (size_t)s->cache.n_head + 128;
    s->cache.at = help_bytes(&s->h, s->cache.page_bytes * (size_t)total);
    fill_nan(s->cache.at, s->cache.page_bytes * (size_t)total);
}

static inline int slot_of(const struct scene *s, int seq, int pos)
{
    return s->batch.page[seq * s->batch.stride + pos / KV_PAGE] * KV_PAGE + pos % KV_PAGE;
}

/* All keys and values into the cache. */
static inline void store_all(struct scene *s, const int *length)
{
    int *slot = pool_get(&s->h.pool, (size_t)s->k.n * sizeof(int));
    for (int i = 0; i < s->batch.n_seq; i++)
        for (int p = 0; p < length[i]; p++)
            slot[s->first[i] + p] = slot_of(s, i, p);
    dev_store(&s->h.dev[ISA_REF], &s->cache, &s->k, &s->v, slot);
}

static inline void fill_cache(struct scene *s, const int *length)
{
    int total = 0, dim = s->cache.n_head * s->cache.head_dim;
    s->first = pool_get(&s->h.pool, (size_t)s->batch.n_seq * sizeof(int));
    for (int i = 0; i < s->batch.n_seq; i++)
        s->first[i] = total, total += length[i];
    s->k = help_mat(&s->h, total, dim), s->v = help_mat(&s->h, total, dim);
    store_all(s, length);
}

/* Sequence i has length[i] positions; the last queries[i] of them ask. max_dim: of a head. */
static inline struct scene make_wide(enum num type, struct heads heads, int n_head, int n_seq,
                                     const int *length, const int *queries, uint64_t seed,
                                     int max_dim)
{
    struct scene s = {.h = help_begin(MAX_TOK, max_dim), .heads = heads, .n_head = n_head};
    int n_kv = (heads.q_first + n_head - 1) / heads.group - heads.kv_first + 1, n = 0;
    int *pos = pool_get(&s.h.pool, MAX_TOK * sizeof(int));
    int *seq = pool_get(&s.h.pool, MAX_TOK * sizeof(int));
    s.h.seed = seed;
    s.cache = (struct kv){.type = type, .n_head = n_kv, .head_dim = heads.head_dim};
    s.batch.n_seq = n_seq;
    make_pages(&s, length);
    fill_cache(&s, length);
    for (int i = 0; i < n_seq; i++)
        for (int p = length[i] - queries[i]; p < length[i]; p++, n++)
            pos[n] = p, seq[n] = i;
    assert_true(n <= MAX_TOK);
    s.batch.n_tok = n, s.batch.pos = pos, s.batch.seq = seq;
    s.q = help_mat(&s.h, n, n_head * heads.head_dim);
    return s;
}

static inline struct scene make(enum num type, struct heads heads, int n_head, int n_seq,
                                const int *length, const int *queries, uint64_t seed)
{
    return make_wide(type, heads, n_head, n_seq, length, queries, seed, 200);
}

/* Softmax of all scores at once, in double, from the numbers that were stored. */
static inline void plain_attention(const struct scene *s, int t, int head, double *out)
{
    int dim = s->heads.head_dim, pos = s->batch.pos[t];
    int kv = (s->heads.q_first + head) / s->heads.group - s->heads.kv_first;
    int lo = s->heads.window ? max_int(0, pos - s->heads.window + 1) : 0;
    const float *q = mat_row(&s->q, t) + head * dim;
    double sum = 0;
    for (int i = 0; i < dim; i++)
        out[i] = 0;
    for (int p = lo; p <= pos; p++) {
        int row = s->first[s->batch.seq[t]] + p;
        const float *k = mat_row(&s->k, row) + kv * dim, *v = mat_row(&s->v, row) + kv * dim;
        double score = 0;
        for (int i = 0; i < dim; i++)
            score += (double)q[i] * (double)k[i];
        double e = exp(score * (double)s->heads.scale);
        sum += e;
        for (int i = 0; i < dim; i++)
            out[i] += e * (double)v[i];
    }
    for (int i = 0; i < dim; i++)
        out[i] /= sum;
}

#endif
