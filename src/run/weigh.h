/* weigh.h - the two passes over a whole vocabulary that drawing a token needs, as fast as memory.
 *
 * Plain loops in an order that suits every vector width, compiled once per instruction set: the
 * same bits on all of them.
 */
#ifndef TANDEM_WEIGH_H
#define TANDEM_WEIGH_H

#include <stddef.h>

enum { WEIGH_BLOCK = 256 };

/* The largest of x[n]; NaN when any is NaN. n > 0. */
float weigh_most(const float *x, int n);

/* to[i] = e^((x[i] - most) * scale), and the sum of each WEIGH_BLOCK of them into sum[]. Every
 * x[i] <= most, most and scale finite. Relative error of e^ about 2^-23. */
void weigh(const float *x, int n, float most, float scale, float *to, double *sum);

#endif
