/* turns.h - what of a layer's experts each rank does in a step.
 *
 * Every rank of a stage knows where all rows go and works out the same answer, so nothing is sent
 * to agree. Over a device that only counts nobody knows: then it is as if tokens chose blindly.
 */
#ifndef TANDEM_RUN_TURNS_H
#define TANDEM_RUN_TURNS_H

#include "dev/dev.h"
#include "plan/placement.h"
#include "plan/plan.h"
#include "run/cache.h"
#include "run/expect.h"
#include "run/loads.h"

/* What a rank keeps to say it. */
struct rank_turns {
    struct placement placement;  /* of every layer alike, unless holders says otherwise */
    const uint64_t *holders;     /* [n_layer][experts] who holds what in this step; or NULL */
    struct layer_load *load;     /* [n_layer] where this rank counts rows; NULL: another does */
    struct expert_cache *cache;  /* told what a layer needs; NULL: all experts are in memory */
    const struct routing *known; /* for prices: how tokens choose; NULL: blindly */
    struct span *mine;           /* [model_experts()] what struct routed wants */
    uint32_t *need;              /* [max_tok] bit r: slice r computes something of the row */
    /* Where only the device sees the routing; need is then its memory too. */
    bool unseen;
    uint64_t *held; /* [n_layer][experts] as holders, in the device's memory; ep > 1 */
    uint64_t *seen; /* [n_layer][experts + 2] rows, most and all of struct layer_load, added
                       up by the device; NULL: another rank counts */
    const uint64_t *watched; /* the same in the host's memory, after every step */
};

/* Lay out its tables; every run holds all experts, as on one host. */
void turns_lay_out(struct rank_turns *t, const struct plan *p, struct arena *host);

/* The same of a device whose routing the host does not see: its tables come from `dev`, and are to
 * be filled with zeros, and held by the caller. */
void turns_lay_out_unseen(struct rank_turns *t, const struct plan *p, int rank, struct arena *dev);

/* Where the device is to count the rows of a layer's experts; NULL: nowhere. */
uint64_t *turns_seen(const struct rank_turns *t, int layer);

/* At a layer: fill mine, and need when the plan dispatches, from the choices of n rows; `routed`
 * gets its turn. Where the routing is unseen the device does that (dev_deal()). Where
 * routed->expert is NULL (over no memory) mine is what the run with most to do can expect of n rows
 * (expect.h). */
void turns_take(struct rank_turns *t, struct dev *d, const struct plan *p, int rank, int layer,
                struct routed *routed);

#endif
