/* shapes.c - see shapes.h. */
#include "predict/shapes.h"
#include "predict/cut.h"

int question_ctx(const struct question *q)
{
    int ctx = q->ctx ? q->ctx : max_int(demand_ctx(&q->demand), 16);
    return min_int(ctx, q->model.n_ctx);
}

int shape_devices(const struct question *q, const struct shape *s)
{
    return q->hardware->kind == DEVICE_CPU ? plan_ranks(&s->plan) * s->plan.threads
                                           : plan_ranks(&s->plan);
}

int shape_replicas(const struct question *q, const struct shape *s)
{
    return s->dp ? s->dp : min_int(q->devices / shape_devices(q, s), PLAN_REPLICAS);
}

/* Threads of a rank so that all replicas together use the cores. */
static int threads_of(const struct question *q, int ranks)
{
    if (q->hardware->kind == DEVICE_GPU)
        return 1;
    return max_int(1, min_int(q->devices / ranks, PLAN_THREADS));
}

static int make(const struct question *q, const struct shape *like, int max_tok, int max_seq,
                struct plan *to, struct err *e)
{
    const struct plan *p = &like->plan;
    struct plan_ask ask = {.tp = p->tp,
                           .ep = p->ep,
                           .pp = p->pp,
                           .dp = p->dp,
                           .sp = p->sp,
                           .ctx = question_ctx(q),
                           .max_tok = max_tok,
                           .max_seq = max_seq,
                           .max_out = 2 * max_seq,
                           .weight = p->weight,
                           .kv = p->kv,
                           .threads = p->threads,
                           .numerics = isa_numerics(q->isa, p->weight),
                           .host = q->host,
                           .quota = q->host ? q->devices : 0};
    return plan_make(to, &q->model, &ask, e);
}

/* ------------------------------------------------------------------------------- stages */

/* Seconds of a decode step by layer, with the embedding at the first and the head at the last; by
 * three stages, of one layer, one, and the rest. */
static bool layer_costs(const struct question *q, const struct plan *p, double *cost)
{
    struct plan three = *p;
    struct step_price s;
    struct err ignored;
    int n = p->model.n_layer;
    three.pp = 3;
    three.stage[0] = (struct span){0, 1};
    three.stage[1] = (struct span){1, 2};
    three.stage[2] = (struct span){2, n};
    struct pricer *x = pricer_new(&three, q->hardware, &ignored);
    if (!x)
        return false;
    struct work w = work_of(&q->model, 32, 1, max_int(0, (int)q->demand.prompt.mean - 1));
    pricer_step(x, &w, &s);
    pricer_free(x);
    for (int l = 0; l < n; l++)
        cost[l] = s.stage_s[1];
    cost[0] = s.stage_s[0];
    cost[n - 1] += s.stage_s[2] - (n - 2) * s.stage_s[1];
    return true;
}

/* Cut the stages by time, where layers are alike and memory allows; else as plan_make did, by
 * bytes. */
static void cut_by_time(const struct question *q, struct plan *p)
{
    double cost[MODEL_LAYERS], room[MODEL_LAYERS];
    struct span stage[PLAN_STAGES];
    int n = p->model.n_layer;
    if (p->pp == 1 || n < 3 || !model_alike(&p->model) || !layer_costs(q, p, cost))
        return;
    struct plan one = *p;
    one.pp = 1;
    for (int l = 0; l < n; l++) {
        int like = l == 0 ? 0 : l == n - 1 ? n - 1 : 1;
        if (l > 1 && l < n - 1) {
            room[l] = room[1];
            continue;
        }
        one.stage[0] = (struct span){like, like + 1};
        room[l] = (double)plan_weight_bytes(&one, 0) + (double)plan_kv_bytes(&one, 0);
    }
    const struct hardware *h = q->hardware;
    double most = h->kind == DEVICE_CPU ? 1e300
                                        : h->memory_bytes.value - h->reserve_bytes.value -
                                              (double)size_of(p, 0).scratch;
    if (cut_layers(cost, room, n, p->pp, most, stage))
        memcpy(p->stage, stage, sizeof(*stage) * (size_t)p->pp);
}

/* ------------------------------------------------------------------------------- one shape */

static void too_large(const struct question *q, struct shape *s)
{
    const struct fit *f = &s->fit;
    s->state = SHAPE_TOO_LARGE;
    snprintf(s->why, sizeof(s->why),
             "weights %.1f GB + cache of one sequence %.2f GB + scratch %.2f GB exceed %.1f GB%s",
             (double)f->size.weights / 1e9, (double)f->size.kv / 1e9, (double)f->size.scratch / 1e9,
             f->have / 1e9, q->hardware->kind == DEVICE_CPU ? "" : " of a device");
}

static void finish(const struct question *q, struct shape *s)
{
    struct err e;
    struct plan wide;
    cut_by_time(q, &s->plan);
    size_weigh(&s->plan, &s->weighed);
    s->fit = size_fit_weighed(&s->plan, q->hardware, &s->weighed);
    if (s->fit.spare < 0) {
        too_large(q, s);
        return;
    }
    wide = s->plan;
    wide.max_tok = wide.max_out = SHAPE_TOK_MOST + SHAPE_SEQ_MOST;
    s->pricer = pricer_new(&wide, q->hardware, &e);
    if (!s->pricer) {
        s->state = SHAPE_UNPRICED;
        snprintf(s->why, sizeof(s->why), "%.199s", e.text);
    }
}

/* false when it needs more devices than there are. */
static bool shape_of(const struct question *q, struct shape *s)
{
    struct plan *p = &s->plan;
    struct err e;
    int together = q->hardware->n_level ? q->hardware->level[0].size : 1;
    if (p->dp * plan_ranks(p) > q->devices)
        return false;
    p->threads = threads_of(q, p->dp * plan_ranks(p));
    if (p->tp > together && q->hardware->n_level > 1) {
        s->state = SHAPE_ACROSS;
        snprintf(s->why, sizeof(s->why), "slices would sum over %.31s, beyond the %d of %.31s",
                 q->hardware->level[1].name, together, q->hardware->level[0].name);
        return true;
    }
    if (make(q, s, SHAPE_TOK, SHAPE_SEQ, p, &e)) {
        s->state = SHAPE_IMPOSSIBLE;
        snprintf(s->why, sizeof(s->why), "%.199s", e.text);
        return true;
    }
    p->pages = (p->ctx + KV_PAGE - 1) / KV_PAGE; /* one sequence at least */
    finish(q, s);
    return true;
}

bool shape_plan(const struct question *q, const struct shape *s, int max_tok, int max_seq, int dp,
                struct plan *to)
{
    *to = s->plan;
    to->dp = dp;
    to->max_tok = max_tok;
    to->max_seq = max_seq;
    to->max_out = min_int(2 * max_seq, max_tok);
    to->threads = threads_of(q, dp * plan_ranks(to));
    for (int r = plan_ranks(to); r < PLAN_RANKS; r++)
        to->core[r] = -1;
    return size_fill_weighed(to, q->hardware, &s->weighed);
}

bool shape_plan_placed(const struct question *q, const struct shape *s, int max_tok, int max_seq,
                       int dp, struct plan *to)
{
    struct plan placed;
    struct shape like = {.plan = s->plan};
    struct err ignored;
    like.plan.dp = dp;
    like.plan.threads = threads_of(q, dp * plan_ranks(&s->plan));
    if (!shape_plan(q, s, max_tok, max_seq, dp, to) ||
        make(q, &like, max_tok, max_seq, &placed, &ignored))
        return false;
    memcpy(to->core, placed.core, sizeof(to->core));
    return true;
}

/* ------------------------------------------------------------------------------- all of them */

/* Of these slices and stages, and on a CPU so many replicas: with every format, with and without
 * rows shared out. */
static void add(const struct question *q, struct shapes *to, int tp, int ep, int pp, int dp)
{
    for (int i = 0; i < q->n_weight * q->n_kv * 2; i++) {
        struct shape s = {.plan = {.tp = tp, .ep = ep, .pp = pp, .dp = max_int(dp, 1), .sp = i % 2},
                          .dp = dp};
        s.plan.weight = q->weight[i / 2 / q->n_kv];
        s.plan.kv = q->kv[i / 2 % q->n_kv];
        if ((tp == 1 && s.plan.sp) || !shape_of(q, &s))
            continue;
        if (to->n == to->room) {
            struct shape *more = pool_get(&to->pool, (size_t)to->room * 2 * sizeof(s));
            memcpy(more, to->at, (size_t)to->n * sizeof(s));
            to->at = more, to->room *= 2;
        }
        to->at[to->n++] = s;
    }
}

/* With experts cut into the slices, and with whole ones on 2 .. tp runs of slices. */
static void add_runs(const struct question *q, struct shapes *to, int tp, int pp, int dp)
{
    int most = q->model.experts.n ? min_int(tp, q->model.experts.n) : 1;
    for (int ep = 1; ep <= most; ep++)
        if (tp % ep == 0 && (!q->ep || q->ep == ep))
            add(q, to, tp, ep, pp, dp);
}

void shapes_make(const struct question *q, struct shapes *to)
{
    int most = min_int(q->devices, PLAN_RANKS);
    bool cpu = q->hardware->kind == DEVICE_CPU;
    *to = (struct shapes){.room = 64};
    to->at = pool_get(&to->pool, (size_t)to->room * sizeof(*to->at));
    for (int tp = 1; tp <= min_int(most, SHARES_MAX); tp++)
        for (int pp = 1; tp * pp <= most && pp <= PLAN_STAGES; pp++)
            for (int dp = cpu; dp <= (cpu ? min_int(most / (tp * pp), PLAN_REPLICAS) : 0); dp++) {
                bool asked = (!q->tp || q->tp == tp) && (!q->pp || q->pp == pp);
                if (asked && (!cpu || q->devices % (tp * pp * dp) == 0)) /* no core idles */
                    add_runs(q, to, tp, pp, dp);
            }
}

void shapes_free(struct shapes *s)
{
    for (int i = 0; i < s->n; i++)
        if (s->at[i].pricer)
            pricer_free(s->at[i].pricer);
    pool_free(&s->pool);
}
