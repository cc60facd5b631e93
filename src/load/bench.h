/* bench.h - `tandem bench serve` as a program of its own, tandem-load, so that nobody who serves or
 * runs a model carries libcurl and the libraries it needs. */
#ifndef TANDEM_LOAD_BENCH_H
#define TANDEM_LOAD_BENCH_H

#include "load/ask.h"
#include "load/drive.h"
#include "load/figures.h"

struct bench {
    const struct options *o;
    struct load load;
    struct target target;
    char model[256];
    bool shown; /* a line of progress stands on the terminal */
};

/* All of it: 0, a negative code with e filled, or -EINTR when it was interrupted. */
int bench_serve(const struct options *o, struct err *e);

/* Run a load with the line of progress, which is wiped at the end; results_free() ends r. */
void bench_run(struct bench *b, const struct load *l, struct results *r);

/* Whether figures for people go to standard output, which --json - takes for itself. */
bool bench_talks(const struct bench *b);

/* Write o (and release it) to --json FILE, if that was given. */
int bench_json(const struct bench *b, json_t *o, struct err *e);

/* Find the highest rate that keeps the slo; prints every rate that is tried. */
int bench_sweep(struct bench *b, struct err *e);

#endif
