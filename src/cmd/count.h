/* count.h - what a step costs a rank, counted and not estimated. */
#ifndef TANDEM_CMD_COUNT_H
#define TANDEM_CMD_COUNT_H

#include "plan/plan.h"

struct step_cost {
    uint64_t flops, bytes; /* of the device: arithmetic, and memory read or written */
    uint64_t sums, moved;  /* calls on groups of more than one rank; bytes read from others */
};

/* One sequence, one new token at position pos < ctx: the real forward pass on a device that
 * computes nothing and groups that move nothing. */
void count_step(const struct plan *p, int rank, int pos, struct step_cost *to);

#endif
