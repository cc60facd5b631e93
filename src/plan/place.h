/* place.h - the parts of plan_make() that look at the host. */
#ifndef TANDEM_PLAN_PLACE_H
#define TANDEM_PLAN_PLACE_H

#include "plan/plan.h"

/* Slices of a layer: as many as there are nodes for a replica, if these keep seven eighths of its
 * cores busy; otherwise so many as keep most of them busy, the nearest to that. More than `shares`
 * would change bits: that is the user's to say. */
int place_slices(const struct model *m, int shares, int dp, const struct host *h);

/* Threads of each of so many ranks: together they use every core. */
int place_threads(const struct host *h, int ranks);

/* Pin the ranks of all replicas: spread over the nodes, neighbours side by side, no rank on two
 * nodes; where that cannot be, one after the other. Without cores enough, and with h == NULL, they
 * are not pinned. */
void place_ranks(struct plan *p, const struct host *h);

/* Pin rank r where it stands near node[r], by the kernel's number (-1: anywhere): its threads on
 * free cores of that node, or where there are some. Leaves the plan as it is when they are too few
 * or nothing is known of any node. */
void place_ranks_near(struct plan *p, const struct host *h, const int *node);

#endif
