/* bench_allreduce.h - the all-reduce benchmark behind `tandem bench allreduce`. */
#ifndef TANDEM_BENCH_ALLREDUCE_H
#define TANDEM_BENCH_ALLREDUCE_H

#include "base/base.h"

struct bench_allreduce {
    int ranks;
    size_t min_bytes, max_bytes;
    int iters; /* 0: by size */
    bool json, mpi;
};

/* Fork pinned ranks, sum buffers that are rewritten before every call, check every sum, print the
 * median and the 99th percentile of the latency, and Open MPI's median beside them when mpirun and
 * tandem-mpi-allreduce are found. Bandwidths as nccl-tests defines them: algbw = bytes / time,
 * busbw = algbw * 2 (n - 1) / n. */
int bench_allreduce(const struct bench_allreduce *b, struct err *e);

#endif
