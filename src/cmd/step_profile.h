/* step_profile.h - where the time of a step goes: what a rank's operations took, gathered over
 * rounds, for `tandem bench latency --profile`. */
#ifndef TANDEM_STEP_PROFILE_H
#define TANDEM_STEP_PROFILE_H

#include "engine/team.h"

#include <jansson.h>

/* Of rank 0, in seconds, summed over n steps (a prompt in chunks is one). */
struct step_profile {
    int n;
    double all, others; /* from submitting to the end; waiting for other ranks and adding theirs */
    struct op_seconds op[OP_COUNT];
};

/* What stood on the team's clocks before the steps. */
struct step_profile step_profile_begin(struct team *t, const struct plan *p);
/* Add n steps that took `all` seconds since `begin`. */
void step_profile_add(struct step_profile *to, struct team *t, const struct plan *p,
                      const struct step_profile *begin, int n, double all);

void step_profile_print(const struct step_profile *s, const char *name);
json_t *step_profile_json(const struct step_profile *s);

#endif
