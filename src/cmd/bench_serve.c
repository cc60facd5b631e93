/* bench_serve.c - `tandem bench serve`: from options to a load, and its figures printed. */
#include "cmd/cmd.h"
#include "load/figures.h"

#include <unistd.h>

enum { REQUESTS = 100, CONCURRENCY = 8, WARM_UP_AT_ONCE = 8 };

struct bench {
    const struct options *o;
    struct load load;
    struct target target;
    char model[256];
    bool shown; /* a line of progress stands on the terminal */
};

/* ------------------------------------------------------------------------------- from options */

/* "ttft:2,tpot:0.2,e2e:30" */
static int read_slo(const char *text, struct slo *to, struct err *e)
{
    struct {
        const char *name;
        double *value;
    } known[] = {{"ttft:", &to->ttft}, {"tpot:", &to->tpot}, {"e2e:", &to->e2e}};
    for (const char *at = text; *at;) {
        double *value = NULL;
        for (size_t i = 0; i < COUNT(known); i++)
            if (!strncmp(at, known[i].name, strlen(known[i].name)))
                value = known[i].value;
        at += strcspn(at, ":");
        size_t n = *at ? strspn(++at, "0123456789.") : 0;
        char *end = (char *)at;
        double x = n ? strtod(at, &end) : 0;
        if (!value || end != at + n || !(x > 0) || (*end && *end != ','))
            return err_set(e, CMD_USAGE,
                           "bench serve: --slo takes seconds as ttft:2,tpot:0.2,e2e:30 or some of "
                           "them, not \"%.60s\"",
                           text);
        *value = x;
        at = *end ? end + 1 : end;
    }
    return 0;
}

static int read_extra(const char *text, struct workload *w, struct err *e)
{
    w->extra = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(w->extra))
        return 0;
    return err_set(e, CMD_USAGE, "bench serve: --extra takes a JSON object, not \"%.60s\"", text);
}

static int read_workload(const struct options *o, struct workload *w, struct err *e)
{
    *w = (struct workload){.seed = o->seed,
                           .chat = !strcmp(o->endpoint, "chat"),
                           .ignore_eos = o->ignore_eos,
                           .temperature = o->given.temperature ? o->temperature : -1,
                           .shared_prefix_tok = o->shared_prefix,
                           .rate = {1, 0}};
    if (spread_parse(o->prompt_tokens, "bench serve: --prompt-tokens", &w->prompt, e) ||
        spread_parse(o->output_tokens, "bench serve: --output-tokens", &w->output, e))
        return CMD_USAGE;
    int rc = 0;
    if (o->prompt_file)
        rc = prompts_read(&w->prompts, o->prompt_file, e);
    if (!rc && o->extra)
        rc = read_extra(o->extra, w, e);
    return rc;
}

static enum arrivals_kind arrivals_kind(const char *name)
{
    static const char *const names[] = {[ARRIVALS_POISSON] = "poisson",
                                        [ARRIVALS_GAMMA] = "gamma",
                                        [ARRIVALS_UNIFORM] = "uniform",
                                        [ARRIVALS_BURST] = "burst"};
    size_t i = 0;
    while (i + 1 < COUNT(names) && strcmp(names[i], name) != 0)
        i++;
    return (enum arrivals_kind)i;
}

static int check(const struct options *o, struct err *e)
{
    if (o->prompt_file && o->given.prompt_tokens)
        return err_set(e, CMD_USAGE,
                       "bench serve: --prompts brings prompts, so --prompt-tokens cannot be given");
    if ((o->given.arrivals || o->given.cv) && !o->given.rate)
        return err_set(e, CMD_USAGE, "bench serve: --arrivals and --cv need --rate");
    return 0;
}

static int read_load(const struct options *o, struct load *l, struct err *e)
{
    bool bounded = o->given.requests || o->given.duration;
    int rc = check(o, e);
    *l = (struct load){.timing = o->given.rate ? LOAD_ARRIVALS : LOAD_CLOSED,
                       .concurrency = o->concurrency,
                       .requests = o->given.requests ? (uint64_t)o->requests
                                   : bounded         ? UINT64_MAX
                                                     : REQUESTS,
                       .duration_s = o->duration,
                       .most_bad = UINT64_MAX};
    if (!rc)
        rc = read_workload(o, &l->work, e);
    if (!rc && o->slo)
        rc = read_slo(o->slo, &l->slo, e);
    if (l->timing == LOAD_CLOSED && !l->concurrency)
        l->concurrency = CONCURRENCY;
    if (l->timing == LOAD_ARRIVALS)
        l->arrivals = arrivals_begin(arrivals_kind(o->arrivals), o->rate, o->cv, o->seed);
    return rc;
}

/* ------------------------------------------------------------------------------- running */

static void show(void *arg, const struct load_progress *p)
{
    struct bench *b = arg;
    uint64_t done = p->finished + p->failed;
    b->shown = true;
    fprintf(stderr,
            "\r%6.1f s  %llu sent  %llu running  %llu finished  %llu failed  %.0f tokens/s \033[K",
            p->seconds, (unsigned long long)p->sent, (unsigned long long)(p->sent - done),
            (unsigned long long)p->finished, (unsigned long long)p->failed,
            p->seconds > 0 ? (double)p->output_tok / p->seconds : 0);
}

static void wipe(struct bench *b)
{
    if (b->shown)
        fprintf(stderr, "\r\033[K");
    b->shown = false;
}

/* Requests that are not measured, with words of their own. */
static int warm_up(struct bench *b, struct err *e)
{
    struct load l = b->load;
    struct results r;
    if (!b->o->warm_up)
        return 0;
    l.work.seed = ~l.work.seed;
    l.timing = LOAD_CLOSED;
    l.requests = (uint64_t)b->o->warm_up;
    l.duration_s = 0;
    l.concurrency = l.concurrency ? l.concurrency : WARM_UP_AT_ONCE;
    l.most_bad = UINT64_MAX;
    load_run(&l, &b->target, &r);
    wipe(b);
    struct summary s = summary_of(&r, &l.slo);
    int rc = r.interrupted ? -EINTR : 0;
    for (int f = FATE_FINISHED + 1; f < FATE_COUNT && !rc; f++)
        if (s.fate[f] && !s.fate[FATE_FINISHED])
            rc = err_set(e, -EPROTO, "bench serve: no request of the warm-up finished: %s",
                         r.why[f]);
    results_free(&r);
    return rc;
}

static int write_json(json_t *o, const char *file, struct err *e)
{
    bool standard = !strcmp(file, "-");
    FILE *to = standard ? stdout : fopen(file, "w");
    if (!to)
        return err_set(e, -errno, "%s: %s", file, strerror(errno));
    int rc = json_dumpf(o, to, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    fputc('\n', to);
    if (!standard)
        rc |= fclose(to);
    return rc ? err_set(e, -EIO, "%s: cannot write", file) : 0;
}

/* What cannot be known before the server is asked: a model's name, the length of words. */
static int ask(struct bench *b, struct err *e)
{
    struct workload *w = &b->load.work;
    int rc = 0;
    if (b->o->model)
        snprintf(b->model, sizeof(b->model), "%s", b->o->model);
    else
        rc = target_model(&b->target, b->model, e);
    w->model = b->model;
    if (!rc && (!w->prompts.n || w->shared_prefix_tok))
        rc = target_probe(&b->target, w, e);
    return rc;
}

static int measure(struct bench *b, struct err *e)
{
    const char *file = b->o->json_file;
    struct results r;
    load_run(&b->load, &b->target, &r);
    wipe(b);
    struct summary s = summary_of(&r, &b->load.slo);
    int rc = 0;
    if (!file || strcmp(file, "-") != 0)
        figures_text(stdout, &b->load, &r, &s);
    if (file) {
        json_t *o = figures_json(&b->load, &r, &s);
        rc = write_json(o, file, e);
        json_decref(o);
    }
    if (!rc && r.interrupted)
        rc = -EINTR;
    if (!rc && !s.fate[FATE_FINISHED])
        rc = err_set(e, -EPROTO, "bench serve: no request finished");
    results_free(&r);
    return rc;
}

int cmd_bench_serve(const struct options *o, struct err *e)
{
    struct bench b = {.o = o};
    int rc = read_load(o, &b.load, e);
    if (isatty(STDERR_FILENO)) {
        b.load.tick = show;
        b.load.arg = &b;
    }
    if (!rc) {
        rc = target_open(&b.target, o->url, o->bench_key_file, o->timeout, e);
        if (!rc)
            rc = ask(&b, e);
        if (!rc)
            rc = warm_up(&b, e);
        if (!rc)
            rc = measure(&b, e);
        target_close(&b.target);
    }
    json_decref(b.load.work.extra);
    prompts_free(&b.load.work.prompts);
    trace_free(&b.load.work.trace);
    return rc;
}
