/* bind.h - which NUMA nodes memory comes from.
 *
 * A wish only: the kernel may refuse it (containers often do), and then pages come from the node of
 * whoever touches them first. Nothing here moves pages that exist.
 */
#ifndef TANDEM_TOPO_BIND_H
#define TANDEM_TOPO_BIND_H

#include "topo/host.h"

enum { BIND_NODES = 1024, BIND_PAGE = 4096 };

/* Nodes by the kernel's numbers; of an empty set nothing is wished. */
struct node_set {
    unsigned long bits[BIND_NODES / 64];
    int n;
};

/* Add the nodes of the n cores from `cpu` on. */
void nodes_add(struct node_set *s, const struct host *h, int cpu, int n);

/* Pages of these bytes that nobody has touched yet: from the one node if it has room, or from the
 * nodes in turn. A page that the beginning or the end cuts goes with what follows. */
void bind_memory(const void *at, size_t bytes, const struct node_set *s);

/* The same for all that this thread, and those it starts from now on, touch first; NULL: from the
 * node they run on, as usual. */
void bind_thread(const struct node_set *s);

#endif
