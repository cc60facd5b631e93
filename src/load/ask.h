/* ask.h - from the options of a command line to a load: `bench serve`, and verbs that predict what
 * it would measure. */
#ifndef TANDEM_LOAD_ASK_H
#define TANDEM_LOAD_ASK_H

#include "base/opt.h"
#include "load/load.h"

/* A sentence about options that do not fit together; the exit status is 2 (CMD_USAGE). */
enum { LOAD_USAGE = -10000 };

/* Read the trace and everything else that the options say; notes about the trace go to standard
 * error. End with load_ask_free(), after an error too. */
int load_ask(struct load *l, const struct options *o, struct err *e);
void load_ask_free(struct load *l);

#endif
