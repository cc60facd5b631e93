/* simulate.h - what a load would meet on a plan: the real scheduler and block manager on a virtual
 * clock.
 *
 * Every replica is a struct drive (sched/drive.h), the one that the engine feeds its ranks by;
 * requests are routed as the engine's fleet does (sched/route.h). Only time is invented: a step
 * takes what predict/price.h says of its rows. Equal questions have equal answers, bit for bit.
 */
#ifndef TANDEM_PREDICT_SIMULATE_H
#define TANDEM_PREDICT_SIMULATE_H

#include "load/load.h"
#include "load/summary.h"
#include "plan/plan.h"
#include "sched/drive.h"
#include "topo/hardware.h"

/* A rank of this replica dies: its step is void, its team is started again, and every sequence is
 * computed again. */
struct sim_death {
    int replica;
    double at_s;
};

/* A client gives this request up. */
struct sim_cancel {
    uint64_t request;
    double at_s;
};

struct simulation {
    const struct plan *plan;         /* a checked plan */
    const struct hardware *hardware; /* what its ranks run on */
    const struct load *load;         /* what comes, and the slo; tick may be NULL. Its seed is that
                                        of all draws. Prompts from a file are not for here */
    int replicas;                    /* 0: as many as the plan's dp */
    double tpot_s;                   /* as `tandem serve --tpot`; 0: its rule */
    struct queue_limits queue;       /* zeros: nobody is refused */
    const struct routing *routing;   /* how tokens choose experts; NULL: blindly */
    bool ahead;        /* steps are chosen while the one before runs, as the engine does on GPUs */
    double jitter;     /* standard deviation of the logarithm of step times; their mean stays */
    double patience_s; /* a client gives a request up after this time; 0: never */
    const struct sim_death *death;
    int n_death;
    double deaths_hour; /* more deaths, so many of each replica an hour; drawn by the seed */
    double restart_s;   /* from a death to the next step */
    FILE *timeline;     /* steps as a Chrome trace (JSON); NULL: none */

    /* For tests and experiments; NULL: none. Seconds from now, or, of a step chosen ahead, from the
     * end of the one before, until the step that a replica was just given is committed, above 0, in
     * place of the price. */
    double (*step_s)(void *arg, int replica, const struct sched_step *step);
    /* What else a request is: its tokens (n_max of them, the answer's too), priority, client. */
    void (*request)(void *arg, uint64_t number, struct seq *q);
    void *arg;
    struct drive_watch watch;        /* all that the drives do */
    const struct sim_cancel *cancel; /* ascending in time */
    int n_cancel;
};

struct sim_result {
    struct results results; /* every request, in the order in which they ended */
    struct summary summary; /* the same figures as of `tandem bench serve`; of ITL the percentiles
                               are right to 1 in 500 */
    uint64_t steps, preempted, deaths;
    double busy[PLAN_STAGES];   /* share of the time in which the ranks of a stage computed */
    double rows_mean;           /* of a step */
    int pages_each, pages_most; /* of one replica; most that were used at once */
    int replicas, devices;      /* devices of all replicas */
    double lambda;              /* of the rows of experts; 1: even, or not asked (routing) */
    double dollars_hour;        /* of all devices; 0: the profile has no price */
    double dollars_million;     /* per million tokens of answers; 0: unknown */
};

/* Run to the end of the load. What can go wrong is in e: a plan that the hardware has no figures
 * for, a load that no request of fits. sim_result_free() ends the result, after an error too. */
int simulate(const struct simulation *ask, struct sim_result *to, struct err *e);
void sim_result_free(struct sim_result *r);

#endif
