/* facts.c - see facts.h. */
#include "predict/facts.h"

#include <math.h>

/* ------------------------------------------------------------------------------- errors */

/* A group of figures that are wrong together. */
enum group { PRODUCTS, ATTENTION, OTHER, COLLECTIVES, HOST, GROUPS };

static void off(struct figure *f) { f->value *= 1 + f->error; }

static void curve_off(struct curve *c)
{
    for (int i = 0; i < c->n; i++)
        c->y[i] *= 1 + c->error;
}

static void rates_off(struct rates *r, enum group g)
{
    for (int t = 0; t < NUM_COUNT; t++) {
        if (g == PRODUCTS)
            curve_off(&r->product[t]), curve_off(&r->experts[t]);
        if (g == ATTENTION)
            off(&r->attend_byte_s[t]), curve_off(&r->attend_madd_s[t]);
    }
    if (g == ATTENTION)
        off(&r->attend_row_s);
    if (g == OTHER)
        off(&r->byte_s), off(&r->op_s), off(&r->split_s), off(&r->draw_op_s), off(&r->draw_s),
            off(&r->rank_op_s), off(&r->rank_s);
}

/* Hardware whose figures of one group all cost more, by their error. */
static struct hardware wrong(const struct hardware *h, enum group g)
{
    struct hardware w = *h;
    for (int i = 0; i < w.n_rates; i++)
        rates_off(&w.rates[i], g);
    for (int i = 0; g == COLLECTIVES && i < w.n_level; i++)
        for (int j = 0; j < w.level[i].n_collective; j++) {
            struct collective *c = &w.level[i].collective[j];
            off(&c->latency_s), off(&c->byte_s), off(&c->far_byte_s);
        }
    if (g == HOST)
        off(&w.step_s), off(&w.seq_s);
    return w;
}

bool facts_replica_on(const struct question *q, const struct choice *c, const struct hardware *h,
                      struct replica *r)
{
    struct plan wide = choice_plan(q, c);
    struct err ignored;
    *r = choice_replica(q, c);
    wide.max_tok = wide.max_out = SHAPE_TOK_MOST + SHAPE_SEQ_MOST;
    r->pricer = pricer_new(&wide, h, &ignored);
    return r->pricer != NULL;
}

static double capacity_on(const struct replica *r, const struct question *q, const struct choice *c)
{
    struct outlook at;
    return screen_capacity(r, &q->demand, &at) * c->dp * c->hosts;
}

struct effect {
    struct outlook at;
    double capacity;
};

static struct effect effect_of(const struct question *q, const struct choice *c,
                               const struct hardware *h)
{
    struct replica r;
    struct effect to = {.at = c->at, .capacity = c->capacity};
    if (!facts_replica_on(q, c, h, &r))
        return to;
    to.at = screen(&r, &q->demand, choice_rate(q, c), choice_clients(q, c));
    to.capacity = capacity_on(&r, q, c);
    pricer_free(r.pricer);
    return to;
}

/* Errors are such that nine of ten repeats lie within. */
static const double NINE_OF_TEN = 1.645;

/* Groups are wrong independently; in each, both layouts are by the same figures, so what they share
 * does not tell them apart. */
static void errors_of(const struct question *q, const struct choice *best,
                      const struct choice *next, struct facts *to)
{
    double ttft = 0, tpot = 0, capacity = 0, worst = 0, apart = 0;
    struct effect was = effect_of(q, best, q->hardware), other = {0};
    if (next)
        other = effect_of(q, next, q->hardware);
    for (int g = 0; g < GROUPS; g++) {
        struct hardware h = wrong(q->hardware, (enum group)g);
        struct effect is = effect_of(q, best, &h), then = {0};
        if (next)
            then = effect_of(q, next, &h);
        ttft += pow(is.at.ttft_tail_s / was.at.ttft_tail_s - 1, 2);
        tpot += pow(is.at.tpot_s / was.at.tpot_s - 1, 2);
        capacity += pow(is.capacity / fmax(was.capacity, 1e-12) - 1, 2);
        worst += pow(fmin(is.at.worst, 10) - was.at.worst, 2);
        if (next)
            apart += pow((is.capacity - then.capacity) - (was.capacity - other.capacity), 2);
    }
    to->ttft_error = sqrt(ttft) / NINE_OF_TEN;
    to->tpot_error = sqrt(tpot) / NINE_OF_TEN;
    to->capacity_error = sqrt(capacity) / NINE_OF_TEN;
    double kept = 1 / (1 - q->demand.spare) - was.at.worst; /* up to the bound itself */
    to->p_good = normal_share(kept / fmax(sqrt(worst) / NINE_OF_TEN, 1e-9));
    to->p_best = 1;
    if (next && was.capacity > 0) /* of what the same devices carry */
        to->p_best = normal_share((was.capacity / best->devices - other.capacity / next->devices) /
                                  fmax(sqrt(apart) / NINE_OF_TEN / best->devices, 1e-9));
}

/* ------------------------------------------------------------------------------- sums */

/* Steps of the layout with one cut into 1, 2, 4 ... slices, a replica each. Of 160 sums, all are
 * late together at worst: a hundredth of the steps takes 2.33 deviations longer. */
static void sums_of(const struct question *q, const struct search *s, const struct choice *best,
                    struct facts *to)
{
    const struct hardware slow = wrong(q->hardware, COLLECTIVES);
    int rows = max_int(1, (int)best->at.running);
    for (int i = 0; i < s->n_best && to->n_sums < FACT_TP; i++) {
        const struct shape *x = s->best[i].shape;
        const struct plan *p = &x->plan, *like = &best->shape->plan;
        struct step_price is, late;
        struct replica r;
        if (p->pp > 1 || p->sp || p->ep > 1 || (p->tp & (p->tp - 1)) || p->weight != like->weight ||
            p->kv != like->kv || s->best[i].shape->dp > 1)
            continue;
        struct work w = work_of(&q->model, rows, 1, (int)q->demand.prompt.mean);
        pricer_step(x->pricer, &w, &is);
        if (!facts_replica_on(q, &s->best[i], &slow, &r))
            continue;
        pricer_step(r.pricer, &w, &late);
        pricer_free(r.pricer);
        to->sums[to->n_sums++] =
            (struct sums){p->tp, is.all_s, is.comm_s, (late.all_s - is.all_s) / NINE_OF_TEN * 2.33};
    }
    for (int i = 1; i < to->n_sums; i++) /* by slices */
        for (int j = i; j > 0 && to->sums[j].tp < to->sums[j - 1].tp; j--) {
            struct sums swap = to->sums[j];
            to->sums[j] = to->sums[j - 1], to->sums[j - 1] = swap;
        }
}

/* ------------------------------------------------------------------------------- loss, cost */

static void lost_device(const struct question *q, const struct choice *best, struct facts *to)
{
    int replicas = best->dp * best->hosts;
    to->lost_replica = best->capacity * (replicas - 1) / replicas;
    struct question left = *q;
    struct search again;
    struct err ignored;
    left.devices = q->devices - 1;
    left.hosts = 1;
    left.demand.rate = q->demand.rate > 0 ? q->demand.rate / best->hosts : 0;
    if (left.devices < 1 || q->demand.rate <= 0 || q->hardware->kind == DEVICE_CPU)
        return; /* a core is not lost: its rank is started again */
    if (!search(&left, &again, &ignored)) {
        struct choice *c = &again.best[0];
        for (int i = 0; i < min_int(again.n_best, 8); i++) {
            choice_capacity(&left, &again.best[i]);
            if (again.best[i].capacity > c->capacity)
                c = &again.best[i];
        }
        to->lost_again = best->capacity * (best->hosts - 1) / best->hosts + c->capacity;
        choice_name(to->lost_name, q, c);
    }
    search_free(&again);
}

static double price_hour(const struct question *q)
{
    return q->price_hour > 0 ? q->price_hour : q->hardware->price_hour.value;
}

static void costs_of(const struct question *q, const struct choice *best, struct facts *to)
{
    double tok_s = best->at.output_tok_s * best->dp * best->hosts;
    to->dollars_hour = price_hour(q) * best->paid;
    if (tok_s <= 0)
        return;
    to->dollars_million = to->dollars_hour / 3600 / tok_s * 1e6;
    to->kwh_million = q->hardware->watts.value * best->devices / 3.6e6 / tok_s * 1e6;
}

/* ------------------------------------------------------------------------------- what if */

static void ask(const struct question *q, struct facts *to, const char *what)
{
    struct whatif *w = &to->whatif[to->n_whatif++];
    struct search s;
    struct err ignored;
    must(to->n_whatif <= FACT_WHATIF);
    snprintf(w->what, sizeof(w->what), "%s", what);
    if (!search(q, &s, &ignored) && choice_good(&s.best[0])) {
        w->devices = s.best[0].paid, w->hosts = s.best[0].hosts;
        choice_name(w->name, q, &s.best[0]);
    }
    search_free(&s);
}

static void whatifs(const struct question *q, struct facts *to)
{
    struct question x = *q;
    char what[48];
    if (q->demand.rate > 0) {
        x.demand.rate = q->demand.rate * 2;
        ask(&x, to, "twice the load");
        x.demand.rate = q->demand.rate / 2;
        ask(&x, to, "half the load");
    } else {
        x.demand.concurrency = q->demand.concurrency * 2;
        ask(&x, to, "twice the clients");
    }
    x = *q;
    if (q->demand.ttft_s > 0) {
        x.demand.ttft_s = 2 * q->demand.ttft_s;
        snprintf(what, sizeof(what), "first token within %.3g s", x.demand.ttft_s);
        ask(&x, to, what);
    }
    x = *q;
    if (q->demand.tpot_s > 0) {
        x.demand.tpot_s = 2 * q->demand.tpot_s;
        snprintf(what, sizeof(what), "%.3g ms per token", x.demand.tpot_s * 1e3);
        ask(&x, to, what);
    }
    x = *q;
    x.n_weight = 1, x.weight[0] = q->weight[0] == NUM_INT8 ? NUM_INT4 : NUM_INT8;
    snprintf(what, sizeof(what), "weights in %s (answers change)", num_name(x.weight[0]));
    ask(&x, to, what);
    x = *q;
    x.demand.share = 0.9;
    if (q->demand.ttft_s > 0 || q->demand.tpot_s > 0)
        ask(&x, to, "bounds for 90 of 100 requests");
}

/* ------------------------------------------------------------------------------- all */

/* The best of another cut, that keeps the bounds if the best does. */
static const struct choice *runner_up(const struct search *s)
{
    const struct plan *a = &s->best[0].shape->plan;
    for (int i = 1; i < s->n_best; i++) {
        const struct plan *b = &s->best[i].shape->plan;
        if ((a->tp != b->tp || a->pp != b->pp) && choice_good(&s->best[i]) == choice_good(s->best))
            return &s->best[i];
    }
    return NULL;
}

void facts_of(const struct question *q, struct search *s, struct facts *to)
{
    struct choice *best = &s->best[0];
    for (int i = 0; i < s->n_best; i++)
        choice_capacity(q, &s->best[i]);
    to->plan = choice_plan(q, best);
    to->runner_up = runner_up(s);
    struct work w = work_of(&q->model, max_int(1, (int)ceil(best->at.running / to->plan.pp)), 1,
                            (int)q->demand.prompt.mean);
    w.flight = to->plan.pp;
    pricer_step(best->shape->pricer, &w, &to->step);
    errors_of(q, best, to->runner_up, to);
    sums_of(q, s, best, to);
    lost_device(q, best, to);
    costs_of(q, best, to);
    whatifs(q, to);
    to->pools = search_pools(q, s);
    facts_front(q, s, to);
    facts_flips(q, s, to);
    facts_experts(q, s, to);
}
