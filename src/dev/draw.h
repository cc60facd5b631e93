/* draw.h - how the tokens after rows of logits are drawn, as data: for sample() (run/sample.h),
 * which defines what is drawn, and for devices that do the same by themselves.
 *
 * The generator is counter-based (Philox4x32-10, Salmon et al. 2011), keyed by the seed and
 * counted by the position, so there is no state to save or lose: a repeated step draws the same.
 */
#ifndef TANDEM_DEV_DRAW_H
#define TANDEM_DEV_DRAW_H

#include "base/base.h"

/* Neutral values: temperature 0 is greedy; top_k 0, top_p 1, min_p 0, penalties 1, 0, 0 are off. */
struct sampling {
    float temperature, top_p, min_p;
    float repetition; /* divides (positive) or multiplies (negative) logits of tokens seen */
    float presence, frequency; /* subtracted from logits of tokens generated; times their count */
    int top_k;
    uint64_t seed;
};

/* Added to the logit of one token; -INFINITY bans it. */
struct token_bias {
    int token;
    float value;
};

enum { SAMPLE_BIAS = 1024 }; /* of one draw */

/* Below this temperature the likeliest is drawn anyway. */
#define SAMPLE_COLDEST 1e-6f

/* How the token after a wanted row is drawn; its arrays are runs of those of struct draw_rows, from
 * these on. */
struct draw_row {
    struct sampling sampling;
    uint64_t position;
    int seen, n_seen, n_prompt;
    int bias, n_bias;
    bool restricted; /* allow[its row] says what may be drawn */
    int given;       /* >= 0: nothing is drawn, the token is known */
    int n_top;       /* logprobs wanted beside the token's; -1: none at all */
};

/* The rows of a step. */
struct draw_rows {
    int n;
    const struct draw_row *row;
    const int *seen;
    const struct token_bias *bias;
    const uint64_t *allow; /* [n][allow_words]: bit t: token t may be drawn */
    size_t allow_words;
    bool keep_logits; /* the host wants them */
    int *token;       /* [n] result; -1: no logit was finite, or nothing was allowed */
};

/* Rows that no device draws: the host wants their logits, or what they have seen is too long to
 * take along. */
enum { DRAW_SEEN = 1 << 18 }; /* tokens that all rows of a step have seen */
bool draw_on_host(const struct draw_rows *d, int i);
bool draw_any_on_host(const struct draw_rows *d);

/* The uniform number in [0, 1) that belongs to (seed, position). */
double sample_draw(uint64_t seed, uint64_t position);

#endif
