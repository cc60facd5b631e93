/* team_inside.h - what a team is, for its own files. The face is engine/team.h. */
#ifndef TANDEM_TEAM_INSIDE_H
#define TANDEM_TEAM_INSIDE_H

#include "engine/team.h"
#include "engine/watch.h"
#include "run/room.h"

#include <sys/types.h>
#include <time.h>

struct team {
    struct plan plan;
    struct room room;
    const struct gpus *gpus; /* NULL: ranks compute on the host */
    int fd;
    pid_t keeper;
    int64_t submitted;
    bool failed;
    bool deaf; /* the keeper does not answer */
    size_t weight_bytes, rank_weights[PLAN_RANKS];
    _Atomic int pid[PLAN_RANKS];        /* read by other threads while ranks are replaced */
    struct rank_time since[PLAN_RANKS]; /* counters at the last reset */
    uint64_t placed, *holders;          /* the last placement, as struct slot has it; NULL: none */
    struct watch watch;                 /* of steps */
    double start_s;                     /* so long may nothing move while ranks start */
};

/* Take every word that has come from the keeper; *ready becomes true by KEEPER_READY. */
int team_listen(struct team *t, bool *ready, struct err *e);

/* The sum of all that grows while ranks get on. */
uint64_t team_moves(const struct team *t);

/* Seconds of CLOCK_MONOTONIC. */
static inline double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
