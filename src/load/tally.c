/* tally.c - see tally.h. */
#include "load/tally.h"

#include <math.h>

/* The middle of a class. */
static double value_of(size_t class)
{
    double octave = ldexp(1, (int)(class / TALLY_PER_OCTAVE) - TALLY_OCTAVES / 2);
    return octave * (1 + ((double)(class % TALLY_PER_OCTAVE) + 0.5) / TALLY_PER_OCTAVE);
}

/* The value of rank p (n - 1), rounded. */
static double percentile_of(const struct tally *t, double p)
{
    uint64_t rank = (uint64_t)llround(p * (double)(t->n - 1)), before = 0;
    size_t class = 0;
    while (before + t->count[class] <= rank)
        before += t->count[class ++];
    return fmin(fmax(value_of(class), t->least), t->most);
}

struct digest tally_digest(const struct tally *t)
{
    if (!t->n)
        return (struct digest){0};
    return (struct digest){.n = (size_t)t->n,
                           .mean = t->sum / (double)t->n,
                           .least = t->least,
                           .p50 = percentile_of(t, 0.5),
                           .p90 = percentile_of(t, 0.9),
                           .p99 = percentile_of(t, 0.99),
                           .most = t->most};
}
