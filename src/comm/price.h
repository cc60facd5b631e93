/* price.h - a group that moves nothing and prices everything. The twin of dev/count.c.
 *
 * The planner runs the real forward pass over it. A call costs a latency per step of its algorithm
 * plus the bytes this rank reads over a rate (alpha and beta); the formulas are beside the code.
 * Every rank can be priced alone: no peers, no memory, no waiting for a slower rank.
 */
#ifndef TANDEM_COMM_PRICE_H
#define TANDEM_COMM_PRICE_H

#include "comm/comm.h"
#include "comm/sum.h"

/* How a sum is made. AS_SHM: one-shot or two-shot, whichever comm/shm.h takes for the size; calls
 * and bytes are then to the byte those of a group over shared memory. RING: what a library does
 * that passes one running sum around, so the planes of a rank must have been added before. */
enum price_as { PRICE_AS_SHM, PRICE_ONE_SHOT, PRICE_TWO_SHOT, PRICE_RING };

struct comm_price {
    enum price_as as;
    double latency_s, bytes_s; /* of one step; a second, read by one rank */
    double *clock;             /* seconds; usually that of the counting device */
    struct sum_program sum;    /* who holds how many planes */
};

/* Make c rank `rank` of a priced group of `size` >= 1. ctx is filled by the caller but for `sum`,
 * which follows from cut (see sum_compile(); NULL for a group that does not sum), and stays with
 * the caller. Totals are in c->calls and c->bytes. Cannot fail. */
void comm_price_open(struct comm *c, struct comm_price *ctx, int rank, int size, const int *cut);

#endif
