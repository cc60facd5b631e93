/* probe.c - see probe.h. */
#include "predict/probe.h"

#include <math.h>

static void lay_out(struct rank *r, const struct plan *p, int id, struct arena *host)
{
    struct arena dev = {0}, peer = {0}, data = {0};
    rank_lay_out(r, p, id, host, &dev, &peer);
    weights_lay_out(&r->weights, p, id, host, &data);
    for (int l = r->layers.lo; r->kv && l < r->layers.hi; l++)
        r->kv[l] = (struct kv){.type = p->kv,
                               .n_head = len(plan_share(p, id, KVHEADS)),
                               .head_dim = p->model.head_dim};
}

/* On one host, or beside copies, a rank does experts that are not in its share: they look the same.
 */
static void hold_all_experts(const struct rank *r, const struct plan *p)
{
    for (int l = r->layers.lo; l < r->layers.hi; l++) {
        struct expert *x = r->weights.layer[l].expert;
        int own = 0;
        if (!model_sparse(&p->model, l))
            continue;
        while (!x[own].gate.cols)
            own++;
        for (int i = 0; i < p->model.experts.n; i++)
            x[i] = x[own];
    }
}

void probe_open(struct probe *x, const struct plan *p, int id, struct pool *pool)
{
    struct arena host = {0};
    lay_out(&x->rank, p, id, &host); /* over nothing: how large are the tables? */
    char *base = pool_get(pool, host.used + ARENA_ALIGN);
    base += (ARENA_ALIGN - (uintptr_t)base % ARENA_ALIGN) % ARENA_ALIGN;
    host = (struct arena){.base = base, .size = host.used};
    lay_out(&x->rank, p, id, &host);
    hold_all_experts(&x->rank, p);

    x->dev = (struct dev){.ops = &dev_count};
    x->tp_price = x->pp_price = (struct comm_price){.gang.stride = 1};
    x->tp_price.hit =
        1 - pow(1 - 1.0 / p->ep, p->model.experts.top); /* planning.md, distinct ranks */
    comm_price_open(&x->tp, &x->tp_price, plan_slice(p, id), p->tp, p->cut);
    comm_price_open(&x->pp, &x->pp_price, plan_stage(p, id), p->pp, NULL);
    x->rank.dev = &x->dev, x->rank.tp = &x->tp, x->rank.pp = &x->pp;
}
