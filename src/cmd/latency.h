/* latency.h - how a collective call is timed, the same for us and for Open MPI. Shared with
 * bench/mpi_allreduce.c, so it uses nothing but the C library.
 *
 * The ranks are on one host and read one clock. The latency of a call is the time from when the
 * last rank came to when the last rank left: the lateness of the ranks is not the call's.
 */
#ifndef TANDEM_LATENCY_H
#define TANDEM_LATENCY_H

#include <stddef.h>
#include <stdlib.h>
#include <time.h>

struct call_time {
    double begin_us, end_us;
};

struct latency {
    double median_us, p99_us;
};

static inline double clock_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

/* Calls for a payload when the user names none: some 256 MiB in all. */
static inline int calls_for(size_t bytes)
{
    size_t n = ((size_t)256 << 20) / (bytes + 4096);
    return (int)(n > 5000 ? 5000 : n < 10 ? 10 : n);
}

/* Calls before these that are not counted. */
static inline int warm_up_for(int calls) { return calls < 100 ? 3 : 30; }

static inline int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of time[ranks][calls], which is overwritten. */
static inline struct latency latency_of(struct call_time *time, int ranks, int calls)
{
    double *us = (double *)(void *)time; /* call i is read before its place is written */
    for (int i = 0; i < calls; i++) {
        struct call_time all = time[i];
        for (int r = 1; r < ranks; r++) {
            struct call_time one = time[(size_t)r * (size_t)calls + (size_t)i];
            all.begin_us = one.begin_us > all.begin_us ? one.begin_us : all.begin_us;
            all.end_us = one.end_us > all.end_us ? one.end_us : all.end_us;
        }
        us[i] = all.end_us - all.begin_us;
    }
    qsort(us, (size_t)calls, sizeof(*us), by_value);
    return (struct latency){us[calls / 2], us[calls * 99 / 100]};
}

#endif
