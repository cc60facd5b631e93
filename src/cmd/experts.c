/* experts.c - see experts.h. */
#include "cmd/experts.h"
#include "cmd/cmd.h"
#include "sched/balance.h"
#include "sched/loads.h"

static bool anything(const struct options *o)
{
    return o->given.expert_placement || o->given.expert_loads || o->given.redundant_experts ||
           o->given.rebalance || o->given.expert_skew;
}

/* Will experts lie elsewhere than in even shares, or may they? */
static bool moves(const struct options *o)
{
    return o->given.expert_placement || o->given.redundant_experts || o->given.rebalance;
}

static bool balanced(const struct options *o) { return !strcmp(o->expert_placement, "balanced"); }

static int check(const struct options *o, const struct plan *p, struct err *e)
{
    if (!p->model.experts.n)
        return err_set(e, CMD_USAGE,
                       "%s has no experts: leave out --expert-..., --redundant-experts "
                       "and --rebalance",
                       p->model.arch);
    if (o->given.expert_loads && o->given.expert_skew)
        return err_set(e, CMD_USAGE,
                       "--expert-loads and --expert-skew both say how loaded experts "
                       "are: give one of them");
    if (p->ep == 1 && !o->given.expert_loads && !o->given.expert_skew)
        return err_set(e, CMD_USAGE, "with one run of ranks there is nothing to place: give --ep");
    if (o->given.expert_placement && !balanced(o) && o->given.redundant_experts &&
        !o->given.rebalance)
        return err_set(e, CMD_USAGE,
                       "--expert-placement %s and --redundant-experts both say who "
                       "holds which expert: give one of them",
                       o->expert_placement);
    if ((balanced(o) || o->given.redundant_experts) && !o->given.expert_loads &&
        !o->given.expert_skew && !o->given.rebalance)
        return err_set(e, CMD_USAGE, "a balanced placement depends on loads: give --expert-loads%s",
                       o->verb == VERB_SERVE ? ", or --rebalance to measure them"
                                             : " or --expert-skew");
    return 0;
}

static int read_rebalance(const char *text, double *every_s, struct err *e)
{
    char *end;
    *every_s = -1;
    if (!strcmp(text, "off"))
        return 0;
    *every_s = strtod(text, &end);
    if (end == text || *end || !(*every_s >= 0.1) || *every_s > 1e6)
        return err_set(e, CMD_USAGE, "--rebalance takes seconds from 0.1 on, or off, not \"%.40s\"",
                       text);
    return 0;
}

/* ------------------------------------------------------------------------------- loads */

/* As a server would count them: no row chooses an expert twice, so none has more than all rows.
 * Layers whose rows nobody counted are as if all experts were alike. */
static void make_shares(double *load, int n, int top)
{
    double sum = 0, chosen[MODEL_EXPERTS];
    for (int i = 0; i < n; i++)
        sum += load[i];
    for (int i = 0; i < n; i++)
        load[i] = sum > 0 ? load[i] : 1;
    expect_chosen(load, n, top, chosen);
    for (int i = 0; i < n; i++)
        load[i] = chosen[i] / top;
}

static int read_loads(struct experts_asked *to, const struct options *o, const struct plan *p,
                      struct err *e)
{
    const struct model *m = &p->model;
    const int n = m->experts.n;
    int rc = 0;
    to->load = calloc((size_t)m->n_layer * (size_t)n, sizeof(*to->load));
    must(to->load);
    if (o->given.expert_loads)
        rc = loads_load(o->expert_loads, m, to->load, e);
    for (int l = 0; l < m->n_layer && !rc; l++) {
        double *load = to->load + (size_t)l * (size_t)n;
        if (o->given.expert_skew)
            balance_zipf(load, n, o->expert_skew, draw_of(o->seed, DRAW_EXPERTS, (uint64_t)l));
        make_shares(load, n, m->experts.top);
    }
    return rc;
}

/* ------------------------------------------------------------------------------- placement */

/* As --expert-placement says without loads: layer[n_layer], of which a file may leave some out. */
static int place_as_said(struct placement *layer, const struct options *o, const struct model *m,
                         int runs, struct err *e)
{
    const bool all = !strcmp(o->expert_placement, "all"),
               even = !strcmp(o->expert_placement, "even");
    for (int l = 0; l < m->n_layer; l++)
        layer[l] = even ? placement_even(m->experts.n, runs) : placement_all(m->experts.n, runs);
    return all || even ? 0 : placement_load(o->expert_placement, layer, m->n_layer, e);
}

static int place(struct experts_asked *to, const struct options *o, const struct plan *p,
                 struct err *e)
{
    const struct model *m = &p->model;
    const struct balance how = {
        .n_expert = m->experts.n, .n_run = p->ep, .redundant = o->redundant_experts};
    const bool by_load = to->load && (balanced(o) || o->given.redundant_experts);
    int rc = balance_check(&how, e);
    if (rc || (!by_load && (!o->given.expert_placement || balanced(o))))
        return rc;
    to->layer = calloc((size_t)m->n_layer, sizeof(*to->layer));
    must(to->layer);
    for (int l = 0; by_load && l < m->n_layer; l++)
        to->layer[l] = balance_place(&how, to->load + (size_t)l * (size_t)how.n_expert);
    return by_load ? 0 : place_as_said(to->layer, o, m, p->ep, e);
}

/* Of a placement that is balanced, or will be, and of one that is said. */
int experts_slots(int *to, const struct options *o, const struct model *m, struct err *e)
{
    const int n = m->experts.n;
    const bool said = o->given.expert_placement && !balanced(o);
    *to = 0;
    if (o->ep < 2 || o->ep > n || !moves(o))
        return 0;
    const struct balance how = {.n_expert = n, .n_run = o->ep, .redundant = o->redundant_experts};
    int rc = balance_check(&how, e);
    *to = (n + o->ep - 1) / o->ep + o->redundant_experts;
    if (rc || !said)
        return rc;
    struct placement *layer = calloc((size_t)m->n_layer, sizeof(*layer));
    must(layer);
    rc = place_as_said(layer, o, m, o->ep, e);
    for (int l = 0; !rc && l < m->n_layer; l++)
        if (model_sparse(m, l))
            *to = max_int(*to, placement_most(&layer[l]));
    free(layer);
    return rc;
}

/* Layers without experts are left out. */
static void make_routing(struct experts_asked *to, const struct plan *p)
{
    const struct model *m = &p->model;
    const size_t n = (size_t)m->experts.n;
    double *share = malloc((size_t)m->n_layer * n * sizeof(*share));
    struct placement *held = malloc((size_t)m->n_layer * sizeof(*held));
    int at = 0;
    must(share && held);
    for (int l = 0; l < m->n_layer; l++) {
        if (!model_sparse(m, l))
            continue;
        memcpy(share + (size_t)at * n, to->load + (size_t)l * n, n * sizeof(*share));
        if (to->layer)
            held[at] = to->layer[l];
        at++;
    }
    to->routing = (struct routing){.n_layer = at, .share = share, .placement = held};
    if (!to->layer) {
        free(held);
        to->routing.placement = NULL;
    }
}

int experts_ask(struct experts_asked *to, const struct options *o, const struct plan *p,
                struct err *e)
{
    *to = (struct experts_asked){.every_s = -1};
    if (!anything(o))
        return 0;
    int rc = check(o, p, e);
    if (!rc)
        rc = read_rebalance(o->rebalance, &to->every_s, e);
    if (!rc && (o->given.expert_loads || o->given.expert_skew))
        rc = read_loads(to, o, p, e);
    if (!rc && p->ep > 1)
        rc = place(to, o, p, e);
    if (!rc && to->load)
        make_routing(to, p);
    return rc;
}

void experts_asked_free(struct experts_asked *x)
{
    free(x->layer);
    free(x->load);
    free((void *)x->routing.share);
    free((void *)x->routing.placement);
}

int expert_cache_ask(size_t *to, const struct options *o, const struct opened *at, struct err *e)
{
    *to = 0;
    if (!o->given.expert_cache)
        return 0;
    if (!at->plan.model.experts.n)
        return err_set(e, CMD_USAGE, "%s has no experts: leave out --expert-cache",
                       at->plan.model.arch);
    if (at->gpus.n)
        return err_set(e, CMD_USAGE, "--expert-cache is for the CPU: give --device cpu");
    if (!at->packed)
        return err_set(e, CMD_USAGE,
                       "--expert-cache reads packed weights: make them with "
                       "`tandem pack` and give their folder");
    *to = (size_t)o->expert_cache;
    return 0;
}
