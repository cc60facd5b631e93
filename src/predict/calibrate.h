/* calibrate.h - measuring this host's cores and shared memory for a hardware profile.
 *
 * The conditions are those of steps: the real CPU device on threads pinned to cores of their own,
 * packed weights that come from memory, all busy cores doing the same at once, groups over shared
 * memory whose ranks spin. What is timed begins when the last rank comes and ends when the last one
 * leaves, as between two sums of a step.
 */
#ifndef TANDEM_CALIBRATE_H
#define TANDEM_CALIBRATE_H

#include "dev/dev.h"
#include "topo/hardware.h"
#include "topo/host.h"

struct calibrate_opts {
    enum isa isa;
    bool only_one; /* format of weights, which is quicker: the one below */
    enum num only;
    void (*progress)(void *arg, size_t done, size_t all); /* NULL: quiet */
    void *arg;
};

/* Fill kind, memory, rates and levels of h: all that does not need a team of ranks. Takes half a
 * minute to a minute. Starts processes, and fails when one of them does or when memory is short:
 * 0.4 GiB per core. */
int calibrate(struct hardware *h, const struct host *host, const struct calibrate_opts *o,
              struct err *e);

#endif
