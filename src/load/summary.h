/* summary.h - the figures of a run. Latencies in seconds, of the requests that finished. */
#ifndef TANDEM_LOAD_SUMMARY_H
#define TANDEM_LOAD_SUMMARY_H

#include "load/results.h"

enum { SUMMARY_BARS = 12 };

/* How many values lie in [bound[i], bound[i + 1]), the last one closed; bounds grow by a factor. */
struct bars {
    int n;
    double bound[SUMMARY_BARS + 1];
    size_t count[SUMMARY_BARS];
};

struct summary {
    uint64_t sent, fate[FATE_COUNT];
    double seconds, requests_per_s;              /* finished ones */
    uint64_t prompt_tok, cached_tok, output_tok; /* of those that finished */
    double output_tok_per_s, tok_per_s;
    struct digest prompt_len, output_len, ttft, tpot, gap, e2e, late; /* late: sent after due */
    struct bars ttft_bars, e2e_bars;
    uint64_t good;                 /* finished within the slo */
    double good_per_s, good_share; /* share of those sent */
    double cpu_share;              /* of a core, that this program took */
};

/* A fate as JSON calls it, and in words. */
const char *fate_name(enum fate f);
const char *fate_words(enum fate f);

/* Sorts the results' gaps. */
struct summary summary_of(struct results *r, const struct slo *slo);

/* Of ascending values. */
struct bars bars_of(const double *ascending, size_t n);

#endif
