/* plan.h - the parts of `tandem plan`. Each prints to standard output. */
#ifndef TANDEM_CMD_PLAN_H
#define TANDEM_CMD_PLAN_H

#include "cmd/cmd.h"
#include "predict/explain.h"

/* What each rank of a given layout holds and does. */
int plan_layout(const struct options *o, struct err *e);

/* --size: bytes for every number of slices; --check: the layout given against the hardware. */
int plan_size(const struct options *o, struct err *e);
int plan_check_deployment(const struct options *o, struct err *e);

/* The question that the options ask, and what nobody said. Hardware is h, which the question points
 * to. Errors for the user. */
struct asked {
    struct question question;
    struct hardware hardware;
    struct host host;
    struct assumed assumed;
    char model[256];
};
int plan_ask_of(const struct options *o, struct asked *to, struct err *e);

/* The profile that --hardware or --device mean. */
int plan_hardware(const struct options *o, struct hardware *h, struct err *e);

#endif
