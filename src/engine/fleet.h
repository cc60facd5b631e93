/* fleet.h - several engines that serve one model: data parallelism. The calls are those of
 * engine/engine.h, and with one replica there is nothing between.
 *
 * Replicas share nothing but the weights, when these are packed (a mapped file is in memory once).
 * A request stays where it was sent; sched/route.h decides where.
 */
#ifndef TANDEM_FLEET_H
#define TANDEM_FLEET_H

#include "engine/engine.h"

struct fleet;

/* Start p->dp engines. Errors as engine_start(). */
int fleet_start(struct fleet **out, const struct plan *p, const struct store *s,
                const struct engine_opts *opts, struct err *e);
void fleet_stop(struct fleet *f);

int fleet_submit(struct fleet *f, const struct engine_request *r, uint64_t *id, struct err *e);
void fleet_cancel(struct fleet *f, uint64_t id);
int fleet_events(struct fleet *f, void (*fn)(void *arg, const struct engine_event *ev), void *arg);
void fleet_probe(struct fleet *f);
void fleet_drain(struct fleet *f);

/* The least of the replicas. */
double fleet_ttft(struct fleet *f, int n_prompt);

/* Sums; of times since the last commit the longest, of speeds the mean; idle when all are, failed
 * when one is. */
void fleet_stats(struct fleet *f, struct engine_stats *to);

/* Sums over the replicas; the arrays are the caller's. */
void fleet_experts(struct fleet *f, struct expert_figures *to);
/* Of all replicas; errors as engine_place(). */
int fleet_place(struct fleet *f, const struct placement *layer, struct err *e);

int fleet_size(const struct fleet *f);
struct engine *fleet_engine(struct fleet *f, int replica);

#endif
