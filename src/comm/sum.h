/* sum.h - the part of the summation tree that joins the planes of all ranks (base/tree.h).
 *
 * Compiled once per group to a postfix program over the planes of all ranks, rank after rank in
 * ascending order; every transport that reads planes runs the same program, so all give the same
 * bits. Knows nothing of how the planes got here.
 */
#ifndef TANDEM_COMM_SUM_H
#define TANDEM_COMM_SUM_H

#include "base/tree.h"

enum { SUM_ADD = -1 }; /* add the two topmost terms; any other step pushes the plane it names */

struct sum_program {
    int size, n_plane, n_step;
    int planes_of[SHARES_MAX]; /* planes of every rank, possibly 0 */
    int8_t step[2 * SHARES_MAX];
};

/* cut[size + 1], ascending from 0: rank i holds the shares cut[i] .. cut[i+1]. cut[size] is a
 * power of two up to SHARES_MAX; anything else is a bug of the caller. */
void sum_compile(struct sum_program *p, int size, const int *cut);

/* The same program as additions: after pushing plane i, adds[i] of the two topmost terms. */
void sum_adds(const struct sum_program *p, uint8_t *adds);

/* to[i] = the sum of plane[0 .. n_plane)[i] for i in [lo, hi), f32 additions in the order of the
 * tree. `to` overlaps no plane. */
void sum_run(const struct sum_program *p, float *to, const float *const *plane, size_t lo,
             size_t hi);

#endif
