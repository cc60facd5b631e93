/* bind.c - see bind.h. System calls by number: libnuma would add nothing to them. */
#include "topo/bind.h"

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { WORD = 8 * sizeof(unsigned long) };

void nodes_add(struct node_set *s, const struct host *h, int cpu, int n)
{
    for (int i = 0, at = host_find(h, cpu); at >= 0 && i < n && at + i < h->n_core; i++) {
        int node = h->node[h->core[at + i].at];
        unsigned long bit = 1UL << node % WORD, *word = &s->bits[node / WORD];
        must(node >= 0 && node < BIND_NODES);
        s->n += !(*word & bit);
        *word |= bit;
    }
}

static int mode(const struct node_set *s) { return s->n > 1 ? MPOL_INTERLEAVE : MPOL_PREFERRED; }

void bind_memory(const void *at, size_t bytes, const struct node_set *s)
{
    const uintptr_t mask = ~(uintptr_t)(BIND_PAGE - 1);
    uintptr_t lo = (uintptr_t)at & mask, hi = ((uintptr_t)at + bytes) & mask;
    if (s->n && hi > lo)
        syscall(SYS_mbind, lo, hi - lo, mode(s), s->bits, BIND_NODES + 1, 0);
}

void bind_thread(const struct node_set *s)
{
    if (!s)
        syscall(SYS_set_mempolicy, MPOL_DEFAULT, NULL, 0);
    else if (s->n)
        syscall(SYS_set_mempolicy, mode(s), s->bits, BIND_NODES + 1);
}
