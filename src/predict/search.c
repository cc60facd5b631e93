/* search.c - see search.h. */
#include "predict/search.h"

#include <math.h>

/* ------------------------------------------------------------------------------- choices */

double choice_rate(const struct question *q, const struct choice *c)
{
    return q->demand.rate / (c->dp * c->hosts);
}

double choice_clients(const struct question *q, const struct choice *c)
{
    return (double)q->demand.concurrency / (c->dp * c->hosts);
}

struct plan choice_plan(const struct question *q, const struct choice *c)
{
    struct plan p;
    must(shape_plan_placed(q, c->shape, c->max_tok, c->max_seq, c->dp, &p));
    return p;
}

void choice_count(const struct question *q, struct choice *c)
{
    c->devices = c->hosts * c->dp * shape_devices(q, c->shape);
    c->paid = c->hosts > 1 ? c->hosts * q->devices : c->devices;
}

static struct replica replica_of(const struct question *q, const struct choice *c,
                                 const struct plan *p)
{
    return (struct replica){.pricer = c->shape->pricer,
                            .model = &q->model,
                            .pp = p->pp,
                            .max_tok = c->max_tok,
                            .max_seq = c->max_seq,
                            .kv_tok = (int64_t)p->pages * KV_PAGE};
}

struct replica choice_replica(const struct question *q, const struct choice *c)
{
    struct plan p;
    must(shape_plan(q, c->shape, c->max_tok, c->max_seq, c->dp, &p));
    return replica_of(q, c, &p);
}

void choice_capacity(const struct question *q, struct choice *c)
{
    struct replica r = choice_replica(q, c);
    struct outlook at;
    if (q->demand.rate <= 0) { /* clients set the pace */
        c->capacity = c->at.worst < 1e6 ? c->at.rate * c->dp * c->hosts : 0;
        c->wall = c->at.limit;
        return;
    }
    c->capacity = screen_capacity(&r, &q->demand, &at) * c->dp * c->hosts;
    c->wall = at.limit;
}

const char *choice_name(char to[96], const struct question *q, const struct choice *c)
{
    const struct plan *p = &c->shape->plan;
    int at = snprintf(to, 96, "tp %d", p->tp);
    if (p->ep > 1)
        at += snprintf(to + at, 96 - (size_t)at, ", ep %d", p->ep);
    if (p->pp > 1)
        at += snprintf(to + at, 96 - (size_t)at, ", pp %d", p->pp);
    if (c->dp * c->hosts > 1)
        at += snprintf(to + at, 96 - (size_t)at, ", %d replicas", c->dp * c->hosts);
    if (p->sp)
        at += snprintf(to + at, 96 - (size_t)at, ", sp");
    if (q->n_weight > 1)
        at += snprintf(to + at, 96 - (size_t)at, ", %s", num_name(p->weight));
    if (q->n_kv > 1)
        snprintf(to + at, 96 - (size_t)at, ", cache %s", num_name(p->kv));
    return to;
}

/* How much nearer to a bound a simpler cut may be: less than the errors of figures. */
static const double NEAR = 0.1;

/* Added to how far a layout is from keeping the bounds if it does not at any load: others are
 * nearer. */
static const double NEVER = 1e3;

/* Those that keep the bounds first; of them those on fewer devices, then with more room to the
 * bounds; then the simpler. Negative: a is better. */
static int compare(const void *x, const void *y)
{
    const struct choice *a = x, *b = y;
    bool good_a = choice_good(a), good_b = choice_good(b);
    if (good_a != good_b)
        return good_a ? -1 : 1;
    if (good_a && a->paid != b->paid)
        return a->paid - b->paid;
    if (a->at.worst != b->at.worst)
        return a->at.worst < b->at.worst ? -1 : 1;
    if (a->paid != b->paid)
        return a->paid - b->paid;
    if (a->shape != b->shape)
        return a->shape < b->shape ? -1 : 1;
    return a->max_tok * 2048 + a->max_seq - b->max_tok * 2048 - b->max_seq;
}

/* ------------------------------------------------------------------------------- trying */

static void try_limits(const struct question *q, struct search *s, struct choice *c,
                       struct choice *best)
{
    struct plan p;
    s->tried++;
    if (!shape_plan(q, c->shape, c->max_tok, c->max_seq, c->dp, &p))
        return;
    s->fitted++;
    struct replica r = replica_of(q, c, &p);
    c->at = screen(&r, &q->demand, choice_rate(q, c), choice_clients(q, c));
    choice_count(q, c);
    if (!best->shape || compare(c, best) < 0)
        *best = *c;
}

/* All limits of a shape with so many replicas on so many hosts; best->shape NULL: none fits. */
static void try_replicas(const struct question *q, struct search *s, const struct shape *shape,
                         int dp, int hosts, struct choice *best)
{
    *best = (struct choice){0};
    for (int tok = 128; tok <= SHAPE_TOK_MOST; tok *= 2)
        for (int seq = SHAPE_SEQ; seq <= SHAPE_SEQ_MOST && seq <= tok; seq *= 2) {
            struct choice c = {
                .shape = shape, .max_tok = tok, .max_seq = seq, .dp = dp, .hosts = hosts};
            try_limits(q, s, &c, best);
        }
}

/* Nothing is enough on one host: on how many is it, with every device used? By what one replica can
 * take, for each limit of rows; the batch as large as memory allows. */
static void try_hosts(const struct question *q, struct search *s, const struct shape *shape,
                      struct choice *best)
{
    int dp = shape_replicas(q, shape);
    *best = (struct choice){0};
    for (int tok = 128; tok <= SHAPE_TOK_MOST; tok *= 2) {
        struct choice c = {.shape = shape, .max_tok = tok, .dp = dp, .hosts = 1};
        struct plan p;
        c.max_seq = min_int(tok, SHAPE_SEQ_MOST);
        while (c.max_seq >= SHAPE_SEQ && !shape_plan(q, shape, tok, c.max_seq, dp, &p))
            c.max_seq /= 2;
        if (c.max_seq < SHAPE_SEQ)
            continue;
        struct replica r = replica_of(q, &c, &p);
        double capacity = screen_capacity(&r, &q->demand, &c.at) * dp;
        double hosts = capacity > 0 ? ceil(q->demand.rate / capacity - 1e-9) : 0;
        c.hosts = (int)fmin(fmax(hosts, 1), 1 << 20);
        while (c.max_seq > SHAPE_SEQ && c.max_seq / 2 > 1.5 * c.at.running_tail)
            c.max_seq /= 2; /* no more than will run */
        if (hosts > 0 && (!q->hosts || c.hosts <= q->hosts)) {
            try_limits(q, s, &c, best);
            continue;
        }
        if (hosts > 0) /* as much as the hosts carry */
            c.at.worst = hosts / q->hosts, c.hosts = q->hosts;
        else /* idle, at its best, it keeps not all */
            c.at.worst += NEVER;
        choice_count(q, &c);
        s->tried++, s->fitted++;
        if (!best->shape || compare(&c, best) < 0)
            *best = c;
    }
}

static bool try_all(const struct question *q, struct search *s, int hosts)
{
    bool good = false;
    s->n_best = s->n_front = 0;
    for (int i = 0; i < s->shapes.n; i++) {
        const struct shape *shape = &s->shapes.at[i];
        struct choice best = {0};
        if (shape->state != SHAPE_FINE)
            continue;
        for (int dp = 1; dp <= shape_replicas(q, shape); dp++) {
            if ((q->dp && q->dp != dp) || (shape->dp && shape->dp != dp))
                continue;
            struct choice *c = &s->front[s->n_front];
            try_replicas(q, s, shape, dp, hosts, c);
            if (!c->shape)
                continue;
            s->n_front++;
            if (!best.shape || compare(c, &best) < 0)
                best = *c;
        }
        if (best.shape)
            s->best[s->n_best++] = best;
        good |= best.shape && choice_good(&best);
    }
    return good;
}

static void scale_out(const struct question *q, struct search *s)
{
    s->n_best = 0;
    for (int i = 0; i < s->shapes.n; i++) {
        struct choice *c = &s->best[s->n_best];
        if (s->shapes.at[i].state != SHAPE_FINE)
            continue;
        try_hosts(q, s, &s->shapes.at[i], c);
        s->n_best += c->shape != NULL;
    }
}

/* Closed loops are tried on 1, 2, 4 ... hosts; how many an open one needs, its capacity tells. */
static void try_more(const struct question *q, struct search *s)
{
    if (q->demand.rate > 0) {
        scale_out(q, s);
        return;
    }
    int most = q->hosts ? q->hosts : 256;
    for (int hosts = 2; hosts <= most && hosts <= q->demand.concurrency; hosts *= 2)
        if (try_all(q, s, hosts))
            return;
}

/* Of those on as few devices as the first, the one with fewest ranks to a replica. */
static void prefer_simple(struct search *s)
{
    const struct choice first = s->best[0];
    int at = 0;
    for (int i = 1; i < s->n_best && choice_good(&first); i++) {
        const struct choice *c = &s->best[i];
        if (c->paid == first.paid && choice_good(c) && c->at.worst < first.at.worst + NEAR &&
            plan_ranks(&c->shape->plan) < plan_ranks(&s->best[at].shape->plan))
            at = i;
    }
    struct choice best = s->best[at];
    memmove(s->best + 1, s->best, (size_t)at * sizeof(best));
    s->best[0] = best;
}

/* ------------------------------------------------------------------------------- all of it */

/* What was asked for needs more devices than there are, so nothing was tried. */
static int too_many(const struct question *q, struct err *e)
{
    int tp = max_int(max_int(q->tp, q->ep), 1), ranks = tp * max_int(q->pp, 1) * max_int(q->dp, 1);
    return err_set(e, -EINVAL,
                   "tp %d, pp %d and %d replica%s are %d ranks, but %d devices of a host of %s may "
                   "be used: ask for fewer",
                   tp, max_int(q->pp, 1), max_int(q->dp, 1), q->dp > 1 ? "s" : "", ranks,
                   q->devices, q->hardware->name);
}

/* No way to cut fits: say what is needed. */
static int refuse(const struct question *q, const struct search *s, struct err *e)
{
    const struct hardware *h = q->hardware;
    const struct shape *near = NULL;
    for (int i = 0; i < s->shapes.n; i++) {
        const struct shape *x = &s->shapes.at[i];
        if (x->state == SHAPE_UNPRICED)
            return err_set(e, -ENOTSUP, "%s", x->why);
        if (x->state == SHAPE_TOO_LARGE && (!near || x->fit.spare > near->fit.spare))
            near = x;
    }
    if (!near)
        return s->shapes.n ? err_set(e, -EINVAL, "%s", s->shapes.at[0].why) : too_many(q, e);
    const double gb = 1e9;
    struct fit fit;
    double weights = (double)plan_weight_bytes(&near->plan, PLAN_WHOLE) / gb;
    double kv = (double)plan_kv_bytes(&near->plan, PLAN_WHOLE) / gb;
    if (h->kind == DEVICE_CPU)
        return err_set(
            e, -ENOSPC,
            "%.1f GB of memory are missing: weights %.1f GB, cache of one sequence of %d "
            "tokens %.2f GB, scratch %.2f GB, but %.1f GB of the host are free for them: "
            "take a smaller model, --dtype int4 or a smaller --ctx",
            -near->fit.spare / gb, weights, near->plan.ctx, kv, (double)near->fit.size.scratch / gb,
            near->fit.have / gb);
    int n = size_devices(&near->plan, h, near->plan.ctx, &fit);
    char need[64] = "needs far more devices";
    if (n)
        snprintf(need, sizeof(need), "needs %d device%s more (%d in all)", n - q->devices,
                 n - q->devices == 1 ? "" : "s", n);
    return err_set(
        e, -ENOSPC,
        "%s than %d x %s (%.1f GiB, %.1f usable each): weights %.1f GB, cache of one "
        "sequence of %d tokens %.2f GB, scratch %.2f GB each; or take --dtype int8 or int4",
        need, q->devices, h->device, h->memory_bytes.value / 0x1p30, near->fit.have / 0x1p30,
        weights, near->plan.ctx, kv, (double)near->fit.size.scratch / gb);
}

int search(const struct question *q, struct search *to, struct err *e)
{
    memset(to, 0, sizeof(*to));
    shapes_make(q, &to->shapes);
    size_t rows = 0;
    for (int i = 0; i < to->shapes.n; i++)
        if (to->shapes.at[i].state == SHAPE_FINE)
            rows += (size_t)shape_replicas(q, &to->shapes.at[i]);
    to->best = pool_get(&to->pool, (size_t)(to->shapes.n + 1) * sizeof(*to->best));
    to->front = pool_get(&to->pool, (rows + 1) * sizeof(*to->front));
    if (!try_all(q, to, 1) && to->n_best && q->hosts != 1)
        try_more(q, to);
    if (!to->n_best)
        return refuse(q, to, e);
    qsort(to->best, (size_t)to->n_best, sizeof(*to->best), compare);
    prefer_simple(to);
    return 0;
}

void search_free(struct search *s)
{
    shapes_free(&s->shapes);
    pool_free(&s->pool);
}
