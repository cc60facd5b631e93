/* flips.c - what would change the choice: the load at which another cut of the same devices becomes
 * the faster one, and the rate of links; and the front of throughput against speed. See facts.h. */
#include "predict/facts.h"

#include <math.h>

/* Answers a second of all replicas on so many devices when b sequences draw in each; steps carry
 * the prompts that these answers need. */
static double speed(const struct question *q, const struct replica *r, double b, double *tpot_s)
{
    struct outlook o;
    struct demand d = q->demand;
    double o_mean = fmax(d.output.mean, 2), rate;
    d.ttft_s = d.tpot_s = 0, d.cv2 = 0;
    struct work w = work_of(&q->model, max_int(1, (int)ceil(b / r->pp)), 1, (int)d.prompt.mean);
    struct step_price s;
    w.flight = r->pp;
    pricer_step(r->pricer, &w, &s);
    rate = b / (o_mean * fmax(s.all_s, 1e-9)); /* without prompts: too high */
    for (int i = 0; i < 12; i++) {
        o = screen(r, &d, rate, 0);
        double turn = o.tpot_s > 0 ? o.tpot_s : 4 * s.all_s;
        rate = sqrt(rate * b / (o_mean * turn));
    }
    *tpot_s = o.tpot_s;
    return o.worst < 1e9 ? rate * o_mean : 0;
}

/* ------------------------------------------------------------------------------- the front */

static bool dominated(const struct point *a, const struct point *b)
{
    return b->tpot_s <= a->tpot_s && b->tok_s >= a->tok_s &&
           (b->tpot_s < a->tpot_s || b->tok_s > a->tok_s);
}

static void offer(struct facts *to, const struct point *p)
{
    int kept = 0;
    for (int i = 0; i < to->n_front; i++)
        if (dominated(p, &to->front[i]))
            return;
    for (int i = 0; i < to->n_front; i++)
        if (!dominated(&to->front[i], p))
            to->front[kept++] = to->front[i];
    to->n_front = kept;
    if (to->n_front < FACT_FRONT)
        to->front[to->n_front++] = *p;
}

static int by_speed(const void *x, const void *y)
{
    const struct point *a = x, *b = y;
    return (a->tpot_s > b->tpot_s) - (a->tpot_s < b->tpot_s);
}

void facts_front(const struct question *q, const struct search *s, struct facts *to)
{
    double price = q->price_hour > 0 ? q->price_hour : q->hardware->price_hour.value;
    for (int i = 0; i < s->n_best; i++)
        for (int b = 1; b <= SHAPE_SEQ_MOST; b *= 2) {
            struct choice c = s->best[i];
            struct plan p;
            c.max_tok = max_int(c.max_tok, 2 * b), c.max_seq = SHAPE_SEQ_MOST;
            c.max_tok = max_int(c.max_tok, c.max_seq);
            double held = b * (q->demand.prompt.mean + q->demand.output.mean / 2);
            if (!shape_plan(q, c.shape, c.max_tok, c.max_seq, c.dp, &p) ||
                held > (double)p.pages * KV_PAGE)
                continue;
            struct replica r = {c.shape->pricer, &q->model, p.pp,
                                c.max_tok,       c.max_seq, (int64_t)p.pages * KV_PAGE};
            struct point at = {.choice = &s->best[i], .batch = b};
            at.tok_s = speed(q, &r, b, &at.tpot_s) / shape_devices(q, c.shape);
            at.dollars = at.tok_s > 0 ? price / 3600 / at.tok_s * 1e6 : 0;
            if (at.tok_s > 0)
                offer(to, &at);
        }
    qsort(to->front, (size_t)to->n_front, sizeof(*to->front), by_speed);
}

/* ------------------------------------------------------------------------------- flips */

/* Seconds per token of a sequence when b in all draw, over the replicas on the chosen's devices. */
static double decode_s(const struct question *q, const struct choice *c, struct pricer *x, double b)
{
    const struct plan *p = &c->shape->plan;
    struct step_price s;
    int n = max_int(1, (int)ceil(b / (c->dp * p->pp)));
    struct work w =
        work_of(&q->model, n, 1, (int)(q->demand.prompt.mean + q->demand.output.mean / 2));
    w.flight = p->pp;
    pricer_step(x, &w, &s);
    double slowest = s.host_s;
    for (int i = 0; i < p->pp; i++)
        slowest = fmax(slowest, s.stage_s[i] + s.hop_s);
    return p->pp > 1 ? fmax(s.all_s, slowest * p->pp) : s.all_s;
}

enum { RIVALS = 32 };
struct rivals {
    struct choice at[RIVALS];
    int n;
};

/* Cuts of as many devices of one host as the chosen one takes, without and with replicas. */
static void rivals_of(const struct question *q, const struct search *s, struct rivals *to)
{
    const struct choice *best = &s->best[0];
    int devices = best->dp * shape_devices(q, best->shape);
    to->n = 0;
    for (int i = 0; i < s->shapes.n && to->n < RIVALS; i++) {
        const struct shape *x = &s->shapes.at[i];
        const struct plan *p = &x->plan, *like = &best->shape->plan;
        if (x->state != SHAPE_FINE || p->sp != like->sp || p->weight != like->weight ||
            p->kv != like->kv || devices % shape_devices(q, x) ||
            (x->dp && x->dp * shape_devices(q, x) != devices))
            continue;
        to->at[to->n++] =
            (struct choice){.shape = x, .dp = devices / shape_devices(q, x), .hosts = 1};
    }
}

static int fastest(const struct question *q, const struct rivals *r, struct pricer *const *x,
                   double b)
{
    int best = 0;
    double least = INFINITY;
    for (int i = 0; i < r->n; i++) {
        double t = decode_s(q, &r->at[i], x[i], b);
        if (t < least)
            least = t, best = i;
    }
    return best;
}

static void by_batch(const struct question *q, const struct rivals *r, struct facts *to)
{
    struct pricer *x[RIVALS];
    for (int i = 0; i < r->n; i++)
        x[i] = r->at[i].shape->pricer;
    int first = fastest(q, r, x, 1), lo = 1, hi = 1;
    while (hi < 2048 && fastest(q, r, x, hi) == first)
        lo = hi, hi *= 2;
    if (hi >= 2048)
        return;
    while (lo + 1 < hi) {
        int mid = (lo + hi) / 2;
        if (fastest(q, r, x, mid) == first)
            lo = mid;
        else
            hi = mid;
    }
    to->by_batch = (struct flip){.found = true, .at = lo};
    choice_name(to->by_batch.from, q, &r->at[first]);
    choice_name(to->by_batch.to, q, &r->at[fastest(q, r, x, hi)]);
}

/* Links k times as slow: latencies stay. */
static struct hardware slower(const struct hardware *h, double k)
{
    struct hardware w = *h;
    for (int i = 0; i < w.n_level; i++)
        for (int j = 0; j < w.level[i].n_collective; j++) {
            w.level[i].collective[j].byte_s.value *= k;
            w.level[i].collective[j].far_byte_s.value *= k;
        }
    return w;
}

static int fastest_on(const struct question *q, const struct rivals *r, double k, double b)
{
    struct hardware h = slower(q->hardware, k);
    struct pricer *x[RIVALS];
    struct err ignored;
    for (int i = 0; i < r->n; i++) {
        struct plan p = r->at[i].shape->plan;
        p.max_tok = p.max_out = 2048;
        x[i] = pricer_new(&p, &h, &ignored);
        must(x[i]);
    }
    int best = fastest(q, r, x, b);
    for (int i = 0; i < r->n; i++)
        pricer_free(x[i]);
    return best;
}

static void by_link(const struct question *q, const struct rivals *r, double b, struct facts *to)
{
    int now = fastest_on(q, r, 1, b), then = now;
    double lo = 1, hi = 1;
    while (hi < 1000 && then == now) {
        lo = hi, hi *= 2;
        then = fastest_on(q, r, hi, b);
    }
    if (then == now)
        return;
    for (int i = 0; i < 6; i++) {
        double mid = sqrt(lo * hi);
        if (fastest_on(q, r, mid, b) == now)
            lo = mid;
        else
            hi = mid;
    }
    to->by_link = (struct flip){.found = true, .at = hi};
    choice_name(to->by_link.from, q, &r->at[now]);
    choice_name(to->by_link.to, q, &r->at[fastest_on(q, r, hi, b)]);
}

/* What a rank reads a second of a sum of 16 MiB among the ranks of the innermost level. */
static double link_rate(const struct hardware *h)
{
    struct gang g = {.ranks = min_int(h->n_level ? h->level[0].size : 1, 8), .stride = 1};
    const double bytes = 1 << 24;
    if (g.ranks < 2)
        return 0;
    return 2 * (g.ranks - 1.0) / g.ranks * bytes /
           hardware_collective(h, COLLECTIVE_SUM, &g, bytes);
}

void facts_flips(const struct question *q, const struct search *s, struct facts *to)
{
    const struct choice *best = &s->best[0];
    struct rivals r;
    double b = fmax(1, best->at.running * best->dp);
    rivals_of(q, s, &r);
    to->link_rate = link_rate(q->hardware);
    if (r.n < 2)
        return;
    by_batch(q, &r, to);
    by_link(q, &r, fmin(b, 2048), to);
}
