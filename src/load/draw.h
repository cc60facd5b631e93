/* draw.h - random numbers for loads, keyed by what they are for. Not for sampling tokens.
 *
 * Draws are values: draw_of(seed, what, i) begins the same sequence whoever asks, in whichever
 * order, so request i is the same one at any concurrency.
 */
#ifndef TANDEM_LOAD_DRAW_H
#define TANDEM_LOAD_DRAW_H

#include <stdint.h>

struct draws {
    uint64_t state;
};

/* What a sequence of draws is for. */
enum draw_use {
    DRAW_ARRIVALS,
    DRAW_PROMPT_LENGTH,
    DRAW_OUTPUT_LENGTH,
    DRAW_WORDS,
    DRAW_PREFIX,
    DRAW_JITTER,
    DRAW_DEATHS,
    DRAW_EXPERTS
};

struct draws draw_of(uint64_t seed, enum draw_use use, uint64_t i);
uint64_t draw_bits(struct draws *d);      /* splitmix64 */
double draw_unit(struct draws *d);        /* uniform, above 0 and below 1 */
double draw_exponential(struct draws *d); /* mean 1 */
double draw_normal(struct draws *d);      /* mean 0, standard deviation 1 */

/* The gamma distribution with this shape (above 0) and scale 1: mean and variance are the shape.
 * Marsaglia and Tsang, A simple method for generating gamma variables, 2000. */
double draw_gamma(struct draws *d, double shape);

#endif
