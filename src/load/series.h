/* series.h - a growing list of measured values, and what is told of it. */
#ifndef TANDEM_LOAD_SERIES_H
#define TANDEM_LOAD_SERIES_H

#include "base/base.h"

/* Zeroed: empty. series_free() ends it. */
struct series {
    double *at;
    size_t n, room;
};

/* What is told of a series. n == 0: all are 0. */
struct digest {
    size_t n;
    double mean, least, p50, p90, p99, most;
};

void series_add(struct series *s, double value);
void series_append(struct series *to, const struct series *from);
void series_free(struct series *s);

/* Sorts the series. */
struct digest series_digest(struct series *s);

/* Of n ascending values, n > 0: p in [0, 1], linear between the two neighbours of rank p (n - 1),
 * as numpy's default does. */
double percentile(const double *ascending, size_t n, double p);

#endif
