/* simulate.c - `tandem simulate`: a load on a plan, on a virtual clock; the figures of `bench
 * serve` and what only a simulation knows. */
#include "predict/simulate.h"
#include "cmd/cmd.h"
#include "cmd/experts.h"
#include "cmd/open.h"
#include "load/ask.h"
#include "load/figures.h"
#include "predict/size.h"

#include <unistd.h>

enum { DEATHS_MOST = OPT_LIST_MAX };

struct simulating {
    struct opened at;
    struct hardware hardware;
    struct load load;
    struct experts_asked experts;
    struct sim_death death[DEATHS_MOST];
    uint64_t planned; /* requests; UINT64_MAX: unknown */
    bool shown;
};

/* ------------------------------------------------------------------------------- what is asked */

/* "3@60" */
static int read_death(const char *text, struct sim_death *to, struct err *e)
{
    char *at, *end;
    long replica = strtol(text, &at, 10);
    double seconds = *at == '@' ? strtod(at + 1, &end) : -1;
    if (at == text || replica < 0 || replica > 1 << 20 || !(seconds >= 0) || *end)
        return err_set(e, CMD_USAGE,
                       "simulate: --kill takes REPLICA@SECONDS as 3@60, not \"%.60s\"", text);
    *to = (struct sim_death){(int)replica, seconds};
    return 0;
}

static int by_time(const void *a, const void *b)
{
    double x = ((const struct sim_death *)a)->at_s, y = ((const struct sim_death *)b)->at_s;
    return (x > y) - (x < y);
}

static int read_deaths(const struct options *o, struct sim_death *to, struct err *e)
{
    int rc = 0;
    for (int i = 0; i < o->kill.n && !rc; i++)
        rc = read_death(o->kill.at[i], &to[i], e);
    qsort(to, (size_t)o->kill.n, sizeof(*to), by_time);
    return rc;
}

/* What nobody said follows the hardware: a GPU per rank; the cores of a host shared out among the
 * ranks. */
static struct options on_hardware(const struct options *o, const struct hardware *h)
{
    struct options to = *o;
    if (o->plan)
        return to;
    to.tp = o->tp ? o->tp : o->ep;
    if (!o->threads)
        to.threads =
            h->kind == DEVICE_GPU ? 1 : max_int(hardware_devices(h) / (to.tp * o->pp * o->dp), 1);
    to.threads = min_int(to.threads, PLAN_THREADS);
    return to;
}

/* Copies of experts take memory of devices that have their own: a rank's part of one in all layers
 * of its stage, each. */
static void reserve_copies(struct hardware *h, const struct plan *p, int redundant)
{
    if (h->kind != DEVICE_GPU || !redundant)
        return;
    double one = (double)plan_expert_bytes(p, PLAN_WHOLE) / p->model.experts.n;
    h->reserve_bytes.value += redundant * one / (p->pp * (p->tp / p->ep));
}

/* As many pages as the hardware has room for, unless they were asked for. */
static int fit(const struct options *o, struct simulating *s, struct err *e)
{
    struct plan *p = &s->at.plan;
    const struct hardware *h = &s->hardware;
    int need = p->dp * plan_ranks(p) * p->threads, have = hardware_devices(h);
    if (need > have)
        return err_set(
            e, -EINVAL,
            "simulate: %d replicas of %d ranks with %d threads need %d devices, %s has %d; "
            "for more hosts of the same kind give --replicas",
            p->dp, plan_ranks(p), p->threads, need, h->name, have);
    bool fits = o->plan || o->kv_memory || size_fill(p, h);
    if (!fits)
        p->pages = (p->ctx + KV_PAGE - 1) / KV_PAGE; /* one sequence */
    struct fit f = size_fit(p, h);
    if (fits && f.spare >= 0)
        return 0;
    char where[32] = "the host";
    if (f.rank >= 0)
        snprintf(where, sizeof(where), "rank %d", f.rank);
    return err_set(e, -ENOSPC,
                   "simulate: %s needs %.2f GB for weights, %.2f for %d tokens of cache and %.2f "
                   "besides, %s has %.2f: take more ranks, or a smaller --dtype, --kv or --ctx",
                   where, (double)f.size.weights / 1e9, (double)f.size.kv / 1e9, p->pages * KV_PAGE,
                   (double)f.size.scratch / 1e9, h->name, f.have / 1e9);
}

static int ask(const struct options *o, struct simulating *s, struct err *e)
{
    if (!o->on_hardware)
        return err_set(
            e, CMD_USAGE,
            "simulate: give --hardware, a shipped profile such as dgx-h100 or a file that "
            "`tandem topo` wrote");
    int rc = read_deaths(o, s->death, e);
    if (!rc)
        rc = hardware_load(o->on_hardware, &s->hardware, e);
    if (!rc)
        rc = load_ask(&s->load, o, e);
    struct options on = on_hardware(o, &s->hardware);
    if (!rc)
        rc = open_shape(&s->at, &on, o->n_word ? o->word[0] : NULL, e);
    if (!rc) {
        rc = experts_ask(&s->experts, o, &s->at.plan, e);
        reserve_copies(&s->hardware, &s->at.plan, o->redundant_experts);
        if (rc || (rc = fit(o, s, e))) {
            open_close(&s->at);
            experts_asked_free(&s->experts);
        }
    }
    if (rc)
        load_ask_free(&s->load);
    s->load.work.model = s->at.plan.model.arch;
    return rc;
}

/* ------------------------------------------------------------------------------- what is told */

static void show(void *arg, const struct load_progress *p)
{
    struct simulating *s = arg;
    uint64_t done = p->finished + p->failed;
    s->shown = true;
    if (s->planned < UINT64_MAX)
        fprintf(stderr, "\rsimulating %3.0f %%  ", 100 * (double)done / (double)s->planned);
    fprintf(stderr, "%10.1f s  %llu of %llu requests ended\033[K", p->seconds,
            (unsigned long long)done, (unsigned long long)p->sent);
}

static void print_more(const struct simulating *s, const struct sim_result *r)
{
    const struct plan *p = &s->at.plan;
    printf("\n%llu steps of %.1f rows on average, %llu preemptions, %llu deaths of ranks\n",
           (unsigned long long)r->steps, r->rows_mean, (unsigned long long)r->preempted,
           (unsigned long long)r->deaths);
    printf("ranks computed");
    for (int i = 0; i < p->pp; i++)
        printf("%s %.1f %%", i ? "," : "", 100 * r->busy[i]);
    printf(" of the time%s; at most %d of %d pages of the cache were used\n",
           p->pp > 1 ? " (by stage)" : "", r->pages_most, r->pages_each);
    if (r->summary.prompt_tok)
        printf("%.1f %% of the prompts' tokens were stored already\n",
               100 * (double)r->summary.cached_tok / (double)r->summary.prompt_tok);
    if (s->experts.load && p->ep > 1)
        printf(
            "experts: the busiest of %d runs of ranks has %.2f times the mean of the rows (lambda, "
            "mean of layers)\n",
            p->ep, r->lambda);
    if (r->dollars_million > 0)
        printf("%.2f dollars per million output tokens: %d devices at %.2f an hour (%s)\n",
               r->dollars_million, r->devices, s->hardware.price_hour.value,
               source_name(s->hardware.price_hour.source));
    printf("Times are predicted for %s (%s); decisions are the scheduler's own.\n",
           s->hardware.name, source_name(s->hardware.memory_rate.source));
}

static void print_json(const struct options *o, const struct simulating *s,
                       const struct sim_result *r)
{
    json_t *all = figures_json(&s->load, &r->results, &r->summary), *busy = json_array();
    for (int i = 0; i < s->at.plan.pp; i++)
        json_array_append_new(busy, json_real(r->busy[i]));
    json_t *more = json_pack(
        "{s:s, s:s?, s:s?, s:i, s:i, s:i, s:i, s:I, s:f, s:I, s:I, s:i, s:i, s:o, s:f, s:f, s:f}",
        "hardware", s->hardware.name, "model", o->n_word ? o->word[0] : NULL, "plan", o->plan, "tp",
        s->at.plan.tp, "pp", s->at.plan.pp, "replicas", r->replicas, "devices", r->devices, "steps",
        (json_int_t)r->steps, "rows_per_step", r->rows_mean, "preemptions",
        (json_int_t)r->preempted, "rank_deaths", (json_int_t)r->deaths, "pages", r->pages_each,
        "pages_used_most", r->pages_most, "stage_busy", busy, "dollars_hour", r->dollars_hour,
        "dollars_per_million_output_tokens", r->dollars_million, "expert_lambda", r->lambda);
    must(all && more);
    json_object_set_new(all, "simulation", more);
    json_object_del(all, "client_cpu_share");
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(all);
}

/* ------------------------------------------------------------------------------- together */

static int run(const struct options *o, struct simulating *s, FILE *timeline, struct err *e)
{
    struct simulation ask = {
        .plan = &s->at.plan,
        .hardware = &s->hardware,
        .load = &s->load,
        .replicas = o->replicas,
        .tpot_s = o->tpot,
        .ahead = s->hardware.kind == DEVICE_GPU && !o->no_step_ahead,
        .queue = {o->max_queue, (size_t)o->max_queue_tokens, o->max_ttft},
        .routing = s->experts.load ? &s->experts.routing : NULL,
        .jitter = o->jitter,
        .patience_s = o->timeout,
        .death = s->death,
        .n_death = o->kill.n,
        .deaths_hour = o->deaths,
        .restart_s = o->restart_seconds,
        .timeline = timeline,
    };
    struct sim_result r;
    int rc = simulate(&ask, &r, e);
    if (s->shown)
        fprintf(stderr, "\r\033[K");
    if (!rc && o->record)
        rc = figures_write_record(o->record, &r.results, e);
    if (!rc && o->json)
        print_json(o, s, &r);
    if (!rc && !o->json) {
        figures_text(stdout, &s->load, &r.results, &r.summary);
        print_more(s, &r);
    }
    sim_result_free(&r);
    return rc;
}

int cmd_simulate(const struct options *o, struct err *e)
{
    struct simulating *s = calloc(1, sizeof(*s));
    FILE *timeline = NULL;
    must(s);
    int rc = ask(o, s, e);
    if (rc) {
        free(s);
        return rc;
    }
    for (int i = 0; i < s->at.notes.n; i++)
        fprintf(stderr, "tandem: note: %s\n", s->at.notes.text[i]);
    if (isatty(STDERR_FILENO) && !o->quiet)
        s->load.tick = show, s->load.arg = s;
    s->planned = load_planned(&s->load);
    if (o->timeline && !(timeline = fopen(o->timeline, "w")))
        rc = err_set(e, -errno, "%s: %s", o->timeline, strerror(errno));
    if (!rc)
        rc = run(o, s, timeline, e);
    if (timeline && (fclose(timeline) && !rc))
        rc = err_set(e, -EIO, "%s: cannot write", o->timeline);
    open_close(&s->at);
    experts_asked_free(&s->experts);
    load_ask_free(&s->load);
    free(s);
    return rc;
}
