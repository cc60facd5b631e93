/* ask.c - see ask.h. */
#include "load/ask.h"

enum { REQUESTS = 100, CONCURRENCY = 8, SWEEP_SECONDS = 30 };

/* "ttft:2,tpot:0.2,e2e:30" */
static int read_slo(const struct options *o, struct slo *to, struct err *e)
{
    struct {
        const char *name;
        double *value;
    } known[] = {{"ttft:", &to->ttft}, {"tpot:", &to->tpot}, {"e2e:", &to->e2e}};
    for (const char *at = o->slo; *at;) {
        double *value = NULL;
        for (size_t i = 0; i < COUNT(known); i++)
            if (!strncmp(at, known[i].name, strlen(known[i].name)))
                value = known[i].value;
        at += strcspn(at, ":");
        size_t n = *at ? strspn(++at, "0123456789.") : 0;
        char *end = (char *)at;
        double x = n ? strtod(at, &end) : 0;
        if (!value || end != at + n || !(x > 0) || (*end && *end != ','))
            return err_set(e, LOAD_USAGE,
                           "%s: --slo takes seconds as ttft:2,tpot:0.2,e2e:30 or some of them, not "
                           "\"%.60s\"",
                           verb_rows[o->verb].name, o->slo);
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
    return err_set(e, LOAD_USAGE, "bench serve: --extra takes a JSON object, not \"%.60s\"", text);
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
    char what[64];
    snprintf(what, sizeof(what), "%s: --prompt-tokens", verb_rows[o->verb].name);
    if (spread_parse(o->prompt_tokens, what, &w->prompt, e))
        return LOAD_USAGE;
    snprintf(what, sizeof(what), "%s: --output-tokens", verb_rows[o->verb].name);
    if (spread_parse(o->output_tokens, what, &w->output, e))
        return LOAD_USAGE;
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
        {(o->given.on_seconds || o->given.off_seconds) && strcmp(o->arrivals, "on-off"),
         "--on-seconds and --off-seconds are for --arrivals on-off"},
        {o->sweep && !o->slo, "--sweep needs --slo: what shall the requests keep?"},
        {o->sweep && o->record, "--record is for one run, so not with --sweep"},
        {o->given.slo_share && !o->sweep, "--slo-share needs --sweep"},
    };
    for (size_t i = 0; i < COUNT(rules); i++)
        if (rules[i].wrong)
            return err_set(e, LOAD_USAGE, "%s: %s", verb_rows[o->verb].name, rules[i].words);
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

int load_ask(struct load *l, const struct options *o, struct err *e)
{
    *l = (struct load){.trace_speed = o->trace_speed,
                       .concurrency = o->concurrency,
                       .duration_s = o->duration,
                       .most_bad = UINT64_MAX};
    int rc = check(o, e);
    if (!rc)
        rc = read_workload(o, &l->work, e);
    if (!rc && o->slo)
        rc = read_slo(o, &l->slo, e);
    l->timing = timing_of(o, &l->work.trace);
    l->requests = requests_of(o, l);
    if (o->sweep && !o->given.duration)
        l->duration_s = SWEEP_SECONDS;
    if (l->timing == LOAD_CLOSED && !l->concurrency)
        l->concurrency = CONCURRENCY;
    l->arrivals = arrivals_begin(&(struct arrivals){.kind = arrivals_named(o->arrivals),
                                                    .rate = o->given.rate ? o->rate : 1,
                                                    .cv = o->cv,
                                                    .on_s = o->on_seconds,
                                                    .off_s = o->off_seconds},
                                 o->seed);
    return rc;
}

void load_ask_free(struct load *l)
{
    json_decref(l->work.extra);
    prompts_free(&l->work.prompts);
    trace_free(&l->work.trace);
}
