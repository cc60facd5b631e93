/* outcome.h - what became of one request. Times are seconds since the run began. */
#ifndef TANDEM_LOAD_OUTCOME_H
#define TANDEM_LOAD_OUTCOME_H

#include "base/base.h"

enum fate {
    FATE_FINISHED,
    FATE_BUSY,         /* 429 */
    FATE_REFUSED,      /* another 4xx */
    FATE_SERVER_ERROR, /* 5xx, or an error event in the stream */
    FATE_DISCONNECTED, /* no connection, or it ended before the answer did */
    FATE_TIMEOUT,
    FATE_BAD_REPLY, /* neither an error nor a stream of chunks */
    FATE_CANCELLED, /* by ourselves: Ctrl-C, or the run gave up */
    FATE_COUNT
};

struct outcome {
    uint64_t number;            /* of the request in the run */
    double scheduled;           /* when it should be sent; latencies count from here */
    double sent;                /* when it was */
    double first, last;         /* chunks with text came; 0: none did */
    double end;                 /* the stream's */
    int prompt_tok, cached_tok; /* by the server's count; 0: not told */
    int output_tok;             /* by the server's count, else chunks */
    int chunks;                 /* with text */
    int status;                 /* HTTP; 0: none came */
    enum fate fate;
};

/* What a request must keep to be good, in seconds; 0: anything. */
struct slo {
    double ttft, tpot, e2e;
};

static inline double outcome_ttft(const struct outcome *o) { return o->first - o->scheduled; }
static inline double outcome_e2e(const struct outcome *o) { return o->end - o->scheduled; }

/* Time per output token after the first; 0 for fewer than two. */
static inline double outcome_tpot(const struct outcome *o)
{
    return o->output_tok > 1 ? (o->last - o->first) / (o->output_tok - 1) : 0;
}

static inline bool outcome_good(const struct outcome *o, const struct slo *slo)
{
    return o->fate == FATE_FINISHED && (!slo->ttft || outcome_ttft(o) <= slo->ttft) &&
           (!slo->tpot || outcome_tpot(o) <= slo->tpot) &&
           (!slo->e2e || outcome_e2e(o) <= slo->e2e);
}

#endif
