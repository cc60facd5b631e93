/* tally.h - many measured values, counted in narrow classes: for lists that would be too long.
 *
 * A class is 1/512 of a power of two wide, so percentiles are right to 1 in 512; number, mean and
 * both ends are exact. Values are above 2^-40 and below 2^40 (seconds: a picosecond to a
 * millennium); what is beyond counts as the end.
 */
#ifndef TANDEM_LOAD_TALLY_H
#define TANDEM_LOAD_TALLY_H

#include "load/series.h"

enum { TALLY_OCTAVES = 80, TALLY_PER_OCTAVE = 512 };

/* Zeroed: empty. */
struct tally {
    uint64_t n;
    double sum, least, most;
    uint64_t count[TALLY_OCTAVES * TALLY_PER_OCTAVE];
};

/* The class of a value: its exponent and the first bits behind it, as they stand in the double. */
static inline size_t tally_class(double value)
{
    const int64_t first = (int64_t)(1023 - TALLY_OCTAVES / 2) * TALLY_PER_OCTAVE;
    const int64_t last = TALLY_OCTAVES * TALLY_PER_OCTAVE - 1;
    int64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    int64_t at = (bits >> 43) - first;
    return (size_t)(at < 0 ? 0 : at > last ? last : at);
}

static inline void tally_add(struct tally *t, double value)
{
    t->least = t->n && t->least < value ? t->least : value;
    t->most = t->most > value ? t->most : value;
    t->n++;
    t->sum += value;
    t->count[tally_class(value)]++;
}

struct digest tally_digest(const struct tally *t);

#endif
