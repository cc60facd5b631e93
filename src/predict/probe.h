/* probe.h - a rank without numbers: what the real forward pass runs over, to be counted or priced.
 */
#ifndef TANDEM_PROBE_H
#define TANDEM_PROBE_H

#include "base/arena.h"
#include "comm/price.h"
#include "run/rank.h"

struct probe {
    struct rank rank; /* its dev, tp and pp are those below */
    struct dev dev;
    struct comm tp, pp;
    struct comm_price tp_price, pp_price;
};

/* Lay out rank `id` of the plan with its tables in the pool, no memory for numbers, and nothing
 * priced: for that, set dev.count.costs and the groups' hardware and gang. The plan stays the
 * caller's, and x where it is. */
void probe_open(struct probe *x, const struct plan *p, int id, struct pool *pool);

#endif
