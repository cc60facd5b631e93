/* crew.h - the threads of one rank: all run the same function together, each on its share.
 *
 * Between two such runs they spin for a while, as ranks do, and then sleep; nothing is allocated
 * and no thread is started inside a step. Whose share is what never changes a bit, so a crew may
 * shrink: when another process wants one of its cores, the thread there is descheduled in the
 * middle of its share, and all the others wait for milliseconds. A thread that is late for long is
 * left out (the last one, when the caller itself is late: that frees a core for the other process),
 * and is asked in again from time to time.
 */
#ifndef TANDEM_CREW_H
#define TANDEM_CREW_H

#include "base/base.h"

enum { CREW_MAX = 64 };

struct crew;

/* n - 1 threads beside the caller, thread i on core[i] (-1: not pinned; core NULL: none is). NULL
 * for n == 1, and when threads cannot be started: then the caller does all the work. */
struct crew *crew_start(int n, const int *core);
void crew_stop(struct crew *c);

/* fn(arg, share, n) for every share at once; returns when all have returned. n is at most that of
 * crew_start(), and share 0 is the caller's. A NULL crew is the caller alone. Not to be called from
 * within fn. */
typedef void crew_fn(void *arg, int share, int n);
void crew_run(struct crew *c, crew_fn *fn, void *arg);

/* How long the caller has waited in all runs for those that were later than itself. */
uint64_t crew_waited_ns(const struct crew *c);

#endif
