/* metric.h - counts of what happened, and their text for Prometheus (exposition format 0.0.4).
 *
 * No registry: whoever counts has the numbers, and writes them when asked. A name may be written
 * with several sets of labels: metric_family() comes first, once.
 */
#ifndef TANDEM_METRIC_H
#define TANDEM_METRIC_H

#include "base/base.h"

enum { HISTOGRAM_BOUNDS = 24 };

/* How often values fell at or below each bound. */
struct histogram {
    const double *bound; /* ascending, n of them; what is above counts too */
    int n;
    uint64_t count[HISTOGRAM_BOUNDS + 1], total; /* count[i]: above bound[i - 1] only */
    double sum;
};

/* Bounds for seconds from 1 ms to 10 minutes; for numbers of tokens, 1-2-5 up to a million. */
struct histogram histogram_seconds(void);
struct histogram histogram_tokens(void);
void histogram_add(struct histogram *h, double value);

/* # HELP and # TYPE; type: "counter", "gauge" or "histogram". */
void metric_family(FILE *to, const char *name, const char *type, const char *help);

/* One line; labels: `a="b",c="d"`, or "". */
void metric_value(FILE *to, const char *name, const char *labels, double value);

/* The lines of a histogram. */
void metric_histogram(FILE *to, const char *name, const char *labels, const struct histogram *h);

/* A label's value with \, " and line ends escaped, cut to fit. */
void metric_escape(char *to, size_t n, const char *value);

#endif
