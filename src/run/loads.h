/* loads.h - how many rows each expert had, and how evenly they were shared out: counted by one rank
 * in shared memory (slice 0 of the stage that has the layer), read by control at any time. Never
 * reset: who wants a span of time subtracts. */
#ifndef TANDEM_RUN_LOADS_H
#define TANDEM_RUN_LOADS_H

#include "base/arena.h"
#include "plan/placement.h"
#include "plan/plan.h"

#include <stdatomic.h>

struct layer_load {
    _Atomic uint64_t *rows; /* [experts] NULL: the layer has none */
    /* Over all steps: what the busiest run of ranks had to do, and all runs together, as struct
     * turn_cost counts. */
    _Atomic uint64_t most, all;
};

/* [n_layer], all zeros; the memory must be zero. NULL over a measuring arena, and of a model
 * without experts. */
struct layer_load *loads_lay_out(const struct plan *p, struct arena *a);

/* What a device has counted since the team's start, of these layers: [layers][experts + 2] rows,
 * most and all. One thread per layer. */
void loads_set(struct layer_load *l, const struct plan *p, struct span layers,
               const uint64_t *counted);

/* The same back: what has been counted until now, for a device that goes on from there. */
void loads_get(const struct layer_load *l, const struct plan *p, struct span layers,
               uint64_t *counted);

/* A step's rows of every expert, and its turns (NULL: there is one run). One thread per layer. */
void loads_add(struct layer_load *l, const int *rows, int n_expert, const struct turns *turns);

#endif
