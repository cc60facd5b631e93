/* bench.c - from options to a load, and its figures printed. See bench.h. */
#include "load/bench.h"

#include <unistd.h>

enum { REQUESTS = 100, CONCURRENCY = 8, WARM_UP_AT_ONCE = 8, SWEEP_SECONDS = 30 };

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
            return err_set(e, BENCH_USAGE,
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
    return err_set(e, BENCH_USAGE, "bench serve: --extra takes a JSON object, not \"%.60s\"", text);
}

static int read_trace(const struct options *o, struct trace *t, struct err *e)
{
    int rc = trace_read(t, o->trace, e);
    if (!rc && t->left_out)
        fprintf(stderr,
                "tandem: note: %zu rows of %s have no prompt or no answer and are left out\n",
                t->left_out, o->trace);
    if (!rc && o->given.trace_seconds)
        trace_cut(t, o->trace_seconds); /* of a trace without times nothing is cut: all are 0 */
    return rc;
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
        return BENCH_USAGE;
    int rc = 0;
    if (o->prompt_file)
        rc = prompts_read(&w->prompts, o->prompt_file, e);
    if (!rc && o->trace)
        rc = read_trace(o, &w->trace, e);
    if (!rc && o->extra)
        rc = read_extra(o->extra, w, e);
    return rc;
}

/* Options that contradict each other. */
static int check(const struct options *o, struct err *e)
{
    const struct {
        bool wrong;
        const char *words;
    } rules[] = {
        {o->prompt_file && (o->given.prompt_tokens || o->trace),
         "--prompts brings prompts, so neither --prompt-tokens nor --trace can be given"},
        {o->trace && (o->given.prompt_tokens || o->given.output_tokens),
         "--trace brings lengths, so neither --prompt-tokens nor --output-tokens can be given"},
        {!o->trace && (o->given.trace_speed || o->given.trace_seconds),
         "--trace-speed and --trace-seconds need --trace"},
        {o->trace && o->given.rate && o->given.trace_speed,
         "with --rate only the lengths of --trace count, so --trace-speed cannot be given"},
        {(o->given.arrivals || o->given.cv) && !o->given.rate && !o->sweep,
         "--arrivals and --cv need --rate or --sweep"},
        {o->sweep && !o->slo, "--sweep needs --slo: what shall the requests keep?"},
        {o->sweep && o->record, "--record is for one run, so not with --sweep"},
        {o->given.slo_share && !o->sweep, "--slo-share needs --sweep"},
    };
    for (size_t i = 0; i < COUNT(rules); i++)
        if (rules[i].wrong)
            return err_set(e, BENCH_USAGE, "bench serve: %s", rules[i].words);
    return 0;
}

/* A trace brings times, unless it has none or they are not wanted. */
static enum load_timing timing_of(const struct options *o, const struct trace *t)
{
    if (o->given.rate || o->sweep)
        return LOAD_ARRIVALS;
    return t->n && t->timed && o->trace_speed > 0 ? LOAD_TRACE : LOAD_CLOSED;
}

static uint64_t requests_of(const struct options *o, const struct load *l)
{
    size_t rows = l->work.trace.n;
    uint64_t n = o->given.requests               ? (uint64_t)o->requests
                 : o->given.duration || o->sweep ? UINT64_MAX
                 : rows                          ? rows
                                                 : REQUESTS;
    return l->timing == LOAD_TRACE && n > rows ? rows : n;
}

static int read_load(const struct options *o, struct load *l, struct err *e)
{
    *l = (struct load){.trace_speed = o->trace_speed,
                       .concurrency = o->concurrency,
                       .duration_s = o->duration,
                       .most_bad = UINT64_MAX};
    int rc = check(o, e);
    if (!rc)
        rc = read_workload(o, &l->work, e);
    if (!rc && o->slo)
        rc = read_slo(o->slo, &l->slo, e);
    l->timing = timing_of(o, &l->work.trace);
    l->requests = requests_of(o, l);
    if (o->sweep && !o->given.duration)
        l->duration_s = SWEEP_SECONDS;
    if (l->timing == LOAD_CLOSED && !l->concurrency)
        l->concurrency = CONCURRENCY;
    l->arrivals =
        arrivals_begin(arrivals_named(o->arrivals), o->given.rate ? o->rate : 1, o->cv, o->seed);
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

void bench_run(struct bench *b, const struct load *l, struct results *r)
{
    load_run(l, &b->target, r);
    if (b->shown)
        fprintf(stderr, "\r\033[K");
    b->shown = false;
}

bool bench_talks(const struct bench *b)
{
    return !b->o->json_file || strcmp(b->o->json_file, "-") != 0;
}

/* The options that a load is not made of any more. */
static json_t *options_json(const struct options *o)
{
    bool spread = !o->trace && !o->prompt_file;
    return json_pack("{s:s, s:s?, s:s?, s:s?, s:s?, s:i, s:b, s:i}", "url", o->url, "prompt_tokens",
                     spread ? o->prompt_tokens : NULL, "output_tokens",
                     o->trace ? NULL : o->output_tokens, "trace", o->trace, "prompts",
                     o->prompt_file, "shared_prefix_tokens", o->shared_prefix, "ignore_eos",
                     (int)o->ignore_eos, "warm_up", o->warm_up);
}

int bench_json(const struct bench *b, json_t *o, struct err *e)
{
    json_object_set_new(o, "options", options_json(b->o));
    const char *file = b->o->json_file;
    int rc = 0;
    FILE *to = !file ? NULL : bench_talks(b) ? fopen(file, "w") : stdout;
    if (file && !to)
        rc = err_set(e, -errno, "%s: %s", file, strerror(errno));
    if (to && (json_dumpf(o, to, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) || fputc('\n', to) < 0))
        rc = err_set(e, -EIO, "%s: cannot write", file);
    if (to && to != stdout && fclose(to) && !rc)
        rc = err_set(e, -EIO, "%s: cannot write", file);
    json_decref(o);
    return rc;
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
    bench_run(b, &l, &r);
    struct summary s = summary_of(&r, &l.slo);
    int rc = r.interrupted ? -EINTR : 0;
    for (int f = FATE_FINISHED + 1; f < FATE_COUNT && !rc; f++)
        if (s.fate[f] && !s.fate[FATE_FINISHED])
            rc = err_set(e, -EPROTO, "bench serve: no request of the warm-up finished: %s",
                         r.why[f]);
    results_free(&r);
    return rc;
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

static int write_record(const char *file, const struct results *r, struct err *e)
{
    FILE *to = fopen(file, "w");
    if (!to)
        return err_set(e, -errno, "%s: %s", file, strerror(errno));
    figures_record(to, r);
    bool bad = ferror(to);
    return fclose(to) || bad ? err_set(e, -EIO, "%s: cannot write", file) : 0;
}

static int measure(struct bench *b, struct err *e)
{
    struct results r;
    bench_run(b, &b->load, &r);
    struct summary s = summary_of(&r, &b->load.slo);
    int rc = 0;
    if (bench_talks(b))
        figures_text(stdout, &b->load, &r, &s);
    if (b->o->record)
        rc = write_record(b->o->record, &r, e);
    if (!rc)
        rc = bench_json(b, figures_json(&b->load, &r, &s), e);
    if (!rc && r.interrupted)
        rc = -EINTR;
    if (!rc && !s.fate[FATE_FINISHED])
        rc = err_set(e, -EPROTO, "bench serve: no request finished");
    results_free(&r);
    return rc;
}

int bench_serve(const struct options *o, struct err *e)
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
            rc = o->sweep ? bench_sweep(&b, e) : measure(&b, e);
        target_close(&b.target);
    }
    json_decref(b.load.work.extra);
    prompts_free(&b.load.work.prompts);
    trace_free(&b.load.work.trace);
    return rc;
}
