/* simulated.c - the best layouts on the virtual clock. See facts_simulate(). */
#include "predict/facts.h"
#include "predict/simulate.h"

#include <math.h>

enum { REQUESTS = 1000 };

/* A spread with the mean and the variation that the demand has. */
static struct spread spread_of(const struct lengths *l)
{
    if (l->cv <= 1e-6)
        return (struct spread){SPREAD_UNIFORM, l->mean, l->mean};
    return (struct spread){SPREAD_LOGNORMAL, l->mean, sqrt(log(1 + l->cv * l->cv))};
}

static struct load load_of(const struct question *q, const struct choice *c, uint64_t seed)
{
    const struct demand *d = &q->demand;
    double cv = sqrt(d->cv2);
    int clients = d->rate > 0 ? 0 : max_int(1, (int)ceil(choice_clients(q, c)));
    struct load l = {.requests = (uint64_t)max_int(REQUESTS, 8 * clients),
                     .most_bad = UINT64_MAX,
                     .slo = {.ttft = d->ttft_s, .tpot = d->tpot_s}};
    l.work = (struct workload){.seed = seed,
                               .model = "",
                               .ignore_eos = true,
                               .temperature = -1,
                               .prompt = spread_of(&d->prompt),
                               .output = spread_of(&d->output),
                               .rate = {.tok_per_word = 1}};
    l.timing = d->rate > 0 ? LOAD_ARRIVALS : LOAD_CLOSED;
    l.concurrency = clients;
    struct arrivals like = {.kind = fabs(cv - 1) < 0.05 ? ARRIVALS_POISSON
                                    : cv < 0.1          ? ARRIVALS_UNIFORM
                                                        : ARRIVALS_GAMMA,
                            .rate = choice_rate(q, c),
                            .cv = cv};
    l.arrivals = arrivals_begin(&like, seed);
    return l;
}

/* What clients of a server see that has been running for a while: the first requests are left out,
 * those that all clients of a closed loop send at once. */
static void measure(const struct results *r, const struct demand *d, struct simulated *to)
{
    struct series ttft = {0}, tpot = {0};
    uint64_t first = d->rate > 0 ? 20 : (uint64_t)r->n / 4;
    for (size_t i = 0; i < r->n; i++) {
        const struct outcome *o = &r->at[i];
        if (o->fate != FATE_FINISHED || o->number < first)
            continue;
        series_add(&ttft, outcome_ttft(o));
        if (o->output_tok > 1)
            series_add(&tpot, outcome_tpot(o));
    }
    to->ttft_s = series_digest(&ttft).mean;
    to->tpot_s = series_digest(&tpot).mean;
    if (ttft.n)
        to->ttft_tail_s = percentile(ttft.at, ttft.n, d->share);
    if (tpot.n)
        to->tpot_tail_s = percentile(tpot.at, tpot.n, d->share);
    series_free(&ttft);
    series_free(&tpot);
}

/* One replica with its part of the load; what a good router does better than chance is left out. */
static bool run(const struct question *q, const struct choice *c, uint64_t seed,
                struct simulated *to)
{
    struct plan p = choice_plan(q, c);
    struct load l = load_of(q, c, seed);
    struct sim_result r;
    struct err ignored;
    struct simulation ask = {.plan = &p,
                             .hardware = q->hardware,
                             .load = &l,
                             .replicas = 1,
                             .tpot_s = fmax(c->at.mixed_s, c->at.step_s) * 1.02};
    int rc = simulate(&ask, &r, &ignored);
    const struct demand *d = &q->demand;
    *to = (struct simulated){.choice = c};
    if (!rc) {
        measure(&r.results, d, to);
        to->output_tok_s = r.summary.output_tok_per_s;
        to->good = r.summary.fate[FATE_FINISHED] == r.summary.sent &&
                   (!d->ttft_s || to->ttft_tail_s <= d->ttft_s) &&
                   (!d->tpot_s || to->tpot_tail_s <= d->tpot_s);
    }
    sim_result_free(&r);
    return !rc;
}

static void put_first(struct search *s, int at)
{
    struct choice c = s->best[at];
    memmove(s->best + 1, s->best, (size_t)at * sizeof(c));
    s->best[0] = c;
}

/* More hosts for the first, a twentieth at a time, until the simulation says that they are enough.
 */
static bool widen(const struct question *q, struct search *s, uint64_t seed, struct simulated *to)
{
    struct choice c = s->best[0];
    for (int i = 0; i < 12 && q->demand.rate > 0; i++) {
        c.hosts += max_int(1, c.hosts / 20);
        if (q->hosts && c.hosts > q->hosts)
            return false;
        choice_count(q, &c);
        struct replica r = choice_replica(q, &c);
        c.at = screen(&r, &q->demand, choice_rate(q, &c), 0);
        if (!run(q, &c, seed, to) || !to->good)
            continue;
        s->best[0] = c;
        to->choice = &s->best[0];
        return true;
    }
    return false;
}

void facts_simulate(const struct question *q, struct search *s, struct facts *to, uint64_t seed)
{
    int n = min_int(s->n_best, FACT_SIMULATED);
    to->n_simulated = 0;
    if (!choice_good(&s->best[0]))
        return;
    for (int i = 0; i < n && choice_good(&s->best[i]); i++) {
        struct simulated is = {0};
        if (i && s->best[i].paid > s->best[0].paid * 5 / 4)
            break; /* rather more hosts of a better one */
        if (!run(q, &s->best[i], seed, &is))
            continue;
        if (!is.good) {
            to->simulated[to->n_simulated++] = is;
            continue;
        }
        put_first(s, i);
        for (int j = 0; j < to->n_simulated; j++) /* those before it moved by one */
            to->simulated[j].choice++;
        is.choice = &s->best[0];
        to->simulated[to->n_simulated++] = is;
        return;
    }
    struct simulated is = {0};
    if (to->n_simulated < FACT_SIMULATED && widen(q, s, seed, &is)) {
        to->simulated[0].choice = NULL; /* of fewer hosts */
        to->simulated[to->n_simulated++] = is;
    }
}
