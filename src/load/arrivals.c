/* arrivals.c - see arrivals.h. */
#include "load/arrivals.h"

#include <math.h>
#include <string.h>

static const char *const names[] = {[ARRIVALS_POISSON] = "poisson",
                                    [ARRIVALS_GAMMA] = "gamma",
                                    [ARRIVALS_UNIFORM] = "uniform",
                                    [ARRIVALS_BURST] = "burst"};

const char *arrivals_name(enum arrivals_kind kind) { return names[kind]; }

enum arrivals_kind arrivals_named(const char *name)
{
    for (int kind = ARRIVALS_GAMMA; kind <= ARRIVALS_BURST; kind++)
        if (!strcmp(names[kind], name))
            return (enum arrivals_kind)kind;
    return ARRIVALS_POISSON;
}

struct arrivals arrivals_begin(enum arrivals_kind kind, double rate, double cv, uint64_t seed)
{
    return (struct arrivals){
        .kind = kind, .rate = rate, .cv = cv, .draw = draw_of(seed, DRAW_ARRIVALS, 0)};
}

int arrivals_burst(double cv) { return (int)fmax(1, round((cv * cv + 1) / 2)); }

/* A gap with mean 1. */
static double gap(struct arrivals *a)
{
    int group = arrivals_burst(a->cv);
    double shape = 1 / (a->cv * a->cv);
    switch (a->kind) {
    case ARRIVALS_POISSON: return draw_exponential(&a->draw);
    case ARRIVALS_GAMMA: return draw_gamma(&a->draw, shape) / shape;
    case ARRIVALS_UNIFORM: return 1;
    case ARRIVALS_BURST: return a->count % (uint64_t)group ? 0 : group * draw_exponential(&a->draw);
    }
    return 0;
}

double arrivals_next(struct arrivals *a)
{
    a->at += gap(a) / a->rate;
    a->count++;
    return a->at;
}
