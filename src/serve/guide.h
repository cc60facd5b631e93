/* guide.h - what a request demands of its answer's form, as the guide that the engine asks. */
#ifndef TANDEM_GUIDE_H
#define TANDEM_GUIDE_H

#include "serve/api.h"
#include "text/grammar.h"

enum { GUIDES_KEPT = 32 }; /* compiled grammars kept for requests that come again */

/* Of one model; zero to begin with. */
struct guides {
    struct grammar_vocab *vocab; /* made by the first request that needs it */
    struct {
        uint64_t lo, hi; /* hash of the description */
        struct grammar *grammar;
        uint64_t used;
    } kept[GUIDES_KEPT];
    uint64_t n_used;
};

/* The grammar of a constraint that is not CONSTRAINT_NONE, from the kept ones when it is among
 * them. The guides'. NULL with why (status 400) for a description that is malformed, not supported
 * or too large. */
struct grammar *guides_get(struct guides *g, const struct api_model *m, const struct constraint *c,
                           struct api_error *why);
void guides_free(struct guides *g);

/* A guide of one answer; the engine frees it. */
struct engine_guide guide_new(struct grammar *grammar);

#endif
