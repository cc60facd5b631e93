/* least.h - which of many values that change is the least: a tree of comparisons. */
#ifndef TANDEM_BASE_LEAST_H
#define TANDEM_BASE_LEAST_H

#include "base/arena.h"

struct least {
    int leaves;    /* a power of two */
    double *value; /* [n] change them by least_set() */
    int *first;    /* [2 leaves] of node k's leaves the least; those of 2 k and 2 k + 1 are below */
};

/* n values, all the same. The memory is the pool's. */
void least_open(struct least *l, int n, double value, struct pool *pool);
void least_set(struct least *l, int i, double value);

/* The first one of the least. */
static inline int least_first(const struct least *l) { return l->first[1]; }

#endif
