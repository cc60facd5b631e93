/* experts.h - an engine's experts: how loaded they are, who holds which, placed anew while it runs.
 * For the engine's own files, but for the options; the face is engine/engine.h. */
#ifndef TANDEM_ENGINE_EXPERTS_H
#define TANDEM_ENGINE_EXPERTS_H

#include "engine/team.h"
#include "sched/balance.h"

#include <pthread.h>
#include <stdatomic.h>

/* With zeros all ranks hold all experts, which on one host costs nothing; on GPUs even shares. */
struct expert_opts {
    const struct placement *layer; /* [n_layer] from the start; NULL: all hold all */
    bool rebalance;                /* from measured loads, ... */
    double every_s;                /* ... so often, if rows were computed since */
    int redundant;                 /* experts that every run then holds beyond its share */
};

/* Counts are of all teams since the engine's start. */
struct expert_figures {
    uint64_t *rows;          /* [n_layer][experts] */
    struct turn_load *turns; /* [n_layer] */
    uint64_t placements;     /* how often experts were placed anew */
    struct cache_use cache;  /* --expert-cache */
};

struct experts_of {
    const struct plan *plan;
    struct expert_opts opts;
    /* [n_layer] as it is; as it shall be; as another thread wants it to be */
    struct placement *now, *goal, *want;
    bool own;                   /* ranks have memory of their own: the plan's slots are the bound */
    bool given, moving, wanted; /* the team was told; goal differs; want is new */
    int layer;                  /* the next one to move */
    double next_s;              /* when to look at the loads again */
    _Atomic uint64_t placements;  /* other threads read it */
    struct expert_figures before; /* of teams that have ended */
    struct expert_figures room;   /* for a look */
    uint64_t *rows;               /* [n_layer][experts] at the last look */
    double *load;                 /* [n_layer][experts] rows; what is older counts less */
    pthread_mutex_t lock;         /* of want and wanted */
};

/* Whether ranks with memory of their own have room for what the options want. -EINVAL, as the next.
 */
int experts_check(const struct plan *p, const struct expert_opts *opts, struct err *e);

/* Memory is the pool's. opts: checked, for the plan; the plan must outlive it. own: as above. */
void experts_open(struct experts_of *x, const struct plan *p, const struct expert_opts *opts,
                  bool own, double now_s, struct pool *pool);
void experts_close(struct experts_of *x);

/* Between steps: tell the team who holds what, after balancing if it is time. Where that copies
 * experts, one layer moves with a step, so that none waits for long. */
void experts_place(struct experts_of *x, struct team *t, double now_s);
/* The team is about to end: keep its counts. The next one is told the same placement. */
void experts_keep(struct experts_of *x, const struct team *t);
/* to's arrays are the caller's. t NULL: no team at the moment. */
void experts_figures(const struct experts_of *x, const struct team *t, struct expert_figures *to);
/* From any thread: from some step soon on, experts are held so. -EINVAL: a bad placement, or one
 * that ranks have no room for. */
int experts_want(struct experts_of *x, const struct placement *layer, struct err *e);

#endif
