/* drive.h - one run of a load: when which request is sent, and all that came back.
 *
 * Closed loop: so many requests run at once, and the next is due when one ends. Open loop: requests
 * are due at times of their own, by arrivals or by a trace, whatever the server does. Latencies
 * count from when a request was due: one that had to wait, for us or for `concurrency`, has waited.
 */
#ifndef TANDEM_LOAD_DRIVE_H
#define TANDEM_LOAD_DRIVE_H

#include "load/arrivals.h"
#include "load/client.h"

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
    uint64_t requests;        /* at most */
    double duration_s;        /* none is due from then on; 0: no bound */
    struct slo slo;
    uint64_t most_bad; /* give up when more requests miss the slo */
    void (*tick)(void *arg, const struct load_progress *p); /* ten times a second; or NULL */
    void *arg;
};

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

void results_add(struct results *r, const struct outcome *o, const struct series *gaps,
                 const char *why);
void results_free(struct results *r);

/* How many requests the load will send when nothing stops it; UINT64_MAX when that depends on the
 * server. */
uint64_t load_planned(const struct load *l);

/* Run to the end. Everything that can go wrong with a request is in the results. */
void load_run(const struct load *l, const struct target *t, struct results *r);

#endif
