/* size.h - what a plan takes of memory, to the byte, and whether devices have it.
 *
 * The sums are those of the code that will run: weights and cache by plan/plan.h, scratch by laying
 * the ranks out over no memory (run/rank.h, on a CPU all of run/room.h). On a CPU a host holds
 * weights and cache once and every core reaches them; every GPU holds the parts of its rank. What a
 * device keeps for itself (driver, runtime, other programs) is the hardware profile's reserve.
 */
#ifndef TANDEM_PREDICT_SIZE_H
#define TANDEM_PREDICT_SIZE_H

#include "plan/plan.h"
#include "topo/hardware.h"

/* What stands in one memory: that of a GPU, or that of a host. */
struct size {
    size_t weights, kv, scratch; /* scratch: activations, logits, mailbox, draws */
    size_t page;                 /* bytes of the cache per page of 16 tokens */
};

/* Of one rank on a device of its own; with rank PLAN_WHOLE: of all replicas on one host. */
struct size size_of(const struct plan *p, int rank);

static inline size_t size_all(const struct size *s) { return s->weights + s->kv + s->scratch; }

/* What depends on neither limits nor capacity, of every rank: weights, and cache per page. */
struct weighed {
    size_t weights[PLAN_RANKS], page[PLAN_RANKS];
};
void size_weigh(const struct plan *p, struct weighed *to);

/* How a plan meets the memory of its devices. The tightest counts: the one with the least left. */
struct fit {
    int rank;         /* the tightest; PLAN_WHOLE: the host */
    struct size size; /* there */
    double have,
        spare;      /* bytes that a plan may use there; what is left of them, negative: missing */
    int64_t kv_tok; /* tokens of cache that fit for one replica at most, beside weights and
                       scratch; 0 when not even these fit */
};
struct fit size_fit(const struct plan *p, const struct hardware *h);

/* The same, many times for plans that differ in limits, capacity and replicas only. */
struct fit size_fit_weighed(const struct plan *p, const struct hardware *h,
                            const struct weighed *w);

/* Give the plan as many pages as fit, or as max_seq sequences of ctx tokens need if that is less.
 * false when one sequence of ctx tokens does not fit; then the plan is as before. */
bool size_fill(struct plan *p, const struct hardware *h);
bool size_fill_weighed(struct plan *p, const struct hardware *h, const struct weighed *w);

/* The fewest devices over which the model is cut such that weights, scratch and kv_tok tokens of
 * cache fit; tp up to those that stand together in the innermost level, the rest stages. 0: more
 * than PLAN_RANKS. *of is what the tightest device then holds. */
int size_devices(const struct plan *like, const struct hardware *h, int64_t kv_tok, struct fit *of);

#endif
