/* forward.c - what one rank does in one step. Start reading here.
 *
 * All ranks of a stage run these lines together, each with its own slice of the weights. Two
 * facts explain all communication:
 *
 *   - a weight cut by rows turns a whole input into a slice of the output;
 *   - a weight cut by columns turns that slice into a partial sum of the output.
 *
 * So a layer needs two sums, one after attention and one after the feed-forward block. With
 * sequence parallelism a sum becomes "each rank keeps its own rows of the sum" and the next
 * matmul first gathers the rows; gather() and reduce() hide that, and nothing else knows. Partial
 * sums follow the fixed tree of base/tree.h, so every layout gives the same bits.
 *
 * Nothing here allocates, waits on the host, or returns an error (see dev.h and comm.h).
 */
#include "run/rank.h"

static const struct mat no_bias;

static void gather(struct rank *r, struct mat *m)
{
    if (r->plan->sp)
        comm_gather(r->tp, m);
}

/* The partial sums of these rows are complete; those of other ranks are waited for when the rows go
 * on, and another wave may come between. */
static void reduce(struct rank *r, struct wave *wave, const struct planes *from,
                   const struct mat *bias)
{
    if (!r->plan->sp)
        comm_sum_begin(r->tp);
    wave->await = from;
    wave->bias = bias;
}

static struct mat *await(struct rank *r, struct act *a, const struct planes *from)
{
    bool whole = from == &a->moe;
    struct mat *sum = whole ? &a->whole : &a->sum;
    if (whole && plan_dispatches(r->plan))
        comm_combine(r->tp, sum, &a->moe.at[0], r->turns.need);
    else if (r->plan->sp)
        comm_scatter_sum(r->tp, sum, from);
    else
        comm_sum_end(r->tp, sum, from);
    return whole ? &a->mine_whole : &a->mine_sum;
}

/* What is awaited is added to x; norm: a block begins, with the norm of x in h. */
static void go_on(struct rank *r, struct wave *wave, const struct mat *norm)
{
    struct act *a = &wave->act;
    const float eps = r->plan->model.eps;
    const struct mat *sum = wave->await ? await(r, a, wave->await) : NULL;
    if (sum && norm)
        dev_add_norm(r->dev, &a->mine_h, &a->x, sum, wave->bias, norm, eps);
    else if (sum)
        dev_add(r->dev, &a->x, sum, wave->bias);
    else if (norm)
        dev_norm(r->dev, &a->mine_h, &a->x, norm, eps);
    wave->await = NULL;
}

/* Each rank knows some words; together they know all. */
static void embed(struct rank *r, const struct batch *b)
{
    struct act *a = &r->act;

    dev_embed(r->dev, &a->words, &r->weights.shared.embed, r->words[plan_slice(r->plan, r->id)],
              b->tok);
    comm_merge(r->tp, &a->all_x, &a->words);
}

static struct heads heads_of(const struct rank *r, const struct layer_kind *kind)
{
    const struct model *m = &r->plan->model;
    return (struct heads){.head_dim = m->head_dim,
                          .group = m->n_head / m->n_kv,
                          .q_first = plan_share(r->plan, r->id, HEADS).lo,
                          .kv_first = plan_share(r->plan, r->id, KVHEADS).lo,
                          .window = kind->window,
                          .scale = 1 / __builtin_sqrtf((float)m->head_dim)};
}

static void attention(struct rank *r, int l, struct wave *wave)
{
    const struct model *m = &r->plan->model;
    const struct layer *w = &r->weights.layer[l];
    const struct heads heads = heads_of(r, &m->kind[m->kind_of[l]]);
    const struct batch *b = &wave->batch;
    struct dev *d = r->dev;
    struct act *a = &wave->act;
    const struct term qkv[] = {
        {&a->q, &w->q, &w->q_bias}, {&a->k, &w->k, &w->k_bias}, {&a->v, &w->v, &w->v_bias}};

    go_on(r, wave, &w->attn_norm);
    gather(r, &a->h);
    dev_matmuls(d, &a->h, qkv, COUNT(qkv)); /* the heads of this rank */
    const struct qkv made = heads_norm(r, a, w, &a->angle[m->kind_of[l]]);
    dev_rope_store(d, &r->kv[l], &made, b->slot);
    dev_attend(d, &a->o, &a->q, &r->kv[l], &heads, b);
    dev_partial(d, &a->attn, &a->o, &w->o);
    reduce(r, wave, &a->attn, &w->o_bias);
}

static void feed_forward(struct rank *r, int l, struct wave *wave)
{
    const struct layer *w = &r->weights.layer[l];
    struct dev *d = r->dev;
    struct act *a = &wave->act;
    const struct term both[] = {{&a->gate, &w->gate, &w->gate_bias}, {&a->up, &w->up, &w->up_bias}};

    go_on(r, wave, &w->ffn_norm);
    gather(r, &a->h);
    dev_glu(d, &a->h, both);
    dev_partial(d, &a->ffn, &a->gate, &w->down);
    reduce(r, wave, &a->ffn, &w->down_bias);
}

/* Every rank knows where all rows go, and so who does what. */
static void route(struct rank *r, int l, struct act *a)
{
    const struct layer *w = &r->weights.layer[l];
    const struct experts *x = &r->plan->model.experts;
    const struct term logits[] = {{&a->mine_router, &w->router, &no_bias},
                                  {&a->mine_shared_gate, &w->shared_gate, &no_bias}};

    dev_matmuls(r->dev, &a->mine_h, logits, x->shared_gate ? 2 : 1);
    gather(r, &a->router);
    if (x->shared_gate)
        gather(r, &a->shared_gate);
    a->routed.load = turns_seen(&r->turns, l);
    dev_route(r->dev, &a->routed, &a->router, &a->shared_gate, x->renorm);
    turns_take(&r->turns, r->dev, r->plan, r->id, l, &a->routed);
}

/* A rank holds columns of every expert, or whole experts (ep), or both; then a row goes only to
 * those ranks that compute something of it, once to each. */
static void experts(struct rank *r, int l, struct wave *wave)
{
    const struct model *m = &r->plan->model;
    const struct layer *w = &r->weights.layer[l];
    struct dev *d = r->dev;
    struct act *a = &wave->act;

    go_on(r, wave, &w->ffn_norm);
    route(r, l, a);
    if (plan_dispatches(r->plan))
        comm_dispatch(r->tp, &a->h, r->turns.need);
    else
        gather(r, &a->h);
    dev_experts(d, &a->moe.at[0], &a->h, w->expert, model_experts(m), &a->routed, &a->room);
    reduce(r, wave, &a->moe, &no_bias);
}

/* Each rank scores its own words; the slices are joined for a sampler that wants them so. */
static void head(struct rank *r, const struct batch *b)
{
    const struct model *m = &r->plan->model;
    const struct shared *w = &r->weights.shared;
    struct act *a = &r->act;

    dev_norm(r->dev, &a->mine_h, &a->x, &w->norm, m->eps);
    gather(r, &a->h);
    dev_pick(r->dev, &a->last, &a->h, b->out);
    dev_matmul(r->dev, &a->slice, &a->last, m->tied ? &w->embed : &w->head, &no_bias);
    if (!r->draws_slices || draw_any_on_host(b->draws))
        comm_join(r->tp, &a->logits, &a->slice, r->words);
}

void forward(struct rank *r, const struct batch *b)
{
    int stage = plan_stage(r->plan, r->id);

    rank_begin(r, b);

    if (stage == 0)
        embed(r, b);
    else
        comm_recv(r->pp, stage - 1, &r->act.x);

    for (int l = r->layers.lo; l < r->layers.hi; l++) {
        pulse_layer(r->pulse, l);
        for (int i = 0; i < r->n_wave; i++)
            attention(r, l, &r->wave[i]);
        for (int i = 0; i < r->n_wave; i++)
            if (model_sparse(&r->plan->model, l))
                experts(r, l, &r->wave[i]);
            else
                feed_forward(r, l, &r->wave[i]);
    }
    for (int i = 0; i < r->n_wave; i++)
        go_on(r, &r->wave[i], NULL);

    if (stage < r->plan->pp - 1)
        comm_send(r->pp, stage + 1, &r->act.x);
    else if (b->n_out)
        head(r, b);
}
