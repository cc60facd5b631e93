/* shapes.h - the ways to cut a model over the devices of a host, each with its stages cut, its
 * prices ready and its memory known: what search.h varies replicas and limits of. */
#ifndef TANDEM_PREDICT_SHAPES_H
#define TANDEM_PREDICT_SHAPES_H

#include "dev/dev.h"
#include "predict/demand.h"
#include "predict/price.h"
#include "predict/screen.h"
#include "predict/size.h"

/* What is asked. */
struct question {
    struct model model;
    const struct hardware *hardware;
    int devices;        /* of one host that may be used */
    int hosts;          /* at most; 0: as many as needed, joined by the network in front only */
    int tp, ep, pp, dp; /* 0: any */
    int n_weight, n_kv; /* formats that may be chosen */
    enum num weight[NUM_COUNT], kv[NUM_COUNT];
    enum isa isa;            /* of a CPU; says the numerics of the plan */
    const struct host *host; /* NULL: not this machine, so no rank is pinned */
    int ctx;                 /* longest sequence; 0: what the demand needs */
    struct demand demand;
    double price_hour; /* US dollars of a device; 0: the profile's */
};

/* Why a way to cut is out, or not. */
enum shape_state {
    SHAPE_FINE,
    SHAPE_TOO_LARGE,  /* memory */
    SHAPE_ACROSS,     /* slices would talk over more than the innermost level */
    SHAPE_IMPOSSIBLE, /* the plan says why */
    SHAPE_UNPRICED    /* the profile has no figures of the formats */
};

struct shape {
    struct plan plan; /* limits are the smallest that the search tries; one replica of GPUs */
    int dp;           /* the replicas of a CPU, which share its memory's speed; 0: any number */
    struct pricer *pricer;
    struct weighed weighed;
    struct fit fit; /* with the smallest limits and a cache of one sequence */
    enum shape_state state;
    char why[200]; /* in words; "" when fine */
};

struct shapes {
    struct shape *at;
    int n, room;
    struct pool pool;
};

enum { SHAPE_TOK = 64, SHAPE_TOK_MOST = 8192, SHAPE_SEQ = 16, SHAPE_SEQ_MOST = 1024 };

/* All of them; end with shapes_free(). Never empty. */
void shapes_make(const struct question *q, struct shapes *to);
void shapes_free(struct shapes *s);

/* The plan of a shape with these limits and replicas and the most pages that fit; false: none do.
 */
bool shape_plan(const struct question *q, const struct shape *s, int max_tok, int max_seq, int dp,
                struct plan *to);

/* The same with its ranks on the cores of q->host; shape_plan() leaves them where they fall. */
bool shape_plan_placed(const struct question *q, const struct shape *s, int max_tok, int max_seq,
                       int dp, struct plan *to);

/* Replicas that a host can hold, by devices. */
int shape_replicas(const struct question *q, const struct shape *s);

/* Devices of a host that a replica takes. */
int shape_devices(const struct question *q, const struct shape *s);

/* Tokens of the longest sequence that plans are made for. */
int question_ctx(const struct question *q);

#endif
