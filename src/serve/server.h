/* server.h - the OpenAI API on HTTP: calls become engine requests, events become replies.
 *
 * One event loop, on the caller's thread; the engine's thread only rings. Routes are a table in
 * server.c; what a route says is api.h's and reply.h's business.
 */
#ifndef TANDEM_SERVER_H
#define TANDEM_SERVER_H

#include "engine/fleet.h"
#include "serve/api.h"
#include "serve/http.h"

struct server;

struct server_opts {
    struct http_opts http; /* handle and arg are the server's */
    const struct api_model *model;
    const struct plan *plan;
    const struct store *store;
    struct engine_opts engine; /* wake and arg are the server's */
    const char *version;
    double drain_s;            /* to let requests end when told to stop */
    const char *key_file;      /* API keys (serve/keys.h); NULL: everybody may ask */
    const char *access_log;    /* one JSON object a line; "-": to standard output; NULL: none */
    const char *admin_socket;  /* where serve/admin.c listens; NULL: nowhere */
    const char *const *origin; /* whose pages may ask, for browsers; "*": everybody's */
    int n_origin;
};

/* Start the engine and listen. Everything in o must outlive the server. */
int server_start(struct server **out, struct event_base *base, const struct server_opts *o,
                 struct err *e);

int server_port(const struct server *s);
struct fleet *server_fleet(struct server *s);

/* No new requests; the event loop ends when the running ones have, or after drain_s. Called again:
 * it ends now. */
void server_drain(struct server *s);

/* Read the key file, the certificate and its key again, and open the access log again. What is
 * malformed stays as it was, with e. */
int server_reload(struct server *s, struct err *e);

/* Are steps being committed? An idle engine is asked for a step, which the next call judges. */
bool server_alive(struct server *s, struct err *e);

/* Close connections, stop the engine. */
void server_free(struct server *s);

#endif
