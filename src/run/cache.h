/* cache.h - experts that exceed memory: which of them stay in it.
 *
 * Packed weights are mapped from their file (packed.h), so the kernel would drop and read them by
 * pages, knowing nothing of experts. Here a rank says beforehand which experts a layer needs, so
 * that they are read in large pieces while others are computed; and it calls those cold that were
 * used least (older uses count less), so that the others take no more than a budget and memory,
 * when it is needed, is taken from the cold ones first. Where there is memory enough nothing is
 * read again. No bit of any answer depends on it. A rank counts what it maps: what two ranks read
 * is in memory once, but counts twice.
 */
#ifndef TANDEM_RUN_CACHE_H
#define TANDEM_RUN_CACHE_H

#include "base/arena.h"
#include "plan/plan.h"
#include "run/weights.h"

#include <stdatomic.h>

/* In shared memory, written by one rank. */
struct cache_figures {
    _Atomic uint64_t hits, misses; /* experts needed in a layer of a step, kept or not */
    _Atomic uint64_t bytes;        /* read for those that were not; the rest was still there */
};

struct expert_cache {
    int n_layer, n_expert;
    size_t budget, used; /* bytes */
    double worth;        /* what a use counts now; grows, which is as if older ones shrank */
    uint64_t call;
    struct cached *of; /* [n_layer][n_expert] */
    struct cache_figures *figures;
};

/* Nothing is in yet. view: the rank's, whose bytes are mapped from a file. The table is the pool's.
 * The shared expert and what is
 * no expert are not a part of this: they are read in every step. */
void cache_open(struct expert_cache *c, const struct plan *p, const struct weights *view,
                size_t budget, struct cache_figures *figures, struct pool *pool);

/* A layer of a step needs the experts with rows[e] > 0 and, unless mine is NULL, turns of this
 * rank. One layer's may exceed the budget; they then stay until the next. */
void cache_need(struct expert_cache *c, int layer, const int *rows, const struct span *mine);

/* This process no longer maps the n bytes at `at`, which it read before: what only ranks map is
 * theirs to judge. */
void cache_forget(const char *at, size_t n);

#endif
