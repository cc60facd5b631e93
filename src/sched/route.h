/* route.h - which replica a request goes to: where its beginning is stored, if that is not too
 * busy.
 *
 * Pure. The router remembers the names of pages it sent to each replica, in a table where newer
 * names push out older ones: a hint, which costs a recomputed prefix when it is wrong, and nothing
 * else.
 */
#ifndef TANDEM_ROUTE_H
#define TANDEM_ROUTE_H

#include "sched/blocks.h"

enum { ROUTE_TABLE = 1 << 16 };

struct route {
    struct {
        uint64_t name;
        int replica;
    } at[ROUTE_TABLE];
};

/* Choose for a prompt of n tokens under the salt. load[i]: tokens that replica i still has to
 * compute; idlest: the first that has the least. The cost of a replica is its load and what it
 * would have to compute of the prompt; the first of the cheapest is taken, and remembered for the
 * prompt's pages. */
int route_choose(struct route *r, const int *tok, int n, uint64_t salt, const double *load,
                 int idlest);

/* The first of n replicas that has the least load. */
int route_idlest(const double *load, int n);

/* The load of a replica whose queue holds waiting_tok tokens of prompts. What a sequence that runs
 * still needs is not known: as much as it may have got, half of what a step of the plan holds. */
static inline double route_load(size_t waiting_tok, int running, int waiting, int max_tok)
{
    return (double)waiting_tok + (double)max_tok / 2 * (running + waiting);
}

#endif
