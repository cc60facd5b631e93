/* experts.h - the options about experts: how loaded they are, who holds which. */
#ifndef TANDEM_CMD_EXPERTS_H
#define TANDEM_CMD_EXPERTS_H

#include "cmd/open.h"
#include "plan/placement.h"
#include "plan/plan.h"
#include "run/expect.h"

struct experts_asked {
    struct placement *layer; /* [n_layer] NULL: nothing was said */
    double *load;            /* [n_layer][experts] NULL: none were given */
    double every_s;          /* --rebalance; below 0: off */
    struct routing routing;  /* the same of the layers that have experts, for prices */
};

/* From --expert-loads, --expert-skew, --expert-placement, --redundant-experts and --rebalance.
 * Loads are shares with sum 1 in every layer. -EINVAL for files that do not fit the plan; CMD_USAGE
 * for options that do not go together. End with experts_asked_free(), also after an error. */
int experts_ask(struct experts_asked *to, const struct options *o, const struct plan *p,
                struct err *e);
/* --expert-cache for a model: bytes, 0: none. Refused for dense models, on GPUs, and without packed
 * weights, which alone can be read again. */
int expert_cache_ask(size_t *to, const struct options *o, const struct opened *at, struct err *e);
/* For how many experts of a layer ranks with memory of their own need room, by these options; 0:
 * their even shares stay. -EINVAL for a file that does not fit. */
int experts_slots(int *to, const struct options *o, const struct model *m, struct err *e);
void experts_asked_free(struct experts_asked *x);

#endif
