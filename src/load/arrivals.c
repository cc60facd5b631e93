/* arrivals.c - see arrivals.h. */
#include "load/arrivals.h"

#include <math.h>
#include <string.h>

static const char *const names[] = {[ARRIVALS_POISSON] = "poisson",
                                    [ARRIVALS_GAMMA] = "gamma",
                                    [ARRIVALS_UNIFORM] = "uniform",
                                    [ARRIVALS_BURST] = "burst",
                                    [ARRIVALS_ON_OFF] = "on-off"};

const char *arrivals_name(enum arrivals_kind kind) { return names[kind]; }

enum arrivals_kind arrivals_named(const char *name)
{
    for (int kind = ARRIVALS_GAMMA; kind <= ARRIVALS_ON_OFF; kind++)
        if (!strcmp(names[kind], name))
            return (enum arrivals_kind)kind;
    return ARRIVALS_POISSON;
}

struct arrivals arrivals_begin(const struct arrivals *like, uint64_t seed)
{
    struct arrivals a = *like;
    a.draw = draw_of(seed, DRAW_ARRIVALS, 0);
    a.count = 0;
    a.at = 0;
    a.left_s = a.kind == ARRIVALS_ON_OFF ? a.on_s * draw_exponential(&a.draw) : 0;
    return a;
}

int arrivals_burst(double cv) { return (int)fmax(1, round((cv * cv + 1) / 2)); }

/* Seconds to the next arrival, which comes after so much time with arrivals. */
static double on_off(struct arrivals *a)
{
    double busy = draw_exponential(&a->draw) / a->rate * a->on_s / (a->on_s + a->off_s), gap = 0;
    while (busy > a->left_s) {
        gap += a->left_s + a->off_s * draw_exponential(&a->draw);
        busy -= a->left_s;
        a->left_s = a->on_s * draw_exponential(&a->draw);
    }
    a->left_s -= busy;
    return gap + busy;
}

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
    case ARRIVALS_ON_OFF: return on_off(a) * a->rate;
    }
    return 0;
}

double arrivals_next(struct arrivals *a)
{
    a->at += gap(a) / a->rate;
    a->count++;
    return a->at;
}
