/* figures.c - see figures.h. */
#include "load/figures.h"

enum { BAR_WIDTH = 40 };

/* ------------------------------------------------------------------------------- for people */

const char *figures_seconds(double s, char to[16])
{
    if (s < 1)
        snprintf(to, 16, "%.*f ms", s < 0.01 ? 2 : s < 0.1 ? 1 : 0, s * 1e3);
    else
        snprintf(to, 16, "%.*f s", s < 10 ? 2 : s < 100 ? 1 : 0, s);
    return to;
}

static void line_of(FILE *to, const char *name, const struct digest *d)
{
    double value[] = {d->mean, d->p50, d->p90, d->p99, d->most};
    char text[16];
    if (!d->n)
        return;
    fprintf(to, "%-6s", name);
    for (size_t i = 0; i < COUNT(value); i++)
        fprintf(to, " %9s", figures_seconds(value[i], text));
    fputc('\n', to);
}

static void bars_text(FILE *to, const char *name, const struct bars *b)
{
    size_t most = 1;
    char from[16], until[16];
    for (int i = 0; i < b->n; i++)
        most = b->count[i] > most ? b->count[i] : most;
    if (b->n < 2)
        return;
    fprintf(to, "\n%s\n", name);
    for (int i = 0; i < b->n; i++) {
        int width = (int)((double)b->count[i] / (double)most * BAR_WIDTH + 0.5);
        fprintf(to, "%9s - %9s %7zu ", figures_seconds(b->bound[i], from),
                figures_seconds(b->bound[i + 1], until), b->count[i]);
        for (int k = 0; k < width; k++)
            fputc('#', to);
        fputc('\n', to);
    }
}

static void counts_text(FILE *to, const struct results *r, const struct summary *s)
{
    fprintf(to, "%llu requests in %.1f s, %llu finished", (unsigned long long)s->sent, s->seconds,
            (unsigned long long)s->fate[FATE_FINISHED]);
    for (int f = FATE_FINISHED + 1; f < FATE_COUNT; f++)
        if (s->fate[f])
            fprintf(to, ", %llu %s", (unsigned long long)s->fate[f], fate_words((enum fate)f));
    fputc('\n', to);
    for (int f = FATE_FINISHED + 1; f < FATE_COUNT; f++)
        if (s->fate[f] && r->why[f][0])
            fprintf(to, "  the first %s: %s\n", fate_words((enum fate)f), r->why[f]);
}

static void throughput_text(FILE *to, const struct summary *s)
{
    fprintf(to, "%.2f requests/s, %.1f output tokens/s, %.1f with those of prompts\n",
            s->requests_per_s, s->output_tok_per_s, s->tok_per_s);
    fprintf(to,
            "prompts %llu tokens (%.0f each, %.0f to %.0f; %llu cached), output %llu (%.0f each)\n",
            (unsigned long long)s->prompt_tok, s->prompt_len.mean, s->prompt_len.least,
            s->prompt_len.most, (unsigned long long)s->cached_tok,
            (unsigned long long)s->output_tok, s->output_len.mean);
}

static bool has_slo(const struct slo *slo) { return slo->ttft || slo->tpot || slo->e2e; }

static void goodput_text(FILE *to, const struct slo *slo, const struct summary *s)
{
    if (!has_slo(slo))
        return;
    fprintf(to, "goodput %.2f requests/s: %.2f %% of those sent kept", s->good_per_s,
            100 * s->good_share);
    const struct {
        const char *name;
        double value;
    } bound[] = {{"ttft", slo->ttft}, {"tpot", slo->tpot}, {"e2e", slo->e2e}};
    for (size_t i = 0; i < COUNT(bound); i++)
        if (bound[i].value)
            fprintf(to, " %s<=%g s", bound[i].name, bound[i].value);
    fputc('\n', to);
}

static void warnings_text(FILE *to, const struct load *l, const struct summary *s)
{
    char late[16];
    if (s->cpu_share > 0.8)
        fprintf(to, "note: this program used %.0f %% of a core; latencies may be partly its own\n",
                100 * s->cpu_share);
    if (!l->concurrency && s->late.p99 > 0.005)
        fprintf(to, "note: requests were sent up to %s late (99 %%); the latencies include that\n",
                figures_seconds(s->late.p99, late));
}

void figures_text(FILE *to, const struct load *l, const struct results *r, const struct summary *s)
{
    counts_text(to, r, s);
    if (s->fate[FATE_FINISHED]) {
        throughput_text(to, s);
        fprintf(to, "\n%-6s %9s %9s %9s %9s %9s\n", "", "mean", "p50", "p90", "p99", "max");
        line_of(to, "TTFT", &s->ttft);
        line_of(to, "TPOT", &s->tpot);
        line_of(to, "ITL", &s->gap);
        line_of(to, "E2E", &s->e2e);
    }
    goodput_text(to, &l->slo, s);
    bars_text(to, "TTFT", &s->ttft_bars);
    bars_text(to, "E2E", &s->e2e_bars);
    warnings_text(to, l, s);
}

/* ------------------------------------------------------------------------------- for machines */

static json_t *digest_json(const struct digest *d)
{
    return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "count", (json_int_t)d->n, "mean",
                     d->mean, "min", d->least, "p50", d->p50, "p90", d->p90, "p99", d->p99, "max",
                     d->most);
}

static json_t *bars_json(const struct bars *b)
{
    json_t *o = json_pack("{s:[], s:[]}", "bounds_s", "counts");
    for (int i = 0; i <= b->n && b->n; i++)
        json_array_append_new(json_object_get(o, "bounds_s"), json_real(b->bound[i]));
    for (int i = 0; i < b->n; i++)
        json_array_append_new(json_object_get(o, "counts"), json_integer((json_int_t)b->count[i]));
    return o;
}

static json_t *counts_json(const struct results *r, const struct summary *s)
{
    json_t *errors = json_object(), *why = json_object();
    for (int f = FATE_FINISHED + 1; f < FATE_COUNT; f++) {
        json_object_set_new(errors, fate_name((enum fate)f), json_integer((json_int_t)s->fate[f]));
        if (r->why[f][0])
            json_object_set_new(why, fate_name((enum fate)f), json_string(r->why[f]));
    }
    return json_pack("{s:I, s:I, s:I, s:o, s:o}", "sent", (json_int_t)s->sent, "finished",
                     (json_int_t)s->fate[FATE_FINISHED], "failed",
                     (json_int_t)(s->sent - s->fate[FATE_FINISHED]), "errors", errors,
                     "first_errors", why);
}

static json_t *load_json(const struct load *l)
{
    static const char *const timing[] = {"closed", "arrivals", "trace"};
    json_t *o = json_pack("{s:s, s:s, s:s, s:I, s:i}", "model", l->work.model, "endpoint",
                          l->work.chat ? "chat" : "completions", "timing", timing[l->timing],
                          "seed", (json_int_t)l->work.seed, "concurrency", l->concurrency);
    if (l->timing == LOAD_ARRIVALS) {
        json_object_set_new(o, "arrivals", json_string(arrivals_name(l->arrivals.kind)));
        json_object_set_new(o, "rate", json_real(l->arrivals.rate));
        json_object_set_new(o, "cv", json_real(l->arrivals.cv));
    }
    if (l->timing == LOAD_TRACE)
        json_object_set_new(o, "trace_speed", json_real(l->trace_speed));
    return o;
}

json_t *figures_json(const struct load *l, const struct results *r, const struct summary *s)
{
    json_t *o = json_pack("{s:o, s:o, s:f, s:b, s:f, s:f, s:f, s:I, s:I, s:I}", "load",
                          load_json(l), "requests", counts_json(r, s), "seconds", s->seconds,
                          "interrupted", (int)r->interrupted, "requests_per_s", s->requests_per_s,
                          "output_tok_per_s", s->output_tok_per_s, "tok_per_s", s->tok_per_s,
                          "prompt_tokens", (json_int_t)s->prompt_tok, "cached_tokens",
                          (json_int_t)s->cached_tok, "output_tokens", (json_int_t)s->output_tok);
    const struct {
        const char *name;
        const struct digest *of;
    } digests[] = {{"ttft_s", &s->ttft},
                   {"tpot_s", &s->tpot},
                   {"itl_s", &s->gap},
                   {"e2e_s", &s->e2e},
                   {"send_delay_s", &s->late},
                   {"prompt_tokens_each", &s->prompt_len},
                   {"output_tokens_each", &s->output_len}};
    must(o);
    for (size_t i = 0; i < COUNT(digests); i++)
        json_object_set_new(o, digests[i].name, digest_json(digests[i].of));
    json_object_set_new(o, "ttft_histogram", bars_json(&s->ttft_bars));
    json_object_set_new(o, "e2e_histogram", bars_json(&s->e2e_bars));
    json_object_set_new(o, "client_cpu_share", json_real(s->cpu_share));
    if (has_slo(&l->slo))
        json_object_set_new(o, "goodput",
                            json_pack("{s:f, s:f, s:f, s:I, s:f, s:f}", "ttft_s", l->slo.ttft,
                                      "tpot_s", l->slo.tpot, "e2e_s", l->slo.e2e, "requests",
                                      (json_int_t)s->good, "requests_per_s", s->good_per_s, "share",
                                      s->good_share));
    return o;
}

void figures_record(FILE *to, const struct results *r)
{
    for (size_t i = 0; i < r->n; i++) {
        const struct outcome *o = &r->at[i];
        json_t *line =
            json_pack("{s:I, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:i, s:i, s:i, s:i}", "request",
                      (json_int_t)o->number, "fate", fate_name(o->fate), "status", o->status,
                      "due_s", o->scheduled, "sent_s", o->sent, "first_s", o->first, "last_s",
                      o->last, "end_s", o->end, "prompt_tokens", o->prompt_tok, "cached_tokens",
                      o->cached_tok, "output_tokens", o->output_tok, "chunks", o->chunks);
        must(line);
        json_dumpf(line, to, JSON_COMPACT | JSON_REAL_PRECISION(9));
        fputc('\n', to);
        json_decref(line);
    }
}

int figures_write_record(const char *file, const struct results *r, struct err *e)
{
    FILE *to = fopen(file, "we");
    if (!to)
        return err_set(e, -errno, "%s: %s", file, strerror(errno));
    figures_record(to, r);
    bool bad = ferror(to);
    return fclose(to) || bad ? err_set(e, -EIO, "%s: cannot write", file) : 0;
}
