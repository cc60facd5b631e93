/* attend_case.h - attention as a calibration times it, on cores and on GPUs alike: sequences of one
 * length, their pages in memory larger than caches, and what a call reads and multiplies. */
#ifndef TANDEM_ATTEND_CASE_H
#define TANDEM_ATTEND_CASE_H

#include "base/arena.h"
#include "dev/dev.h"
#include "dev/kv.h"

/* group: query heads for each of the cache's; rows: the last tokens of each sequence, which attend.
 */
struct attend_shape {
    int heads_kv, group, dim, n_seq, rows, context;
};

struct attend_case {
    struct kv cache; /* its memory, and that of q and y, is given by the caller */
    struct heads heads;
    struct batch batch;
    struct mat q, y;
    int copies;   /* of all pages that the region holds, one after the other */
    size_t bytes; /* of the pages of all sequences */
    double read, madds;
};

/* At most s.n_seq sequences, as many as a region of so many bytes holds, and at least one. */
struct attend_case attend_case(struct pool *pool, enum num type, struct attend_shape s,
                               size_t region);

/* Let call i read another copy than the one before. */
void attend_case_turn(struct attend_case *c, char *region, int i);

#endif
