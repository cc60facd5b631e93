/* http.h - HTTP/1.1 on one event loop: calls come in, replies and streams of events go out.
 *
 * A thin layer over libevent's evhttp, which adds what evhttp lets through: doubled or malformed
 * Content-Length and Host are refused, bodies, headers and connections are bounded, a request has
 * to be whole in time, a client that goes away is noticed at once, and one that does not read is
 * dropped instead of filling memory. A client that closes only its sending side counts as gone.
 */
#ifndef TANDEM_HTTP_H
#define TANDEM_HTTP_H

#include "base/base.h"

#include <event2/event.h>

struct http;
struct call; /* one request of one client, until it is answered or the client is gone */

struct http_opts {
    const char *host;        /* address to listen on */
    int port;                /* 0: one that is free, see http_port() */
    const char *socket_path; /* not NULL: a unix socket there, instead of host and port */
    struct tls *tls;         /* NULL: without; the caller's */
    int max_connections;     /* more have to wait; 0: 4096 */
    size_t max_body, max_header, max_backlog; /* bytes; backlog: written, but not yet taken */
    int request_s; /* from a connection's begin, or the end of its last answer, to a whole request
                    */
    int stall_s;   /* a client may take no byte of its answer for so long */
    /* Called for every well-formed request; must answer it, now or later. */
    void (*handle)(void *arg, struct call *c);
    void *arg;
};

/* Listen. -EADDRINUSE and the like with a sentence. */
int http_start(struct http **out, struct event_base *base, const struct http_opts *o,
               struct err *e);
int http_port(const struct http *h);
int http_connections(const struct http *h);
/* Accept no more connections, and call done(arg) when no call is open any more, its answer taken by
 * the system included. Calls that come until then are served. */
void http_end(struct http *h, void (*done)(void *arg), void *arg);
/* Close every connection: calls that are open are gone. */
void http_free(struct http *h);

/* ------------------------------------------------------------------------------- a call */

enum http_method { HTTP_GET, HTTP_POST, HTTP_HEAD, HTTP_DELETE, HTTP_OPTIONS };
enum http_method call_method(const struct call *c);
const char *call_path(const struct call *c);                     /* decoded, without the query */
const char *call_header(const struct call *c, const char *name); /* NULL: there is none */
const char *call_body(const struct call *c, size_t *n); /* not 0-terminated; NULL when n 0 */
const char *call_peer(const struct call *c);            /* its address */

/* fn(arg) when the client goes away before the call is answered; after that, as after
 * call_reply() and call_end(), the call must not be used. */
void call_on_gone(struct call *c, void (*fn)(void *arg), void *arg);

/* A header of the answer, before it begins. */
void call_add_header(struct call *c, const char *name, const char *value);

/* The whole answer; a HEAD request gets its headers only. */
void call_reply(struct call *c, int status, const char *type, const char *body, size_t n);

/* An answer piece by piece: begin, any number of sends, end. call_send() returns false when the
 * client reads too slowly: it is being dropped and call_on_gone's function is called soon. */
void call_begin(struct call *c, int status, const char *type);
bool call_send(struct call *c, const char *at, size_t n);
void call_end(struct call *c);

#endif
