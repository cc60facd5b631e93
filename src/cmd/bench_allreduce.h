/* bench_allreduce.h - the all-reduce benchmark behind `tandem bench allreduce`. */
#ifndef TANDEM_BENCH_ALLREDUCE_H
#define TANDEM_BENCH_ALLREDUCE_H

#include "base/base.h"

struct bench_allreduce {
    int ranks;                   /* 2 to SHARES_MAX */
    size_t min_bytes, max_bytes; /* 4 <= min <= max; sizes double in between */
    int iters;                   /* calls per size; 0: by size */
    bool json, mpi;
};

/* Fork ranks, each on a core of its own when there are enough; add buffers that are rewritten
 * before every call; check the sums bit for bit; print median and 99th percentile of the latency
 * (cmd/latency.h), and Open MPI's median beside them when mpirun and tandem-mpi-allreduce are
 * found: otherwise one line on standard error says so. Bandwidths are those of nccl-tests: algbw =
 * bytes / time, busbw = algbw * 2 (n - 1) / n. Fails when memory is short, a rank dies or a sum is
 * wrong. */
int bench_allreduce(const struct bench_allreduce *b, struct err *e);

#endif
