/* suspect.h - which ranks keep the others waiting, and what can be said about them. */
#ifndef TANDEM_SUSPECT_H
#define TANDEM_SUSPECT_H

#include "dev/plugin.h"
#include "run/mailbox.h"

/* Ranks, and their processes' states as /proc has them: 'R' runs, 'T' is stopped, 'D' waits for a
 * device, 't' has a debugger, 'Z' has died; '?': there is none. */
struct suspects {
    int n, rank[PLAN_RANKS];
    char state[PLAN_RANKS]; /* of all ranks, by rank */
};

/* Of those that are not done with the step: who is stopped or dead; else who is not in a call of a
 * group, where ranks wait for others; else, in the first stage of them, who has come least far.
 * pid: of every rank. */
void suspects_find(struct suspects *s, const struct plan *p, const struct mailbox *m,
                   const _Atomic int pid[], uint64_t step);

/* They are stopped or dead, and not only slow. */
bool suspects_certain(const struct suspects *s);

/* A rank of the plan is stopped by a debugger: somebody is looking at it. */
bool suspects_debugged(const struct suspects *s, const struct plan *p);

/* Fill e with who, where and for how long. gpus: NULL on the host. Returns -ETIMEDOUT. */
int suspects_say(const struct suspects *s, const struct mailbox *m, const _Atomic int pid[],
                 const struct gpus *gpus, uint64_t step, double still_s, struct err *e);

/* "rank 1 (process 4242 on GPU 0, NVIDIA H200 at 0000:17:00.0)". */
void suspects_name(char *to, size_t room, int rank, int pid, const struct gpus *gpus);

#endif
