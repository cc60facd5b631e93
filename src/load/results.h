/* results.h - all that came back of a load. */
#ifndef TANDEM_LOAD_RESULTS_H
#define TANDEM_LOAD_RESULTS_H

#include "load/outcome.h"
#include "load/series.h"

/* Zeroed: empty. results_free() ends it. */
struct results {
    struct outcome *at; /* [n] in the order in which they ended */
    size_t n, room;
    struct series gaps; /* between chunks of the requests that finished */
    uint64_t bad;       /* missed the slo */
    double seconds;     /* from the beginning to the last end */
    double cpu_seconds; /* of this program */
    bool interrupted;   /* Ctrl-C */
    bool gave_up;
    char why[FATE_COUNT][160]; /* of the first with this fate; "": none */
};

/* gaps and why: of this request; gaps count when it finished, why when it did not. */
void results_add(struct results *r, const struct outcome *o, const struct series *gaps,
                 const char *why);
void results_free(struct results *r);

#endif
