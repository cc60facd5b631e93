/* replica.h - one replica on a virtual clock, for simulate.c: a drive, the stages of its pipeline,
 * and the requests it has.
 *
 * What the engine's loop (engine/loop.c) does in real time: a turn commits the oldest step, takes
 * what came in meanwhile, and sends steps until as many as there are stages are on their way, or
 * one more, which is chosen ahead.
 */
#ifndef TANDEM_PREDICT_REPLICA_H
#define TANDEM_PREDICT_REPLICA_H

#include "load/tally.h"
#include "predict/simulate.h"

struct pricer;
struct timeline;

/* A request from when it is sent until none of its rows is on the way. */
struct sim_request {
    struct seq *seq;
    uint64_t number;
    double scheduled, sent, first, last; /* first, last: tokens came; 0: none did */
    int replica;
    bool ended;               /* its client has left: it finished, or was given up */
    bool given_up;            /* and the replica will hear of that in its next turn */
    struct sim_request *next; /* in the inbox, or among those that leave when their rows are back */
    struct sim_request *next_given_up;
};

/* With its sequence; q may be NULL. */
void sim_request_free(struct sim_request *q);

/* What the replicas of a simulation share. */
struct replicas {
    const struct simulation *ask;
    const struct plan *plan; /* of one */
    bool none_alike;         /* see struct sched_limits */
    bool ahead;              /* steps are chosen ahead, as with GPUs */
    struct pricer *pricer;   /* NULL: ask->step_s tells */
    struct timeline *timeline;
    int *keep;          /* [max_seq] */
    struct tally *gaps; /* between tokens of a request */
    /* q has drawn its last token. It is freed afterwards. */
    void (*finished)(void *arg, const struct sim_request *q, double now);
    void *arg;
};

/* A step on its way. seconds: since it was chosen, or, ahead, since the one before it ended. */
struct sim_flying {
    double ends, seconds;
};

struct replica {
    double next;           /* of the next turn; INFINITY: it has nothing to do */
    bool dead, restarting; /* a rank has died; the ranks are being started */
    int number, n_inbox;
    struct sim_request *inbox, **inbox_end, *given_up, **given_up_end, *leaving;
    size_t inbox_tok;
    double control_free; /* when the steps it sends have left */
    uint64_t steps, rows, deaths;
    int pages_most;
    struct draws jitter;
    struct drive drive;
    struct sim_flying flying[PLAN_STAGES + 1]; /* as drive.flying */
    double stage_free[PLAN_STAGES];            /* when each stage has done what it was given */
    double busy[PLAN_STAGES];
};

/* Memory comes from the arena, as drive_open()'s. */
void replica_open(struct replica *r, int number, const struct replicas *all, struct arena *a);

/* How its queue stands, the inbox included. */
struct queue_state replica_queue(const struct replica *r);
double replica_load(const struct replica *r); /* for sched/route.h */

/* A request comes and is the replica's from now on. */
void replica_submit(struct replica *r, struct sim_request *q, double now);

/* A client gives up a request that has not ended. */
void replica_give_up(struct replica *r, struct sim_request *q);

/* A rank dies. */
void replica_kill(struct replica *r, const struct replicas *all, double now);

/* It is r->next. */
void replica_turn(struct replica *r, const struct replicas *all);

/* Free the requests it still has and whose clients have left; the others are freed by who sent
 * them. It is of no use afterwards. */
void replica_close(struct replica *r);

#endif
