/* bench.c - a load run against a server, and its figures printed. See bench.h. */
#include "load/bench.h"

#include <unistd.h>

enum { WARM_UP_AT_ONCE = 8 };

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

static int measure(struct bench *b, struct err *e)
{
    struct results r;
    bench_run(b, &b->load, &r);
    struct summary s = summary_of(&r, &b->load.slo);
    int rc = 0;
    if (bench_talks(b))
        figures_text(stdout, &b->load, &r, &s);
    if (b->o->record)
        rc = figures_write_record(b->o->record, &r, e);
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
    int rc = load_ask(&b.load, o, e);
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
    load_ask_free(&b.load);
    return rc;
}
