/* count.h - the counting device (dev_count): what it adds up, and what that takes.
 *
 * It computes nothing. The planner runs the real forward pass over it, so the operations that it
 * counts and prices are those that will run.
 */
#ifndef TANDEM_DEV_COUNT_H
#define TANDEM_DEV_COUNT_H

#include "dev/kv.h"
#include "topo/hardware.h"

/* What attention has to do: pairs of a row and a key that it sees, and keys (with their values)
 * that are read, once for all rows of a sequence. */
struct seen {
    double pairs, keys;
    int rows, seqs;
};

/* Apart for sequences with one row (decode) and with several (parts of prompts), for these two
 * are limited by different things. */
struct attended {
    struct seen decode, prompt;
};

/* Add n rows of one sequence, the first at position pos; window as in struct heads. */
void attended_add(struct attended *a, int window, int pos, int n);

/* What a device takes, and by what. The costs are those of one thread while all that are busy are;
 * `threads` of the rank share every operation, to equal parts. */
struct costs {
    const struct rates *rates; /* NULL: only count */
    int threads;               /* 0 counts as 1 */
    bool at_once;              /* what a device may do at once takes one operation: GPUs */
};

/* What dev_count keeps in struct dev: costs as the caller set them, and sums since the start. */
struct counted {
    struct costs costs;
    double product_s, attend_s, other_s;
    uint64_t flops, bytes, calls;
};

/* Seconds of attention of one layer: `dim` numbers per row of queries. */
double attend_seconds(const struct costs *c, const struct attended *a, const struct kv *kv,
                      int dim);

#endif
