/* gpu_scene.h - for tests of attention on the model of a GPU: a scene of attend_help.h there. */
#ifndef TANDEM_GPU_SCENE_H
#define TANDEM_GPU_SCENE_H

#include "attend_help.h"
#include "gpu_help.h"

enum { ROOM = 32 << 20 };

/* A scene's cache and batch on the GPU. */
struct there {
    struct gpu_kv cache;
    struct gpu_heads heads;
    struct gpu_batch batch;
    struct gpu_room room;
    float *q, *y;
};

static inline size_t cache_bytes(const struct scene *s)
{
    return s->cache.page_bytes * (size_t)(s->batch.n_seq * s->batch.stride);
}

static inline struct there put_scene(struct gpu *g, const struct scene *s)
{
    const struct batch *b = &s->batch;
    const struct heads *h = &s->heads;
    int most = 0;
    for (int t = 0; t < b->n_tok; t++)
        most = max_int(most, b->pos[t] + 1);
    return (struct there){
        .cache = {s->cache.type, s->cache.n_head, s->cache.head_dim, s->cache.page_bytes,
                  s->cache.head_bytes, gpu_put(g, s->cache.at, cache_bytes(s))},
        .heads = {h->head_dim, h->group, h->q_first, h->kv_first, h->window, h->scale},
        .batch = {b->n_tok, b->n_seq, b->stride, most,
                  gpu_put(g, b->pos, (size_t)b->n_tok * sizeof(int)), NULL,
                  gpu_put(g, b->seq, (size_t)b->n_tok * sizeof(int)),
                  gpu_put(g, b->page, (size_t)(b->n_seq * b->stride) * sizeof(int))},
        .room = {gpu_put(g, NULL, ROOM), ROOM, 4, 0},
        .q = gpu_put_mat(g, &s->q),
        .y = gpu_put(g, NULL, mat_bytes(&s->q))};
}

/* Rows [lo, hi) of the batch, as a batch of their own. */
static inline void attend(struct gpu *g, const struct scene *s, const struct there *at,
                          struct span rows)
{
    struct gpu_batch b = at->batch;
    const size_t skip = (size_t)rows.lo * (size_t)s->q.dim;
    b.n_tok = len(rows), b.pos += rows.lo, b.seq += rows.lo;
    gpu_ok(gpu_attend(g->stream, at->y + skip, at->q + skip, s->q.dim, &at->cache, &at->heads, &b,
                      &at->room));
}

static inline struct mat take_rows(struct gpu *g, struct scene *s, const struct there *at)
{
    struct mat got = help_copy(&s->h, &s->q);
    gpu_take(g, got.at, at->y, mat_bytes(&got));
    gpu_ok(gpu_clear(at->y, mat_bytes(&got), g->stream));
    return got;
}

#endif
