/* search.h - the highest rate that holds, by doubling, halving and bisection. Pure. */
#ifndef TANDEM_LOAD_SEARCH_H
#define TANDEM_LOAD_SEARCH_H

#include "base/base.h"

enum { SEARCH_STEPS_MOST = 24 };

struct search {
    double next;      /* the rate to try */
    double least;     /* below this nothing is tried */
    double precision; /* be content when the two below are so near: 0.05 is 5 % */
    double holds;     /* the highest that is known to hold; 0: none yet */
    double fails;     /* the lowest that is known not to; 0: none yet */
    int steps;        /* told so far */
};

struct search search_begin(double first, double least, double precision);

/* What came of s->next; chooses another, between the two once both are known. */
void search_tell(struct search *s, bool held);
bool search_done(const struct search *s);

#endif
