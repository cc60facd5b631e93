/* sample.h - logits to a token. Pure: the draw depends on seed and position alone. */
#ifndef TANDEM_SAMPLE_H
#define TANDEM_SAMPLE_H

#include "dev/draw.h"

extern const struct sampling sampling_greedy;

int sampling_check(const struct sampling *s, struct err *e); /* ranges, one sentence */

/* What depends on the sequence: NULL and 0 for nothing. */
struct sample_rules {
    const int *seen; /* all its tokens so far, the first n_prompt of them the prompt */
    int n_seen, n_prompt;
    const struct token_bias *bias;
    int n_bias;
    const uint64_t *allow; /* bit t of [n]: token t may be drawn; NULL: all */
};

/* Choose from logits[n] for `position`. scratch: room for sample_scratch(n) bytes. logits may be
 * overwritten. Greedy ties go to the lowest id. Order of operations as Hugging Face: penalties,
 * bias, what is allowed, temperature, top_k, top_p, min_p. NaN logits, or nothing left to choose
 * from, give -1. */
int sample(float *logits, int n, const struct sampling *s, const struct sample_rules *rules,
           uint64_t position, void *scratch);
size_t sample_scratch(int n);

enum { SAMPLE_TOP = 20 };

struct token_logprob {
    int token;
    float logprob;
    int rank; /* 1: the most likely */
};

/* How likely the model itself finds a token, before bias, penalties and temperature, and which
 * tokens it finds likeliest. */
struct logprobs {
    int n_top; /* -1: not asked for */
    struct token_logprob chosen, top[SAMPLE_TOP];
};

/* The n_top likeliest of logits[n], which stay as they are, into to->top; returns the log of the
 * sum of e^logit, which sample_chosen() needs. */
double sample_top(const float *logits, int n, int n_top, struct logprobs *to);

/* The same of one token. */
void sample_chosen(const float *logits, int n, int token, double log_sum, struct logprobs *to);

#endif
