/* calibrate_inside.h - the parts of a calibration. For calibrate.c and its neighbours. */
#ifndef TANDEM_CALIBRATE_INSIDE_H
#define TANDEM_CALIBRATE_INSIDE_H

#include "predict/calibrate_ranks.h"

/* Everything in struct rates but split_s, with so many members at work; to->active says how many.
 * RATES_STEPS steps of progress. */
enum { RATES_STEPS = 14 };
int calibrate_rates(struct members *g, struct rates *to, struct err *e);

/* What each further thread of a rank adds to an operation on the mean of a layer's, by one rank
 * with so many threads. One step. */
int calibrate_split(struct members *g, int threads, struct figure *to, struct err *e);

/* Sums, scattered sums, gathers, all-to-alls and, among two, sends of g->n members, added to the
 * level. SUMS_STEPS steps. */
enum { SUMS_STEPS = 5 };
int calibrate_sums(struct members *g, struct level *to, struct err *e);

#endif
