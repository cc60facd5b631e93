/* tree.h - the fixed binary tree in which every cut sum is added up.
 *
 * A sum over a dimension that tensor parallelism may cut is defined as S leaf sums, one per share
 * (S a power of two), each accumulated in f32 in ascending order, joined by the balanced binary
 * tree over shares 0..S-1: ((0+1)+(2+3))+... An empty share is a leaf of zeros. A rank that owns a
 * run of shares computes the complete subtrees inside the run (one plane each, at most PLANES);
 * the all-reduce adds the planes of all ranks by the rest of the same tree. So the bits of the sum
 * do not depend on who owns which shares.
 */
#ifndef TANDEM_TREE_H
#define TANDEM_TREE_H

#include "base/mat.h"

enum { SHARES_MAX = 32, PLANES = 8 };

/* The partial sums of one rank: at[i] covers the shares of the i-th subtree of tree_split(). */
struct planes {
    int n;
    struct mat at[PLANES];
};

/* Cut a run of shares into complete subtrees, ascending: each [lo, hi) has hi - lo a power of two
 * that divides lo. Returns how many (at most PLANES, given shares.hi <= SHARES_MAX). */
static inline int tree_split(struct span shares, struct span *to)
{
    int n = 0;
    while (shares.lo < shares.hi) {
        int size = 1;
        while (shares.lo % (2 * size) == 0 && shares.lo + 2 * size <= shares.hi)
            size *= 2;
        to[n++] = (struct span){shares.lo, shares.lo + size};
        shares.lo += size;
    }
    return n;
}

#endif
