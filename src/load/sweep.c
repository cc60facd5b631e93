/* sweep.c - `tandem bench serve --sweep`: one open loop after another, until the highest rate
 * that keeps the slo is known. */
#include "load/bench.h"
#include "load/search.h"

#include <math.h>
#include <unistd.h>

enum {
    FEWEST = 5, /* requests of a run that tells something */
    PAUSE_S = 1 /* for the server to notice that a run was given up */
};

static const double precision = 0.05;

/* Whether enough of the requests that were to be sent kept the slo. */
static bool held(const struct bench *b, const struct results *r, const struct summary *s)
{
    return !r->gave_up && s->sent && s->good_share >= b->o->slo_share;
}

/* The load at a rate, with requests of its own: a prefix cache shall find nothing of earlier ones.
 */
static struct load load_at(const struct bench *b, double rate, int step)
{
    struct load l = b->load;
    l.work.seed += (uint64_t)step;
    l.arrivals.rate = rate;
    l.arrivals = arrivals_begin(&l.arrivals, l.work.seed);
    l.most_bad = (uint64_t)floor((1 - b->o->slo_share) * (double)load_planned(&l) + 1e-9);
    return l;
}

static void print_head(void)
{
    printf("%9s %7s %7s %9s %10s %10s %10s %10s\n", "rate/s", "sent", "good", "tokens/s",
           "TTFT p50", "TTFT p99", "TPOT p99", "E2E p99");
}

static void print_rate(double rate, const struct results *r, const struct summary *s, bool holds)
{
    const double value[] = {s->ttft.p50, s->ttft.p99, s->tpot.p99, s->e2e.p99};
    char text[16];
    printf("%9.3g %7llu %5.1f %% %9.1f", rate, (unsigned long long)s->sent, 100 * s->good_share,
           s->output_tok_per_s);
    for (size_t i = 0; i < COUNT(value); i++)
        printf(" %10s", figures_seconds(value[i], text));
    printf("  %s\n", holds ? "holds" : r->gave_up ? "given up" : "fails");
    fflush(stdout);
}

static void print_end(const struct bench *b, const struct search *s)
{
    if (!s->holds)
        printf("no rate down to %.3g requests/s keeps the slo for %g %% of the requests\n",
               s->fails, 100 * b->o->slo_share);
    else
        printf("%.3g requests/s keep the slo for %g %% of the requests%s\n", s->holds,
               100 * b->o->slo_share, s->fails ? "" : ", and perhaps more would");
}

/* Measure one rate and append it to the list of all. */
static bool try_rate(struct bench *b, double rate, int step, json_t *list, struct results *r)
{
    struct load l = load_at(b, rate, step);
    bench_run(b, &l, r);
    struct summary s = summary_of(r, &l.slo);
    bool holds = held(b, r, &s);
    json_t *o = figures_json(&l, r, &s);
    json_object_set_new(o, "holds", json_boolean(holds));
    json_object_set_new(o, "gave_up", json_boolean(r->gave_up));
    json_array_append_new(list, o);
    if (bench_talks(b))
        print_rate(rate, r, &s, holds);
    return holds;
}

int bench_sweep(struct bench *b, struct err *e)
{
    struct search s = search_begin(b->load.arrivals.rate, FEWEST / b->load.duration_s, precision);
    json_t *list = json_array();
    bool interrupted = false;
    if (bench_talks(b))
        print_head();
    while (!search_done(&s) && !interrupted) {
        struct results r;
        bool holds = try_rate(b, s.next, s.steps, list, &r);
        interrupted = r.interrupted;
        if (r.gave_up)
            sleep(PAUSE_S);
        if (!interrupted)
            search_tell(&s, holds);
        results_free(&r);
    }
    if (bench_talks(b))
        print_end(b, &s);
    json_t *o = json_pack("{s:f, s:f, s:f, s:o}", "highest_rate", s.holds, "lowest_failing_rate",
                          s.fails, "slo_share", b->o->slo_share, "rates", list);
    int rc = bench_json(b, o, e);
    return rc ? rc : interrupted ? -EINTR : 0;
}
