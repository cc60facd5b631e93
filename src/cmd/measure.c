/* measure.c - see measure.h. */
#include "cmd/measure.h"
#include "cmd/cmd.h"
#include "cmd/latency.h"
#include "dev/dev.h"

enum { READ_BYTES = 256 << 20 };

int read_numbers(const char *name, const char *text, int list[LIST_MAX], int *n, struct err *e)
{
    *n = 0;
    for (const char *at = text; *at;) {
        char *end;
        long v = strtol(at, &end, 10);
        if (end == at || v < 0 || v > 1 << 20 || *n == LIST_MAX || (*end && *end != ','))
            return err_set(e, CMD_USAGE,
                           "--%s %s: up to %d whole numbers are needed, separated by commas", name,
                           text, LIST_MAX);
        if (v)
            list[(*n)++] = (int)v;
        at = *end ? end + 1 : end;
    }
    return 0;
}

struct unit {
    const char *name;
    double times;
};

/* A number above 0 and one of the units, up to the character `end`; what follows, or NULL. */
static const char *read_amount(const char *text, const struct unit *unit, int n, char end,
                               double *to)
{
    char *at;
    double x = strtod(text, &at);
    for (int i = 0; x > 0 && x < 1e15 && i < n; i++) {
        size_t length = strlen(unit[i].name);
        if (!strncmp(at, unit[i].name, length) && at[length] == end) {
            *to = x * unit[i].times;
            return at + length;
        }
    }
    return NULL;
}

int read_link(const char *text, struct link *to, struct err *e)
{
    static const struct unit time[] = {{"s", 1}, {"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}};
    static const struct unit rate[] = {
        {"kB/s", 1e3}, {"MB/s", 1e6}, {"GB/s", 1e9}, {"Mbit/s", 1e6 / 8}, {"Gbit/s", 1e9 / 8}};
    double rate_s = 0;
    const char *at = read_amount(text, time, COUNT(time), ':', &to->latency_s);
    if (!at || !read_amount(at + 1, rate, COUNT(rate), 0, &rate_s))
        return err_set(e, CMD_USAGE,
                       "--link: \"%.80s\" is not a latency and a rate such as 200us:1GB/s", text);
    to->byte_s = 1 / rate_s;
    return 0;
}

double seconds(void) { return 1e-6 * clock_us(); }

struct rounds rounds_of(const double *x, int n)
{
    double sorted[ROUNDS_MAX];
    must(0 < n && n <= ROUNDS_MAX);
    memcpy(sorted, x, (size_t)n * sizeof(*x));
    qsort(sorted, (size_t)n, sizeof(*sorted), by_value);
    return (struct rounds){sorted[n / 2], sorted[0], sorted[n - 1]};
}

struct rounds rounds_quotient(const double *x, const double *y, int n)
{
    double q[ROUNDS_MAX];
    must(0 < n && n <= ROUNDS_MAX);
    for (int i = 0; i < n; i++)
        q[i] = x[i] / y[i];
    return rounds_of(q, n);
}

void plan_widen(struct plan *p, int n_seq, int tokens)
{
    int64_t page = (tokens + KV_PAGE - 1) / KV_PAGE, need = n_seq * page;
    p->ctx = max_int(p->ctx, tokens);
    p->max_seq = max_int(p->max_seq, n_seq);
    p->max_out = max_int(p->max_out, n_seq);
    p->max_tok = max_int(p->max_tok, n_seq);
    p->pages = max_int(p->pages, (int)(need > INT32_MAX ? INT32_MAX : need));
}

int plan_cores(const struct plan *p) { return plan_ranks(p) * p->threads; }

struct limits *plan_limits(const struct plan *p, const struct host *h, struct err *e)
{
    int core[PLAN_RANKS * PLAN_THREADS];
    for (int r = 0; r < plan_ranks(p); r++)
        host_run(h, p->core[r], p->threads, core + r * p->threads);
    return limits_open(core, plan_cores(p), READ_BYTES, e);
}
