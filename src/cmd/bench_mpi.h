/* bench_mpi.h - Open MPI's all-reduce, measured beside ours by tandem-mpi-allreduce. */
#ifndef TANDEM_BENCH_MPI_H
#define TANDEM_BENCH_MPI_H

#include "base/base.h"
#include "cmd/latency.h"

/* Median and 99th percentile for the sizes min, 2 min, ... up to max, at most n of them, in to[].
 * calls 0: by size. own_cores: the ranks can have a core each. The helper is looked for beside this
 * program, then in PATH. Returns how many sizes were measured; fewer than asked for leaves a
 * sentence in why. */
int bench_mpi(int ranks, bool own_cores, size_t min, size_t max, int calls, struct latency *to,
              int n, struct err *why);

#endif
