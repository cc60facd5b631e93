/* measure.h - what the benchmarks of `tandem bench` share: lists of numbers, figures over rounds,
 * the limits of cores, room in a plan. What is measured is each benchmark's own business. */
#ifndef TANDEM_MEASURE_H
#define TANDEM_MEASURE_H

#include "plan/plan.h"
#include "topo/hardware.h"
#include "topo/limits.h"

enum { LIST_MAX = 8, ROUNDS_MAX = 1000 };

/* --name "1,2,3": up to LIST_MAX whole numbers from 1 to 2^20; zeros are left out, so that "0" is
 * an empty list. CMD_USAGE with a sentence otherwise. */
int read_numbers(const char *name, const char *text, int list[LIST_MAX], int *n, struct err *e);

/* --link "200us:1GB/s": a latency in s, ms, us or ns, and a rate in kB/s, MB/s, GB/s, Mbit/s or
 * Gbit/s. CMD_USAGE with a sentence otherwise. */
int read_link(const char *text, struct link *to, struct err *e);

/* Of CLOCK_MONOTONIC. */
double seconds(void);

/* One figure of n <= ROUNDS_MAX rounds. */
struct rounds {
    double median, least, most;
};
struct rounds rounds_of(const double *x, int n);
/* Of x / y, round by round: what both suffer from the neighbours of a shared machine cancels. */
struct rounds rounds_quotient(const double *x, const double *y, int n);

/* Room for n_seq sequences of `tokens` tokens in one step, in a plan that may have room for other
 * such steps already. plan_check() is the caller's. */
void plan_widen(struct plan *p, int n_seq, int tokens);

/* How many cores the ranks of a replica use, and what these cores can do (topo/limits.h). */
int plan_cores(const struct plan *p);
struct limits *plan_limits(const struct plan *p, const struct host *h, struct err *e);

#endif
