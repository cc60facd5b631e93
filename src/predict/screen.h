/* screen.h - what a load meets on a layout, in closed form: thousands of layouts a second.
 *
 * Times of steps are those of predict/price.h. What is closed here is queueing: how many sequences
 * run (Little), how often a step carries prompts, how long a prompt waits (Kingman), and how far
 * the slow requests are from the mean. planning formulas: Little 1961; Kingman 1961; tail of the
 * wait exponential. Good for choosing what to simulate; simulate.h is nearer to the truth.
 */
#ifndef TANDEM_PREDICT_SCREEN_H
#define TANDEM_PREDICT_SCREEN_H

#include "predict/demand.h"
#include "predict/price.h"

/* One replica: its prices and limits. */
struct replica {
    struct pricer *pricer;
    const struct model *model;
    int pp, max_tok, max_seq;
    int64_t kv_tok;
};

/* What binds first when the load grows. */
enum limit {
    LIMIT_NONE,    /* everything is kept */
    LIMIT_MEMORY,  /* weights and one sequence do not fit */
    LIMIT_TTFT,    /* the first token comes too late */
    LIMIT_TPOT,    /* the others do */
    LIMIT_PROMPTS, /* more rows of prompts come than steps can take */
    LIMIT_KV,      /* the cache is full */
    LIMIT_SEQS,    /* max_seq run */
    LIMIT_COUNT
};
const char *limit_words(enum limit l);

struct outlook {
    double ttft_s, ttft_tail_s; /* mean, and of the demand's share of requests */
    double tpot_s, tpot_tail_s;
    double running, running_tail; /* sequences that draw */
    double mixed;                 /* share of steps that carry prompts */
    double rows;                  /* of prompts, in such a step */
    double step_s, mixed_s;       /* a step without prompts, and with */
    double rate, output_tok_s;    /* of this replica: requests a second, tokens a second */
    double kv_share;              /* of the cache, in the tail */
    enum limit limit;             /* why it is not good enough, or LIMIT_NONE */
    double worst; /* the largest of value / (bound less spare): <= 1 when all are kept */
};

/* At so many requests a second of this replica; with `rate` 0 in a closed loop of `concurrency`. */
struct outlook screen(const struct replica *r, const struct demand *d, double rate,
                      double concurrency);

/* The highest rate at which nothing is violated; at->limit: what would be next. 0 when even an idle
 * replica violates something: then *at is what that is like. */
double screen_capacity(const struct replica *r, const struct demand *d, struct outlook *at);

#endif
