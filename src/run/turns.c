/* turns.c - see turns.h. */
#include "run/turns.h"

#include <limits.h>
#include <math.h>

void turns_lay_out(struct rank_turns *t, const struct plan *p, struct arena *host)
{
    const struct model *m = &p->model;
    *t = (struct rank_turns){.mine = NULL};
    if (!m->experts.n)
        return;
    t->placement = placement_all(m->experts.n, p->ep);
    t->mine = arena_get(host, (size_t)model_experts(m) * sizeof(*t->mine));
    if (plan_dispatches(p))
        t->need = arena_get(host, (size_t)p->max_tok * sizeof(*t->need));
}

void turns_lay_out_unseen(struct rank_turns *t, const struct plan *p, int rank, struct arena *dev)
{
    const size_t layers = (size_t)p->model.n_layer, n = (size_t)p->model.experts.n;
    t->unseen = true;
    if (!n)
        return;
    if (p->ep > 1)
        t->held = arena_get(dev, layers * n * sizeof(*t->held));
    if (plan_slice(p, rank) == 0)
        t->seen = arena_get(dev, layers * (n + 2) * sizeof(*t->seen));
    if (plan_dispatches(p))
        t->need = arena_get(dev, (size_t)p->max_tok * sizeof(*t->need));
}

uint64_t *turns_seen(const struct rank_turns *t, int layer)
{
    return t->seen ? t->seen + (size_t)layer * (size_t)(t->placement.n_expert + 2) : NULL;
}

/* ------------------------------------------------------------------------------- known rows */

static void count_rows(const struct routed *routed, int *rows)
{
    const int per_row = routed_row(routed);
    for (int t = 0; t < routed->n; t++)
        for (int c = 0; c < routed->top; c++)
            rows[routed->expert[(size_t)t * (size_t)per_row + (size_t)c]]++;
}

static void take_mine(struct rank_turns *t, const struct turns *all, int run)
{
    memset(t->mine, 0, (size_t)t->placement.n_expert * sizeof(*t->mine));
    for (int i = 0; i < all->n; i++)
        if (all->turn[i].run == run)
            t->mine[all->turn[i].expert] = (struct span){all->turn[i].lo, all->turn[i].hi};
}

/* All slices of the run of each choice, and, where there is a shared expert, the row's own. */
static void find_need(struct rank_turns *t, const struct plan *p, const struct turns *all,
                      const struct routed *routed)
{
    const int per_row = routed_row(routed), slices = p->tp / p->ep;
    const uint32_t run = (uint32_t)(((uint64_t)1 << slices) - 1);
    int seen[MODEL_EXPERTS] = {0};
    memset(t->need, 0, (size_t)routed->n * sizeof(*t->need));
    for (int i = 0; i < routed->n; i++)
        for (int c = 0; c < routed->top; c++) {
            int e = routed->expert[(size_t)i * (size_t)per_row + (size_t)c];
            t->need[i] |= run << turns_run(all, e, seen[e]++) * slices;
        }
    for (int r = 0; r < p->tp && routed->shared; r++)
        for (int i = share(routed->n, p->tp, r).lo; i < share(routed->n, p->tp, r).hi; i++)
            t->need[i] |= (uint32_t)1 << r;
}

/* ------------------------------------------------------------------------------- unknown rows */

/* Which experts these are does not matter: over no memory all are alike. */
static void expect(struct rank_turns *t, const struct routed *routed)
{
    const int E = t->placement.n_expert;
    struct expected most = t->known ? expect_by(t->known, &t->placement, routed->top, routed->n)
                                    : expect_blindly(&t->placement, routed->top, routed->n);
    int n = max_int(1, min_int(E, (int)lround(most.experts)));
    int rows = max_int(n, (int)lround(fmin(most.rows, (double)n * routed->n)));
    for (int i = 0; i < E; i++)
        t->mine[i] = (struct span){0, i < n ? len(share(rows, n, i)) : 0};
}

/* ------------------------------------------------------------------------------- both */

/* Share the rows out by the placement of the layer, and find this rank's. */
static void assign(struct rank_turns *t, const struct plan *p, int rank, int layer,
                   const struct routed *routed, const int *rows, struct turns *all)
{
    struct placement *held = &t->placement;
    const size_t n = (size_t)held->n_expert;
    if (t->holders)
        memcpy(held->holders, t->holders + (size_t)layer * n, n * sizeof(*held->holders));
    placement_assign(all, held, rows, &turn_cost_cpu);
    take_mine(t, all, plan_run(p, rank));
    if (plan_dispatches(p))
        find_need(t, p, all, routed);
}

static void deal(struct rank_turns *t, struct dev *d, const struct plan *p, int rank, int layer,
                 struct routed *routed)
{
    const int n = p->model.experts.n;
    uint64_t *seen = turns_seen(t, layer);
    dev_deal(d, routed,
             &(struct deal){.n_expert = n,
                            .n_run = p->ep,
                            .slices = p->tp / p->ep,
                            .rank = plan_slice(p, rank),
                            .weights = turn_cost_gpu.weights,
                            .tile = turn_cost_gpu.tile,
                            .holders = t->held + (size_t)layer * (size_t)n,
                            .need = plan_dispatches(p) ? t->need : NULL,
                            .load = seen ? seen + n : NULL});
}

void turns_take(struct rank_turns *t, struct dev *d, const struct plan *p, int rank, int layer,
                struct routed *routed)
{
    const struct experts *x = &p->model.experts;
    struct turns all;
    int rows[MODEL_EXPERTS] = {0};
    if (t->unseen) {
        if (p->ep > 1)
            deal(t, d, p, rank, layer, routed);
        return;
    }
    if (routed->expert && (p->ep > 1 || t->load || t->cache))
        count_rows(routed, rows);
    if (p->ep == 1 && t->load)
        loads_add(&t->load[layer], rows, x->n, NULL);
    if (p->ep == 1 && t->cache)
        cache_need(t->cache, layer, rows, NULL);
    if (p->ep == 1 && !t->known)
        return;
    routed->turn = t->mine;
    if (routed->shared)
        t->mine[x->n] = plan_dispatches(p) ? share(routed->n, p->tp, plan_slice(p, rank))
                                           : (struct span){0, INT_MAX};
    if (!routed->expert) {
        expect(t, routed);
        return;
    }
    assign(t, p, rank, layer, routed, rows, &all);
    if (t->cache)
        cache_need(t->cache, layer, rows, t->mine);
    if (t->load)
        loads_add(&t->load[layer], rows, x->n, &all);
}
