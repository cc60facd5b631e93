/* screen.c - see screen.h. */
#include "predict/screen.h"

#include <math.h>

/* How far beyond its bound counts what cannot even be computed. */
static const double HOPELESS = 1e9;

/* Share of the limit of queueing at which a server is called full. */
static const double FULL = 0.9;

const char *limit_words(enum limit l)
{
    static const char *const words[LIMIT_COUNT] = {"everything is kept",
                                                   "memory",
                                                   "time to first token",
                                                   "time per token",
                                                   "prompts come faster than steps take them",
                                                   "the cache is full",
                                                   "sequences at once"};
    return words[l];
}

/* ------------------------------------------------------------------------------- steps */

struct beat {
    double turn_s; /* from a token of a sequence to its next */
    double step_s; /* from one step to the next */
    double all_s;  /* of one step, through all stages */
};

/* Steps in which b sequences draw, 1 in pp of them in each, beside so many rows of prompts. */
static struct beat beat_of(const struct replica *r, const struct demand *d, double b, double rows)
{
    struct work w = {0};
    struct step_price s;
    int n = (int)ceil(b / r->pp), ctx = (int)(d->prompt.mean + d->output.mean / 2);
    if (n)
        w = work_of(r->model, n, 1, max_int(ctx - 1, 0));
    for (double left = rows, one = d->prompt.mean; left >= 0.5; left -= one) {
        int part = max_int(1, (int)fmin(left, one));
        int pos = (int)((one - part) / 2); /* on the mean of a prompt's parts */
        work_add(&w, r->model, pos, part, 1);
    }
    if (!w.n_tok)
        w = work_of(r->model, 1, 1, max_int(ctx - 1, 0));
    w.flight = r->pp;
    pricer_step(r->pricer, &w, &s);
    double slowest = s.host_s;
    for (int i = 0; i < r->pp; i++)
        slowest = fmax(slowest, s.stage_s[i] + s.hop_s);
    struct beat beat = {.all_s = s.all_s, .turn_s = s.all_s};
    if (r->pp > 1)
        beat.turn_s = fmax(s.all_s, slowest * r->pp);
    beat.step_s = beat.turn_s / r->pp;
    return beat;
}

/* ------------------------------------------------------------------------------- steady state */

struct steady {
    struct beat plain, mixed;
    double b, f, rows, turn_s; /* turn_s: on the mean of both kinds of steps */
    enum limit limit;          /* what grows without end, or LIMIT_NONE */
};

/* Rows of prompts that a step can take beside b sequences. With stages the engine does not learn
 * what rows cost (sched/drive.h), and takes a quarter of a step for them. */
static double room(const struct replica *r, double b)
{
    double most = r->max_tok - ceil(b / r->pp);
    return r->pp > 1 ? fmin(most, r->max_tok / 4) : most;
}

/* Rows of a prompt in each of the steps that it takes, when it comes alone. */
static double usual_rows(const struct demand *d, double most)
{
    return d->prompt.mean / ceil(d->prompt.mean / most);
}

/* Given b, the kinds of steps and how often prompts are in them. */
static void mix(const struct replica *r, const struct demand *d, double rate, double b,
                struct steady *s)
{
    double most = fmax(room(r, b), 1);
    s->b = b;
    s->plain = s->mixed = beat_of(r, d, b, 0);
    s->f = s->rows = 0;
    s->turn_s = s->plain.turn_s;
    if (d->no_prompts)
        return;
    s->rows = usual_rows(d, most);
    for (int i = 0; i < 8; i++) {
        s->mixed = beat_of(r, d, b, s->rows);
        double come = rate * d->prompt.mean; /* rows a second */
        double gain = s->rows - come * (s->mixed.step_s - s->plain.step_s);
        s->f = gain > 0 ? come * s->plain.step_s / gain : 2;
        if (s->f <= 1 || s->rows >= most)
            break;
        s->rows = fmin(most, 2 * s->rows); /* several prompts in a step */
    }
    if (s->f > 1)
        s->limit = LIMIT_PROMPTS;
    double f = fmin(s->f, 1);
    s->turn_s = f * s->mixed.turn_s + (1 - f) * s->plain.turn_s;
}

/* b = rate (o - 1) turn(b), by repeated substitution. */
static struct steady settle(const struct replica *r, const struct demand *d, double rate)
{
    struct steady s = {0};
    double further = fmax(d->output.mean - 1, 0), b = 1;
    for (int i = 0; i < 40; i++) {
        s.limit = LIMIT_NONE;
        mix(r, d, rate, b, &s);
        double want = rate * further * s.turn_s;
        if (s.limit || want > r->max_seq) {
            s.limit = s.limit ? s.limit : LIMIT_SEQS;
            break;
        }
        bool done = fabs(want - b) < 0.01 * b + 0.05;
        b = want;
        if (done)
            break;
    }
    return s;
}

/* ------------------------------------------------------------------------------- latencies */

/* Rate at which P(wait > t) falls, in services: Poisson arrivals and services of a gamma
 * distribution with squared variation c make it the x > 0 of load (M(x) - 1) = x, where M is the
 * moment generating function (Cramer and Lundberg). */
static double decay(double load, double c)
{
    double lo = 0, hi = c > 1e-3 ? 1 / c : 60;
    for (int i = 0; i < 40; i++) {
        double x = (lo + hi) / 2, m = c > 1e-3 ? pow(1 - x * c, -1 / c) : exp(x);
        if (load * (m - 1) < x)
            lo = x;
        else
            hi = x;
    }
    return lo;
}

/* Wait of prompts for the steps before theirs: Kingman's formula with the time that a prompt takes
 * of steps as the service. tail: of the demand's share of requests, where the wait of a share
 * `load` of them falls exponentially; more uneven arrivals make it fall as much slower as Kingman's
 * mean grows. */
static double wait_s(const struct demand *d, double rate, double service, double *tail)
{
    double load = fmin(rate * service, 0.999), cs2 = d->prompt.cv * d->prompt.cv;
    double mean = load / (1 - load) * (d->cv2 + cs2) / 2 * service;
    double falls = decay(load, cs2) * (1 + cs2) / fmax(d->cv2 + cs2, 1e-3);
    *tail = load > 1 - d->share ? fmax(mean, log(load / (1 - d->share)) / falls * service) : mean;
    return mean;
}

static void first_token(const struct replica *r, const struct demand *d, double rate,
                        const struct steady *s, struct outlook *o)
{
    double most = fmax(room(r, s->b), 1), tail;
    double steps = ceil(d->prompt.mean / most), long_steps = ceil(d->prompt.tail / most);
    if (d->no_prompts) {
        o->ttft_s = o->ttft_tail_s = 0;
        return;
    }
    double taken = s->mixed.step_s * d->prompt.mean / fmax(s->rows, 1);
    double wait = wait_s(d, rate, taken, &tail);
    o->ttft_s = s->turn_s / r->pp / 2 + wait + (steps - 1) * s->mixed.step_s + s->mixed.all_s;
    double longest = beat_of(r, d, s->b, fmin(most, fmax(d->prompt.tail, s->rows))).all_s;
    o->ttft_tail_s =
        s->mixed.step_s + tail + (long_steps - 1) * s->mixed.step_s + fmax(longest, s->mixed.all_s);
}

/* While a request draws, more prompts come than on the mean, and more sequences run. */
static void further_tokens(const struct replica *r, const struct demand *d, double rate,
                           struct steady *s, struct outlook *o)
{
    double z = normal_quantile(d->share), further = fmax(d->output.mean - 1, 1);
    double come = rate * further * s->turn_s;
    struct steady tail = *s;
    o->tpot_s = s->turn_s;
    o->running = s->b;
    o->running_tail = s->b + z * sqrt(s->b * fmax(1, fmin(d->cv2, 20)));
    mix(r, d, rate * (1 + z * sqrt(d->cv2 / fmax(come, 1e-9))), fmin(o->running_tail, r->max_seq),
        &tail);
    o->tpot_tail_s = fmax(tail.turn_s, s->turn_s);
    if (o->running_tail > r->max_seq) /* then some wait, which these steps do not show */
        o->limit = LIMIT_SEQS;
}

static void judge(const struct replica *r, const struct demand *d, struct outlook *o)
{
    struct bound {
        double value, most;
        enum limit limit;
    } bound[] = {{o->ttft_tail_s, d->ttft_s * (1 - d->spare), LIMIT_TTFT},
                 {o->tpot_tail_s, d->tpot_s * (1 - d->spare), LIMIT_TPOT},
                 {o->kv_share, 1 - d->spare, LIMIT_KV},
                 {o->running_tail, r->max_seq, LIMIT_SEQS},
                 {o->mixed, FULL, LIMIT_PROMPTS}};
    o->limit = LIMIT_NONE;
    o->worst = 0;
    for (size_t i = 0; i < COUNT(bound); i++) {
        if (bound[i].most <= 0 || bound[i].value / bound[i].most <= o->worst)
            continue;
        o->worst = bound[i].value / bound[i].most;
        o->limit = o->worst > 1 ? bound[i].limit : LIMIT_NONE;
    }
}

static struct outlook open_loop(const struct replica *r, const struct demand *d, double rate)
{
    struct steady s = settle(r, d, rate);
    struct outlook o = {.rate = rate,
                        .mixed = s.f,
                        .rows = s.rows,
                        .step_s = s.plain.turn_s,
                        .mixed_s = s.mixed.turn_s,
                        .running = s.b};
    if (s.limit) {
        o.limit = s.limit;
        o.worst = HOPELESS;
        return o;
    }
    first_token(r, d, rate, &s, &o);
    further_tokens(r, d, rate, &s, &o);
    double held = d->prompt.mean + d->output.mean / 2 + 8; /* half of the last page is empty */
    o.kv_share = (o.running_tail * held + (d->no_prompts ? 0 : d->prompt.tail)) / (double)r->kv_tok;
    o.output_tok_s = rate * d->output.mean;
    judge(r, d, &o);
    return o;
}

/* ------------------------------------------------------------------------------- questions */

/* What a rate must keep: all bounds, or with clients > 0 that no more requests are under way. */
struct goal {
    const struct demand *demand;
    double clients;
};

static double under_way(const struct outlook *o, const struct demand *d)
{
    return o->rate * (o->ttft_s + fmax(d->output.mean - 1, 0) * o->tpot_s);
}

static bool good(const struct outlook *o, const struct goal *g)
{
    if (!g->clients)
        return o->worst <= 1;
    return o->worst < HOPELESS && under_way(o, g->demand) <= g->clients;
}

/* The highest good rate, to 1 in 1000, and what it is like; *next: what the lowest bad one is like.
 * 0 when there is none. */
static double highest(const struct replica *r, const struct goal *g, struct outlook *at,
                      struct outlook *next)
{
    double lo = 0, hi = 1e-4, least = hi;
    for (*next = open_loop(r, g->demand, hi); good(next, g) && hi < 1e6;
         *next = open_loop(r, g->demand, hi))
        lo = hi, hi *= 4, *at = *next;
    for (int i = 0; lo >= least && i < 12; i++) {
        double mid = sqrt(lo * hi);
        struct outlook o = open_loop(r, g->demand, mid);
        if (good(&o, g))
            lo = mid, *at = o;
        else
            hi = mid, *next = o;
    }
    if (lo == 0)
        *at = *next;
    return lo;
}

/* Clients that do not fit into steps wait for their first token; nobody comes by chance, so means
 * count. */
static struct outlook closed_loop(const struct replica *r, const struct demand *d, double clients)
{
    struct demand even = *d;
    struct outlook at, next;
    even.cv2 = 0;
    double rate = highest(r, &(struct goal){&even, clients}, &at, &next);
    if (rate == 0)
        return at;
    double wait = clients / rate - fmax(d->output.mean - 1, 0) * at.tpot_s - at.ttft_s;
    at.ttft_s += fmax(wait, 0), at.ttft_tail_s += fmax(wait, 0);
    if (d->ttft_s > 0)
        at.mixed = fmin(at.mixed, FULL); /* the bound says what is too much */
    judge(r, d, &at);
    return at;
}

struct outlook screen(const struct replica *r, const struct demand *d, double rate,
                      double concurrency)
{
    return rate > 0 ? open_loop(r, d, rate) : closed_loop(r, d, concurrency);
}

double screen_capacity(const struct replica *r, const struct demand *d, struct outlook *at)
{
    struct outlook next;
    double rate = highest(r, &(struct goal){d, 0}, at, &next);
    if (rate > 0)
        at->limit = next.limit;
    return rate;
}
