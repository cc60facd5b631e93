/* sample.h - logits to a token. Pure: the draw depends on seed and position alone.
 *
 * The generator is counter-based (Philox4x32-10, Salmon et al. 2011), keyed by the seed and
 * counted by the position, so there is no state to save or lose: a repeated step draws the same.
 */
#ifndef TANDEM_SAMPLE_H
#define TANDEM_SAMPLE_H

#include "base/base.h"

/* Neutral values: temperature 0 is greedy; top_k 0, top_p 1, min_p 0, penalties 1, 0, 0 are off. */
struct sampling {
    float temperature, top_p, min_p;
    float repetition; /* divides (positive) or multiplies (negative) logits of tokens seen */
    float presence, frequency; /* subtracted from logits of tokens generated; times their count */
    int top_k;
    uint64_t seed;
};

extern const struct sampling sampling_greedy;

/* Added to the logit of one token; -INFINITY bans it. */
struct token_bias {
    int token;
    float value;
};

enum { SAMPLE_BIAS = 1024 }; /* of one draw */

int sampling_check(const struct sampling *s, struct err *e); /* ranges, one sentence */

/* Choose from logits[n] for `position`. seen[n_seen] are all tokens of the sequence so far, the
 * first n_prompt of them the prompt. scratch: room for sample_scratch(n) bytes. logits may be
 * overwritten. Greedy ties go to the lowest id. Order of operations as Hugging Face: penalties,
 * temperature, top_k, top_p, min_p. NaN logits give -1. */
int sample(float *logits, int n, const struct sampling *s, uint64_t position, const int *seen,
           int n_seen, int n_prompt, void *scratch);
size_t sample_scratch(int n);

/* The uniform number in [0, 1) that belongs to (seed, position). */
double sample_draw(uint64_t seed, uint64_t position);

#endif
