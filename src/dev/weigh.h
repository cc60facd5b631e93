/* weigh.h - the two passes over a whole vocabulary that drawing a token needs, as fast as memory.
 *
 * Plain loops in an order that suits every vector width, compiled once per instruction set: the
 * same bits on all of them.
 */
#ifndef TANDEM_WEIGH_H
#define TANDEM_WEIGH_H

#include <stddef.h>

enum { WEIGH_BLOCK = 256 };

/* Of e^x of x <= 0, for C and CUDA alike: below WEIGH_MIN it is 0; ln 2 in two parts. */
#define WEIGH_MIN (-87.0f)
#define WEIGH_LOG2E 0x1.715476p+0f
#define WEIGH_ROUND 0x1.8p23f
#define WEIGH_LN2_HI 0x1.62e4p-1f
#define WEIGH_LN2_LO 0x1.7f7d1cp-20f
#define WEIGHT_UNIT 0x1p-32f
#define WEIGH_WHOLE 0x1p-9f /* from here on a float is a multiple of WEIGHT_UNIT */

/* The largest of x[n]; NaN when any is NaN. n > 0. */
float weigh_most(const float *x, int n);

/* to[i] = e^((x[i] - most) * scale), rounded to a multiple of WEIGHT_UNIT, and the sum of each
 * WEIGH_BLOCK of them into sum[]. Every x[i] <= most, most and scale finite. Relative error of e^
 * about 2^-23. So sums of up to 2^21 weights are exact in a double, in any order: what is drawn
 * depends on no order of additions, and a GPU may have one of its own. */
void weigh(const float *x, int n, float most, float scale, float *to, double *sum);

#endif
