/* near.h - memory near the ranks that read it, on a host of several NUMA nodes. On one node, and
 * for ranks that are not pinned, these functions make no system call.
 *
 * A rank's scratch needs nothing: the pinned rank touches it first.
 */
#ifndef TANDEM_NEAR_H
#define TANDEM_NEAR_H

#include "run/weights.h"
#include "topo/host.h"

/* From now on what this thread, or one it starts, touches first comes from the ranks' nodes in
 * turn: what all ranks read. near_end() before ranks are forked. */
void near_begin(const struct host *h, const struct plan *p);
void near_end(const struct host *h, const struct plan *p);

/* The runs of a rank's weights (its view of memory that nobody has touched yet) on its node. */
void near_weights(const struct host *h, const struct plan *p, int rank, const struct weights *view);

/* Before ranks are forked: the pool of keys and values in small pages. In a huge one the heads of
 * several ranks would lie together. */
void near_cache_open(const struct host *h, const struct plan *p, char *kv);

/* Make n pages of the pool real: on one node; or the heads of every rank on its own, for they are
 * a run of bytes in every layer; or, when that run is shorter than a page of memory, in turn.
 * Errors as touch_memory(). */
int near_cache(const struct host *h, const struct plan *p, char *kv, int first, int n,
               struct err *e);

#endif
