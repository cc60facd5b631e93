/* load.h - what load a server gets: which requests, and when each is due. Pure.
 *
 * Closed loop: so many requests run at once, and the next is due when one ends. Open loop: requests
 * are due at times of their own, by arrivals or by a trace, whatever the server does.
 */
#ifndef TANDEM_LOAD_LOAD_H
#define TANDEM_LOAD_LOAD_H

#include "load/arrivals.h"
#include "load/outcome.h"
#include "load/workload.h"

enum load_timing { LOAD_CLOSED, LOAD_ARRIVALS, LOAD_TRACE };

struct load_progress {
    double seconds;
    uint64_t sent, finished, failed;
    uint64_t output_tok; /* of requests that still run: chunks */
};

struct load {
    struct workload work;
    enum load_timing timing;
    struct arrivals arrivals; /* of LOAD_ARRIVALS */
    double trace_speed;       /* of LOAD_TRACE: how many times as fast as recorded */
    int concurrency;          /* requests at once at most; 0: no bound (not for LOAD_CLOSED) */
    uint64_t requests;        /* at most; of LOAD_TRACE at most the rows of the trace */
    double duration_s;        /* none is due from then on; 0: no bound */
    struct slo slo;
    uint64_t most_bad; /* give up when more requests miss the slo */
    void (*tick)(void *arg, const struct load_progress *p); /* ten times a second; or NULL */
    void *arg;
};

/* When request i is due, in seconds since the beginning; arrivals are drawn in turn from a, a copy
 * of the load's. 0 in a closed loop. */
double load_due(const struct load *l, struct arrivals *a, uint64_t i);

/* How many requests the load will send when nothing stops it; UINT64_MAX when that depends on the
 * server. */
uint64_t load_planned(const struct load *l);

#endif
