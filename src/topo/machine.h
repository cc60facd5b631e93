/* machine.h - what this host is made of, for people: sockets, NUMA nodes, cores, caches, GPUs and
 * network cards, and what stands between any two of them. Ranks and threads are placed by host.h.
 *
 * hwloc's own variables (HWLOC_SYNTHETIC, HWLOC_XMLFILE) put another machine in place of this one,
 * for tests.
 */
#ifndef TANDEM_TOPO_MACHINE_H
#define TANDEM_TOPO_MACHINE_H

#include "topo/nvml.h"

#include <jansson.h>

enum { MACHINE_NODES = 64, MACHINE_GROUPS = 64, MACHINE_CARDS = 64, MACHINE_CACHES = 8 };

/* Where something stands; -1: not told. */
struct machine_place {
    int package, node; /* by their order, from 0 */
};

struct machine {
    char processor[64];
    int n_package, n_core, n_thread;
    double memory_bytes;
    int n_node;
    struct machine_node {
        struct machine_place at;
        int os; /* the kernel's number */
        int n_core;
        double memory_bytes;
        char cores[64]; /* the kernel's numbers of their threads, "0-7,64-71" */
    } node[MACHINE_NODES];
    int n_cache; /* kinds of caches, the largest level first */
    struct machine_cache {
        int level, count, cores_each;
        double bytes; /* of one */
    } cache[MACHINE_CACHES];
    int n_group; /* of cores with one last-level cache; without such, those of a node */
    struct machine_group {
        struct machine_place at;
        int n_core;
        char cores[64];
    } group[MACHINE_GROUPS];
    int n_card;
    struct machine_card {
        enum machine_card_kind { CARD_GPU, CARD_NETWORK } kind;
        struct machine_place at;
        char name[64], bus[32];
        double link_bytes_s; /* of its PCIe as it is now, one way; 0: not told */
        double memory_bytes; /* of a GPU; 0: not told */
        int nvml;            /* its number there; -1 */
    } card[MACHINE_CARDS];
    struct nvml nvml;
    char nvidia[160]; /* what to say about NVIDIA's driver */
};

/* Read the machine; takes some milliseconds. nvml_library: see nvml_read(). Never fails: what hwloc
 * and NVML do not tell stays 0, -1 or "". */
void machine_read(struct machine *m, const char *nvml_library);

/* What stands between two of the groups of cores (numbered first) and cards (after them): "-" with
 * itself, "node", "socket", "sockets" (between them), "PCIe" within a socket, "NVLink x4" (direct
 * links), "NVSwitch x18", or "?" */
void machine_between(const struct machine *m, int a, int b, char to[16]);

/* A tree, and a table of what stands between what. */
void machine_print_tree(const struct machine *m, FILE *to);
void machine_print_matrix(const struct machine *m, FILE *to);
json_t *machine_to_json(const struct machine *m);

#endif
