/* host.h - the cores this process may use, and the NUMA node of each; by hwloc.
 *
 * A core is one hardware thread: the first of each physical core's that this process may run on.
 * Its siblings are left out: they share the arithmetic units that kernels keep busy. Caches and
 * devices are not looked at. hwloc's own variables (HWLOC_SYNTHETIC, HWLOC_XMLFILE) put another
 * machine in place of this one, for tests.
 */
#ifndef TANDEM_TOPO_HOST_H
#define TANDEM_TOPO_HOST_H

#include "base/base.h"

#include <sched.h>

enum { HOST_CORES = 1024, HOST_NODES = 64 };

/* Plain data, in the order in which ranks and their threads take cores: node by node. */
struct host {
    int n_core, n_node;   /* nodes with cores; at least one of each */
    int node[HOST_NODES]; /* the kernel's number of each */
    struct host_core {
        int cpu; /* the kernel's number */
        int at;  /* which of the nodes */
    } core[HOST_CORES];
};

/* Read the machine; takes some milliseconds. Only cores in `only` (NULL: in this thread's affinity)
 * and in the cgroup's cpuset. Where hwloc fails, the affinity alone as one node. */
void host_read(struct host *h, const cpu_set_t *only);

/* The kernel's number of the node that a PCI device ("0000:17:00.0") is at; -1: not told. root:
 * where the kernel's files are, NULL: "/sys". */
int host_card_node(const char *bus, const char *root);

/* How many cores' time the container may use, as cgroup version 2 shows it; no limit: INT_MAX. */
int host_quota(void);

/* The first n cores of h, one at least. */
struct host host_part(const struct host *h, int n);

/* Where the core is among h's; -1: it is not, or h is NULL. */
int host_find(const struct host *h, int cpu);

/* The n cores from `cpu` on, in h's order; by counting up where h does not know so many. cpu -1:
 * all are -1. */
void host_run(const struct host *h, int cpu, int n, int *to);

#endif
