/* delay.h - a group that takes longer: a slower link than there is, for trying layouts on it.
 *
 * A decorator around any group. After each call a rank waits longer by a latency (two for a merge
 * and a join) and by what the bytes cost that it read from others; to send takes nothing more, to
 * receive does. The link works while a rank computes between the beginning and the end of a sum. It
 * changes no bit. hardware_slower() says the same of prices.
 */
#ifndef TANDEM_COMM_DELAY_H
#define TANDEM_COMM_DELAY_H

#include "comm/comm.h"
#include "topo/hardware.h"

struct comm_delay {
    struct comm *inner;
    struct link link;
    uint64_t begun_ns[COMM_SUMS], n_begun, n_ended; /* sums on their way */
};

/* Make c what `inner` is over such a link. ctx and inner stay with the caller; inner is no longer
 * to be called. Spins while it waits: every rank wants a core of its own. Cannot fail. */
void comm_delay_open(struct comm *c, struct comm_delay *ctx, struct comm *inner, struct link link);

#endif
