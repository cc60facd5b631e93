/* mpi_allreduce.c - Open MPI's all-reduce of f32, for comparison: prints "bytes median_us p99_us"
 * for each size from MIN bytes to MAX, doubling. Usage: tandem-mpi-allreduce MIN MAX CALLS, CALLS
 * 0: by size. `tandem bench allreduce` runs it through mpirun and measures itself in the same way.
 */
#include "cmd/latency.h"

#include <mpi.h>
#include <stdio.h>

struct rank {
    int rank, size;
    float *from, *to;
};

static int one_size(const struct rank *r, size_t bytes, int calls)
{
    int n = (int)(bytes / sizeof(float)), all = calls * 2; /* a call_time is two doubles */
    struct call_time *time = calloc((size_t)calls, sizeof(*time));
    struct call_time *gathered = calloc((size_t)calls * (size_t)r->size, sizeof(*gathered));
    if (!time || !gathered)
        return 1;
    for (int turn = -warm_up_for(calls); turn < calls; turn++) {
        for (int i = 0; i < n; i++) /* fresh in this core's cache, as after a matmul */
            r->from[i] = (float)(r->rank + turn + (i & 7));
        MPI_Barrier(MPI_COMM_WORLD);
        double begin_us = clock_us();
        MPI_Allreduce(r->from, r->to, n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
        if (turn >= 0)
            time[turn] = (struct call_time){begin_us, clock_us()};
    }
    MPI_Gather(time, all, MPI_DOUBLE, gathered, all, MPI_DOUBLE, 0, MPI_COMM_WORLD);
    if (r->rank == 0) {
        struct latency l = latency_of(gathered, r->size, calls);
        printf("%zu %.3f %.3f\n", bytes, l.median_us, l.p99_us);
    }
    free(time);
    free(gathered);
    return 0;
}

int main(int argc, char **argv)
{
    size_t min = argc > 1 ? strtoull(argv[1], NULL, 10) : 1024;
    size_t max = argc > 2 ? strtoull(argv[2], NULL, 10) : 1 << 20;
    int calls = argc > 3 ? atoi(argv[3]) : 0, rc = 0;
    struct rank r = {.from = calloc(1, max), .to = calloc(1, max)};

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &r.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &r.size);
    if (!r.from || !r.to || min < sizeof(float) || max > (size_t)1 << 30)
        rc = 1;
    for (size_t bytes = min; !rc && bytes <= max; bytes *= 2)
        rc = one_size(&r, bytes, calls > 0 ? calls : calls_for(bytes));
    if (rc)
        MPI_Abort(MPI_COMM_WORLD, rc);
    MPI_Finalize();
    free(r.from);
    free(r.to);
    return 0;
}
