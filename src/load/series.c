/* series.c - see series.h. */
#include "load/series.h"

#include <math.h>

static void make_room(struct series *s, size_t more)
{
    if (s->n + more <= s->room)
        return;
    s->room = (s->n + more) * 2;
    s->at = realloc(s->at, s->room * sizeof(*s->at));
    must(s->at);
}

void series_add(struct series *s, double value)
{
    make_room(s, 1);
    s->at[s->n++] = value;
}

void series_append(struct series *to, const struct series *from)
{
    if (!from->n)
        return;
    make_room(to, from->n);
    memcpy(to->at + to->n, from->at, from->n * sizeof(*to->at));
    to->n += from->n;
}

void series_free(struct series *s)
{
    free(s->at);
    *s = (struct series){0};
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double percentile(const double *at, size_t n, double p)
{
    double rank = p * (double)(n - 1);
    size_t below = (size_t)rank;
    if (below + 1 >= n)
        return at[n - 1];
    return at[below] + (rank - (double)below) * (at[below + 1] - at[below]);
}

struct digest series_digest(struct series *s)
{
    struct digest d = {.n = s->n};
    if (!s->n)
        return d;
    qsort(s->at, s->n, sizeof(*s->at), ascending);
    for (size_t i = 0; i < s->n; i++)
        d.mean += s->at[i] / (double)s->n;
    d.least = s->at[0];
    d.p50 = percentile(s->at, s->n, 0.5);
    d.p90 = percentile(s->at, s->n, 0.9);
    d.p99 = percentile(s->at, s->n, 0.99);
    d.most = s->at[s->n - 1];
    return d;
}
