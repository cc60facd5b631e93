/* priced.h - what a plan's steps should take on a hardware profile, for engines to ask: several
 * may, from their threads. */
#ifndef TANDEM_CMD_PRICED_H
#define TANDEM_CMD_PRICED_H

#include "engine/engine.h"
#include "predict/price.h"

struct priced;

/* The profile by name or path (topo/hardware.h). Errors as hardware_load() and pricer_new(). */
int priced_open(struct priced **out, const struct plan *p, const char *hardware, struct err *e);
void priced_close(struct priced *x); /* NULL is fine */

/* For engine_opts.price. */
struct engine_price priced_for(struct priced *x);

#endif
