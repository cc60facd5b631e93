/* client.h - many streamed requests at once over HTTP: libcurl's multi interface on libevent.
 *
 * One thread. Chunks are stamped when they are read. Nothing is retried.
 */
#ifndef TANDEM_LOAD_CLIENT_H
#define TANDEM_LOAD_CLIENT_H

#include "load/outcome.h"
#include "load/series.h"
#include "load/target.h"

#include <event2/event.h>
#include <time.h>

struct client;

/* A request has ended: what became of it, the times between its chunks, and, unless it finished,
 * why, in a few words. All are gone after the call. */
typedef void client_done(void *arg, const struct outcome *o, const struct series *gaps,
                         const char *why);

/* Times of outcomes are seconds since `begin` on clock_s(). t must outlive the client. */
struct client *client_new(const struct target *t, const char *path, struct event_base *base,
                          double begin, client_done *done, void *arg);
void client_free(struct client *c);

/* Post body (malloc'd, taken over) as request `number`, which was due at `scheduled`. */
void client_send(struct client *c, uint64_t number, double scheduled, char *body);

/* End all that run, as cancelled. */
void client_cancel(struct client *c);

/* Chunks with text that the running requests have had so far. */
uint64_t client_chunks(const struct client *c);

/* How many running requests are already too late for the slo. */
int client_overdue(const struct client *c, const struct slo *slo);

static inline double clock_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
