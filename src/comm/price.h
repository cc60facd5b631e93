/* price.h - a group that moves nothing and prices everything. The twin of dev/count.h.
 *
 * The planner runs the real forward pass over it. Calls and bytes are to the byte those of a group
 * over shared memory (comm/shm.h), but for dispatch and combine, whose rows nobody knows; seconds
 * are those of the hardware's collectives between the devices that the group stands on. Every rank
 * can be priced alone: no peers, no memory, no waiting for a slower rank.
 */
#ifndef TANDEM_COMM_PRICE_H
#define TANDEM_COMM_PRICE_H

#include "comm/comm.h"
#include "comm/sum.h"
#include "topo/hardware.h"

struct comm_price {
    const struct hardware *hardware; /* NULL: only count */
    struct gang gang;                /* where its ranks stand; ranks and others are filled in */
    double seconds;                  /* since the start */
    double hit;                      /* part of the rows that need a given other rank: dispatch */
    struct sum_program sum;          /* who holds how many planes */
};

/* Make c rank `rank` of a priced group of `size` >= 1. ctx stays with the caller, who fills
 * hardware, hit, and first and stride of the gang; the rest follows from cut (see sum_compile();
 * NULL for a group that does not sum). Totals are in ctx->seconds, c->calls and c->bytes. Cannot
 * fail.
 */
void comm_price_open(struct comm *c, struct comm_price *ctx, int rank, int size, const int *cut);

#endif
