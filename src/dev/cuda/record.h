/* record.h - which steps were recorded, so that they can be replayed as one launch.
 *
 * All that a step's kernels read on the host is these few numbers: the rest is in the device's
 * memory. So a step of the same numbers is the same launch. A shape is recorded when it is met
 * the second time, and the one that was not met for longest gives way.
 */
#ifndef TANDEM_CUDA_RECORD_H
#define TANDEM_CUDA_RECORD_H

#include <stdbool.h>
#include <stdint.h>

enum { RECORDS = 128, RECORD_ROWS = 64, RECORD_KEYS = 512 };

struct step_key {
    int n_tok, n_seq, n_out, keys;
    int draws; /* which kernels draw, and whether the host does */
};

struct record {
    struct step_key key;
    void *recorded; /* gpu_replay(); NULL: met once */
    uint64_t met;   /* when last; 0: never, free */
};

struct records {
    struct record at[RECORDS];
    uint64_t now;
};

/* Keys that a step is taken to see: a power of two from RECORD_KEYS on, so that few shapes do. */
int record_keys(int most_keys);

/* What is known of steps like this, and *again: it was met before. When another's gave way, what
 * was recorded of it is in *old, to be freed; otherwise NULL. */
struct record *records_meet(struct records *r, struct step_key key, bool *again, void **old);

#endif
