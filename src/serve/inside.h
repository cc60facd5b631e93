/* inside.h - what a server is made of, for its own files. The face is serve/server.h. */
#ifndef TANDEM_SERVE_INSIDE_H
#define TANDEM_SERVE_INSIDE_H

#include "serve/gpu_metrics.h"
#include "serve/guide.h"
#include "serve/keys.h"
#include "serve/metrics.h"
#include "serve/reply.h"
#include "serve/server.h"

#include <time.h>

enum { BUCKETS = 4096, HEARTBEAT_S = 15, STALLED_S = 30, LAST_WORDS_S = 2 };

struct live {
    struct server *server;
    struct call *call;
    struct request request;
    struct reply *reply;
    struct out out;
    struct key *key; /* NULL: no keys are asked for */
    int client;
    double arrived;
    int status;
    char id[80]; /* of the request, as its sender names it or as we do */
    bool streaming, touched, gone;
    int n_choice, n_open; /* open: choices whose end has not come */
    struct live *before, *next, *next_touched;
    struct choice {
        uint64_t id;
        struct live *live;
        int number;
        bool ended;
        struct metrics_choice metrics;
        struct choice *next; /* in its bucket */
    } choice[];
};

struct server {
    struct server_opts opts;
    struct event_base *base;
    struct http *http, *admin;
    FILE *log;
    struct fleet *fleet;
    struct event *wake, *heartbeat, *deadline;
    int wake_fd;
    struct live *live, *touched;
    int n_live;
    struct choice *bucket[BUCKETS];
    uint64_t n_call;
    struct metrics metrics;
    struct gpu_metrics *gpus; /* NULL: none here */
    struct keys *keys;
    struct guides guides;
    char fingerprint[24];
    uint64_t secret; /* what page names begin with, so that nobody can guess them */
    long long started;
    double now; /* when the events at hand were taken */
    bool draining;
};

/* Seconds of CLOCK_MONOTONIC. */
static inline double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct route {
    enum http_method method;
    const char *path;
    void (*handle)(struct server *s, struct call *c);
    bool open; /* without a key */
};

/* routes.c: what clients ask for (arg: the server). take_route() answers what one of n routes is
 * for; false: none. */
void take_call(void *arg, struct call *c);
bool take_route(struct server *s, struct call *c, const struct route *route, size_t n);
void health_route(struct server *s, struct call *c);
void metrics_route(struct server *s, struct call *c);
void plan_route(struct server *s, struct call *c);
void version_route(struct server *s, struct call *c);

/* admin.c: what the operator asks for, on a unix socket of the server's owner. */
void take_admin_call(void *arg, struct call *c);

/* cors.c: let pages of other origins ask, where allowed. True: it is answered (a preflight). */
bool cors(struct server *s, struct call *c);

/* answer.c: whole answers and refusals; the call is over then. out is freed. */
void reply_out(struct call *c, int status, struct out *out);
void refuse(struct server *s, struct call *c, const struct api_error *why);
PRINTF(5, 6)
void refuse_with(struct server *s, struct call *c, int status, const char *code, const char *fmt,
                 ...);

uint64_t any_seed(void); /* random bits, below 2^63 */

/* live.c: a parsed request that asks for tokens, until its reply is sent or its client is gone. The
 * request becomes its own. key: NULL, or whose room it takes. */
void go_live(struct server *s, struct call *call, struct key *key, int client, struct request *r);
/* End its choices soon; they are answered with what there is. */
void cancel_open(struct live *l);
/* Take the engine's events and send what came of them. */
void take_events(struct server *s);
/* Streams that wait for long say something that clients skip, or proxies would give them up. */
void say_still_there(struct server *s);

#endif
