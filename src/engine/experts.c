/* experts.c - see experts.h. */
#include "engine/experts.h"
#include "base/arena.h"

static size_t cells(const struct plan *p)
{
    return (size_t)p->model.n_layer * (size_t)p->model.experts.n;
}

static struct expert_figures figures(const struct plan *p, struct pool *pool)
{
    return (struct expert_figures){
        .rows = pool_get(pool, cells(p) * sizeof(uint64_t)),
        .turns = pool_get(pool, (size_t)p->model.n_layer * sizeof(struct turn_load))};
}

static int check_room(const struct plan *p, const struct placement *layer, struct err *e)
{
    if (!p->slots)
        return err_set(e, -EINVAL,
                       "on GPUs experts stay where they are when the plan has no slots for others: "
                       "start with --redundant-experts or --rebalance, or write slots into --plan");
    for (int l = 0; l < p->model.n_layer; l++)
        if (model_sparse(&p->model, l) && placement_most(&layer[l]) > p->slots)
            return err_set(e, -EINVAL,
                           "layer %d: a run is to hold %d experts, but its GPUs have room for %d: "
                           "start with more --redundant-experts",
                           l, placement_most(&layer[l]), p->slots);
    return 0;
}

int experts_check(const struct plan *p, const struct expert_opts *opts, struct err *e)
{
    const int most = (p->model.experts.n + p->ep - 1) / p->ep + opts->redundant;
    if (p->ep > 1 && opts->rebalance && most > p->slots)
        return err_set(e, -EINVAL,
                       "balancing puts up to %d experts on a run, but its GPUs have room for %d: "
                       "the plan's slots must be as many",
                       most, p->slots);
    return p->ep > 1 && opts->layer ? check_room(p, opts->layer, e) : 0;
}

void experts_open(struct experts_of *x, const struct plan *p, const struct expert_opts *opts,
                  bool own, double now_s, struct pool *pool)
{
    const size_t layers = (size_t)p->model.n_layer, placed = p->ep > 1 ? layers : 0;
    *x = (struct experts_of){.plan = p, .opts = *opts, .own = own, .next_s = now_s + opts->every_s};
    pthread_mutex_init(&x->lock, NULL);
    x->now = pool_get(pool, placed * sizeof(*x->now));
    x->goal = pool_get(pool, placed * sizeof(*x->goal));
    x->want = pool_get(pool, placed * sizeof(*x->want));
    x->rows = pool_get(pool, cells(p) * sizeof(*x->rows));
    x->load = pool_get(pool, cells(p) * sizeof(*x->load));
    x->before = figures(p, pool);
    x->room = figures(p, pool);
    for (size_t l = 0; l < placed; l++) /* as the team begins */
        x->now[l] = own ? placement_even(p->model.experts.n, p->ep)
                        : placement_all(p->model.experts.n, p->ep);
    x->given = true;
    x->moving = opts->layer && placed;
    if (x->moving)
        memcpy(x->goal, opts->layer, layers * sizeof(*x->goal));
}

void experts_close(struct experts_of *x)
{
    if (x->plan)
        pthread_mutex_destroy(&x->lock);
}

/* ------------------------------------------------------------------------------- figures */

static void add_use(struct cache_use *to, struct cache_use use)
{
    to->hits += use.hits, to->misses += use.misses, to->bytes += use.bytes;
}

void experts_figures(const struct experts_of *x, const struct team *t, struct expert_figures *to)
{
    const struct plan *p = x->plan;
    if (t)
        team_loads(t, to->rows, to->turns);
    for (size_t i = 0; i < cells(p); i++)
        to->rows[i] = x->before.rows[i] + (t ? to->rows[i] : 0);
    for (int l = 0; l < p->model.n_layer; l++) {
        struct turn_load none = {0}, *now = t ? &to->turns[l] : &none;
        to->turns[l] = (struct turn_load){x->before.turns[l].most + now->most,
                                          x->before.turns[l].all + now->all};
    }
    to->placements = x->placements;
    to->cache = x->before.cache;
    if (t)
        add_use(&to->cache, team_cache(t));
}

void experts_keep(struct experts_of *x, const struct team *t)
{
    struct expert_figures sum = x->room;
    experts_figures(x, t, &sum);
    x->room = x->before;
    x->before = sum;
    x->given = false;
}

/* ------------------------------------------------------------------------------- placing */

int experts_want(struct experts_of *x, const struct placement *layer, struct err *e)
{
    const struct plan *p = x->plan;
    if (p->ep == 1)
        return err_set(e, -EINVAL, "with one run of ranks there is nothing to place: see --ep");
    for (int l = 0; l < p->model.n_layer; l++) {
        int rc = placement_check(&layer[l], e);
        if (rc)
            return err_add(e, rc, "layer %d", l);
        if (layer[l].n_run != p->ep || layer[l].n_expert != p->model.experts.n)
            return err_set(e, -EINVAL, "layer %d places %d experts on %d runs; here are %d on %d",
                           l, layer[l].n_expert, layer[l].n_run, p->model.experts.n, p->ep);
    }
    int rc = x->own ? check_room(p, layer, e) : 0;
    if (rc)
        return rc;
    pthread_mutex_lock(&x->lock);
    memcpy(x->want, layer, (size_t)p->model.n_layer * sizeof(*layer));
    x->wanted = true;
    pthread_mutex_unlock(&x->lock);
    return 0;
}

static void take_want(struct experts_of *x)
{
    pthread_mutex_lock(&x->lock);
    if (x->wanted) {
        struct placement *goal = x->goal;
        x->goal = x->want;
        x->want = goal;
        x->wanted = false, x->moving = true;
        x->placements++;
    }
    pthread_mutex_unlock(&x->lock);
}

static bool same(const struct placement *a, const struct placement *b)
{
    return !memcmp(a->holders, b->holders, (size_t)a->n_expert * sizeof(*a->holders));
}

/* Towards the goal: all of it, or one layer whose experts are copied. */
static void move(struct experts_of *x)
{
    const struct model *m = &x->plan->model;
    for (int i = 0; i < m->n_layer; i++) {
        const int l = x->layer;
        x->layer = (l + 1) % m->n_layer;
        if (same(&x->now[l], &x->goal[l]))
            continue;
        x->now[l] = x->goal[l];
        x->given = false;
        if (x->own && model_sparse(m, l))
            return;
    }
    x->moving = false;
}

/* Half of what was known, and what came since. */
static bool look(struct experts_of *x, const struct team *t)
{
    const uint64_t *now = x->room.rows;
    bool any = false;
    experts_figures(x, t, &x->room);
    for (size_t i = 0; i < cells(x->plan); i++) {
        any |= now[i] > x->rows[i];
        x->load[i] = x->load[i] / 2 + (double)(now[i] - x->rows[i]);
        x->rows[i] = now[i];
    }
    return any;
}

static double lambda(const struct placement *p, const double *load)
{
    double run[PLACEMENT_RUNS];
    placement_loads(p, load, run);
    return loads_lambda(run, p->n_run);
}

/* Copies are worth it when the busiest run has a good deal less to do. */
static struct placement worth_moving(const struct placement *next, const struct placement *now,
                                     const double *load)
{
    return lambda(next, load) < 0.97 * lambda(now, load) ? balance_near(next, now) : *now;
}

static void balance(struct experts_of *x)
{
    const struct model *m = &x->plan->model;
    const struct balance how = {
        .n_expert = m->experts.n, .n_run = x->plan->ep, .redundant = x->opts.redundant};
    bool any = false;
    for (int l = 0; l < m->n_layer; l++) {
        const double *load = x->load + (size_t)l * (size_t)m->experts.n;
        const struct placement next = balance_place(&how, load);
        x->goal[l] = x->own ? worth_moving(&next, &x->now[l], load) : next;
        any |= !same(&x->goal[l], &x->now[l]);
    }
    x->moving = any;
    x->placements += any;
}

void experts_place(struct experts_of *x, struct team *t, double now_s)
{
    if (x->plan->ep == 1)
        return;
    if (x->opts.rebalance && now_s >= x->next_s) {
        x->next_s = now_s + x->opts.every_s;
        if (look(x, t))
            balance(x);
    }
    take_want(x);
    if (x->moving)
        move(x);
    if (!x->given)
        team_place(t, x->now);
    x->given = true;
}
