/* count.h - steps of a regular shape, and what one costs a rank: counted and not estimated. */
#ifndef TANDEM_PREDICT_COUNT_H
#define TANDEM_PREDICT_COUNT_H

#include "base/arena.h"
#include "dev/dev.h"
#include "plan/plan.h"

/* Every one of n_seq sequences adds n_new tokens, the last of them at position `last`. Decode of a
 * batch has n_new 1; a chunk of a prompt has n_seq 1. */
struct step_shape {
    int n_seq, n_new, last;
};

/* Such a step, every sequence with pages of its own from 0 on; the last token of each sequence is
 * wanted. Tokens are 1 to STEP_WORDS in turn: rows that are all alike would choose the same
 * experts, which no text does. The arrays are the pool's. */
enum { STEP_WORDS = 97 };
struct batch step_batch(struct step_shape s, struct pool *pool);

struct step_cost {
    uint64_t flops, bytes; /* of the device: arithmetic, and memory read or written */
    uint64_t sums, moved;  /* calls on groups of more than one rank; bytes read from others */
};

/* The real forward pass on a device that computes nothing and groups that move nothing. */
void count_step(const struct plan *p, int rank, struct step_shape s, struct step_cost *to);

#endif
