/* demand.h - what a plan is for: how many requests of which length, and how soon they must be
 * answered. Averages and spreads, as the closed forms of screen.h need them. */
#ifndef TANDEM_PREDICT_DEMAND_H
#define TANDEM_PREDICT_DEMAND_H

#include "load/spread.h"
#include "load/trace.h"

/* Lengths in tokens. cv: standard deviation by the mean. */
struct lengths {
    double mean, cv, tail, most; /* tail: 99 of 100 are not longer; most: none is */
};
struct lengths lengths_of_spread(const struct spread *s);

struct demand {
    double rate;     /* requests a second, at times of their own; 0: */
    int concurrency; /* so many run at once, the next begins when one ends */
    double cv2;      /* squared coefficient of variation of the gaps between arrivals; 1: Poisson */
    struct lengths prompt, output;
    double ttft_s, tpot_s; /* bounds on time to first token and per further token; 0: none */
    double share;          /* of the requests that must keep them, such as 0.99 */
    double spare;          /* share of each bound to be left free, for what figures get wrong */
    bool no_prompts;       /* prompts come computed, from another pool */
};

/* Rate, spread of gaps and lengths of recorded requests; -EINVAL without rows, and without times
 * unless a rate is given (0: the recorded one). */
int demand_of_trace(const struct trace *t, double rate, struct demand *to, struct err *e);

/* Tokens of the longest sequence. */
int demand_ctx(const struct demand *d);

/* Standard normal: x such that a share p of draws is below. 0 < p < 1. */
double normal_quantile(double p);
double normal_share(double x);

#endif
