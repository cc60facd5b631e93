/* figures.h - the figures of a run for people and for machines. */
#ifndef TANDEM_LOAD_FIGURES_H
#define TANDEM_LOAD_FIGURES_H

#include "load/load.h"
#include "load/summary.h"

/* The table: throughput, latencies, goodput, two histograms, and what to be wary of. */
void figures_text(FILE *to, const struct load *l, const struct results *r, const struct summary *s);

/* The same as an object; a new reference. */
json_t *figures_json(const struct load *l, const struct results *r, const struct summary *s);

/* A line of JSON for every request, in the order in which they ended. */
void figures_record(FILE *to, const struct results *r);
/* The same into a file, which is replaced. */
int figures_write_record(const char *file, const struct results *r, struct err *e);

/* "12.3 ms", into to[16]. */
const char *figures_seconds(double s, char to[16]);

#endif
