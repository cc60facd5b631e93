/* timeline.h - a simulation as a file that chrome://tracing and Perfetto show: the JSON of Chrome's
 * trace events. A process is a replica, a thread one of its stages; times are microseconds of the
 * virtual clock. */
#ifndef TANDEM_PREDICT_TIMELINE_H
#define TANDEM_PREDICT_TIMELINE_H

#include "sched/sched.h"

struct timeline {
    FILE *to;
    bool begun; /* an event stands before */
};

/* Every call does nothing when t is NULL. */
void timeline_begin(struct timeline *t, int replicas, int stages);
void timeline_step(struct timeline *t, int replica, int stage, double begun, double ends,
                   const struct sched_step *step);
void timeline_queue(struct timeline *t, int replica, double now, const struct sched_figures *f);
void timeline_death(struct timeline *t, int replica, double now, double until);
void timeline_end(struct timeline *t);

#endif
