/* conns.h - connections of an HTTP server under watch: how many, how long, and whether they read.
 *
 * evhttp's timeout is one of silence, so a client that sends a byte a minute would stay for ever,
 * and so would one that takes a byte a minute. Here every connection has to bring a whole request
 * in time, and to take what is sent to it. Looks once a second while there are connections.
 *
 * evhttp says of a connection's end only when it has brought a request. Until then each
 * bufferevent is held by a reference of ours, and found closed by the next look.
 */
#ifndef TANDEM_CONNS_H
#define TANDEM_CONNS_H

#include "base/base.h"

#include <event2/bufferevent.h>
#include <event2/event.h>

struct conns;

struct conns_opts {
    int most;         /* connections; full() is called when they are reached, and when they fell */
    double request_s; /* to bring a whole request, from the begin or the last answer's end */
    double stall_s;   /* to take the next byte of an answer */
    void (*full)(void *arg, bool full);
    void *arg;
};

struct conns *conns_new(struct event_base *base, const struct conns_opts *o);
/* After its connections were closed by their owner. */
void conns_free(struct conns *c);

/* A new connection. It must own its descriptor (BEV_OPT_CLOSE_ON_FREE): the descriptor's number
 * stays taken until the reference here is dropped. */
void conns_add(struct conns *c, struct bufferevent *stream);
/* It has brought a whole request, which is being answered; or the answer is complete. */
void conns_busy(struct conns *c, struct bufferevent *stream, bool busy);
/* Its owner is closing it now. */
void conns_forget(struct conns *c, struct bufferevent *stream);
/* Look at all connections now; how many are left. */
int conns_sweep(struct conns *c);

#endif
