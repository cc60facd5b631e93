/* calibrate_ranks.h - processes that measure together, one per core. For calibrate.c and its
 * neighbours. */
#ifndef TANDEM_CALIBRATE_RANKS_H
#define TANDEM_CALIBRATE_RANKS_H

#include "base/wait.h"
#include "predict/calibrate.h"

/* The time of what was called last, of every member; a cache line that only it writes. */
struct member_line {
    _Atomic uint64_t turn;
    double begin_s, end_s;
    char pad[40];
};

struct member {
    int rank, n;
    struct wait wait;
    uint64_t turn;
    struct member_line *line; /* [n], shared */
    _Atomic uint64_t *done;   /* shared: steps of the work that are finished */
    char *shared;             /* as asked for */
};

/* What each process does; only rank 0's results count, in shared memory. Errors go into e. */
typedef int member_fn(struct member *m, void *arg, struct err *e);

struct members {
    int n;
    const struct host *host; /* member i runs on core i * stride of it */
    int stride;
    char *shared; /* zeroed, made by members_share(), seen by all */
    const struct calibrate_opts *opts;
    size_t done, all; /* steps before these; of the whole calibration */
};

/* Shared zeroed memory of the parent and its members; free with members_unshare(). */
int members_share(size_t bytes, char **to, struct err *e);
void members_unshare(char *at, size_t bytes);

/* Fork n members, let each do fn, show progress, wait for all. */
int members_run(const struct members *g, member_fn *fn, void *arg, struct err *e);

/* Wait until all members have come here. */
void member_meet(struct member *m);

/* Seconds of one of so many calls, from when the last member came to when the last one left; the
 * same number for all of them. */
typedef void member_call(void *arg, int i);
double member_time(struct member *m, member_call *call, void *arg, int calls);

/* Rank 0: a step of the work is finished. */
void member_done(struct member *m);

double member_seconds(void); /* CLOCK_MONOTONIC */

#endif
