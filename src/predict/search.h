/* search.h - the layout for a model, devices, load and bounds: all that can be are tried.
 *
 * Memory first (exact), then the closed forms of screen.h on the prices of price.h, then, of the
 * best, what simulate.h says. Fewest devices win that keep the bounds (several hosts
 * count with all of theirs); among those the one with the
 * most room before one of them, or one nearly as good that takes fewer ranks to a replica. Slices
 * (tp) stay inside the innermost level of the hardware, stages (pp) may cross, replicas (dp) need
 * no link at all.
 */
#ifndef TANDEM_PREDICT_SEARCH_H
#define TANDEM_PREDICT_SEARCH_H

#include "predict/shapes.h"

struct choice {
    const struct shape *shape; /* of the search */
    int max_tok, max_seq, dp;  /* dp: replicas on one host */
    int hosts;                 /* that the demand needs, each alike */
    int devices;               /* of all hosts, used */
    int paid;                  /* of one host the devices used, of several all */
    struct outlook at;         /* of one replica, with its part of the demand */
    double capacity;           /* requests a second of all replicas; 0: none, or not asked for */
    enum limit wall;           /* what limits the capacity */
};

/* Whether the demand is met. */
static inline bool choice_good(const struct choice *c) { return c->at.worst <= 1; }

struct search {
    struct shapes shapes;
    struct choice *best; /* of each shape, the best first; shapes that are out do not stand here */
    int n_best;
    struct choice *front; /* best of each number of replicas of each shape, in no order */
    int n_front;
    long tried, fitted; /* layouts that were looked at, and of these those with memory enough */
    struct pool pool;
};

/* Search. -ENOSPC when the model fits no way, with what would; -ENOTSUP when the profile lacks the
 * figures. A demand that cannot be met is no error: best[0] is then the nearest, and not good. End
 * with search_free(), after an error too. */
int search(const struct question *q, struct search *to, struct err *e);
void search_free(struct search *s);

/* The plan of one host, checked. */
struct plan choice_plan(const struct question *q, const struct choice *c);

/* Its prices and limits, for asking screen.h more. The pricer stays the shape's. */
struct replica choice_replica(const struct question *q, const struct choice *c);

/* The part of the demand that one of its replicas gets. */
double choice_rate(const struct question *q, const struct choice *c);
double choice_clients(const struct question *q, const struct choice *c);

/* Fill devices and paid by replicas and hosts. */
void choice_count(const struct question *q, struct choice *c);

/* Fill capacity and wall. */
void choice_capacity(const struct question *q, struct choice *c);

/* "tp 4, pp 2, 2 replicas, int8": what tells choices apart. */
const char *choice_name(char to[96], const struct question *q, const struct choice *c);

/* Separate pools: x replicas that compute prompts, y that draw, on hosts alike; the keys and values
 * go over the outermost link that the profile has. Analysis only: the server has one pool. */
struct pools {
    struct choice prompt, draw; /* hosts and devices: of each pool */
    int n_prompt, n_draw;       /* replicas */
    double send_s;              /* of a prompt's keys and values */
    int devices;                /* of both; 0: no such pools keep the bounds */
};
struct pools search_pools(const struct question *q, const struct search *s);

#endif
