/* arrivals.h - when requests come, in an open loop: a rate and how uneven it is. Pure. */
#ifndef TANDEM_LOAD_ARRIVALS_H
#define TANDEM_LOAD_ARRIVALS_H

#include "load/draw.h"

enum arrivals_kind {
    ARRIVALS_POISSON, /* gaps are exponential: no memory */
    ARRIVALS_GAMMA,   /* gaps are gamma with coefficient of variation cv; 1 is poisson */
    ARRIVALS_UNIFORM, /* all gaps are the same */
    ARRIVALS_BURST,   /* several at once, the groups as poisson; so many that the gaps have cv */
    ARRIVALS_ON_OFF,  /* as poisson for a while, then none for a while; both exponential */
};

struct arrivals {
    enum arrivals_kind kind;
    double rate;        /* a second, on the mean */
    double cv;          /* standard deviation of the gaps by their mean; for gamma and burst */
    double on_s, off_s; /* mean lengths of the times with arrivals and without; for on-off */
    double left_s;      /* of the time with arrivals that is now */
    struct draws draw;
    uint64_t count; /* arrivals so far */
    double at;      /* seconds, of the last one */
};

/* The name of a kind, and the kind of a name (poisson for none). */
const char *arrivals_name(enum arrivals_kind kind);
enum arrivals_kind arrivals_named(const char *name);

/* The same kind, rate and so on from the beginning. */
struct arrivals arrivals_begin(const struct arrivals *like, uint64_t seed);

/* When the next request comes, in seconds since the beginning. */
double arrivals_next(struct arrivals *a);

/* Requests of a group of ARRIVALS_BURST. With groups of n the gaps have cv^2 = 2 n - 1, since one
 * in n is exponential with mean n/rate and the others are 0. */
int arrivals_burst(double cv);

#endif
