/* guide.h - what a request demands of its answer's form, as the guide that the engine asks. */
#ifndef TANDEM_GUIDE_H
#define TANDEM_GUIDE_H

#include "serve/api.h"
#include "text/grammar.h"

#include <pthread.h>

enum { GUIDES_KEPT = 32 }; /* compiled constraints kept for requests that come again */

/* A constraint compiled: the answer without reasoning before it, and with. Where the model may do
 * either, both are there, and the token `open` begins the reasoning. */
struct form {
    struct grammar *plain, *reasoning;
    int open;
};

/* Of one model; zero to begin with. */
struct guides {
    struct grammar_vocab *vocab; /* made by the first request that needs it */
    struct {
        uint64_t lo, hi; /* hash of the description */
        struct form form;
        uint64_t used;
    } kept[GUIDES_KEPT];
    uint64_t n_used;
    pthread_mutex_t lock; /* answers of one grammar may run in several engines */
};

/* A constraint that is not CONSTRAINT_NONE, compiled, from the kept ones when it is among them;
 * valid until the next call. NULL with why (status 400, the constraint's field) for a description
 * that is malformed, not supported or too large. */
const struct form *guides_get(struct guides *g, const struct api_model *m,
                              const struct constraint *c, struct api_error *why);
void guides_free(struct guides *g);

/* A guide of one answer; the engine frees it, before guides_free(). */
struct engine_guide guide_new(struct guides *g, const struct form *form);

#endif
