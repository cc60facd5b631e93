/* place.c - slices, threads and cores where the user does not say: by the host's nodes. See
 * plan_make(). Pure: what the machine is, the caller has read.
 *
 * Between the nodes of a machine memory is slow, and inside one it is shared: so a slice of the
 * model per node, and threads inside.
 */
#include "plan/place.h"

/* How many of the cores tp ranks keep busy: the rank with most of the units sets the pace. */
static int busy_cores(int units, int cores, int tp)
{
    int most = (units + tp - 1) / tp, threads = min_int(cores / tp, PLAN_THREADS);
    return units * threads / most;
}

int place_slices(const struct model *m, int shares, int dp, const struct host *h)
{
    int units = min_int(shares, m->n_head), cores = max_int(h->n_core / dp, 1);
    int nodes = min_int(max_int(h->n_node / dp, 1), units), best = nodes;
    if (8 * busy_cores(units, cores, nodes) >= 7 * cores)
        return nodes;
    for (int tp = 1; tp <= units; tp++) {
        int gain = busy_cores(units, cores, tp) - busy_cores(units, cores, best);
        if (gain > 0 || (gain == 0 && abs(tp - nodes) < abs(best - nodes)))
            best = tp;
    }
    return best;
}

int place_threads(const struct host *h, int ranks)
{
    return max_int(1, min_int(h->n_core / max_int(ranks, 1), PLAN_THREADS));
}

/* The first core of every rank when ranks are spread evenly over the nodes and none crosses from
 * one to the next; false when that cannot be. */
static bool spread(struct plan *p, int ranks, const struct host *h)
{
    int at = 0;
    for (int r = 0; r < ranks; r++) {
        int node = r * h->n_node / ranks;
        while (at < h->n_core && h->core[at].at < node)
            at++;
        int last = at + p->threads - 1;
        if (last >= h->n_core || h->core[last].at != node)
            return false;
        p->core[r] = h->core[at].cpu;
        at += p->threads;
    }
    return true;
}

void place_ranks(struct plan *p, const struct host *h)
{
    int ranks = min_int(p->dp * p->pp * p->tp, PLAN_RANKS);
    bool enough = h && ranks * p->threads <= h->n_core;
    if (enough && spread(p, ranks, h))
        return;
    for (int r = 0; r < ranks; r++)
        p->core[r] = enough ? h->core[r * p->threads].cpu : -1;
}

/* The first of n free cores side by side on one node; on that with the kernel's number, unless -1.
 * -1: none. */
static int find_run(const struct host *h, const bool *taken, int node, int n)
{
    for (int i = 0; i + n <= h->n_core; i++) {
        bool free = node < 0 || h->node[h->core[i].at] == node;
        for (int k = i; k < i + n; k++)
            free &= !taken[k] && h->core[k].at == h->core[i].at;
        if (free)
            return i;
    }
    return -1;
}

void place_ranks_near(struct plan *p, const struct host *h, const int *node)
{
    const int ranks = min_int(p->dp * p->pp * p->tp, PLAN_RANKS);
    bool taken[HOST_CORES] = {false}, known = false;
    int core[PLAN_RANKS];
    for (int turn = 0; turn < 2; turn++) /* those that nothing is known of take what is left */
        for (int r = 0; r < ranks; r++) {
            if ((node[r] >= 0) != (turn == 0))
                continue;
            int at = find_run(h, taken, node[r], p->threads);
            if (at < 0)
                at = find_run(h, taken, -1, p->threads);
            if (at < 0)
                return;
            known |= node[r] >= 0;
            memset(taken + at, true, (size_t)p->threads);
            core[r] = h->core[at].cpu;
        }
    if (known)
        memcpy(p->core, core, (size_t)ranks * sizeof(int));
}
