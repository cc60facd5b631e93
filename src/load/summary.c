/* summary.c - see summary.h. */
#include "load/summary.h"

#include <math.h>

static const struct {
    const char *name, *words;
} fates[FATE_COUNT] = {
    [FATE_FINISHED] = {"finished", "finished"},
    [FATE_BUSY] = {"busy", "refused as busy (429)"},
    [FATE_REFUSED] = {"refused", "refused (4xx)"},
    [FATE_SERVER_ERROR] = {"server_error", "server errors"},
    [FATE_DISCONNECTED] = {"disconnected", "disconnected"},
    [FATE_TIMEOUT] = {"timeout", "timed out"},
    [FATE_BAD_REPLY] = {"bad_reply", "bad replies"},
    [FATE_CANCELLED] = {"cancelled", "cancelled here"},
};

const char *fate_name(enum fate f) { return fates[f].name; }
const char *fate_words(enum fate f) { return fates[f].words; }

struct bars bars_of(const double *at, size_t n)
{
    struct bars b = {0};
    if (!n)
        return b;
    double lo = fmax(at[0], 1e-6), hi = fmax(at[n - 1], lo);
    b.n = hi > lo ? SUMMARY_BARS : 1;
    for (int i = 0; i <= b.n; i++)
        b.bound[i] = lo * pow(hi / lo, (double)i / b.n);
    for (size_t k = 0; k < n; k++) {
        int i = 0;
        while (i + 1 < b.n && at[k] >= b.bound[i + 1])
            i++;
        b.count[i]++;
    }
    return b;
}

/* The series of what is told. */
struct lists {
    struct series prompt_len, output_len, ttft, tpot, e2e, late;
};

static void take_finished(struct summary *s, struct lists *l, const struct outcome *o)
{
    s->prompt_tok += (uint64_t)o->prompt_tok;
    s->cached_tok += (uint64_t)o->cached_tok;
    s->output_tok += (uint64_t)o->output_tok;
    series_add(&l->prompt_len, o->prompt_tok);
    series_add(&l->output_len, o->output_tok);
    series_add(&l->ttft, outcome_ttft(o));
    series_add(&l->e2e, outcome_e2e(o));
    if (o->output_tok > 1)
        series_add(&l->tpot, outcome_tpot(o));
}

static void take_all(struct summary *s, struct lists *l, const struct results *r,
                     const struct slo *slo)
{
    s->sent = r->n;
    for (size_t i = 0; i < r->n; i++) {
        const struct outcome *o = &r->at[i];
        s->fate[o->fate]++;
        s->good += outcome_good(o, slo);
        series_add(&l->late, o->sent - o->scheduled);
        if (o->fate == FATE_FINISHED)
            take_finished(s, l, o);
    }
}

static void digest_all(struct summary *s, struct lists *l, struct series *gaps)
{
    struct {
        struct series *from;
        struct digest *to;
    } all[] = {
        {&l->prompt_len, &s->prompt_len},
        {&l->output_len, &s->output_len},
        {&l->ttft, &s->ttft},
        {&l->tpot, &s->tpot},
        {&l->e2e, &s->e2e},
        {&l->late, &s->late},
        {gaps, &s->gap},
    };
    for (size_t i = 0; i < COUNT(all); i++)
        *all[i].to = series_digest(all[i].from);
    s->ttft_bars = bars_of(l->ttft.at, l->ttft.n);
    s->e2e_bars = bars_of(l->e2e.at, l->e2e.n);
    for (size_t i = 0; i + 1 < COUNT(all); i++)
        series_free(all[i].from);
}

struct summary summary_of(struct results *r, const struct slo *slo)
{
    struct summary s = {.seconds = r->seconds};
    struct lists l = {0};
    double per_s = r->seconds > 0 ? 1 / r->seconds : 0;
    take_all(&s, &l, r, slo);
    digest_all(&s, &l, &r->gaps);
    s.requests_per_s = (double)s.fate[FATE_FINISHED] * per_s;
    s.output_tok_per_s = (double)s.output_tok * per_s;
    s.tok_per_s = (double)(s.output_tok + s.prompt_tok) * per_s;
    s.good_per_s = (double)s.good * per_s;
    s.good_share = s.sent ? (double)s.good / (double)s.sent : 0;
    s.cpu_share = r->cpu_seconds * per_s;
    return s;
}
