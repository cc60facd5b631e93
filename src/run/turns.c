/* turns.c - see turns.h. */
#include "run/turns.h"

#include <limits.h>
#include <math.h>

void turns_lay_out(struct rank_turns *t, const struct plan *p, struct arena *host)
{
    const struct model *m = &p->model;
    *t = (struct rank_turns){.mine = NULL};
    if (p->ep == 1)
        return;
    t->placement = placement_all(m->experts.n, p->ep);
    t->mine = arena_get(host, (size_t)model_experts(m) * sizeof(*t->mine));
    if (plan_dispatches(p))
        t->need = arena_get(host, (size_t)p->max_tok * sizeof(*t->need));
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

/* ------------------------------------------------------------------------------- blind choice */

/* The most that one of e parts of m things gets when each falls into one at random, about: the
 * mean, and sqrt(2 ln e) times the spread. */
static double most_of(double m, int e, double spread)
{
    return m / e + spread * sqrt(2 * (1 - 1.0 / e) * log(e) * m / e);
}

/* n rows choose `top` of E experts blindly and so meet E (1 - (1 - top / E)^n). Where all runs hold
 * all experts, these are dealt out; else each run has its own, and some run gets more of them. */
static void expect(struct rank_turns *t, const struct plan *p, int rank,
                   const struct routed *routed)
{
    const struct placement *held = &t->placement;
    const int E = held->n_expert, e = held->n_run, run = plan_run(p, rank);
    const bool all = placement_slots(held, 0) == E;
    double rows = (double)routed->n * routed->top;
    double part = 1 - pow(1 - (double)routed->top / E, routed->n), met = E * part;
    int slots = all ? (E + e - 1) / e : placement_slots(held, run);
    double experts = all ? ceil(round(met) / e) : most_of(met, e, sqrt(1 - part));
    double mine = all ? rows / e : most_of(rows, e, 1);
    int n = max_int(1, min_int(slots, (int)lround(experts)));
    int total = max_int(n, (int)lround(fmin(mine, (double)n * routed->n)));

    memset(t->mine, 0, (size_t)E * sizeof(*t->mine));
    for (int i = 0, given = 0; i < E && given < n; i++)
        if (placement_even_run(E, e, i) == run)
            t->mine[i].hi = len(share(total, n, given++));
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

void turns_take(struct rank_turns *t, const struct plan *p, int rank, int layer,
                struct routed *routed)
{
    const struct experts *x = &p->model.experts;
    struct turns all;
    int rows[MODEL_EXPERTS] = {0};
    if (t->unseen || (p->ep == 1 && !t->load))
        return;
    if (routed->expert)
        count_rows(routed, rows);
    if (p->ep == 1) {
        loads_add(&t->load[layer], rows, x->n, NULL);
        return;
    }
    routed->turn = t->mine;
    if (routed->shared)
        t->mine[x->n] = plan_dispatches(p) ? share(routed->n, p->tp, plan_slice(p, rank))
                                           : (struct span){0, INT_MAX};
    if (!routed->expert) {
        expect(t, p, rank, routed);
        return;
    }
    assign(t, p, rank, layer, routed, rows, &all);
    if (t->load)
        loads_add(&t->load[layer], rows, x->n, &all);
}
