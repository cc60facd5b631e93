/* step_host.h - what control adds to a step of the ranks, for `tandem topo --measure`. */
#ifndef TANDEM_STEP_HOST_H
#define TANDEM_STEP_HOST_H

#include "topo/hardware.h"

/* Measure h->step_s and h->seq_s: steps of the demo model on one rank, from handing them over to
 * having their tokens, less what the rank worked. Fails when there is no demo model. */
int step_host_measure(struct hardware *h, struct err *e);

#endif
