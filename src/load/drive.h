/* drive.h - one run of a load against a server: every request sent when it is due, and all that
 * came back.
 *
 * Latencies count from when a request was due: one that had to wait, for us or for `concurrency`,
 * has waited.
 */
#ifndef TANDEM_LOAD_DRIVE_H
#define TANDEM_LOAD_DRIVE_H

#include "load/client.h"
#include "load/load.h"
#include "load/results.h"

/* Run to the end. Everything that can go wrong with a request is in the results. */
void load_run(const struct load *l, const struct target *t, struct results *r);

#endif
