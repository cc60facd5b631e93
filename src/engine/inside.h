/* inside.h - what an engine is made of, for its own files. The face is engine/engine.h.
 *
 * One lock guards what other threads touch: the inbox, the events and the figures. Sequences,
 * scheduler and ranks belong to the engine's thread alone.
 */
#ifndef TANDEM_ENGINE_INSIDE_H
#define TANDEM_ENGINE_INSIDE_H

#include "engine/engine.h"
#include "engine/experts.h"
#include "engine/job.h"
#include "run/mailbox.h"
#include "sched/drive.h"

#include <pthread.h>
#include <time.h>

enum { STEP_RING = 1024 }; /* steps remembered for engine_steps() */

/* What belongs to a step on its way; the step itself is the drive's. */
struct flying {
    int64_t number;
    double begun, predicted;
};

struct events {
    struct engine_event *at;
    size_t n, room;
};

struct engine {
    struct plan plan;
    const struct store *store;
    struct engine_opts opts;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t bell;

    /* Under the lock. */
    struct job *inbox, **inbox_end;
    uint64_t *cancel; /* ids */
    int n_cancel, n_inbox;
    size_t cancel_room;
    size_t inbox_tok;
    uint64_t last_id;
    struct events out;
    bool stop, probe, called; /* called: wake() was, and nobody has taken the events yet */
    struct engine_stats stats;
    struct engine_step step_ring[STEP_RING];
    uint64_t n_step_ring, step_taken;
    double last_commit;
    uint64_t late[PLAN_RANKS];

    /* Of the thread that takes events. */
    struct events taken;

    /* The engine's thread's. */
    struct team *team;
    pthread_mutex_t team_lock; /* held, shortly, while there is another one, and by those who ask it
                                  for figures */
    struct experts_of experts; /* counts: under team_lock too */
    struct drafter *drafter;   /* NULL: guesses come from the past */
    struct draft_ask *asks;
    struct drive drive;
    struct job *live; /* admitted, in no order */
    int restarts;
    uint64_t copied;           /* by teams that are no more; see engine_stats */
    struct sched_step *unsent; /* chosen, but the ranks died before they had it; NULL: none */
    struct flying flying[PLAN_STAGES + 1]; /* as drive.flying */
    struct draw *draw;
    uint64_t *allow;
    int *keep;
    double waited_s[PLAN_RANKS]; /* until the last commit */
    struct pool pool;
};

/* Seconds of CLOCK_MONOTONIC. */
static inline double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The engine's thread (loop.c); arg is the engine. */
void *engine_loop(void *arg);

#endif
