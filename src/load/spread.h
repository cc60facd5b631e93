/* spread.h - how lengths are spread: "128", "128-512", "lognormal:MEAN:SIGMA". Pure. */
#ifndef TANDEM_LOAD_SPREAD_H
#define TANDEM_LOAD_SPREAD_H

#include "base/base.h"
#include "load/draw.h"

enum { SPREAD_MOST = 1 << 22 }; /* tokens; longer draws are cut to this */

enum spread_kind { SPREAD_UNIFORM, SPREAD_LOGNORMAL };

struct spread {
    enum spread_kind kind;
    double a,
        b; /* least and most; or the mean of the lengths and the deviation of their logarithm */
};

/* Read one. A text that is none is -EINVAL; what ("--prompt-tokens") begins the sentence. */
int spread_parse(const char *text, const char *what, struct spread *to, struct err *e);

/* A length of 1 to SPREAD_MOST. */
int spread_draw(const struct spread *s, struct draws *d);

#endif
