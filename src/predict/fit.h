/* fit.h - figures out of repeated measurements: medians with their spread, and lines through
 * points of which none counts more because it is larger. */
#ifndef TANDEM_FIT_H
#define TANDEM_FIT_H

#include "topo/hardware.h"

enum { FIT_POINTS = 64, FIT_REPEATS = 64 };
enum { FIT_ERROR_MOST = 10 }; /* what a profile may say at most: no figure at all */

/* The median of n > 0 repeats, and half of what lies between the 5th and the 95th hundredth, over
 * the median. Sorts x. */
struct figure fit_median(double *x, int n);

/* What y seconds take at w bytes. */
struct fit_point {
    double w, y;
};

/* y = a + b w with a, b >= 0 of the least mean of relative errors; false when the points do not
 * tell two numbers. *error: the 90th hundredth of the relative errors. */
bool fit_line(const struct fit_point *p, int n, double *a, double *b, double *error);

/* Latency, both costs per byte and the knee of c, in the same sense (tools/fit_collectives.py does
 * the same). At least two points. The errors of the figures are the larger of `spread` and the 90th
 * hundredth of the relative errors; they are measured. */
void fit_collective(const struct fit_point *p, int n, double spread, struct collective *c);

#endif
